"""Routes and upstreams: which route a request takes, and to which node.

Rules that live here: a host beats a wildcard host beats no host; then an exact uri beats a prefix, a longer prefix a
shorter one; then the higher priority wins, then the route that was changed last. A wildcard stands at the end of a uri
and at the beginning of a host. Nodes are picked by weighted round robin. Source: lua-resty-radixtree as APISIX's
`radixtree_host_uri` router uses it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from apisix.runner.gateway.schema import NodeConf, RouteConf, Timeout, UpstreamConf

DEFAULT_PORT = 80


@dataclass(frozen=True)
class Node:
    """Where an upstream listens."""

    host: str
    port: int
    weight: int = 1

    @property
    def address(self) -> str:
        """`host:port`, as a node is written in a conf."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_node(address: str, weight: int = 1) -> Node:
    """A node from `host`, `host:port` or `[v6]:port`.

    Raises:
        ValueError: the port is no number from 1 to 65535.

    Example:
        >>> parse_node("127.0.0.1:1980")
        Node(host='127.0.0.1', port=1980, weight=1)
    """
    host, port = address, ""
    if address.startswith("["):
        host, _, port = address.partition("]")
        host, port = host[1:], port.removeprefix(":")
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"invalid port {port} in node {address}: expected 1 to 65535")
    return Node(host, int(port or DEFAULT_PORT), weight)


class Upstream:
    """A set of nodes, and whose turn it is.

    Args:
        conf: as validated.
        instead: addresses to use instead of others, by `host:port`.

    Raises:
        ValueError: a node's address has a port that is none.
    """

    def __init__(self, conf: UpstreamConf, instead: Mapping[str, str]) -> None:
        if isinstance(conf.nodes, Mapping):
            nodes = [parse_node(address, weight) for address, weight in conf.nodes.items()]
        else:
            nodes = [_node(each) for each in conf.nodes]
        self.nodes = [parse_node(instead.get(node.address, node.address), node.weight) for node in nodes]
        self.pass_host = conf.pass_host
        self.host = conf.upstream_host or ""
        self.timeout = conf.timeout or Timeout()
        self.retries = conf.retries
        self._credit = dict.fromkeys(range(len(self.nodes)), 0)

    def pick(self) -> list[Node]:
        """The nodes to try, in order: first the one whose turn it is, then the others; empty where there is none."""
        live = [index for index, node in enumerate(self.nodes) if node.weight > 0]
        if not live:
            return []
        for index in live:
            self._credit[index] += self.nodes[index].weight
        best = max(live, key=lambda index: self._credit[index])
        self._credit[best] -= sum(self.nodes[index].weight for index in live)
        others = [index for index in live if index != best]
        tries = len(others) if self.retries is None else self.retries
        return [self.nodes[index] for index in (best, *others)][: tries + 1]


def _node(conf: NodeConf) -> Node:
    return Node(conf.host.strip("[]"), conf.port or DEFAULT_PORT, conf.weight)


@dataclass
class Route:
    """One route, ready to match.

    Attributes:
        revision: grows whenever the route changes; the last part of PrepareConf's key.
    """

    id: str
    revision: int
    conf: RouteConf
    upstream: Upstream | None = None
    networks: list[IPv4Network | IPv6Network] = field(init=False)

    def __post_init__(self) -> None:
        addresses = self.conf.remote_addrs or ([self.conf.remote_addr] if self.conf.remote_addr else [])
        self.networks = [ip_network(address, strict=False) for address in addresses]

    @property
    def name(self) -> str:
        """The route's name, or ""."""
        return self.conf.name or ""

    @property
    def uris(self) -> list[str]:
        """The patterns of the path."""
        return self.conf.uris or ([self.conf.uri] if self.conf.uri else [])

    @property
    def hosts(self) -> list[str]:
        """The patterns of the host; none for any host."""
        return [host.lower() for host in self.conf.hosts or ([self.conf.host] if self.conf.host else [])]

    def plugin(self, name: str) -> dict[str, Any] | None:
        """The conf of the plugin `name`, or None where it is absent or disabled."""
        conf = self.conf.plugins.get(name)
        if conf is None or conf.get("disable") is True or conf.get("_meta", {}).get("disable") is True:
            return None
        return conf

    def rank(self, host: str, path: str) -> tuple[int, int, int] | None:
        """How well the route fits: host, then path, then priority; None where it does not fit."""
        fitting_hosts = [_fit_host(pattern, host) for pattern in self.hosts] or [0]
        fitting_uris = [_fit_uri(pattern, path) for pattern in self.uris]
        if max(fitting_hosts) < 0 or max(fitting_uris, default=-1) < 0:
            return None
        return max(fitting_hosts), max(fitting_uris), self.conf.priority

    def admits(self, method: str, remote: str) -> bool:
        """Whether the route takes this method from this address."""
        if self.conf.status == 0 or (self.conf.methods and method not in self.conf.methods):
            return False
        return not self.networks or any(ip_address(remote) in network for network in self.networks)


EXACT = 1 << 20


def _fit_host(pattern: str, host: str) -> int:
    if pattern.startswith("*"):
        return len(pattern) if host.endswith(pattern[1:]) and len(host) >= len(pattern) else -1
    return EXACT if pattern == host else -1


def _fit_uri(pattern: str, path: str) -> int:
    if pattern.endswith("*"):
        return len(pattern) if path.startswith(pattern[:-1]) else -1
    return EXACT if pattern == path else -1


def match(routes: Iterable[Route], host: str, path: str, method: str, remote: str) -> Route | None:
    """The route that a request takes, or None.

    Args:
        host: in lower case, without port.
        path: decoded.
        method: in upper case.
        remote: the client's address.
    """
    fitting = [(rank, route) for route in routes if (rank := route.rank(host, path)) and route.admits(method, remote)]
    return max(fitting, key=lambda each: (each[0], each[1].revision))[1] if fitting else None
