"""What the faults need to find out about a runner's processes."""

import time
from collections.abc import Callable
from pathlib import Path

from apisix.runner.errors import StartError
from apisix.runner.server.control import WorkerStatus, ask
from tests.server.connections import SECONDS


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Look again until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to be so"
        time.sleep(0.01)


def ready_workers(path: Path) -> list[WorkerStatus]:
    """The workers that accept, the oldest first, as `apisix-runner status` knows them."""
    try:
        status = ask(path, "status").status
    except StartError:
        return []
    assert status is not None
    return sorted((one for one in status.workers if one.state == "ready"), key=lambda one: -one.seconds)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_of(pid: int) -> int:
    """Bytes of a process's memory that no file is behind, shared with its parent or not; 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as smaps:
            return sum(int(line.split()[1]) * 1024 for line in smaps if line.startswith("Anonymous:"))
    except ProcessLookupError:
        return 0


def open_files_of(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
