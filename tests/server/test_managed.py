"""Under APISIX's management: how its privileged agent starts and ends runners, and nothing is lost between two of them.

The agent sets the address and the expiry in the environment, passes a pipe as stdin, reads stdout and stderr from one
pipe, ends a runner with SIGTERM and a second later with SIGKILL, to its process only, and starts the next one on the
same path shortly before or after the SIGTERM.
"""

import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.server.connections import SECONDS, Closed, Connection, body_of
from tests.server.load import Load
from tests.server.processes import Runner, Start, wait_for_death

PLUGINS = """
class Who(Base):
    def filter(self, request, response):
        self.stop(200, str(os.getppid() if os.getppid() != 1 else "orphan"))

class Quick(Base):
    def filter(self, request, response):
        self.stop(200, "quick")

class Sleeps(Base):
    def filter(self, request, response):
        time.sleep(self.config)
        self.stop(200, "slept")

class SleepsAsync(Base):
    async def filter(self, request, response):
        await asyncio.sleep(self.config)
        self.stop(200, "slept")
"""


@pytest.fixture(scope="module", autouse=True)
def left_alone() -> Iterator[tuple[Runner, int]]:
    """A runner that is ended before the first test and gets no successor, and the inode of its path."""
    with Runner(PLUGINS, managed=True) as runner:
        before = inode(runner.wait_until_ready())
        end(runner)
        yield runner, before


def start_next(start: Start, runner: Runner, plugins: str = PLUGINS) -> Runner:
    """The runner that the agent starts on the path of another one."""
    successor = start(plugins, socket_path=runner.path, managed=True)
    successor.log.wait_for("took over")
    return successor


def end(runner: Runner) -> None:
    """End a runner as the agent does. It goes by itself within the second."""
    runner.signal(signal.SIGTERM)
    try:
        assert runner.process.wait(SECONDS) == 0
    except subprocess.TimeoutExpired:
        runner.signal(signal.SIGKILL)
        raise


def is_quick(connection: Connection) -> bool:
    return body_of(connection.call(connection.prepare(("quick", "")))) == "quick"


def inode(runner: Runner) -> int:
    return runner.path.stat().st_ino


# Taking over.


@pytest.mark.parametrize("told_first", [False, True], ids=["started before the SIGTERM", "started after it"])
def test_under_load_the_next_runner_takes_over_and_nothing_is_lost(start: Start, told_first: bool) -> None:
    old = start(PLUGINS, managed=True)
    with Load(old.path, ("quick", ""), connections=8) as load:
        if told_first:
            end(old)
            new = start_next(start, old)
        else:
            new = start_next(start, old)
            end(old)
        load.wait_for_more(200)
        wait_for_death(old.worker())
        load.wait_for_more(200)
    assert load.failures == []
    assert new.process.poll() is None


@pytest.mark.parametrize("told_first", [False, True], ids=["started before the SIGTERM", "started after it"])
def test_calls_that_are_open_end_where_they_began(start: Start, told_first: bool) -> None:
    old = start(PLUGINS, managed=True)
    with ExitStack() as stack:
        calls = [stack.enter_context(old.connect()) for _ in range(2)]
        for call, name in zip(calls, ("sleeps", "sleeps_async"), strict=True):
            call.start_call(call.prepare((name, "1.5")))
        if told_first:
            end(old)
        start_next(start, old)
        if not told_first:
            end(old)
        for call in calls:
            assert body_of(call.receive()) == "slept"
    wait_for_death(old.worker())


