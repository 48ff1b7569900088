"""What a runner needs and does not get: file descriptors, space, its store, a clock that goes forward."""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from apisix.runner.server.control import ask
from apisix.runner.server.store import Store, open_store
from tests.chaos.fast_load import compile_c
from tests.chaos.load import PLUGINS, Load, hold_idle, still_open
from tests.chaos.processes import children, open_files_of, ready_workers, wait_until
from tests.chaos.table import Table
from tests.server.connections import Answers, body_of
from tests.server.processes import Start

DAY = 86400
KEEPS = """
class Keeps(Base):
    def filter(self, request, response):
        request.context["path"] = request.path

class Finds(Base):
    def filter_response(self, request, response):
        response.headers["X-Kept"] = request.context["path"]
"""


def test_file_descriptors_are_used_up(start: Start, table: Table) -> None:
    runner = start(PLUGINS)
    (worker,) = children(runner.pid)
    with Load(runner.path) as load:
        for _ in range(3):
            load.run_for(0.5)
            limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (open_files_of(worker) + 10, limits[1]))
            held = hold_idle(runner.path, 100)
            load.run_for(1.5)
            assert open_files_of(worker) >= resource.prlimit(worker, resource.RLIMIT_NOFILE)[0]
            assert still_open(held) == len(held), "they wait, they are not turned away"
            for sock in held:
                sock.close()
            load.run_for(0.5)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        load.run_for(1)
    table.add("file descriptors used up", "100 connections where 10 have room, for 1.5 s, 3 times", load)
    assert not load.failures, load.failures
    told = runner.log.events("raise the limit of open files")
    assert 0 < len(told) < 10, f"told {len(told)} times"
    assert children(runner.pid) == [worker]


def small_store() -> tuple[str, Sequence[str]]:
    """A way to start a runner whose store has little room: what it is, and what to put before the command line."""
    tiny = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--user", "--map-root-user"]):
        prefix = [*unshare, "sh", "-c", tiny, "sh"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return "a store on a tmpfs of 64 KiB", prefix
    return "no file of over 1 KiB (no right to mount)", ["sh", "-c", 'ulimit -f 1 && exec "$@"', "sh"]


def test_the_disk_is_full(start: Start, table: Table) -> None:
    """A worker goes on from memory. What only another one has prepared APISIX prepares again, as the load does here."""
    what, prefix = small_store()
    runner = start(PLUGINS, "--workers", "2", prefix=prefix)
    with Load(runner.path, prepares=8, tries=3) as load, runner.connect() as connection:
        for number in range(200):
            token = connection.prepare(("quick", "x" * 2000), key=f"route#{number}#ext-plugin-pre-req#1")
            assert body_of(connection.call(token, path="/full")).endswith(" /full")
        load.run_for(5)
    table.add("disk full", f"{what}, 200 confs of 2 KB; 2 workers", load)
    # Where all three tries prepare it at one worker and call the other, APISIX gives up too.
    assert all("CONF_TOKEN_NOT_FOUND" in failure.text for failure in load.failures), load.failures
    assert load.failed < 0.01 * load.sent, load.failures
    assert 1 <= len(runner.log.events("confs cannot be stored")) <= 2


def all_stored(store: Store, *tokens: int) -> bool:
    return all(store.has(token) for token in tokens)


def test_the_store_is_deleted(start: Start, table: Table) -> None:
    """It is there again within a second, with all confs. A reload in that second makes APISIX prepare some again."""
    runner = start(PLUGINS + KEEPS, "--workers", "2")
    store = open_store(runner.path)
    assert store is not None
    with Load(runner.path, tries=3) as load:
        for number in range(6):
            load.run_for(1.5)
            with runner.connect() as connection:
                kept = connection.prepare(("keeps", ""))
                found = connection.prepare(("finds", ""), key="route#1#ext-plugin-post-resp#1")
                deleted = store.folder.rename(
                    store.folder.with_name(f"deleted-{os.getpid()}")
                )  # the runner goes on writing there
                shutil.rmtree(deleted)
                answers: Answers = {"request_id": os.urandom(16).hex().encode()}
                connection.call(kept, answers, path="/kept")
                assert b"/kept" in connection.response_call(found, answers), "what plugins keep is kept"
            if number % 2:
                wait_until(partial(all_stored, store, kept, found))
            wait_until(lambda: len(ready_workers(runner.path)) == 2)
            assert ask(runner.path, "reload").ok
            if number % 2:
                with runner.connect() as connection:
                    connection.call(kept, answers, path="/kept")
                    assert b"/kept" in connection.response_call(found, answers), "the tokens are known"
        load.run_for(1)
        assert store.folder.stat().st_mode & 0o777 == 0o700
    table.add("store deleted", "the whole folder, and then a reload, 6 times, 2 workers", load)
    assert not load.failures, load.failures


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that moves a process's wall clock."""
    source = Path(__file__).parent / "clock.c"
    return compile_c(source, tmp_path_factory.mktemp("clock") / "clock.so", "-shared", "-fPIC")


def test_the_clock_is_set(start: Start, table: Table, clock: Path, tmp_path: Path) -> None:
    """Two days back, then two days ahead, and back to normal; sleeping calls are open meanwhile."""
    ahead = tmp_path / "ahead"
    environ = {"LD_PRELOAD": str(clock), "CLOCK_FILE": str(ahead)}
    ahead.write_text("0")
    runner = start(PLUGINS, "--workers", "2", "--conf-expire", "10", environ=environ)
    with Load(runner.path) as load:
        for days in (-2, 2, -2, 0):
            load.run_for(1)
            with runner.connect() as connection:
                connection.start_call(connection.prepare(("long", "")), path="/open")
                ahead.write_text(str(days * DAY))
                since = len(runner.log)
                started = time.monotonic()
                assert body_of(connection.receive()).endswith(" /open")
                assert 1.0 < time.monotonic() - started < 3.0
            assert ask(runner.path, "reload").ok
            assert f"{time.strftime('%Y-%m-%d', time.gmtime(time.time() + days * DAY))}T" in runner.log.text(since)
        load.run_for(1)
    table.add("wall clock set", "2 days back, 4 ahead, 4 back, 2 ahead, each with a reload; 2 workers", load)
    assert not load.failures, load.failures
    assert not runner.log.events("gives no sign of life")
