"""Lets in, or keeps out, clients by their address.

- An address in `deny` is refused; where `allow` has entries, so is every address that is not in it.
- `X-Forwarded-For` counts only as far as trusted proxies wrote it: it is read from its end, and the first address that
  is no trusted proxy's is the client's. What cannot be read there is refused.
"""

import ipaddress
from collections.abc import Sequence

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class IpAllowDeny(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        allow: list[str] = []  # addresses and networks; none: everyone
        deny: list[str] = []  # wins over allow
        trusted_proxies: list[str] = []  # whose X-Forwarded-For is believed
        message: str = "your address is not allowed"

        def __post_init__(self) -> None:
            if not self.allow and not self.deny:
                raise ValueError("expected entries in allow or deny, got none")
            for name in ("allow", "deny", "trusted_proxies"):
                networks(name, getattr(self, name))

    config: Conf
    blocking = False

    def setup(self) -> None:
        self.allow = networks("allow", self.config.allow)
        self.deny = networks("deny", self.config.deny)
        self.trusted_proxies = networks("trusted_proxies", self.config.trusted_proxies)

    def filter(self, request: Request, response: Response) -> None:
        client = self.client(request)
        if client is None or not self.lets_in(client):
            self.stop(403, {"error": self.config.message})

    def client(self, request: Request) -> Address | None:
        """The client's address; None where a trusted proxy names one that cannot be read."""
        address: Address = unmapped(request.remote_addr)
        written = ",".join(request.headers.getall("x-forwarded-for")).split(",")
        hops = [hop.strip() for hop in written if hop.strip()]
        while hops and contains(self.trusted_proxies, address):
            try:
                address = unmapped(ipaddress.ip_address(hops.pop()))
            except ValueError:
                return None
        return address

    def lets_in(self, address: Address) -> bool:
        """What the two lists say of an address."""
        return not contains(self.deny, address) and (not self.allow or contains(self.allow, address))


def networks(name: str, entries: Sequence[str]) -> tuple[Network, ...]:
    """The networks of a list in the conf; an address is a network of one."""
    found: list[Network] = []
    for place, entry in enumerate(entries):
        try:
            network = ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError(f"{name}[{place}]: expected an address or a network, such as 10.0.0.0/8") from None
        if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
            raise ValueError(f"{name}[{place}]: expected an IPv4 network as 10.0.0.0/8, got it as an IPv6 one")
        found.append(network)
    return tuple(found)


def contains(listed: Sequence[Network], address: Address) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in listed)


def unmapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one may stand for."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
