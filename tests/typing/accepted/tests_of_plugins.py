"""Tests of plugins as the documentation writes them."""

from pathlib import Path

from apisix.runner.plugin.base import Base
from apisix.runner.testing import (
    GatewayFactory,
    LiveGateway,
    PluginClient,
    PluginClientFactory,
    ResponseResult,
    plugin_route,
)


class Hello(Base):
    """A plugin."""


def test_client(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(Hello, conf={"name": "Anna"})
    result = client.get("/get?a=1", headers={"X-A": "1"}, vars={"consumer_name": "jack"}, remote_addr="::1")
    assert result.stopped
    assert result.headers["x-a"] == "1"
    assert result.json()["hello"] == "Anna"
    assert result.upstream is None
    posted = client.post("/", {"n": 1}).upstream
    assert posted is not None
    assert posted.args.getall("a") == ["1"]
    answer: ResponseResult = client.respond(404, {"A": "b"}, "none")
    assert answer.text == "none"


def test_chain() -> None:
    with PluginClient([(Hello, {"name": "Anna"}), (Hello, None)], phase="ext-plugin-post-req", version="3.1") as client:
        client.request("PUT", "/", body=b"raw")


def test_gateway(gateway: GatewayFactory) -> None:
    live: LiveGateway = gateway()
    assert live.get("/get").status == 200
    other = gateway([plugin_route("hello", {"name": "Anna"})], plugins=Path("plugins"), flags=["--workers", "2"])
    other.answer(200, {"A": "b"}, {"n": 1})
    assert [request.path for request in other.received] == []
