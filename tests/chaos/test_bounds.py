"""How long things may take, and how much memory. Where other programs share the machine, the best of three counts."""

import contextlib
import statistics
import threading
import time
from pathlib import Path

import pytest

from apisix.runner.server.control import WorkerStatus
from apisix.runner.server.store import open_store
from tests.chaos.fast_load import FastLoad, build_fast_load
from tests.chaos.load import PLUGINS, Load
from tests.chaos.processes import memory_of, ready_workers, wait_until
from tests.chaos.table import Table
from tests.server.connections import Connection, body_of
from tests.server.processes import Runner, Start

SLEEPERS = """
class Sleeps(Base):
    def filter(self, request, response):
        time.sleep(0.05)
        self.stop(200, f"{os.getpid()} {request.path}")

class SleepsAsync(Base):
    async def filter(self, request, response):
        await asyncio.sleep(1)
        self.stop(200, f"{os.getpid()} {request.path}")
"""
ROUNDS = 3
CONFS = 10_000
SOME_CONFS = 5_000
MILLION = 1_000_000


@pytest.fixture(scope="session")
def fast_load(tmp_path_factory: pytest.TempPathFactory) -> FastLoad:
    return build_fast_load(tmp_path_factory.mktemp("fast"))


def the_worker(runner: Runner) -> WorkerStatus:
    (worker,) = ready_workers(runner.path)
    return worker


def test_fast_calls_beside_sleeping_ones(start: Start, table: Table, fast_load: FastLoad) -> None:
    runner = start(PLUGINS + SLEEPERS)
    with Load(runner.path, ["sleeps"], threads=32, pause=0, prepares=0) as load:
        load.run_for(1)
        seen = [fast_load.run(runner.path, "quick", 3, 4) for _ in range(ROUNDS)]
    best = min(one.p99 for one in seen)
    table.bound(
        "p99 of a fast plugin, while another sleeps 50 ms in 32 calls at a time", "under 10 ms", f"{best:.2f} ms"
    )
    assert not load.failures, load.failures
    assert not any(one.bad for one in seen)
    assert best < 10


def seconds_for(connections: list[Connection], token: int) -> float:
    """How long as many calls take that are made at once."""
    began = time.monotonic()
    for connection in connections:
        connection.start_call(token, path="/x")
    for connection in connections:
        assert body_of(connection.receive()).endswith(" /x")
    return time.monotonic() - began


def test_sleeping_calls_run_at_once(start: Start, table: Table) -> None:
    runner = start(PLUGINS + SLEEPERS, "--threads", "32")
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(32)]
        token = connections[0].prepare(("sleeps", ""))
        one = min(seconds_for(connections[:1], token) for _ in range(ROUNDS))
        all_of_them = min(seconds_for(connections, token) for _ in range(ROUNDS))
    seen = f"{all_of_them / one:.2f} times ({all_of_them * 1000:.0f} ms)"
    table.bound("32 calls at once of a plugin that sleeps 50 ms, threads: 32", "within 4 times one call", seen)
    assert all_of_them < 4 * one


def test_coroutines_run_at_once(start: Start, table: Table) -> None:
    runner = start(PLUGINS + SLEEPERS)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(1000)]
        token = connections[0].prepare(("sleeps_async", ""))
        best = min(seconds_for(connections, token) for _ in range(ROUNDS))
    table.bound("1,000 calls at once that await asyncio.sleep(1)", "within 2 s", f"{best:.2f} s")
    assert best < 2


def prepare_confs(path: Path, count: int, prefix: str) -> list[int]:
    """Prepare as many confs, on four connections. Returns their tokens."""
    tokens: list[int] = []

    def prepare(first: int) -> None:
        with Connection(path) as connection:
            for number in range(first, count, 4):
                key = f"route#{prefix}{number}#ext-plugin-pre-req#1"
                tokens.append(connection.prepare(("quick", f'{{"limit": {number}, "of": "{prefix}"}}'), key=key))

    threads = [threading.Thread(target=prepare, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tokens


def test_memory_over_a_million_requests(start: Start, table: Table, fast_load: FastLoad) -> None:
    """With 10,000 confs, all of them in use, and calls of every other kind besides."""
    runner = start(PLUGINS)
    tokens = prepare_confs(runner.path, CONFS, "a")
    assert len(set(tokens)) == CONFS

    def use(seconds: float) -> int:
        with Load(runner.path, prepares=0) as load:
            load.run_for(1)
            bad = fast_load.run(runner.path, "quick", seconds, 16, tokens).bad
        assert not load.failures, load.failures
        return bad

    bad = use(3)
    before = the_worker(runner)
    memory_before = memory_of(before.pid)
    while the_worker(runner).served < before.served + MILLION:
        bad += use(5)
    after = the_worker(runner)
    memory_after = memory_of(after.pid)
    assert after.pid == before.pid
    assert not bad
    change = (memory_after - memory_before) / memory_before
    requests = after.served - before.served
    table.bound(
        f"memory of a worker over {requests:,} requests to {CONFS:,} confs",
        "within 5 %",
        f"{memory_before / 2**20:.1f} to {memory_after / 2**20:.1f} MiB, {change:+.1%}",
    )
    assert abs(change) < 0.05


def test_memory_over_confs_that_come_and_go(start: Start, table: Table) -> None:
    """Measured while all confs of a round are there: what the allocator keeps of those that went differs a lot."""
    runner = start(PLUGINS, "--conf-expire", "3")
    store = open_store(runner.path)
    assert store is not None
    memory: list[int] = []
    rounds = 0
    while rounds < 12 and len(memory) < 9:
        rounds += 1
        prepare_confs(runner.path, SOME_CONFS, f"round {rounds} ")
        used = memory_of(the_worker(runner).pid)
        if the_worker(runner).confs > 0.99 * SOME_CONFS:  # else they took so long that the first have expired
            memory.append(used)
        wait_until(lambda: the_worker(runner).confs < 100, 30)
    assert len(memory) > 4, memory
    middle = (len(memory) + 1) // 2
    first, last = statistics.median(memory[1:middle]), statistics.median(memory[middle:])
    table.bound(
        f"memory of a worker over {rounds * SOME_CONFS:,} confs that expire, {SOME_CONFS:,} at a time",
        "within 5 %",
        f"{first / 2**20:.1f} to {last / 2**20:.1f} MiB, {(last - first) / first:+.1%}",
    )
    assert last - first < 0.05 * first, memory
    assert len(list(store.folder.iterdir())) < 100, "they have left the disk too"
