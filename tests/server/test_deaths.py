"""Processes that are killed: what is lost, and what goes on."""

import os
import signal

import pytest

from tests.server.connections import Connection, body_of
from tests.server.load import Load
from tests.server.processes import Start, wait_for_death

PLUGINS = """
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


def is_quick(connection: Connection) -> bool:
    return body_of(connection.call(connection.prepare(("quick", "")))) == "quick"


def test_a_killed_worker_is_replaced_its_token_stays_and_the_reason_is_told(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as connection:
        token = connection.prepare(("quick", ""))
        os.kill(runner.worker(1), signal.SIGKILL)
        assert connection.gets_closed()
    assert f"worker {runner.worker(1)} ended (killed by SIGKILL" in runner.log.wait_for("ended (")
    with runner.connect() as connection:
        assert body_of(connection.call(token)) == "quick"
    assert runner.worker(2) != runner.worker(1)


def test_who_connects_while_there_is_no_worker_waits_for_the_next_one(start: Start) -> None:
    runner = start(PLUGINS)
    os.kill(runner.worker(1), signal.SIGKILL)
    runner.log.wait_for("ended (")
    with runner.connect() as connection:
        assert is_quick(connection)


@pytest.mark.parametrize("name", ["sleeps", "sleeps_async"])
def test_when_the_supervisor_is_killed_its_workers_answer_what_is_open_and_go(start: Start, name: str) -> None:
    runner = start(PLUGINS)
    with runner.connect() as connection:
        connection.start_call(connection.prepare((name, "0.5")))
        runner.signal(signal.SIGKILL)
        runner.wait()
        assert body_of(connection.receive()) == "slept"
        assert connection.gets_closed()
    wait_for_death(runner.worker(1))


def test_when_the_supervisor_is_killed_nobody_holds_its_output(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as connection:
        connection.start_call(connection.prepare(("sleeps", "5")))
        runner.signal(signal.SIGKILL)
        runner.log.wait_for_end()
        assert connection.is_silent(), "its call is still open"


def test_when_the_supervisor_was_killed_the_next_runner_can_start_at_once(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as connection:
        connection.start_call(connection.prepare(("sleeps", "1")))
        runner.signal(signal.SIGKILL)
        runner.log.wait_for_end()
        successor = start(PLUGINS, socket_path=runner.path)
        with successor.connect() as other:
            assert is_quick(other)
        assert body_of(connection.receive()) == "slept"


def test_when_a_worker_is_killed_under_load_only_its_open_calls_are_lost(start: Start) -> None:
    runner = start(PLUGINS, "--workers", "2")
    runner.worker(2)
    with Load(runner.path, ("quick", ""), connections=8) as load:
        os.kill(runner.worker(1), signal.SIGKILL)
        runner.worker(3)
    assert len(load.failures) <= 8
    with Load(runner.path, ("quick", ""), connections=8) as load:
        load.wait_for_more(200)
    assert load.failures == []


def test_a_child_of_a_plugin_does_not_keep_connections_open(start: Start) -> None:
    runner = start(
        PLUGINS
        + """
class Spawns(Base):
    def filter(self, request, response):
        import subprocess
        subprocess.Popen(["sleep", "30"], close_fds=False)
        self.stop(200, "spawned")
"""
    )
    with runner.connect() as connection, runner.connect() as other:
        runner.signal(signal.SIGHUP)
        runner.log.wait_for("reloaded: ")
        assert is_quick(other), "this one was handed over"
        assert body_of(connection.call(connection.prepare(("spawns", "")))) == "spawned"
        runner.signal(signal.SIGINT)
        assert connection.gets_closed()
        assert other.gets_closed()
