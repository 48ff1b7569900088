"""Plugins that do what no plugin should, beside calls that have nothing to do with them."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from apisix.runner.server.control import ask
from apisix.runner.wire.messages import ErrorCode, encode_prepare_conf_req
from tests.chaos.agent import Agent
from tests.chaos.load import PLUGINS, USUAL, Load
from tests.chaos.processes import children, memory_of, ready_workers, wait_until
from tests.chaos.table import Table
from tests.server.connections import Closed, Connection, body_of, error_of, passes
from tests.server.processes import Start, wait_for_death

TWO = ("--workers", "2")

LEAKS = """
class Leaks(Base):
    kept = []
    def filter(self, request, response):
        self.kept.append(b"x" * 1_000_000)
        self.stop(200, f"{os.getpid()} {request.path}")
"""
FORKS = """
import multiprocessing, subprocess

class Forks(Base):
    def filter(self, request, response):
        if os.fork() == 0:
            return
        self.stop(200, "parent")

class Lives(Base):
    \"""A process that lives on.\"""
    def filter(self, request, response):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        self.stop(200, str(child))

class Spawns(Base):
    \"""A program that lives on.\"""
    def filter(self, request, response):
        self.stop(200, str(subprocess.Popen(["sleep", "600"]).pid))

class Worker(Base):
    def filter(self, request, response):
        child = multiprocessing.Process(target=time.sleep, args=(600,))
        child.start()
        self.stop(200, str(child.pid))
"""
LEAVES = """
class Leaves(Base):
    def filter(self, request, response):
        os._exit(3)
"""
BLOCKS = """
EVERY = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
signal.set_wakeup_fd(-1)
signal.pthread_sigmask(signal.SIG_BLOCK, EVERY)

class Blocks(Base):
    def filter(self, request, response):
        signal.pthread_sigmask(signal.SIG_BLOCK, EVERY)
        self.stop(200, "blocked")
"""
PRINTS = """
class Prints(Base):
    def filter(self, request, response):
        print("x" * 1_000_000)
        print(*["a line"] * 1000, sep="\\n", file=sys.stderr)
        self.stop(200, "printed")
"""
EXITS = """
class Exits(Base):
    def setup(self):
        if self.config == "setup":
            raise SystemExit(1)

    def filter(self, request, response):
        if self.config == "filter":
            sys.exit(1)
        if self.config == "after":
            self.after(sys.exit, 1)
        if self.config == "thread":
            thread = threading.Thread(target=sys.exit, args=(1,))
            thread.start()
            thread.join()

    def teardown(self):
        sys.exit(1)

class ExitsAsync(Base):
    async def filter(self, request, response):
        if self.config == "task":
            await asyncio.gather(self.leave())
        sys.exit(1)

    async def leave(self):
        raise SystemExit(1)
"""


def call(path: Path, plugin: str, config: str = "") -> bytes:
    """One call on a connection of its own."""
    with Connection(path) as connection:
        return connection.call(connection.prepare((plugin, config)))


def test_a_plugin_leaks(start: Start, table: Table) -> None:
    runner = start(PLUGINS + LEAKS, *TWO, "--max-memory", "100MiB")
    most = 0
    with Load(runner.path, (*USUAL * 4, "leaks")) as load:
        for _ in range(40):
            load.run_for(0.25)
            most = max([most, *(memory_of(pid) for pid in children(runner.pid))])
    replaced = len(runner.log.events("MiB of memory"))
    table.add("a plugin leaks", f"1 MB in 1 of 41 calls; max_memory 100 MiB, {replaced} workers were replaced", load)
    assert not load.failures, load.failures
    assert replaced >= 2
    assert most < 300 * 2**20


