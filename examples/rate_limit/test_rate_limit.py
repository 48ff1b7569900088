"""rate_limit: how many requests are let in, whom they are counted for, and what happens without Redis."""

import gc
import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory, plugin_route
from examples.api_keys.plugins.api_keys import ApiKeys
from examples.rate_limit.plugins.rate_limit import RateLimit
from examples.redis_server import RedisServer, redis_server

# The loop that all calls of `plugin_client` share ends with the process, and the connections on it with the loop.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    server.client.flushall()
    yield server
    gc.collect()  # while the warnings are ignored


def conf(redis: RedisServer, **more: object) -> dict[str, object]:
    return {"name": "test", "limit": 2, "window": 60, "redis": redis.url, "timeout": 5, **more}


def let_time_pass(redis: RedisServer, seconds: float) -> None:
    """As if all that was counted had been so many seconds earlier."""
    script = (
        "for _, m in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZINCRBY', KEYS[1], ARGV[1], m) end"
    )
    for key in redis.client.scan_iter():
        redis.client.eval(script, 1, key, -seconds * 1_000_000)


@pytest.fixture
def client(plugin_client: PluginClientFactory, redis: RedisServer) -> PluginClient:
    """Two requests in 60 seconds."""
    return plugin_client(RateLimit, conf(redis))


# How many.


def test_clients_are_told_how_many_are_left(client: PluginClient) -> None:
    first, second, third = client.get(), client.get(), client.get()
    assert [one.headers["RateLimit-Remaining"] for one in (first, second, third)] == ["1", "0", "0"]
    assert {one.headers["RateLimit-Limit"] for one in (first, second, third)} == {"2"}
    assert 58 <= int(first.headers["RateLimit-Reset"]) <= 60
    assert (first.stopped, second.stopped, third.status) == (False, False, 429)
    assert third.headers["Retry-After"] == third.headers["RateLimit-Reset"]
    assert third.json() == {"error": "too many requests"}


def test_the_window_slides(client: PluginClient, redis: RedisServer) -> None:
    client.get()
    let_time_pass(redis, 40)
    client.get()
    refused = client.get()
    assert (refused.status, 18 <= int(refused.headers["Retry-After"]) <= 20) == (429, True)
    let_time_pass(redis, 21)  # the first one has left, the second has not
    assert [client.get().status, client.get().status] == [0, 429]


def test_refused_requests_do_not_count(client: PluginClient, redis: RedisServer) -> None:
    assert [client.get().status for _ in range(5)] == [0, 0, 429, 429, 429]
    let_time_pass(redis, 61)
    assert [client.get().status for _ in range(3)] == [0, 0, 429]


def test_nothing_stays_in_redis(client: PluginClient, redis: RedisServer) -> None:
    client.get()
    [key] = redis.client.keys()
    assert 0 < redis.client.pttl(key) <= 60_000


def test_a_limit_that_was_lowered(plugin_client: PluginClientFactory, redis: RedisServer) -> None:
    many, few = plugin_client(RateLimit, conf(redis, limit=5)), plugin_client(RateLimit, conf(redis, limit=1))
    assert [many.get().status for _ in range(3)] == [0, 0, 0]
    refused = few.get()
    assert (refused.status, refused.headers["RateLimit-Remaining"]) == (429, "0")


def test_confs_of_one_name_count_together(plugin_client: PluginClientFactory, redis: RedisServer) -> None:
    first, same, other = (plugin_client(RateLimit, conf(redis, name=name, limit=1)) for name in ("a", "a", "b"))
    assert [first.get().status, same.get().status, other.get().status] == [0, 429, 0]


# For whom.


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_by_address(plugin_client: PluginClientFactory, redis: RedisServer, one: str, another: str, same: bool) -> None:
    client = plugin_client(RateLimit, conf(redis, limit=1))
    client.get(remote_addr=one)
    assert client.get(remote_addr=another).status == (429 if same else 0)


Pairs = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ([("X-Tenant", "a")], [("x-tenant", "a")], True),
        ([("X-Tenant", "a")], [("X-Tenant", "b")], False),
        ([("X-Tenant", "a")], [("X-Tenant", "a"), ("X-Tenant", "b")], False),
        ([("X-Tenant", "a" * 50_000)], [("X-Tenant", "a" * 50_000)], True),
        ([("X-Tenant", "\udcff")], [("X-Tenant", "\udcff")], True),
        ([("X-Tenant", "127.0.0.1")], [], False),
        ([], [], True),
    ],
    ids=["same", "another", "one more", "long", "no UTF-8", "an address", "none"],
)
def test_by_header(
    plugin_client: PluginClientFactory, redis: RedisServer, one: Pairs, another: Pairs, same: bool
) -> None:
    client = plugin_client(RateLimit, conf(redis, limit=1, by="header", header="X-Tenant"))
    client.get(headers=one)
    assert client.get(headers=another).status == (429 if same else 0)
    assert max(len(key) for key in redis.client.scan_iter()) < 100


