"""Processes that die or stand still, under load."""

import os
import signal
import time
from pathlib import Path

from apisix.runner.server.control import ask
from tests.chaos.agent import Agent
from tests.chaos.load import PLUGINS, Load
from tests.chaos.processes import children, ready_workers, wait_until
from tests.chaos.table import Table
from tests.server.connections import body_of
from tests.server.processes import Start, wait_for_death

TWO = ("--workers", "2")
SETTLED = 1.0
"""Seconds after a fault from which on everything is as before."""


def test_kill_9_of_a_worker(start: Start, table: Table) -> None:
    runner = start(PLUGINS, *TWO)
    killed: dict[int, tuple[float, float]] = {}
    with Load(runner.path) as load:
        for _ in range(10):
            wait_until(lambda: len(ready_workers(runner.path)) == 2)
            load.run_for(2.6)
            oldest = ready_workers(runner.path)[0].pid
            began = time.monotonic()
            os.kill(oldest, signal.SIGKILL)
            wait_for_death(oldest)
            killed[oldest] = began, time.monotonic()
        load.run_for(2 * SETTLED)
    table.add("kill -9 of a worker", f"one of 2 workers, {len(killed)} times", load)
    assert load.failed == 0, load.failures
    for failure in load.failures:
        deaths = [death for pid, death in killed.items() if failure.worker in (pid, 0)]
        assert any(failure.began <= died and began <= failure.ended for began, died in deaths), (failure, deaths)
    assert load.lost <= len(killed) * load.at_a_time


def test_kill_9_of_the_supervisor_under_apisix(tmp_path: Path, table: Table) -> None:
    """APISIX sees the end of its output, waits three seconds, and starts the next."""
    old: list[int] = []
    noticed: list[float] = []
    with Agent(tmp_path, PLUGINS, APISIX_RUNNER_WORKERS="2") as agent:
        with Load(agent.path) as load:
            for _ in range(5):
                load.run_for(SETTLED)
                old += children(agent.last.process.pid)
                agent.last.process.kill()
                noticed.append(agent.respawn_after_death())
            load.run_for(2 * SETTLED)
        table.add("kill -9 of the supervisor", f"respawned by APISIX after 3 s, {len(noticed)} times", load)
        wait_for_death(*old)
    assert max(noticed) < 0.5, "the output must end with the supervisor"
    assert not load.failures, load.failures


def test_kill_9_of_the_supervisor_elsewhere(start: Start, table: Table) -> None:
    """Nobody starts the next. What is open is answered, and who comes then is refused at once.

    There is nobody to hand connections over to: a call is lost that is sent between an answer and the end of its
    connection, which is a matter of microseconds.
    """
    runner = start(PLUGINS, *TWO)
    with Load(runner.path, prepares=0) as load:
        for _ in range(5):
            load.run_for(SETTLED)
            old = children(runner.pid)
            with runner.connect() as connection:
                connection.start_call(connection.prepare(("long", "")), path="/open")
                os.kill(runner.pid, signal.SIGKILL)
                runner.wait()
                load.run_for(0.1)
                runner = start(runner.folder, *TWO, socket_path=runner.path)
                started = time.monotonic()
                assert body_of(connection.receive()).endswith(" /open")
            load.close_idle()
            wait_for_death(*old)
        load.run_for(SETTLED)
    table.add("kill -9 of the supervisor", "started again by hand, 5 times; till then calls fail", load)
    assert load.lost <= 5, load.lost_ones
    assert not load.since(started), load.failures


def test_the_agent_is_killed(tmp_path: Path, table: Table) -> None:
    """The gateway starts another one at once, which starts another runner on the path. The old one goes by itself."""
    old: list[int] = []
    with Agent(tmp_path, PLUGINS, APISIX_RUNNER_WORKERS="2") as agent:
        with Load(agent.path) as load:
            for _ in range(5):
                load.run_for(SETTLED)
                old += [agent.last.process.pid, *children(agent.last.process.pid)]
                agent.die()
                time.sleep(0.1)
                agent.spawn()
            load.run_for(2 * SETTLED)
        table.add("kill -9 of APISIX's agent", "5 times; the next one spawns another runner", load)
        agent.wait_for_death_of(*old)
    assert not load.failures, load.failures


def test_apisix_is_killed_whole(tmp_path: Path, table: Table) -> None:
    """Nobody comes any more: the runner leaves nothing behind."""
    with Agent(tmp_path, PLUGINS, APISIX_RUNNER_WORKERS="2") as agent:
        with Load(agent.path) as load:
            load.run_for(SETTLED)
        everyone = [agent.last.process.pid, *children(agent.last.process.pid)]
        agent.die()
        agent.wait_for_death_of(*everyone)
    table.add("kill -9 of all of APISIX", "once; every process of the runner ends", load)
    assert not load.failures, load.failures


def test_a_worker_is_stopped_and_goes_on(start: Start, table: Table) -> None:
    runner = start(PLUGINS, *TWO)
    longest = 0.0
    with Load(runner.path) as load:
        for _ in range(5):
            load.run_for(SETTLED)
            worker = ready_workers(runner.path)[0].pid
            stopped = time.monotonic()
            os.kill(worker, signal.SIGSTOP)
            load.run_for(1)
            os.kill(worker, signal.SIGCONT)
            longest = max(longest, time.monotonic() - stopped)
        load.run_for(SETTLED)
    table.add("SIGSTOP of a worker", "SIGCONT after 1 s, 5 times", load)
    assert not load.failures, load.failures
    assert load.worst < longest * 1000 + 500


def test_a_worker_is_stopped_for_good(start: Start, table: Table) -> None:
    runner = start(PLUGINS, *TWO, "--hang-timeout", "2")
    stopped: list[int] = []
    with Load(runner.path) as load:
        for _ in range(3):
            load.run_for(SETTLED)
            stopped.append(ready_workers(runner.path)[0].pid)
            os.kill(stopped[-1], signal.SIGSTOP)
            wait_for_death(stopped[-1])
            died = time.monotonic()
            wait_until(lambda: len(ready_workers(runner.path)) == 2)
        load.run_for(2 * SETTLED)
    table.add("SIGSTOP of a worker", "for good, with hang_timeout 2 s, 3 times", load)
    assert load.failed == 0, load.failures
    assert all(failure.worker in (*stopped, 0) for failure in load.failures), load.failures
    assert not load.since(died + SETTLED), load.failures
    assert load.lost <= len(stopped) * load.at_a_time


def test_a_runner_that_is_asked_while_a_worker_dies_answers(start: Start) -> None:
    """The supervisor's own part: status and reload go on."""
    runner = start(PLUGINS, *TWO)
    for _ in range(10):
        wait_until(lambda: bool(ready_workers(runner.path)))
        os.kill(ready_workers(runner.path)[0].pid, signal.SIGKILL)
        assert ask(runner.path, "status").ok
        assert ask(runner.path, "reload").ok