def test_a_plugin_forks(start: Start, table: Table) -> None:
    runner = start(PLUGINS + FORKS, *TWO)
    left: list[int] = []
    try:
        with Load(runner.path) as load:
            for _ in range(10):
                load.run_for(0.3)
                assert body_of(call(runner.path, "forks")) == "parent"
                left += [int(body_of(call(runner.path, plugin))) for plugin in ("lives", "spawns", "worker")]
            # A process that lives on holds no connection open: the death of its worker is seen at once.
            worker = ready_workers(runner.path)[0].pid
            os.kill(worker, signal.SIGKILL)
            load.run_for(1)
            assert ask(runner.path, "reload").ok
            load.run_for(1)
        table.add("a plugin forks", "40 processes, 30 of them live on; then kill -9 of a worker, and a reload", load)
        assert load.failed == 0, load.failures
        assert load.lost <= load.at_a_time, load.failures
        assert all(failure.ended - failure.began < 1 for failure in load.failures), load.failures
        assert all(os.path.exists(f"/proc/{pid}") for pid in left), "they live on"
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_what_a_plugin_started_does_not_keep_apisix_waiting(tmp_path: Path, table: Table) -> None:
    """As long as somebody holds its output open, APISIX does not notice that the runner has died."""
    left: list[int] = []
    try:
        with Agent(tmp_path, PLUGINS + FORKS) as agent, Load(agent.path) as load:
            for _ in range(3):
                load.run_for(1)
                left += [int(body_of(call(agent.path, plugin))) for plugin in ("lives", "spawns", "worker")]
                agent.last.process.kill()
                assert agent.respawn_after_death() < 0.5
            load.run_for(1)
        table.add(
            "a plugin forks", "9 processes live on; kill -9 of the supervisor, respawned by APISIX, 3 times", load
        )
        assert not load.failures, load.failures
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("workers", "longest"), [(2, 1500), (1, 5000)])
def test_a_plugin_calls_os_exit(start: Start, table: Table, workers: int, longest: float) -> None:
    runner = start(PLUGINS + LEAVES, "--workers", str(workers))
    with Load(runner.path) as load:
        for _ in range(8):
            load.run_for(1.5)
            with pytest.raises(Closed):
                call(runner.path, "leaves")
        load.run_for(4)
    table.add("a plugin calls os._exit", f"8 times, one of {workers} workers each", load)
    assert load.failed == 0, load.failures
    assert load.lost <= 8 * load.at_a_time
    assert load.worst < longest
    assert len(runner.log.events("exit code 3")) == 8


def test_a_plugin_blocks_signals(start: Start, table: Table) -> None:
    runner = start(PLUGINS + BLOCKS, *TWO)
    with Load(runner.path) as load:
        for _ in range(5):
            load.run_for(0.5)
            old = children(runner.pid)
            assert body_of(call(runner.path, "blocks")) == "blocked"
            assert ask(runner.path, "reload").ok
            wait_for_death(*old)
        load.run_for(0.5)
    table.add("a plugin blocks signals", "all of them, in its file and in calls, then a reload, 5 times", load)
    assert not load.failures, load.failures
    old = children(runner.pid)
    runner.signal(signal.SIGTERM)
    assert runner.wait() == 0
    wait_for_death(*old)


def test_a_plugin_prints_a_megabyte(tmp_path: Path, table: Table) -> None:
    with Agent(tmp_path, PLUGINS + PRINTS, APISIX_RUNNER_WORKERS="2") as agent:
        with Load(agent.path) as load:
            load.run_for(1)
            for number in range(30):
                with Connection(agent.path) as connection:
                    connection.start_call(connection.prepare(("prints", "")))
                    if number % 10 == 9:
                        agent.restart(0.1)
                    assert body_of(connection.receive()) == "printed"
            load.run_for(2)
        table.add("a plugin prints a megabyte", "30 times, 3 of them while APISIX restarts the runner", load)
        assert not load.failures, load.failures


def test_a_plugin_raises_system_exit(start: Start, table: Table) -> None:
    runner = start(PLUGINS + EXITS, *TWO)
    runner.write("import sys\nsys.exit(1)\n", "leaves.py")
    workers = children(runner.pid)
    with Load(runner.path) as load:
        for _ in range(20):
            load.run_for(0.2)
            assert error_of(call(runner.path, "exits", '"filter"')) is ErrorCode.SERVICE_UNAVAILABLE
            assert error_of(call(runner.path, "exits_async")) is ErrorCode.SERVICE_UNAVAILABLE
            assert error_of(call(runner.path, "exits_async", '"task"')) is ErrorCode.SERVICE_UNAVAILABLE
            assert passes(call(runner.path, "exits", '"after"'))
            assert passes(call(runner.path, "exits", '"thread"'))
            with Connection(runner.path) as connection:
                answer = connection.exchange(encode_prepare_conf_req([("exits", '"setup"')], "route#1#p#1"))
                assert error_of(answer) is ErrorCode.SERVICE_UNAVAILABLE
        assert children(runner.pid) == workers
        assert not ask(runner.path, "reload").ok, "a file that leaves is a problem that was not there before"
        time.sleep(0.5)
    table.add(
        "a plugin raises SystemExit", "in filter, async filter, setup, after, a thread and a file; 20 times", load
    )
    assert not load.failures, load.failures
    wait_until(lambda: sorted(children(runner.pid)) == sorted(workers))
