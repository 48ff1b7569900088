"""The embedded development gateway: APISIX's part of the plugin runner protocol, for tests and for a laptop.

    from apisix.runner.gateway import Gateway

Needs the extra `gateway` (aiohttp and h11).

It has routes and upstreams, the ext-plugin-* plugins and proxy-rewrite, and HTTP/1.1. It has no other plugin, no
services, consumers or global rules, no TLS, HTTP/2 or websockets; what it does not know in a route it refuses. It is
one nginx worker. Where it knowingly differs from APISIX:

- A request target with a byte that is not ASCII is a 400, where nginx takes it; aiohttp is strict here.
- In the response phase APISIX sends the upstream the decoded path, spaces and all; here it is encoded as far as needed.
- In the response phase the upstream gets the Content-Length of a body that a rewrite replaced, not the old one.
- A status outside 200 to 599 is a 500; an answer that cannot be read is a 500 whatever is wrong with it.
- A route's host counts before its uri, and the Admin API answers in its 3.x form, whatever the version.
- Arguments and headers keep their order, where APISIX has the order of Lua's hash tables.
"""

from apisix.runner.gateway.app import Gateway
from apisix.runner.gateway.echo import Echo

__all__ = ["Echo", "Gateway"]
