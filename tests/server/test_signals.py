"""The end of a runner: quickly on INT, on TERM after all is answered."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from apisix.runner.wire.messages import encode_http_req_call_req
from tests.server.connections import Connection, body_of
from tests.server.processes import Runner, Start, wait_for_death

PLUGINS = """
class Quick(Base):
    def filter(self, request, response):
        self.stop(200, "quick")

class Sleeps(Base):
    def filter(self, request, response):
        print("it sleeps now", flush=True)
        time.sleep(self.config)
        self.stop(200, "slept")

class SleepsAsync(Base):
    async def filter(self, request, response):
        print("it sleeps now", flush=True)
        await asyncio.sleep(self.config)
        self.stop(200, "slept")

class Hangs(Base):
    def filter(self, request, response):
        print("it hangs now", flush=True)
        re.match(r"(a+)+$", "a" * 64 + "b")  # one call into C that keeps the interpreter

class Asks(Base):
    def filter(self, request, response):
        self.stop(200, request.var("uri"))

class After(Base):
    def filter(self, request, response):
        self.after(self.write, self.config)
        self.stop(200, "answered")

    def write(self, path):
        time.sleep(0.3)
        with open(path, "w") as file:
            file.write("written")
"""


Ending = dict[str, tuple[Runner, Connection]]
"""Runners by the plugin that keeps them, each with the connection of its call."""


@pytest.fixture(scope="module", autouse=True)
def ending() -> Iterator[Ending]:
    """Runners that were told to end quickly before the first test, with a call that does not."""
    with ExitStack() as stack:
        found: Ending = {}
        for name in ("sleeps", "hangs"):
            runner = stack.enter_context(Runner(PLUGINS)).wait_until_ready()
            connection = stack.enter_context(runner.connect())
            connection.start_call(connection.prepare((name, "60")))
            found[name] = runner, connection
        found["hangs"][0].log.wait_for("it hangs now")
        for runner, _ in found.values():
            runner.signal(signal.SIGINT)
        yield found


def is_gone(runner: Runner) -> bool:
    """Whether nobody can connect any more, and nothing is left to connect to."""
    return not runner.path.exists()


def sleeping(runner: Runner, name: str, seconds: float) -> Connection:
    """A connection with a call open on it, which has begun."""
    since = len(runner.log)
    connection = runner.connect()
    connection.start_call(connection.prepare((name, str(seconds))))
    runner.log.wait_for("it sleeps now", since)
    return connection


# Quickly.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_an_idle_runner_ends_at_once(start: Start, number: signal.Signals) -> None:
    runner = start(PLUGINS)
    with runner.connect() as idle:
        idle.prepare(("quick", ""))
        runner.signal(number)
        assert runner.wait() == 0
        assert idle.gets_closed()
    assert is_gone(runner)
    wait_for_death(runner.worker())


def test_on_int_open_calls_are_answered_and_idle_connections_closed(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as idle:
        idle.prepare(("quick", ""))
        with sleeping(runner, "sleeps", 0.5) as one, sleeping(runner, "sleeps_async", 0.5) as two:
            runner.signal(signal.SIGINT)
            assert idle.gets_closed()
            for connection in (one, two):
                assert body_of(connection.receive()) == "slept"
                assert connection.gets_closed()
        assert runner.wait() == 0


def test_int_to_the_whole_process_group_ends_it_as_ctrl_c_does(start: Start) -> None:
    runner = start(PLUGINS)
    with sleeping(runner, "sleeps", 0.3) as connection:
        runner.signal_group(signal.SIGINT)
        assert body_of(connection.receive()) == "slept"
        assert runner.wait() == 0


# After all is answered.


def test_on_term_each_connection_is_closed_after_its_next_answer_and_not_before(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as idle:
        token = idle.prepare(("quick", ""))
        with sleeping(runner, "sleeps", 0.5) as one, sleeping(runner, "sleeps_async", 0.5) as two:
            runner.signal(signal.SIGTERM)
            for connection in (one, two):
                assert body_of(connection.receive()) == "slept"
                assert connection.gets_closed()
        assert is_gone(runner)
        assert idle.is_silent(), "the gateway may be sending on it at this moment"
        assert body_of(idle.call(token)) == "quick"
        assert idle.gets_closed()
        assert runner.wait() == 0


def test_on_term_a_call_may_still_ask_the_gateway(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as connection:
        connection.start_call(connection.prepare(("asks", "")))
        runner.signal(signal.SIGTERM)
        runner.log.wait_for("draining: ")
        assert body_of(connection.finish({"uri": b"/late"})) == "/late"
        assert connection.gets_closed()
    assert runner.wait() == 0


def test_on_term_a_frame_that_is_on_its_way_is_answered(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as connection, runner.connect() as other:
        token = connection.prepare(("quick", ""))
        frame = encode_http_req_call_req(7, b"\x7f\x00\x00\x01", 0, "/", [], [], token)
        connection.send(frame[:20])
        runner.signal(signal.SIGTERM)
        runner.log.wait_for("draining: ")
        assert body_of(other.call(token)) == "quick"
        connection.send(frame[20:])
        assert body_of(connection.receive()) == "quick"
        assert connection.gets_closed()
    assert runner.wait() == 0


def test_on_term_connections_that_were_made_just_before_are_served(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as first:
        token = first.prepare(("quick", ""))
    with ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(20)]
        runner.signal(signal.SIGTERM)
        runner.log.wait_for("draining: ")
        for connection in connections:
            assert body_of(connection.call(token)) == "quick"
            assert connection.gets_closed()
    assert runner.wait() == 0


def test_on_term_what_runs_after_answers_is_waited_for(start: Start) -> None:
    runner = start(PLUGINS)
    file = runner.home / "after"
    with runner.connect() as connection:
        assert body_of(connection.call(connection.prepare(("after", f'"{file}"')))) == "answered"
        runner.signal(signal.SIGTERM)
        runner.log.wait_for("draining: ")
    assert runner.wait() == 0
    assert file.read_text() == "written"


def test_on_term_a_worker_that_is_starting_ends_too(start: Start) -> None:
    with Runner(PLUGINS) as runner:
        runner.log.wait_for("listening on")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
        assert is_gone(runner)


def test_a_second_term_ends_quickly(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as idle:
        idle.prepare(("quick", ""))
        with sleeping(runner, "sleeps", 0.8) as connection:
            runner.signal(signal.SIGTERM)
            runner.log.wait_for("draining: ")
            assert idle.is_silent()
            runner.signal(signal.SIGTERM)
            assert idle.gets_closed()
            assert body_of(connection.receive()) == "slept"
        assert runner.wait() == 0


def test_the_drain_ends_when_its_time_is_over(start: Start) -> None:
    runner = start(PLUGINS, "--drain-timeout", "0.3")
    with runner.connect() as idle:
        idle.prepare(("quick", ""))
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
        assert idle.gets_closed()


def test_a_call_that_was_given_up_does_not_keep_the_drain(start: Start) -> None:
    runner = start(PLUGINS, "--timeout", "0.3")
    with sleeping(runner, "sleeps", 60) as connection:
        connection.receive()
        assert connection.gets_closed()
    started = time.monotonic()
    runner.signal(signal.SIGTERM)
    assert runner.wait() == 0
    assert time.monotonic() - started < 10


# What does not end by itself. These are the last tests, for they wait longest.


def test_on_int_a_call_that_takes_long_does_not_keep_the_runner(ending: Ending) -> None:
    runner, connection = ending["sleeps"]
    assert runner.wait() == 0
    assert connection.gets_closed()
    assert "ending with 1 calls open" in runner.log.text()


def test_on_int_a_call_that_keeps_the_interpreter_does_not_keep_the_runner(ending: Ending) -> None:
    runner, connection = ending["hangs"]
    assert runner.wait() == 0
    assert connection.gets_closed()
    assert "does not end; it is killed" in runner.log.text()
