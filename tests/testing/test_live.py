"""The live gateway: real processes and sockets, and what a test can see and say of them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from apisix.runner.errors import StartError
from apisix.runner.plugin.discovery import PACKAGED_FOLDER
from apisix.runner.server.store import open_store
from apisix.runner.testing import LiveGateway, plugin_route

PLUGIN = """
from apisix.runner.plugin.base import Base

class Shout(Base):
    def filter(self, request, response):
        print("shouting at", request.path)
        request.headers["X-Shout"] = self.config["word"].upper()

    def filter_response(self, request, response):
        response.body = response.body.upper()
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "shout.py").write_text(PLUGIN)
    routes = [
        plugin_route("stop", {"body": "hello"}, uri="/get"),
        plugin_route("shout", {"word": "hey"}, uri="/shout/*"),
        plugin_route("shout", {"word": "hey"}, uri="/loud/*", phase="ext-plugin-post-resp"),
    ]
    with LiveGateway(routes, [PACKAGED_FOLDER, folder]) as running:
        yield running


def test_a_request_is_answered_by_the_plugin_of_its_route(live: LiveGateway) -> None:
    answer = live.get("/get", headers={"X-A": "ä"})
    assert (answer.status, answer.text, answer.headers["x-a"]) == (201, "Hello, Python Runner of APISIX", "ä")


def test_what_arrived_at_the_upstream_is_seen(live: LiveGateway) -> None:
    live.request("PUT", "/shout/a%20b?q=1&flag", headers={"X-A": "1"}, body={"n": 1})
    arrived = live.received[-1]
    assert (arrived.method, arrived.path, arrived.body) == ("PUT", "/shout/a b", b'{"n":1}')
    assert arrived.args.pairs() == [("q", "1"), ("flag", "")]
    assert (arrived.headers["x-shout"], arrived.headers["content-type"]) == ("HEY", "application/json")


def test_the_upstream_answers_what_it_is_told(live: LiveGateway) -> None:
    live.answer(404, {"X-From": "upstream"}, "none here")
    answer = live.get("/loud/x")
    assert (answer.status, answer.headers["x-from"], answer.text) == (404, "upstream", "NONE HERE")


def test_the_log_holds_what_plugins_print(live: LiveGateway) -> None:
    live.get("/shout/print")
    live.wait_for_log("shouting at /shout/print")
    with pytest.raises(TimeoutError, match="'never said' is not in the runner's log"):
        live.wait_for_log("never said", seconds=0.01)


def test_routes_are_added_while_it_runs(live: LiveGateway) -> None:
    assert live.get("/later").status == 404
    live.put_route("later", plugin_route("stop", uri="/later"))
    assert live.get("/later").status == 201
    with pytest.raises(ValueError, match="uri"):
        live.put_route("bad", {"plugins": {}})


def test_a_plugin_that_fails_is_seen_as_the_client_sees_it(live: LiveGateway) -> None:
    live.put_route("fails", plugin_route("shout", {"wrong": 1}, uri="/fails"))
    assert live.get("/fails").status == 503
    live.wait_for_log("KeyError: 'word'")


def test_nothing_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(threading.enumerate())
    with LiveGateway([plugin_route("stop")], [PACKAGED_FOLDER]) as live:
        assert live.get("/get").status == 201
        socket = next(tmp_path.glob("*/runner.sock"))
        store = open_store(socket)
        assert store is not None
        assert any(store.folder.iterdir())
    live.stop()
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []
    assert not store.folder.exists()
    assert "accepting" in live.log


def test_it_does_not_start_with_routes_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "apisix.yaml").write_text("routes: []\n")
    with pytest.raises(StartError, match="the last line must be #END"), LiveGateway(tmp_path / "apisix.yaml", []):
        pass


def test_it_does_not_start_with_flags_that_the_runner_does_not_know() -> None:
    live = LiveGateway([], [PACKAGED_FOLDER], flags=["--no-such-flag"])
    with pytest.raises(StartError, match="did not start"):
        live.start()
    assert "No such option" in live.log
