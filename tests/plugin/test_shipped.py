"""The two plugins that come with the runner do what the quick start promises."""

import pytest

from apisix.runner.http.answer import rewrite_action, stop_action
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.discovery import PACKAGED_FOLDER, load_plugins
from apisix.runner.plugin.registry import Registry
from apisix.runner.wire.messages import Rewrite, Stop
from tests.http import given as http
from tests.plugin import given

CONF = [("stop", '{"body":"hello"}')]
HEADERS = [("host", "127.0.0.1:9080"), ("user-agent", "curl/8.5.0"), ("accept", "*/*"), ("content-length", "5")]


@pytest.fixture(scope="module")
def registry() -> Registry:
    """What the folder of the user's plugins holds at first."""
    return load_plugins([PACKAGED_FOLDER])


@pytest.fixture
def request_() -> Request:
    """What ``curl http://127.0.0.1:9080/get`` sends."""
    return http.request(path="/get", headers=HEADERS)


def test_both_are_there_and_nothing_is_wrong(registry: Registry) -> None:
    assert [definition.name for definition in registry.definitions()] == ["Rewrite", "Stop"]
    assert registry.problems == []


def test_they_are_the_modules_that_anyone_can_import(registry: Registry) -> None:
    import apisix.plugins.rewrite
    import apisix.plugins.stop

    assert registry.find("stop").plugin_class is apisix.plugins.stop.Stop
    assert registry.find("rewrite").plugin_class is apisix.plugins.rewrite.Rewrite


def test_stop_answers_as_the_quick_start_shows(registry: Registry, request_: Request) -> None:
    response = given.run(given.chain_of(registry, "stop"), request_)
    assert response.stopped
    assert stop_action(response) == Stop(
        201,
        [
            ("host", "127.0.0.1:9080"),
            ("user-agent", "curl/8.5.0"),
            ("accept", "*/*"),
            ("X-Resp-A6-Runner", "Python"),
        ],
        b"Hello, Python Runner of APISIX",
    )


def test_stop_leaves_the_request_as_it_was(registry: Registry, request_: Request) -> None:
    given.run(given.chain_of(registry, "stop"), request_)
    assert request_.headers.pairs() == HEADERS
    assert rewrite_action(request_, Response(), None) is None


def test_stop_answers_the_same_again(registry: Registry) -> None:
    chain = given.chain_of(registry, "stop")
    first, second = (given.run(chain, http.request(headers=[("a", str(number))])) for number in range(2))
    assert first.headers.pairs() == [("a", "0"), ("X-Resp-A6-Runner", "Python")]
    assert second.headers.pairs() == [("a", "1"), ("X-Resp-A6-Runner", "Python")]


def test_rewrite_changes_what_the_upstream_and_the_client_get(registry: Registry, request_: Request) -> None:
    response = given.run(given.chain_of(registry, "rewrite"), request_)
    assert not response.stopped
    assert rewrite_action(request_, response, None) == Rewrite(
        path="/a6/python/runner",
        headers=[("x-resp-a6-runner", "Python")],
        args=[("a6_runner", "Python")],
        resp_headers=[("X-Rewritten-By", "apisix-runner")],
    )


def test_both_in_one_conf_run_in_its_order(registry: Registry, request_: Request) -> None:
    rewritten_first = given.run(given.chain_of(registry, "rewrite", "stop"), request_)
    assert rewritten_first.stopped
    assert rewritten_first.headers["X-Resp-A6-Runner"] == "Python"
    stopped_first = given.run(given.chain_of(registry, "stop", "rewrite"), http.request(path="/get"))
    assert "x-rewritten-by" not in stopped_first.headers
