"""The embedded development gateway: APISIX's part of the plugin runner protocol, for tests and for a laptop.

    from apisix.runner.gateway import Gateway

Needs the extra `gateway` (aiohttp and h11).
"""

from apisix.runner.gateway.app import Gateway
from apisix.runner.gateway.echo import Echo

__all__ = ["Echo", "Gateway"]