def test_by_consumer(plugin_client: PluginClientFactory, redis: RedisServer) -> None:
    client = plugin_client(RateLimit, conf(redis, limit=1, by="consumer"))
    names = ["anna", "ben", "anna", None, None]
    assert [client.get(vars={"consumer_name": name}).status for name in names] == [0, 0, 429, 0, 429]


def test_by_the_consumer_of_an_earlier_plugin(
    plugin_client: PluginClientFactory, redis: RedisServer, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("".join(f"{id} anna {hashlib.sha256(f'{id}.key'.encode()).hexdigest()}\n" for id in ("a1", "a2")))
    limit = conf(redis, limit=1, by="consumer")
    client = plugin_client([(ApiKeys, {"file": str(keys)}), (RateLimit, limit)])
    answers = [client.get(headers={"X-API-Key": key}) for key in ("a1.key", "guess", "a2.key")]
    assert [answer.status for answer in answers] == [0, 401, 429]


# Without Redis.


def test_without_redis_nobody_is_let_in(
    plugin_client: PluginClientFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = plugin_client(RateLimit, {"name": "a", "limit": 1, "window": 1, "redis": f"unix://{tmp_path}/none"})
    assert [client.get().status for _ in range(3)] == [503, 503, 503]
    assert client.get().headers["Retry-After"] == "1"
    assert sum("a: requests cannot be counted" in record.message for record in caplog.records) == 1


def test_a_conf_may_let_requests_go_on(plugin_client: PluginClientFactory, tmp_path: Path) -> None:
    lenient = {"name": "a", "limit": 1, "window": 1, "redis": f"unix://{tmp_path}/none", "without_redis": "continue"}
    client = plugin_client(RateLimit, lenient)
    assert [client.get().stopped for _ in range(3)] == [False] * 3


def test_a_redis_that_does_not_answer_is_waited_for_with_a_limit(
    plugin_client: PluginClientFactory, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        conf = {"name": "a", "limit": 1, "window": 1, "redis": f"unix://{tmp_path}/silent", "timeout": 0.1}
        assert plugin_client(RateLimit, conf).get().status == 503
    gc.collect()


def test_a_redis_that_cannot_count_is_none(client: PluginClient, redis: RedisServer) -> None:
    redis.client.replicaof("127.0.0.1", "1")  # and so cannot be written
    try:
        assert client.get().status == 503
    finally:
        redis.client.replicaof("NO", "ONE")
    assert client.get().status == 0


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"limit": 0}, "limit"),
        ({"window": 0}, "window"),
        ({"name": "a b"}, "name"),
        ({"by": "cookie"}, "by"),
        ({"by": "header"}, 'header: expected a name with "by": "header"'),
        ({"header": "X-Tenant"}, 'header: expected a name with "by": "header"'),
        ({"redis": "127.0.0.1:6379"}, "redis: expected redis://HOST:PORT"),
        ({"timeout": 0}, "timeout"),
        ({"without_redis": "allow"}, "without_redis"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, wrong: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(RateLimit, {"name": "a", "limit": 1, "window": 1, **wrong})


# Behind a gateway.


def test_many_at_once_over_several_workers(gateway: GatewayFactory, redis: RedisServer) -> None:
    live = gateway([plugin_route("rate_limit", conf(redis, limit=20))], flags=("--workers", "2"))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: live.get("/search"), range(60)))
    assert sorted(answer.status for answer in answers) == [200] * 20 + [429] * 40
    assert len(live.received) == 20
    remaining = sorted(int(answer.headers["RateLimit-Remaining"]) for answer in answers if answer.status == 200)
    assert remaining == list(range(20))


def test_a_redis_that_goes_and_comes_back(gateway: GatewayFactory) -> None:
    with redis_server() as redis:
        live = gateway([plugin_route("rate_limit", conf(redis, limit=100))])
        assert live.get("/search").headers["RateLimit-Remaining"] == "99"
        redis.client.client_kill_filter(_type="normal", skipme=True)
        assert live.get("/search").headers["RateLimit-Remaining"] == "98"
        redis.stop()
        assert live.get("/search").status == 503
        live.wait_for_log("test: requests cannot be counted: ConnectionError")
        redis.start()
        assert live.get("/search").headers["RateLimit-Remaining"] == "99"
