"""The test kit: plugins tried in a test as they run in production, without a gateway.

Example:
    >>> from apisix.runner.testing import PluginClient
    >>> client = PluginClient(NeedsToken, conf={"token": "t"})
    >>> client.get("/").status
    401
"""

from apisix.runner.testing.client import PluginClient
from apisix.runner.testing.results import RequestResult, ResponseResult, Upstream

__all__ = ["PluginClient", "RequestResult", "ResponseResult", "Upstream"]
