"""api_keys: who is let in, what the upstream is told, and what becomes of a file that changes."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory
from examples.api_keys.plugins.api_keys import ApiKeys

HERE = Path(__file__).parent
ANNA = "anna1.5b1f0c3ce5b34e16c87b4cd92f1a8d0c"
BEN = "ben1.c24e8f7a6d1b4b09953f2ae8071d6c35"


def line(key: str, consumer: str) -> str:
    return f"{key.partition('.')[0]} {consumer} {hashlib.sha256(key.encode()).hexdigest()}\n"


def replace(file: Path, text: str) -> None:
    """As an administrator should: nobody reads half of it."""
    whole = file.with_suffix(".new")
    whole.write_text(text)
    os.replace(whole, file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.txt"
    file.write_text(f"# a comment\n\n{line(ANNA, 'anna')}")
    return file


@pytest.fixture
def client(plugin_client: PluginClientFactory, file: Path) -> PluginClient:
    return plugin_client(ApiKeys, {"file": str(file), "look_every": 0})


def consumer(client: PluginClient, key: str) -> str | None:
    """What the upstream is told for a key; None where the client is not let in."""
    upstream = client.get("/", headers={"X-API-Key": key}).upstream
    return None if upstream is None else upstream.headers["X-Consumer"]


def test_the_upstream_is_told_whose_the_key_is(client: PluginClient) -> None:
    result = client.get("/", headers={"x-api-key": ANNA})
    assert result.upstream is not None
    assert result.upstream.headers.pairs() == [("host", "test"), ("x-consumer", "anna")]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-API-Key", "")],
        [("X-API-Key", ".")],
        [("X-API-Key", "anna1")],
        [("X-API-Key", ANNA[:-1])],
        [("X-API-Key", ANNA.upper())],
        [("X-API-Key", f"{ANNA}, {ANNA}")],
        [("X-API-Key", BEN)],
        [("X-API-Key", "anna1." + "0" * 100_000)],
        [("X-API-Key", ANNA + "\udcff")],
        [("X-API-Key", "änna1.x")],
        [("X-API-Key", ANNA), ("X-API-Key", ANNA)],
        [("X_API_Key", ANNA)],
        [("X-Consumer", "anna")],
    ],
    ids=lambda headers: str(headers)[:50].encode("ascii", "replace").decode(),
)
def test_nobody_else_is_let_in(client: PluginClient, headers: list[tuple[str, str]]) -> None:
    result = client.get("/", headers=headers)
    assert (result.status, result.headers["WWW-Authenticate"]) == (401, "ApiKey")
    assert result.json() == {"error": "expected one valid key in X-API-Key"}


def test_a_client_cannot_say_who_it_is(client: PluginClient) -> None:
    forged = [("X-API-Key", ANNA), ("X-Consumer", "root"), ("X_Consumer", "root"), ("x_api-key", "guess")]
    result = client.get("/", headers=forged)
    assert result.upstream is not None
    assert sorted(result.upstream.headers.pairs()) == [("host", "test"), ("x-consumer", "anna")]


def test_a_replaced_file_is_live(client: PluginClient, file: Path) -> None:
    replace(file, line(BEN, "ben"))
    assert (consumer(client, BEN), consumer(client, ANNA)) == ("ben", None)


def test_it_is_not_looked_at_for_each_request(plugin_client: PluginClientFactory, file: Path) -> None:
    client = plugin_client(ApiKeys, {"file": str(file), "look_every": 3600})
    replace(file, line(BEN, "ben"))
    assert (consumer(client, BEN), consumer(client, ANNA)) == (None, "anna")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected at least one key, got none"),
        (line(BEN, "ben")[:-9], "line 1: expected an id, a consumer, and a SHA-256"),
        ("# fine\n" + line(BEN, "ben one"), "line 2: expected an id"),
        (line(BEN, "ben") + line(BEN, "anna"), "line 2: the id ben1 stands there twice"),
        ("\0" * 100, "line 1: expected an id"),
        ("#" * (4 * 2**20 + 1), "expected at most 4194304 bytes"),
    ],
    ids=["empty", "cut off", "too many words", "an id twice", "no text", "too large"],
)
def test_a_broken_file_changes_nothing_and_is_told_once(
    client: PluginClient, file: Path, caplog: pytest.LogCaptureFixture, text: str, problem: str
) -> None:
    replace(file, text)
    assert [consumer(client, ANNA), consumer(client, ANNA), consumer(client, BEN)] == ["anna", "anna", None]
    [told] = [record.message for record in caplog.records if record.name == "api_keys"]
    assert told.startswith("the keys of before stay in use: ")
    assert problem in told


def test_a_file_that_goes_changes_nothing_until_it_is_back(
    client: PluginClient, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.unlink()
    assert [consumer(client, ANNA), consumer(client, ANNA)] == ["anna", "anna"]
    assert sum("No such file" in record.message for record in caplog.records) == 1
    file.write_text(line(BEN, "ben"))
    assert (consumer(client, BEN), consumer(client, ANNA)) == ("ben", None)


@pytest.mark.parametrize(
    ("conf", "problem"),
    [
        ({}, "missing required field file"),
        ({"file": "keys.txt"}, "file: expected an absolute path"),
        ({"file": "/nowhere/keys.txt"}, "No such file or directory: '/nowhere/keys.txt'"),
        ({"file": "/dev/null"}, "/dev/null: expected at least one key"),
        ({"file": "/dev/null", "header": "X API Key"}, "header"),
        ({"file": "/dev/null", "header": "x-consumer"}, "consumer_header: expected another header"),
        ({"file": "/dev/null", "look_every": -1}, "look_every"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, conf: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(ApiKeys, conf)


def test_keys_change_while_requests_run(gateway: GatewayFactory, tmp_path: Path, file: Path) -> None:
    both = line(ANNA, "anna") + line(BEN, "ben")
    routes = (HERE / "apisix.yaml").read_text().replace("/tmp/keys.txt", str(file))
    (tmp_path / "apisix.yaml").write_text(routes.replace('"}', '", "look_every": 0.01}'))
    live = gateway(tmp_path / "apisix.yaml")
    assert live.get("/shop/list", headers={"X-API-Key": ANNA}).status == 200
    ended = threading.Event()

    def keep_replacing() -> None:
        while not ended.is_set():
            replace(file, both)
            replace(file, "half a li")

    replacing = threading.Thread(target=keep_replacing)
    replacing.start()
    try:
        statuses = {live.get("/shop/list", headers={"X-API-Key": ANNA}).status for _ in range(100)}
    finally:
        ended.set()
        replacing.join()
    assert statuses == {200}
    live.wait_for_log(f"the keys of before stay in use: {file}, line 1: expected an id")

    replace(file, both)
    deadline = time.monotonic() + 10
    while live.get("/shop/list", headers={"X-API-Key": BEN}).status != 200:
        assert time.monotonic() < deadline
    assert live.received[-1].headers["X-Consumer"] == "ben"


def test_without_its_file_nobody_is_let_in(gateway: GatewayFactory) -> None:
    live = gateway()
    assert live.get("/forgotten", headers={"X-API-Key": ANNA}).status == 503
    live.wait_for_log("route#forgotten: plugin 'api_keys': setup failed: FileNotFoundError")
    assert live.received == []
