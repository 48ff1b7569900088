"""Worker processes as the supervisor sees them: started by fork, told by signals, watched by their row and their end.

Rules that live here: fork happens in a process with one thread; a worker's report comes through a pipe, once; why a
worker ended is told in words.
"""

import contextlib
import mmap
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from apisix.runner.config import Settings
from apisix.runner.metrics.region import new_memory
from apisix.runner.server import worker
from apisix.runner.server.board import Board, OwnRow, Row
from apisix.runner.server.handover import Handover
from apisix.runner.server.listen import Listener
from apisix.runner.server.title import set_title
from apisix.runner.server.worker import Channels, Report

_CGROUPS = "/sys/fs/cgroup"


class Process:
    """One worker process.

    Args:
        pid: its process.
        generation: which code it runs, counted from 0.
        row: the number of its row on the board.
        report: where its report comes from.
        replaces: the worker that retires when this one is ready.

    Attributes:
        memory: where it counts its metrics; None where nothing is measured.
    """

    def __init__(self, pid: int, generation: int, row: int, report: int, replaces: "Process | None") -> None:
        self.pid = pid
        self.generation = generation
        self.row = row
        self.report = report
        self.replaces = replaces
        self.started = time.monotonic()
        self.ready = False
        self.retiring = False
        self.hung = False
        self.plugins: list[str] = []
        self.memory: mmap.mmap | None = None

    @property
    def state(self) -> str:
        """``hung``, ``retiring``, ``ready`` or ``starting``."""
        if self.hung:
            return "hung"
        if self.retiring:
            return "retiring"
        return "ready" if self.ready else "starting"

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Processes:
    """All worker processes of a supervisor.

    Args:
        settings: all of them.
        listener: shared with the workers.
        handover: for connections of those that retire.
        poll: the supervisor's; reports are registered there.
        on_fork: called in a new worker, to close what is the supervisor's.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        handover: Handover,
        poll: select.poll,
        on_fork: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._handover = handover
        self._poll = poll
        self._on_fork = on_fork
        self._board = Board()
        self._members: dict[int, Process] = {}
        self._lifeline, self._lifeline_end = os.pipe()
        self._oom_kills = _oom_kills()

    def __len__(self) -> int:
        return len(self._members)

    def all(self) -> list[Process]:
        """All of them, the oldest first."""
        return list(self._members.values())

    def of(self, generation: int) -> list[Process]:
        """Those of a generation that are not retiring."""
        return [process for process in self.all() if process.generation == generation and not process.retiring]

    def row(self, process: Process) -> Row:
        """A worker's numbers."""
        return self._board.read(process.row)

    def start(self, generation: int, accepted_problems: Sequence[str] | None, replaces: Process | None = None) -> None:
        """Start a worker.

        Args:
            generation: the number it gets.
            accepted_problems: see `worker.Worker`.
            replaces: the worker that is to retire when this one is ready.
        """
        row = self._board.take_row()
        read_report, write_report = os.pipe()
        memory = new_memory() if self._settings.metrics.listen is not None else None
        pid = os.fork()
        if pid == 0:
            set_title(f"worker of generation {generation} on {self._listener.path}")
            self._on_fork()
            os.close(read_report)
            os.close(self._lifeline_end)
            channels = Channels(write_report, self._lifeline, self._handover, OwnRow(self._board, row), memory)
            worker.main(self._listener, self._settings, channels, accepted_problems)
        os.close(write_report)
        process = self._members[pid] = Process(pid, generation, row, read_report, replaces)
        process.memory = memory
        self._poll.register(read_report, select.POLLIN)

    def read_report(self, fd: int) -> tuple[Process, Report] | None:
        """The report that came, with its worker; None where the worker ended without one."""
        process = next((process for process in self.all() if process.report == fd), None)
        if process is None:
            return None
        line = os.read(fd, 1 << 20)
        self._close_report(process)
        if not line:
            return None
        report = msgspec.json.decode(line, type=Report)
        process.ready = report.ready
        process.plugins = report.plugins
        return process, report

    def _close_report(self, process: Process) -> None:
        if process.report >= 0:
            self._poll.unregister(process.report)
            os.close(process.report)
            process.report = -1

    def ended(self, pid: int) -> Process | None:
        """Forget a worker that ended. None where the pid is not a worker's."""
        process = self._members.pop(pid, None)
        if process is not None:
            self._close_report(process)
            self._board.free(process.row)
        return process

    def retire(self, process: Process) -> None:
        """Tell a worker to hand its connections over and go."""
        process.retiring = True
        process.signal(signal.SIGHUP)

    def why(self, status: int) -> str:
        """Why a process ended, from its wait status."""
        if not os.WIFSIGNALED(status):
            return f"exit code {os.waitstatus_to_exitcode(status)}"
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        before, self._oom_kills = self._oom_kills, _oom_kills()
        return f"killed by {name}{', out of memory' if number == signal.SIGKILL and self._oom_kills > before else ''}"


def _oom_kills() -> int:
    """How often the kernel has killed in this control group for want of memory; 0 where it does not say."""
    for file in _files_about_oom():
        try:
            with open(file, encoding="ascii") as numbers:
                return sum(int(line.split()[1]) for line in numbers if line.startswith("oom_kill "))
        except (OSError, ValueError, IndexError):
            continue
    return 0


def _files_about_oom() -> Iterator[str]:
    """Where the kernel counts that. A container may see its group's name from outside, and the group itself as root."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as groups:
            lines = groups.read().splitlines()
    except OSError:
        return
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if controllers == "memory":
            yield f"{_CGROUPS}/memory{group}/memory.oom_control"
            yield f"{_CGROUPS}/memory/memory.oom_control"
        elif not controllers:
            yield f"{_CGROUPS}{group}/memory.events"
            yield f"{_CGROUPS}/memory.events"


def memory_of(pid: int) -> int:
    """Bytes of memory that a process has for itself; 0 where that cannot be read."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            fields = statm.read().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0
