"""What a worker's memory is for: `python -m benchmarks.memory` prints a table, docs/sizing.md shows one.

Rules that live here: memory is what the worker has for itself, Private_Clean and Private_Dirty of
/proc/PID/smaps_rollup; it is read half a second after the last change; a number by piece is the growth over the pieces.
"""

import os
import re
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from apisix.runner.server.store import open_store
from apisix.runner.wire.messages import InfoKind, encode_prepare_conf_req
from tests.server.connections import Answers, Connection
from tests.server.processes import Runner

PACKAGED = Path(__file__).parent.parent / "apisix" / "plugins"
CONNECTIONS, CONFS, THREADS = 3000, 10_000, 200
BODY = 15 << 20
READS = """
class Reads(Base):
    def filter(self, request, response):
        request.body

    def filter_response(self, request, response):
        response.body = response.body + b"."
"""
SLEEPS = """
class Sleeps(Base):
    blocking = True

    def filter(self, request, response):
        time.sleep(3)
"""


def private(pid: int) -> float:
    """KiB that a process has for itself."""
    time.sleep(0.5)
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return float(sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", text, re.MULTILINE))))


def growth(what: str, pieces: int, runner: Runner, add: Callable[[], None]) -> None:
    """Print what some pieces cost."""
    worker = runner.worker()
    before = private(worker)
    add()
    after = private(worker)
    each = (after - before) / pieces
    print(f"{what}: {before / 1024:.1f} to {after / 1024:.1f} MiB over {pieces}, {each:.1f} KiB each")


def idle() -> None:
    """Nothing but the packaged plugins."""
    with Runner(PACKAGED) as runner:
        worker = runner.worker()
        print(f"supervisor: {private(runner.pid) / 1024:.1f} MiB, worker: {private(worker) / 1024:.1f} MiB")
        for name, pid in (("supervisor", runner.pid), ("worker", worker)):
            print(f"open files of the {name}: {len(os.listdir(f'/proc/{pid}/fd'))}")


def connections() -> None:
    """Idle connections."""
    with Runner(PACKAGED) as runner, ExitStack() as held:

        def add() -> None:
            for _ in range(CONNECTIONS):
                connection = held.enter_context(Connection(runner.path))
                connection.exchange(encode_prepare_conf_req([], None))

        growth("idle connections", CONNECTIONS, runner, add)


def confs() -> None:
    """Prepared confs of 20 bytes, one plugin each, each of another route."""
    with Runner(PACKAGED).wait_until_ready() as runner, Connection(runner.path) as connection:

        def add() -> None:
            for number in range(CONFS):
                conf = [("stop", f'{{"body":"hello {number}"}}')]
                connection.exchange(encode_prepare_conf_req(conf, f"route#{number}#ext-plugin-pre-req#1"))

        growth("confs", CONFS, runner, add)
        store = open_store(runner.path)
        assert store is not None
        blocks = sum(file.stat().st_blocks for file in Path(store.folder).iterdir() if file.is_file()) * 512
        print(f"the store: {blocks / CONFS / 1024:.1f} KiB a conf")


def threads() -> None:
    """Calls that wait, each in a thread."""
    with Runner(SLEEPS, "--threads", str(THREADS)) as runner, ExitStack() as held:

        def add() -> None:
            for _ in range(THREADS):
                connection = held.enter_context(Connection(runner.path))
                connection.start_call(connection.prepare(("sleeps", "")))

        growth("waiting calls", THREADS, runner, add)


def bodies() -> None:
    """One large body: what the worker had at most, by the kernel's high-water mark."""
    body = b"x" * BODY
    answers: Answers = {InfoKind.REQ_BODY: body, InfoKind.RESP_BODY: body, "request_method": b"GET"}
    for what, phase in (("reads a request's", "ext-plugin-pre-req"), ("replaces a response's", "ext-plugin-post-resp")):
        with Runner(READS) as runner:
            worker = runner.worker()
            with runner.connect() as connection:
                token = connection.prepare(("reads", ""), key=f"route#1#{phase}#1")
                before = most(worker)
                call = connection.call if phase.endswith("req") else connection.response_call
                call(token, answers)
                print(f"a call that {what} body: {(most(worker) - before) * 1024 / BODY:.1f} times the body")


def most(pid: int) -> int:
    """KiB that a process has had in memory at most."""
    match = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


if __name__ == "__main__":
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    for measure in (idle, connections, confs, threads, bodies):
        measure()
