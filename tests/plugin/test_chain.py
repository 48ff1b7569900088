"""Chains of ``def`` plugins: order, stop, failures that fail the call, failures that may not."""

import logging
from typing import Any

import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import Chain
from apisix.runner.plugin.errors import PluginFailure
from apisix.runner.plugin.registry import RESPONSE
from apisix.runner.wire.frame import WireError
from tests.http import given as http
from tests.plugin import given


class First(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.state.seen = [self.config]
        request.headers["x-user"] = "anna"
        request.path = "/first"
        response.headers["x-first"] = "1"


class Second(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.state.seen.append(self.config)
        request.args["user"] = request.headers["x-user"]
        request.path += "/second"
        response.headers.add("x-first", "2")


class Stops(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(403, "no")


class Never(Base):
    def filter(self, request: Request, response: Response) -> None:
        raise AssertionError("ran")


class Raises(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.headers["x-half"] = "done"
        raise LookupError("no such user")


class Continues(Raises):
    on_error = "continue"


def test_plugins_run_in_order_and_see_what_earlier_ones_changed() -> None:
    request = http.request()
    response = given.run(given.chain(First, Second), request)
    assert request.path == "/first/second"
    assert request.args["user"] == "anna"
    assert response.headers.getall("x-first") == ["1", "2"]


def test_a_plugin_may_be_there_twice_each_time_with_its_own_conf() -> None:
    request = http.request()
    conf = [("first", "1"), ("second", "2"), ("SECOND", "3")]
    chain = given.chain(First, Second, conf=conf)
    given.run(chain, request)
    assert request.state.seen == [1, 2, 3]
    assert [step.name for step in chain.steps] == ["first", "second", "SECOND"]
    assert len({id(step.instance) for step in chain.steps}) == 3


def test_the_first_stop_ends_the_chain() -> None:
    response = given.run(given.chain(First, Stops, Never))
    assert (response.stopped, response.new_status) == (True, 403)
    assert response.headers.pairs() == [("x-first", "1")]


def test_a_chain_without_plugins_changes_nothing() -> None:
    chain = Chain([])
    assert not given.run(chain).stopped
    assert (chain.coroutine, chain.blocking, chain.variables) == (False, False, ())


# Failures.


@pytest.mark.parametrize(
    "error",
    [
        LookupError("no such user"),
        KeyError("user"),
        StopIteration(),
        SystemExit(0),
        KeyboardInterrupt(),
        GeneratorExit(),
        MemoryError(),
        BaseException("bare"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_plugin_raises_fails_the_call(error: BaseException) -> None:
    def fails(self: Base, request: Request, response: Response) -> None:
        raise error

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(fails), Never))
    assert failure.value.cause is failure.value.__cause__ is error
    assert failure.value.plugin == "Fails"
    assert failure.value.file == __file__
    assert str(failure.value).startswith(f"plugin 'Fails' failed: {type(error).__name__}: ")


def test_a_failure_is_logged_where_the_author_said_to_continue_and_the_request_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = http.request()
    given.run(given.chain(Continues, First), request)
    assert request.path == "/first"
    assert request.headers["x-half"] == "done", "what it did until then stays"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    first, *traceback = record.getMessage().splitlines()
    assert first == "plugin 'Continues' failed: LookupError: no such user; the request goes on, as its on_error says"
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "LookupError: no such user"


def test_a_plugin_that_stopped_and_then_failed_has_stopped_even_where_it_may_continue() -> None:
    class Late(Base):
        on_error = "continue"

        def filter(self, request: Request, response: Response) -> None:
            self.stop(403)
            raise LookupError

    response = given.run(given.chain(Late, Never))
    assert (response.stopped, response.new_status) == (True, 403)


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_malformed_frame_fails_the_call_whatever_the_author_said(on_error: str) -> None:
    def reads(self: Base, request: Request, response: Response) -> None:
        raise WireError("HTTPReqCall.Req.headers", 72, "ends after the frame")

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(reads, on_error=on_error), Never))
    assert isinstance(failure.value.cause, WireError)


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_plugin_in_a_phase_that_it_does_not_have_fails_the_call_whatever_the_author_said(on_error: str) -> None:
    class OnlyRequest(Base):
        def filter(self, request: Request, response: Response) -> None: ...

    chain = given.chain(type("OnlyRequest", (OnlyRequest,), {"on_error": on_error}), phase=RESPONSE)
    with pytest.raises(PluginFailure, match="OnlyRequest has no filter_response: it does not run in the response"):
        given.run(chain, http.sent_request(), http.upstream_response())


def test_on_error_may_be_decided_in_setup() -> None:
    class Decides(Raises):
        def setup(self) -> None:
            self.on_error = self.config["on_error"]  # type: ignore[misc]

    given.run(given.chain(Decides, conf=[("decides", '{"on_error": "continue"}')]))
    with pytest.raises(PluginFailure):
        given.run(given.chain(Decides, conf=[("decides", '{"on_error": "fail"}')]))


# What a plugin returns.


@pytest.mark.parametrize("result", ["text", 0, False, {}, object(), (403, "no"), Response()])
def test_a_plugin_that_returns_something_fails_the_call(result: object) -> None:
    def returns(self: Base, request: Request, response: Response) -> object:
        return result

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(returns), Never))
    told = f"filter must return None, got {type(result).__name__}; say self.stop(...) to answer"
    assert str(failure.value) == f"plugin 'Returns' failed: TypeError: {told}"


def test_what_a_plugin_returns_is_left_alone() -> None:
    class Pool:
        closed = False

        def close(self) -> None:
            self.closed = True

    pool = Pool()

    def returns(self: Base, request: Request, response: Response) -> object:
        return pool

    given.run(given.chain(given.plugin(returns, on_error="continue")))
    assert not pool.closed


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_coroutine_that_nobody_awaits_is_told_as_what_it_is(on_error: str, caplog: pytest.LogCaptureFixture) -> None:
    async def really(request: Request) -> None:
        raise AssertionError("ran")

    def forgets(self: Base, request: Request, response: Response) -> Any:
        return really(request)

    told = "filter must return None, got coroutine; nobody awaits it: write async def filter, and await in it"
    chain = given.chain(given.plugin(forgets, on_error=on_error))
    if on_error == "fail":
        with pytest.raises(PluginFailure) as failure:
            given.run(chain)
        assert told in str(failure.value)
    else:
        given.run(chain)
        assert told in caplog.text


def test_a_generator_that_is_returned_is_no_answer() -> None:
    def returns(self: Base, request: Request, response: Response) -> Any:
        return (status for status in (403,))

    with pytest.raises(PluginFailure, match="filter must return None, got generator"):
        given.run(given.chain(given.plugin(returns)))


def test_a_plugin_that_stops_and_returns_the_stop_is_as_meant() -> None:
    def returns(self: Base, request: Request, response: Response) -> Any:
        stop: Any = self.stop
        return stop(403)

    assert given.run(given.chain(given.plugin(returns))).stopped


# The response phase.


def test_filter_response_sees_the_upstreams_response() -> None:
    class Marks(Base):
        def filter_response(self, request: Request, response: Response) -> None:
            response.headers["x-status"] = f"{response.status_code} {request.path}"

    response = http.upstream_response(status=404, headers=[("a", "1")])
    given.run(given.chain(Marks, phase=RESPONSE), http.sent_request(http.Gateway({"uri": b"/get"})), response)
    assert response.headers.pairs() == [("a", "1"), ("x-status", "404 /get")]


def test_a_plugin_that_returns_something_from_filter_response_is_told_that_name() -> None:
    class Returns(Base):
        def filter_response(self, request: Request, response: Response) -> object:
            return response

    with pytest.raises(PluginFailure, match="filter_response must return None, got Response"):
        given.run(given.chain(Returns, phase=RESPONSE), http.sent_request(), http.upstream_response())


# What a chain tells the server.


@pytest.mark.parametrize(
    ("declared", "blocking"),
    [
        ([None], None),
        ([True], True),
        ([False], False),
        ([False, False], False),
        ([False, None], None),
        ([None, True], True),
        ([False, True], True),
    ],
)
def test_a_chain_blocks_where_one_plugin_does_and_not_where_none_does(
    declared: list[bool | None], blocking: bool | None
) -> None:
    classes = [type(f"Plugin{i}", (First,), {"blocking": one}) for i, one in enumerate(declared)]
    assert given.chain(*classes).blocking is blocking


def test_a_chain_asks_each_declared_variable_once() -> None:
    one = type("One", (First,), {"variables": ["uri", "host"]})
    two = type("Two", (First,), {"variables": ("host", "request_id")})
    assert given.chain(one, two, First).variables == ("uri", "host", "request_id")


def test_a_plugin_with_a_timeout_is_told_to_the_watchdog_while_it_runs() -> None:
    class Timed(Base):
        timeout = 0.5

        def filter(self, request: Request, response: Response) -> None:
            request.state.running = [response.running]

    class Untimed(Base):
        def filter(self, request: Request, response: Response) -> None:
            request.state.running.append(response.running)

    request = http.request()
    response = given.run(given.chain(Timed, Untimed), request)
    timed, untimed = request.state.running
    assert timed[:2] == ("Timed", 0.5)
    assert untimed[:2] == ("Untimed", None)
    assert timed[2] <= untimed[2]
    assert response.running is None


def test_a_chain_without_timeouts_does_not_look_at_the_clock() -> None:
    class Untimed(Base):
        def filter(self, request: Request, response: Response) -> None:
            assert response.running is None

    assert not given.chain(Untimed).timed
    given.run(given.chain(Untimed))
