"""One request on its way through the gateway: what nginx and APISIX know about it, and what phases change.

Rules that live here: which headers a request is given on arrival; the cache of request headers that APISIX shows to
plugins beside nginx's own list, with its quirk on 3.17 and older; gateway variables. Source: `_headers` and
`modify_header` in APISIX's core/request.lua, core/ctx.lua, and the proxy_set_header lines of cli/ngx_tpl.lua.
"""

import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from apisix.runner.gateway.headers import Header, HeaderList, ResponseHeaders, clean_name, clean_value
from apisix.runner.gateway.record import Record
from apisix.runner.gateway.routes import Node, Route
from apisix.runner.gateway.uri import Args, Target, encode_args, escape_path, parse_args, to_text
from apisix.runner.gateway.versions import Feature, Version

NOT_FORWARDED = frozenset(
    "host connection keep-alive te transfer-encoding upgrade expect content-length x-real-ip x-forwarded-for".split()
)
"""Request headers that nginx writes itself or does not pass on."""

FORWARDED = ("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port")


@dataclass(frozen=True)
class Arrival:
    """A request as it came in."""

    method: str
    protocol: str
    target: Target
    headers: tuple[Header, ...]
    body: bytes
    remote: tuple[str, int]
    local: tuple[str, int]


@dataclass
class UpstreamResponse:
    """The upstream's answer as ext-plugin-post-resp holds it."""

    status: int
    headers: list[Header]
    chunks: list[bytes]
    bodyless: bool
    """Whether no body can follow (HEAD, 204, 304): then reading it is reading nothing, as often as one likes."""
    read: bool = False
    """Whether the runner has asked for the body."""


class Exchange:
    """A request and the response in the making.

    Args:
        arrival: the request.
        version: the APISIX to be.
    """

    def __init__(self, arrival: Arrival, version: Version) -> None:
        self.version = version
        self.arrival = arrival
        self.method = arrival.method
        self.path = arrival.target.path
        self.query = arrival.target.query
        self.query_rewritten = False
        self.body = arrival.body
        self.headers = HeaderList(arrival.headers)
        self.upstream_uri = ""
        self.upstream_host = self.headers.get("Host") or ""
        self.response = ResponseHeaders()
        self.upstream_response: UpstreamResponse | None = None
        self.route: Route | None = None
        self.node: Node | None = None
        self.request_id = uuid.uuid4().hex
        self.started = time.time()
        self.record = Record()
        self._args: Args | None = None
        self._header_cache: dict[str, list[str]] | None = None
        if version.has(Feature.FORWARDED_IN_HEADERS):
            for name, value in zip(FORWARDED, self._observed(), strict=True):
                self.headers.set(name, value)
            self.headers.set("Forwarded", None)
            if not version.has(Feature.FORWARDED_FOR_KEPT):
                self.headers.set("X-Forwarded-For", None)

    def _observed(self) -> tuple[str, str, str]:
        """Scheme, host and port as this gateway sees them."""
        host = self.headers.get("Host") or self.arrival.local[0]
        port = re.search(r":(\d+)$", host)
        return "http", host, port[1] if port else str(self.arrival.local[1])

    @property
    def host(self) -> str:
        """nginx's `$host`: the Host header as it came, in lower case, without its port."""
        host = HeaderList(self.arrival.headers).get("Host") or self.arrival.local[0]
        return re.sub(r":\d*$", "", host).lower()

    # Arguments

    def args(self) -> Args:
        """The arguments; what changes them is `set_args`."""
        if self._args is None:
            self._args = parse_args(self.query)
        return self._args

    def set_args(self, args: Args | str) -> None:
        """Replace the arguments, or the whole query string."""
        self.query = args if isinstance(args, str) else encode_args(args)
        self.query_rewritten = True
        self._args = None

    # Request headers

    def header_cache(self) -> dict[str, list[str]]:
        """Request headers as plugins see them, by lower-case name; cached from the first look on."""
        if self._header_cache is None:
            self._header_cache = {}
            for name, value in list(self.headers)[: self.version.header_limit]:
                self._header_cache.setdefault(name.lower(), []).append(value)
        return self._header_cache

    def set_header(self, name: str, values: str | list[str] | None) -> None:
        """Set a request header as a plugin does; None deletes."""
        listed = [values] if isinstance(values, str) else list(values or ())
        cleaned = [clean_value(value) for value in listed]
        self.headers.set(clean_name(name), cleaned)
        if self._header_cache is not None:
            key = name.lower() if self.version.has(Feature.HEADER_CACHE_FOLDED) else name
            if cleaned:
                self._header_cache[key] = listed
            else:
                self._header_cache.pop(key, None)

    def add_header(self, name: str, value: str) -> None:
        """Add a value to a request header as a plugin does."""
        key = clean_name(name)
        self.set_header(key, [*self.headers.all(key), value])

    # To the upstream

    def upstream_target(self) -> str:
        """What stands in the upstream's request line."""
        if self.upstream_uri:
            return self.upstream_uri
        if not self.query_rewritten:
            return self.arrival.target.raw
        escaped = "%" in self.arrival.target.raw.partition("?")[0]
        path = escape_path(self.path) if escaped else self.path
        return f"{path}?{self.query}" if self.query else path

    def upstream_headers(self) -> list[Header]:
        """The headers of the upstream's request, `Content-Length` included."""
        client = self.arrival.remote[0]
        chain = [*self.headers.all("X-Forwarded-For"), client]
        headers: list[Header] = [
            ("Host", self.upstream_host),
            ("X-Real-IP", client),
            ("X-Forwarded-For", ", ".join(chain)),
        ]
        skipped = NOT_FORWARDED
        if not self.version.has(Feature.FORWARDED_IN_HEADERS):
            observed = ("http", self.host, str(self.arrival.local[1]))
            headers += [
                (name, self.headers.get(name) or value) for name, value in zip(FORWARDED, observed, strict=True)
            ]
            skipped = NOT_FORWARDED | {name.lower() for name in FORWARDED}
        if self.body or self.has_body:
            headers.append(("Content-Length", str(len(self.body))))
        return headers + [item for item in self.headers if item[0].lower() not in skipped]

    @property
    def has_body(self) -> bool:
        """Whether the client announced a body, be it empty."""
        return "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    # Variables

    def variable(self, name: str) -> str | None:
        """The value of an nginx or APISIX variable; None if it is not set, "" if it is set and empty."""
        if name.startswith("arg_"):
            return _first(self.args(), name[4:])
        if name.startswith("post_arg_"):
            return self._posted(name[9:])
        if name.startswith("cookie_"):
            return self._cookie(name[7:])
        if name.startswith("http_"):
            header = name[5:].lower().replace("_", "-")
            found = [value for key, value in self.headers if key.lower().replace("_", "-") == header]
            return ("; " if header == "cookie" else ", ").join(found) if found else None
        getter = VARIABLES.get(name)
        return None if getter is None else getter(self)

    def _posted(self, name: str) -> str | None:
        if not (self.headers.get("Content-Type") or "").startswith("application/x-www-form-urlencoded"):
            return None
        return _first(parse_args(to_text(self.body)), name)

    def _cookie(self, name: str) -> str | None:
        for line in self.headers.all("Cookie"):
            for pair in line.split(";"):
                key, equals, value = pair.partition("=")
                if equals and key.strip() == name:
                    return value.strip()
        return None


