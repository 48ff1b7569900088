"""The test kit: plugins tried in a test as they run in production.

Two ways: `PluginClient` runs a plugin in the test's own process, without a gateway, in a millisecond; `LiveGateway`
starts a gateway, a runner and an upstream. pytest has them as the fixtures `plugin_client` and `gateway`.

Example:
    >>> from apisix.runner.testing import PluginClient
    >>> client = PluginClient(NeedsToken, conf={"token": "t"})
    >>> client.get("/").status
    401
"""

from apisix.runner.testing.client import PluginClient
from apisix.runner.testing.fixtures import GatewayFactory, PluginClientFactory
from apisix.runner.testing.live import LiveGateway, plugin_route
from apisix.runner.testing.results import RequestResult, ResponseResult, Upstream

__all__ = [
    "GatewayFactory",
    "LiveGateway",
    "PluginClient",
    "PluginClientFactory",
    "RequestResult",
    "ResponseResult",
    "Upstream",
    "plugin_route",
]
