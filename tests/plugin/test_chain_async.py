"""Chains with ``async def`` plugins: awaited, timed, mixed with ``def`` plugins, cancelled from outside only."""

import asyncio
import threading
from typing import Any

import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base, current_response
from apisix.runner.plugin.errors import PluginFailure
from apisix.runner.plugin.registry import RESPONSE
from apisix.runner.wire.frame import WireError
from tests.http import given as http
from tests.plugin import given


class Reads(Base):
    """Asks in the colour of a coroutine."""

    async def filter(self, request: Request, response: Response) -> None:
        request.state.seen = [*vars(request.state).get("seen", ()), ("async", threading.get_ident())]
        request.headers["x-uri"] = str(await request.read_var("uri"))


class Asks(Base):
    """Asks in the colour of a thread."""

    def filter(self, request: Request, response: Response) -> None:
        request.state.seen = [*vars(request.state).get("seen", ()), ("def", threading.get_ident())]
        request.headers["x-host"] = str(request.var("host"))


class Stops(Base):
    async def filter(self, request: Request, response: Response) -> None:
        self.stop(403, "no")


class StopsInThread(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(403, "no")


class Never(Base):
    async def filter(self, request: Request, response: Response) -> None:
        raise AssertionError("ran")


def gateway() -> http.Gateway:
    return http.Gateway({"uri": b"/get", "host": b"a.test"})


def test_a_chain_with_one_coroutine_runs_on_the_loop() -> None:
    assert given.chain(Asks, Reads).coroutine
    assert not given.chain(Asks).coroutine


@pytest.mark.parametrize("classes", [(Reads, Asks), (Asks, Reads), (Asks, Reads, Asks), (Reads, Asks, Reads)])
def test_each_plugin_asks_in_its_own_colour_whatever_ran_before(classes: tuple[type[Base], ...]) -> None:
    request = http.request(gateway())
    request.in_coroutine = True  # as the server sets it to ask for declared variables
    given.run(given.chain(*classes), request)
    assert request.headers["x-uri"] == "/get"
    assert request.headers["x-host"] == "a.test"


def test_def_plugins_among_coroutines_run_in_a_thread_and_in_order() -> None:
    request = http.request(gateway())
    given.run(given.chain(Asks, Reads, Asks), request)
    kinds, threads = zip(*request.state.seen, strict=True)
    assert kinds == ("def", "async", "def")
    assert threads[1] == threading.get_ident()
    assert threading.get_ident() not in (threads[0], threads[2])


@pytest.mark.parametrize("stops", [Stops, StopsInThread])
def test_the_first_stop_ends_the_chain(stops: type[Base]) -> None:
    response = given.run(given.chain(Reads, stops, Never), http.request(gateway()))
    assert (response.stopped, response.new_status) == (True, 403)


def test_filter_response_may_be_a_coroutine_too() -> None:
    class Marks(Base):
        async def filter_response(self, request: Request, response: Response) -> None:
            await request.read_vars("uri")
            response.headers["x-path"] = request.path
            response.body = (await response.read_body() or b"").upper()

    response = http.upstream_response(http.Gateway(response_body=b"upstream"))
    given.run(given.chain(Marks, phase=RESPONSE), http.sent_request(gateway()), response)
    assert response.headers.pairs() == [("x-path", "/get")]
    assert response.raw_body == b"UPSTREAM"


# Failures.


@pytest.mark.parametrize(
    "error",
    [LookupError("no"), TimeoutError("of its own"), asyncio.CancelledError(), SystemExit(0), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_coroutine_raises_fails_the_call(error: BaseException) -> None:
    async def fails(self: Base, request: Request, response: Response) -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(fails), Never))
    assert failure.value.cause is error


def test_whatever_a_def_plugin_among_coroutines_raises_fails_the_call() -> None:
    def fails(self: Base, request: Request, response: Response) -> None:
        raise SystemExit(0)

    with pytest.raises(PluginFailure, match="plugin 'Fails' failed: SystemExit: 0"):
        given.run(given.chain(Reads, given.plugin(fails), Never), http.request(gateway()))


@pytest.mark.parametrize("kind", ["async", "def"])
def test_a_failure_lets_the_request_go_on_where_the_author_said_so(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def awaits(self: Base, request: Request, response: Response) -> None:
        raise LookupError("no such user")

    def waits(self: Base, request: Request, response: Response) -> None:
        raise LookupError("no such user")

    fails = given.plugin(awaits if kind == "async" else waits, on_error="continue", name="fails")
    request = http.request(gateway())
    given.run(given.chain(fails, Reads), request)
    assert request.headers["x-uri"] == "/get"
    assert "plugin 'fails' failed: LookupError: no such user; the request goes on" in caplog.text


def test_a_malformed_frame_fails_the_call_whatever_the_author_said() -> None:
    async def reads(self: Base, request: Request, response: Response) -> None:
        raise WireError("HTTPReqCall.Req.headers", 72, "ends after the frame")

    with pytest.raises(PluginFailure):
        given.run(given.chain(given.plugin(reads, on_error="continue"), Never))


def test_a_coroutine_that_returns_something_fails_the_call() -> None:
    async def returns(self: Base, request: Request, response: Response) -> Any:
        return 403, "no"

    with pytest.raises(PluginFailure, match=r"filter must return None, got tuple; say self.stop\(...\) to answer"):
        given.run(given.chain(given.plugin(returns)))


def test_a_coroutine_that_returns_a_coroutine_is_told_to_await_it() -> None:
    async def really() -> None:
        raise AssertionError("ran")

    async def forgets(self: Base, request: Request, response: Response) -> Any:
        return really()

    with pytest.raises(PluginFailure, match="got coroutine; nobody awaits it"):
        given.run(given.chain(given.plugin(forgets)))


def test_after_a_coroutine_nothing_of_its_call_is_left() -> None:
    async def calls() -> None:
        request, response = http.request(gateway()), Response()
        await given.chain(Reads).run_async(request, response, given.in_thread)
        assert current_response.get() is None
        assert not request.in_coroutine
        assert not response.in_coroutine

    asyncio.run(calls())


# Time.


def test_a_coroutine_that_passes_its_timeout_fails_the_call() -> None:
    async def hangs(self: Base, request: Request, response: Response) -> None:
        await asyncio.Event().wait()

    with pytest.raises(PluginFailure, match="plugin 'Hangs' failed: TimeoutError") as failure:
        given.run(given.chain(given.plugin(hangs, timeout=0.01), Never))
    assert isinstance(failure.value.cause, TimeoutError)


def test_a_timeout_lets_the_request_go_on_where_the_author_said_so() -> None:
    async def hangs(self: Base, request: Request, response: Response) -> None:
        await asyncio.Event().wait()

    request = http.request(gateway())
    given.run(given.chain(given.plugin(hangs, timeout=0.01, on_error="continue"), Reads), request)
    assert request.headers["x-uri"] == "/get"


def test_the_timeout_of_a_def_plugin_ends_with_it() -> None:
    class Timed(Asks):
        timeout = 5

    async def looks(self: Base, request: Request, response: Response) -> None:
        request.state.running = response.running

    request = http.request(gateway())
    given.run(given.chain(Timed, given.plugin(looks)), request)
    assert request.state.running is None, "else the watchdog would give up on another plugin for it"


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_call_that_is_cancelled_from_outside_ends_at_once_whatever_the_author_said(on_error: str) -> None:
    started = asyncio.Event()

    async def hangs(self: Base, request: Request, response: Response) -> None:
        started.set()
        await asyncio.Event().wait()

    async def cancelled() -> None:
        chain = given.chain(given.plugin(hangs, on_error=on_error), Never)
        task = asyncio.create_task(chain.run_async(http.request(), Response(), given.in_thread))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