def _first(args: Args, name: str) -> str | None:
    """An argument as a variable: the first value, `true` where it has none."""
    values = args.get(name)
    return None if values is None else "true" if values[0] is None else values[0]


def _route_field(pick: Callable[[Route], str]) -> Callable[[Exchange], str | None]:
    return lambda it: None if it.route is None else pick(it.route)


VARIABLES: dict[str, Callable[[Exchange], str | None]] = {
    "args": lambda it: it.query,
    "query_string": lambda it: it.query,
    "is_args": lambda it: "?" if it.query else "",
    "uri": lambda it: it.path,
    "document_uri": lambda it: it.path,
    "request_uri": lambda it: it.path + ("?" + it.arrival.target.query if it.arrival.target.query else ""),
    "real_request_uri": lambda it: it.arrival.target.raw,
    "request": lambda it: f"{it.arrival.method} {it.arrival.target.raw} {it.arrival.protocol}",
    "request_line": lambda it: f"{it.arrival.method} {it.arrival.target.raw} {it.arrival.protocol}",
    "request_method": lambda it: it.method,
    "method": lambda it: it.method,
    "request_id": lambda it: it.request_id,
    "apisix_request_id": lambda it: it.request_id,
    "request_time": lambda it: f"{time.time() - it.started:.3f}",
    "request_body": lambda it: to_text(it.body) if it.body else None,
    "content_length": lambda it: it.headers.get("Content-Length") or "",
    "content_type": lambda it: it.headers.get("Content-Type") or "",
    "scheme": lambda it: "http",
    "https": lambda it: "",
    "host": lambda it: it.host,
    "hostname": lambda it: os.uname().nodename,
    "server_name": lambda it: "_",
    "server_protocol": lambda it: it.arrival.protocol,
    "server_addr": lambda it: it.arrival.local[0],
    "server_port": lambda it: str(it.arrival.local[1]),
    "remote_addr": lambda it: it.arrival.remote[0],
    "realip_remote_addr": lambda it: it.arrival.remote[0],
    "remote_port": lambda it: str(it.arrival.remote[1]),
    "remote_user": lambda it: "",
    "msec": lambda it: f"{time.time():.3f}",
    "pid": lambda it: str(os.getpid()),
    "time_iso8601": lambda it: time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    "time_local": lambda it: time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
    "upstream_uri": lambda it: it.upstream_uri,
    "upstream_host": lambda it: it.upstream_host,
    "upstream_scheme": lambda it: "http",
    "balancer_ip": lambda it: None if it.node is None else it.node.host,
    "balancer_port": lambda it: None if it.node is None else str(it.node.port),
    "route_id": _route_field(lambda route: route.id),
    "route_name": _route_field(lambda route: route.name),
}
"""The variables that have a fixed name, by it."""
