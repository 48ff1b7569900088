"""The leader scheme: quick chains run inline, and nothing that one call does holds up the others."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from apisix.runner.wire.messages import ErrorCode, encode_prepare_conf_req
from tests.server.connections import SECONDS, Connection, body_of, error_of, failed_closed, passes
from tests.server.processes import Runner

PLUGINS = """
class Quick(Base):
    def filter(self, request, response):
        self.stop(200, threading.current_thread().name)

class Declared(Quick):
    blocking = False

class Blocking(Quick):
    blocking = True

class Sleeps(Base):
    def filter(self, request, response):
        time.sleep(float(request.args.get("seconds", "0")))
        self.stop(200, threading.current_thread().name)

class SleepsDeclaredQuick(Sleeps):
    blocking = False

class SleepsAsync(Base):
    async def filter(self, request, response):
        await asyncio.sleep(float(request.args.get("seconds", "0")))
        self.stop(200, threading.current_thread().name)

class Gate(Base):
    opened = threading.Event()

    def filter(self, request, response):
        if "open" in request.args:
            self.opened.set()
        if "close" in request.args:
            self.opened.clear()
        if "wait" in request.args:
            self.opened.wait(20)
        self.stop(200, threading.current_thread().name)

class Stuck(Base):
    released = threading.Event()

    def filter(self, request, response):
        if "release" in request.args:
            self.released.set()
            return
        stuck_here = self.released.wait
        stuck_here(20)
        self.stop(200, "much too late")

    filter_response = filter

class StuckAsync(Base):
    async def filter(self, request, response):
        await self.stuck_here()

    async def filter_response(self, request, response):
        await self.stuck_here()

    async def stuck_here(self):
        await asyncio.sleep(20)

class StuckInside(Base):
    def filter(self, request, response):
        time.sleep(20)

class Awaits(Base):
    async def filter(self, request, response):
        await asyncio.sleep(0)

class AwaitsLong(Base):
    async def filter(self, request, response):
        await asyncio.sleep(0.5)
        self.stop(200, "done")

class Hurried(Base):
    timeout = 0.2

    def filter(self, request, response):
        if "seconds" in request.args:
            time.sleep(float(request.args["seconds"]))

class HurriedAsync(Base):
    timeout = 0.2

    async def filter(self, request, response):
        if "seconds" in request.args:
            await asyncio.sleep(float(request.args["seconds"]))

class Shrugs(HurriedAsync):
    on_error = "continue"

class StuckSetup(Base):
    def setup(self):
        time.sleep(20)

    def filter(self, request, response):
        self.stop(200, "set up")

class SlowSetup(Base):
    def setup(self):
        time.sleep(0.8)

    def filter(self, request, response):
        self.stop(200, "set up")