def test_an_idle_connection_goes_on_with_the_next_runner(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    with old.connect() as connection:
        token = connection.prepare(("who", ""))
        assert body_of(connection.call(token)) == str(old.pid)
        end(old)
        new = start_next(start, old)
        wait_for_death(old.worker())
        assert body_of(connection.call(token)) == str(new.pid), "and its token is known there"


def test_the_path_is_never_absent(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    path = old.path
    stop = threading.Event()
    absent: list[BaseException] = []

    def connect() -> None:
        while not stop.is_set():
            try:
                with Connection(path) as connection:
                    assert is_quick(connection)
            except (OSError, Closed, AssertionError) as error:
                absent.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        for _ in range(2):
            before = old
            old = start_next(start, before)
            end(before)
            wait_for_death(before.worker())
    finally:
        stop.set()
        thread.join(SECONDS)
    assert absent == []


def test_a_successor_that_takes_its_time_is_waited_for(start: Start) -> None:
    """The agent's second is long over, and whoever connects is still served."""
    old = start(PLUGINS, managed=True)
    end(old)
    for _ in range(10):
        with old.connect() as connection:
            assert is_quick(connection)
    new = start_next(start, old, "time.sleep(1.5)\n" + PLUGINS)
    with new.connect() as connection:
        assert is_quick(connection)
    wait_for_death(old.worker())


def test_the_next_runner_knows_the_tokens(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    with old.connect() as connection:
        token = connection.prepare(("quick", ""))
    new = start_next(start, old)
    end(old)
    with new.connect() as connection:
        assert body_of(connection.call(token)) == "quick"


# The path.


def test_a_predecessor_leaves_its_successors_socket_alone(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    new = start_next(start, old)
    before = inode(new)
    end(old)
    wait_for_death(old.worker())
    assert inode(new) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_nor_does_one_that_ends_quickly(start: Start, number: signal.Signals) -> None:
    old = start(PLUGINS, managed=True)
    old.signal(number)
    assert old.wait() == 0
    assert stat.S_ISSOCK(old.path.stat().st_mode)


def test_a_socket_that_an_earlier_run_left_is_taken(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    old.signal_group(signal.SIGKILL)
    old.wait()
    with start(PLUGINS, socket_path=old.path, managed=True).connect() as connection:
        assert is_quick(connection)


def test_the_gateways_workers_may_connect_whatever_the_umask(start: Start) -> None:
    assert stat.S_IMODE(start(PLUGINS, managed=True).path.stat().st_mode) == 0o666


# The agent.


def test_the_output_ends_when_the_runner_leaves_although_calls_are_open(start: Start) -> None:
    """Only then the agent starts the next one."""
    old = start(PLUGINS, managed=True)
    with old.connect() as connection:
        connection.start_call(connection.prepare(("sleeps", "2")))
        end(old)
        old.log.wait_for_end()
        assert connection.is_silent()


def test_a_runner_that_is_killed_leaves_workers_that_serve_until_the_next_one(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    with old.connect() as call, old.connect() as idle:
        call.start_call(call.prepare(("sleeps", "1")))
        old.signal(signal.SIGKILL)
        old.wait()
        old.log.wait_for_end()
        with old.connect() as connection:
            assert is_quick(connection)
        start_next(start, old)
        assert body_of(call.receive()) == "slept"
        assert is_quick(idle)
    wait_for_death(old.worker())


def test_when_the_agent_is_gone_the_runner_goes(start: Start) -> None:
    old = start(PLUGINS, managed=True)
    with old.connect() as connection:
        connection.start_call(connection.prepare(("sleeps", "0.5")))
        assert old.process.stdin is not None
        old.process.stdin.close()
        assert old.wait() == 0
        assert body_of(connection.receive()) == "slept"
    assert "end of stdin" in old.log.text()
    os.kill(old.worker(), signal.SIGTERM)
    wait_for_death(old.worker())


def test_without_a_home_or_a_locale_all_is_the_same(start: Start) -> None:
    old = start("NAME = 'Ünï'\n" + PLUGINS, managed=True, environ={"PATH": ""})
    with old.connect() as connection:
        assert is_quick(connection)


def test_workers_that_nobody_uses_and_nobody_succeeds_go_and_leave_the_path(left_alone: tuple[Runner, int]) -> None:
    """It is the last test, for it waits longest."""
    runner, before = left_alone
    wait_for_death(runner.worker())
    assert inode(runner) == before