"""
FLAGS = ["--threads", "32", "--timeout", "1", "--setup-timeout", "0.5"]


def promote(connection: Connection, token: int) -> None:
    """Call a chain until the I/O thread runs it."""
    for _ in range(1000):
        if body_of(connection.call(token)) == "io":
            return
    raise AssertionError("the chain is not promoted to the inline lane")


def at_once(runner: Runner, count: int, converse: Callable[[Connection], bytes]) -> tuple[list[bytes], float]:
    """The answers of as many conversations at the same time, and the seconds that they took together."""
    ready = threading.Barrier(count + 1)

    def one(_: int) -> bytes:
        with runner.connect() as connection:
            ready.wait(SECONDS)
            return converse(connection)

    with ThreadPoolExecutor(count) as pool:
        answers = pool.map(one, range(count))
        ready.wait(SECONDS)
        started = time.monotonic()
        return list(answers), time.monotonic() - started


# Lanes.


def test_a_chain_starts_in_the_pool_and_is_promoted_when_it_is_quick(gateway: Connection) -> None:
    token = gateway.prepare(("quick", "promoted"))
    assert body_of(gateway.call(token)).startswith("call-")
    promote(gateway, token)


def test_a_chain_that_declares_not_to_block_runs_inline_at_once(gateway: Connection) -> None:
    assert body_of(gateway.call(gateway.prepare(("declared", "")))) == "io"


def test_a_chain_that_declares_to_block_never_runs_inline(gateway: Connection) -> None:
    token = gateway.prepare(("blocking", ""))
    assert {body_of(gateway.call(token))[:5] for _ in range(100)} == {"call-"}


def test_one_blocking_plugin_keeps_its_whole_chain_in_the_pool(gateway: Connection) -> None:
    token = gateway.prepare(("hurried", ""), ("blocking", ""))
    assert {body_of(gateway.call(token))[:5] for _ in range(100)} == {"call-"}


def test_a_coroutine_runs_on_the_loop(gateway: Connection) -> None:
    assert body_of(gateway.call(gateway.prepare(("sleeps_async", "")))) == "loop"


def test_a_chain_that_becomes_slow_leaves_the_inline_lane_and_earns_it_back(gateway: Connection) -> None:
    token = gateway.prepare(("sleeps", "leaves"))
    promote(gateway, token)
    for _ in range(3):
        gateway.call(token, args=[("seconds", "0.01")])
    assert body_of(gateway.call(token)).startswith("call-")
    promote(gateway, token)


def test_a_call_that_stalls_inline_does_not_hold_others(runner: Runner, gateway: Connection) -> None:
    for attempt in range(5):  # on a busy machine the gate may have left the inline lane before it is closed
        token = gateway.prepare(("gate", str(attempt)))
        quick = gateway.prepare(("quick", "beside a gate"))
        promote(gateway, token)
        gateway.call(token, args=[("close", "")])
        gateway.start_call(token, args=[("wait", "")])
        with runner.connect() as other:
            for _ in range(50):
                assert body_of(other.call(quick))
            assert gateway.is_silent()
            assert body_of(other.call(token, args=[("open", "")])).startswith("call-"), "it left the inline lane"
        ran_in = body_of(gateway.finish())
        assert body_of(gateway.call(quick)), "its connection goes on"
        if ran_in == "io":
            return
    raise AssertionError("no call stalled in the inline lane")


def test_calls_that_stall_inline_one_after_the_other_hold_nobody(runner: Runner, gateway: Connection) -> None:
    tokens = [gateway.prepare(("sleeps_declared_quick", str(number))) for number in range(8)]
    quick = gateway.prepare(("quick", "beside"))
    with ExitStack() as stack:
        stalled = [stack.enter_context(runner.connect()) for _ in tokens]
        for connection, token in zip(stalled, tokens, strict=True):
            connection.start_call(token, args=[("seconds", "0.5")])
        for _ in range(100):
            assert body_of(gateway.call(quick))
        for connection in stalled:
            assert body_of(connection.receive()) == "io", "each had the lead when it stalled"


def test_sleeping_calls_share_the_time(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("sleeps", "share"))
    answers, seconds = at_once(runner, 32, lambda one: one.call(token, args=[("seconds", "0.05")]))
    assert all(body_of(answer) for answer in answers)
    assert seconds < 32 * 0.05 / 2, "one after the other they would take 1.6 s"


def test_coroutines_share_the_time(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("sleeps_async", "share"))
    with ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(200)]
        started = time.monotonic()
        for connection in connections:
            connection.start_call(token, args=[("seconds", "0.2")])
        for connection in connections:
            assert body_of(connection.receive()) == "loop"
    assert time.monotonic() - started < 200 * 0.2 / 10


def test_more_calls_than_threads_wait_for_their_turn(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("blocking", "turns"), ("sleeps", ""))
    answers, _ = at_once(runner, 100, lambda one: one.call(token, args=[("seconds", "0.01")]))
    assert len([body_of(answer) for answer in answers]) == 100


# Deadlines.


def test_a_stuck_call_is_answered_with_an_error_and_its_stack_logged(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    with runner.connect() as other:
        gateway.start_call(gateway.prepare(("stuck", "")), id=1001)
        other.start_call(other.prepare(("stuck_async", "")), id=1002)
        assert error_of(gateway.receive()) is ErrorCode.SERVICE_UNAVAILABLE
        assert error_of(other.receive()) is ErrorCode.SERVICE_UNAVAILABLE
        assert gateway.gets_closed()
        assert other.gets_closed()
    event = runner.log.event("request 1001", since)
    assert "passed its deadline of 1 s; the call fails; it was at:" in event.splitlines()[0]
    assert "stuck_here(20)" in event
    assert event.splitlines()[1].strip().startswith(f'File "{runner.folder / "plugins.py"}"')
    assert "stuck_here" in runner.log.event("request 1002", since)
    with runner.connect() as other:
        assert passes(other.call(other.prepare(("stuck", "")), args=[("release", "")]))


def test_a_stuck_response_call_shows_the_client_a_failure(runner: Runner, gateway: Connection) -> None:
    key = "route#1#ext-plugin-post-resp#1"
    with runner.connect() as other:
        gateway.start_response_call(gateway.prepare(("stuck_async", ""), key=key))
        other.start_response_call(other.prepare(("stuck_inside", ""), key=None))
        assert failed_closed(other.receive())
        assert failed_closed(gateway.receive())
        assert gateway.gets_closed()


def test_stuck_threads_are_replaced(runner: Runner) -> None:
    """More calls hang than there are threads: some wait for a thread, and all get an answer."""
    with ExitStack() as stack:
        stuck = [stack.enter_context(runner.connect()) for _ in range(40)]
        for connection in stuck:
            connection.start_call(connection.prepare(("stuck_inside", "replaced")))
        for connection in stuck:
            assert error_of(connection.receive()) is ErrorCode.SERVICE_UNAVAILABLE
    with runner.connect() as other:
        assert body_of(other.call(other.prepare(("blocking", "after")))).startswith("call-")


def test_a_stuck_def_plugin_among_coroutines_is_given_up_too(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    token = gateway.prepare(("awaits", ""), ("stuck_inside", "among"))
    gateway.start_call(token, id=1003)
    assert error_of(gateway.receive()) is ErrorCode.SERVICE_UNAVAILABLE
    assert "time.sleep(20)" in runner.log.event("request 1003", since)


@pytest.mark.parametrize("name", ["hurried", "hurried_async"])
def test_a_plugin_that_takes_longer_than_its_own_timeout_fails_the_call(
    runner: Runner, gateway: Connection, name: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((name, ""))
    assert passes(gateway.call(token))
    started = time.monotonic()
    assert error_of(gateway.call(token, id=1004, args=[("seconds", "1")])) is ErrorCode.SERVICE_UNAVAILABLE
    assert time.monotonic() - started < 0.9, "it is not the deadline of the whole call"
    event = runner.log.event("request 1004", since)
    assert f"plugin '{name}'" in event
    assert "timeout of 0.2 s" in event


def test_a_timeout_that_may_be_ignored_lets_the_request_go_on(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    assert passes(gateway.call(gateway.prepare(("shrugs", "")), args=[("seconds", "1")]))
    assert "timeout of 0.2 s" in runner.log.event("the request goes on", since)


@pytest.mark.parametrize("name", ["hurried", "hurried_async"])
def test_a_plugins_timeout_ends_with_the_plugin(gateway: Connection, name: str) -> None:
    token = gateway.prepare((name, ""), ("awaits_long", ""))
    assert body_of(gateway.call(token)) == "done"
    token = gateway.prepare((name, ""), ("sleeps", ""))
    assert body_of(gateway.call(token, args=[("seconds", "0")])).startswith("call-")


# Confs that take long to prepare.


def test_a_setup_that_hangs_is_an_error_and_keeps_no_other_conf_waiting(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    frame = prepare_frame("stuck_setup", "hangs")
    gateway.send(frame)
    assert error_of(gateway.receive()) is ErrorCode.SERVICE_UNAVAILABLE
    event = runner.log.event("setup_timeout", since)
    assert "route#hangs" in event
    assert "time.sleep(20)" in event
    for _ in range(5):
        with runner.connect() as again:
            started = time.monotonic()
            assert error_of(again.exchange(frame)) is ErrorCode.SERVICE_UNAVAILABLE
            assert time.monotonic() - started < 0.5, "it is known to hang, and fails at once"
    with runner.connect() as other:
        assert body_of(other.call(other.prepare(("quick", "meanwhile")))).startswith("call-")


def test_several_setups_that_hang_keep_no_other_conf_waiting(runner: Runner) -> None:
    for number in range(3):
        with runner.connect() as connection:
            answer = connection.exchange(prepare_frame("stuck_setup", f"several{number}"))
            assert error_of(answer) is ErrorCode.SERVICE_UNAVAILABLE
    with runner.connect() as other:
        assert body_of(other.call(other.prepare(("quick", "after")))).startswith("call-")


def test_a_setup_that_ends_late_is_there_for_the_next_try(runner: Runner) -> None:
    since = len(runner.log)
    with runner.connect() as connection:
        assert error_of(connection.exchange(prepare_frame("slow_setup", "late"))) is ErrorCode.SERVICE_UNAVAILABLE
    runner.log.wait_for("route#late: prepared", since)
    with runner.connect() as connection:
        key = "route#late#ext-plugin-pre-req#1"
        assert body_of(connection.call(connection.prepare(("slow_setup", ""), key=key))) == "set up"


def test_in_the_response_phase_a_setup_that_hangs_fails_the_calls(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("stuck_setup", "response"), key="route#1#ext-plugin-post-resp#1")
    with runner.connect() as other:
        assert failed_closed(other.response_call(token))


def prepare_frame(name: str, route: str) -> bytes:
    return encode_prepare_conf_req([(name, "")], f"route#{route}#ext-plugin-pre-req#1")
