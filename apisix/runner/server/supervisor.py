"""The supervisor: binds the socket, keeps workers running, and never imports a plugin.

Rules that live here:
- It has one thread; signals only enqueue. TERM drains, INT and QUIT end quickly, HUP rolls the workers onto new code.
- A worker that dies is replaced, sooner or later (a crash loop backs off), and the log says why it died.
- HUP starts the next generation beside the old one. When all of it accepts, the old one retires and hands its idle
  connections over. If the new code does not load, the new generation goes, and the log says why.
- Under APISIX's management (it sets APISIX_CONF_EXPIRE_TIME): TERM gives one second, and the successor may start
  before or after it. So the old one serves until it sees another socket on the path, a little longer, or until the
  second is nearly over, and never removes the path. EOF on stdin means that the gateway's agent is gone.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from apisix.runner.config import Settings
from apisix.runner.errors import StartError
from apisix.runner.server import worker
from apisix.runner.server.listen import Listener
from apisix.runner.server.worker import Channels, Report

log = logging.getLogger("apisix.runner.supervisor")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)
TAKE_OVER_SECONDS = 0.8  # of the one second that APISIX gives after SIGTERM
AFTER_TAKE_OVER = 0.1  # seconds that the old runner accepts after it sees the new one
FIRST_PAUSE = 0.5  # seconds before a worker that failed early is replaced; doubles up to MOST_PAUSE
MOST_PAUSE = 10.0
LIVED_LONG_ENOUGH = 5.0  # seconds after which a death is no crash loop


class Generation:
    """Workers that were started with the same code.

    Args:
        number: 0 for the first.
        predecessors: where the generation before sends its connections, None for the first.
    """

    def __init__(self, number: int, predecessors: socket.socket | None) -> None:
        self.number = number
        self.predecessors = predecessors
        self.successors, self.for_next = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def close(self) -> None:
        """Let go of its channels."""
        for channel in (self.predecessors, self.successors, self.for_next):
            if channel is not None:
                channel.close()


class Process:
    """One worker process, as the supervisor sees it."""

    def __init__(self, pid: int, generation: Generation, report: int) -> None:
        self.pid = pid
        self.generation = generation
        self.report = report
        self.started = time.monotonic()
        self.ready = False
        self.retiring = False


class Supervisor:
    """Keeps workers running on one listener.

    Args:
        settings: all of them.
        listener: bound.
        managed: whether APISIX started this process.
        reload: whether to roll the workers when plugins' files change.
    """

    def __init__(self, settings: Settings, listener: Listener, managed: bool, reload: bool) -> None:
        self._settings = settings
        self._listener = listener
        self._managed = managed
        self._reload = reload
        self._processes: dict[int, Process] = {}
        self._generation = Generation(0, None)
        self._next: Generation | None = None
        self._reload_again = False
        self._problems: list[str] | None = None
        self._ending = False
        self._pause = FIRST_PAUSE
        self._start_at = 0.0
        self._watcher = 0
        self._lifeline, self._lifeline_end = os.pipe2(os.O_CLOEXEC)
        self._signals, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()

    def run(self) -> int:
        """Run until told to stop. Returns the exit code."""
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._poll.register(self._signals, select.POLLIN)
        stdin_dies = self._managed and _is_pipe(0)
        if stdin_dies:
            self._poll.register(0, select.POLLIN)
        log.info("listening on %s, pid %d, workers %d", self._listener.path, os.getpid(), self._settings.workers)
        if self._reload:
            self._start_watcher()
        self._fill()
        while self._processes or not self._ending:
            for fd, _ in self._poll.poll(self._wait()):
                if fd == self._signals:
                    for received in os.read(fd, 64):
                        self._obey(received)
                elif fd == 0 and stdin_dies:
                    if not os.read(0, 4096):
                        self._poll.unregister(0)
                        log.warning("the gateway's agent is gone (end of stdin): draining")
                        self._end(signal.SIGTERM)
                else:
                    self._read_report(fd)
            if not self._ending:
                self._fill()
            elif self._managed and self._leave_managed():
                return 0
        self._listener.remove()
        log.info("ended")
        return 0

    def _wait(self) -> int | None:
        """Milliseconds until something is due without an event; None for never."""
        if self._ending:
            return 20 if self._managed else None
        if self._missing() and self._start_at:
            return max(int((self._start_at - time.monotonic()) * 1000) + 1, 1)
        return None

    # Workers.

    def _missing(self) -> int:
        generation = self._generation
        return self._settings.workers - sum(p.generation is generation for p in self._processes.values())

    def _fill(self) -> None:
        """Start the workers that are missing, unless they died too fast."""
        missing = self._missing()
        if missing and time.monotonic() >= self._start_at:
            for _ in range(missing):
                self._spawn(self._generation, None)

    def _spawn(self, generation: Generation, accepted_problems: list[str] | None) -> None:
        read_report, write_report = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(read_report)
            self._become_worker(generation, write_report, accepted_problems)
        os.close(write_report)
        self._processes[pid] = Process(pid, generation, read_report)
        self._poll.register(read_report, select.POLLIN)

    def _become_worker(self, generation: Generation, report: int, accepted_problems: list[str] | None) -> None:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for fd in (self._signals, self._wakeup, self._lifeline_end):
            os.close(fd)
        channels = Channels(report, self._lifeline, generation.predecessors, generation.successors)
        worker.main(self._listener.socket, self._settings, channels, accepted_problems)

    def _read_report(self, fd: int) -> None:
        process = next((p for p in self._processes.values() if p.report == fd), None)
        line = os.read(fd, 1 << 20)
        self._poll.unregister(fd)
        os.close(fd)
        if process is None:
            return
        process.report = -1
        if not line:
            return  # it died; its end is told by SIGCHLD
        report = msgspec.json.decode(line, type=Report)
        if process.generation is self._next:
            self._next_reported(process, report)
        else:
            process.ready = report.ready
            if report.ready:
                self._problems = report.problems

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._watcher:
                self._watcher = 0
                if not self._ending:
                    log.error("the watcher of plugins' files ended (%s): changes are not seen", _why(status))
                continue
            process = self._processes.pop(pid, None)
            if process is not None:
                self._lost(process, status)

    def _lost(self, process: Process, status: int) -> None:
        if process.report >= 0:
            self._poll.unregister(process.report)
            os.close(process.report)
        if process.generation is self._next:
            self._refuse_next(f"a new worker ended ({_why(status)})")
        elif not process.retiring and not self._ending:
            lived = time.monotonic() - process.started
            if process.ready and lived > LIVED_LONG_ENOUGH:
                self._pause, self._start_at = FIRST_PAUSE, 0.0
                log.error("worker %d ended (%s); it is replaced", process.pid, _why(status))
            else:
                self._start_at = time.monotonic() + self._pause
                log.error(
                    "worker %d ended (%s) after %.1f s; the next one starts in %g s",
                    process.pid,
                    _why(status),
                    lived,
                    self._pause,
                )
                self._pause = min(self._pause * 2, MOST_PAUSE)

    def _signal_workers(self, number: int, which: Callable[[Process], bool]) -> None:
        for process in self._processes.values():
            if which(process):
                process.retiring = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    # New code.

    def _roll(self) -> None:
        """Start the next generation."""
        if self._next is not None:
            self._reload_again = True
            return
        self._next = Generation(self._generation.number + 1, self._generation.for_next.dup())
        for _ in range(self._settings.workers):
            self._spawn(self._next, self._problems or [])

    def _next_reported(self, process: Process, report: Report) -> None:
        if not report.ready:
            known = set(self._problems or ())
            news = [problem for problem in report.problems if problem not in known]
            self._refuse_next("; ".join(news))
            return
        process.ready = True
        members = [p for p in self._processes.values() if p.generation is self._next]
        if self._next is None or not all(p.ready for p in members):
            return
        old, self._generation, self._next = self._generation, self._next, None
        self._problems = report.problems
        self._pause, self._start_at = FIRST_PAUSE, 0.0
        self._signal_workers(signal.SIGHUP, lambda p: p.generation is old)
        old.close()
        log.info("reloaded: generation %d serves", self._generation.number)
        self._roll_again()

    def _refuse_next(self, why: str) -> None:
        refused, self._next = self._next, None
        if refused is None:
            return
        log.error("reload refused, the old code goes on: %s", why)
        self._signal_workers(signal.SIGKILL, lambda p: p.generation is refused)
        refused.close()
        self._roll_again()

    def _roll_again(self) -> None:
        if self._reload_again:
            self._reload_again = False
            self._roll()

    def _start_watcher(self) -> None:
        try:
            import watchfiles  # noqa: F401
        except ModuleNotFoundError:
            raise StartError("--reload needs watchfiles; install it: pip install 'apisix-runner[reload]'") from None
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.close(self._lifeline_end)
            _watch(self._settings.plugins.paths, parent)
        self._watcher = pid

    # The end.

    def _obey(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            if not self._ending:
                self._roll()
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        quickly = number != signal.SIGTERM or self._ending
        if not self._ending:
            self._ending = True
            self._ends_at = time.monotonic() + TAKE_OVER_SECONDS
            if self._watcher:
                os.kill(self._watcher, signal.SIGKILL)
            log.info("stopping on %s", signal.Signals(number).name)
            if self._managed and not quickly:
                return
            self._listener.remove()
        self._signal_workers(signal.SIGINT if quickly else signal.SIGTERM, lambda p: True)

    def _leave_managed(self) -> bool:
        """Whether the old runner's time is over; its workers drain on their own then."""
        now = time.monotonic()
        if self._listener.is_taken_over():
            self._ends_at = min(self._ends_at, now + AFTER_TAKE_OVER)
        if now < self._ends_at:
            return False
        self._signal_workers(signal.SIGTERM, lambda p: True)
        log.info("leaving; %d workers answer what is open and go", len(self._processes))
        return True


def run(settings: Settings, *, reload: bool = False) -> int:
    """Listen and serve until told to stop.

    Args:
        settings: all of them, checked.
        reload: roll the workers onto new code when a plugin's file changes.

    Returns:
        The process's exit code.

    Raises:
        StartError: the runner cannot start.
    """
    managed = "APISIX_CONF_EXPIRE_TIME" in os.environ
    listener = Listener(settings.socket.file, settings.socket.mode, managed)
    return Supervisor(settings, listener, managed, reload).run()


def _watch(paths: tuple[Path, ...], parent: int) -> None:
    """Send the supervisor a SIGHUP for each change of plugins' files, until it is gone. Does not return."""
    import watchfiles

    folders = [path for path in paths if path.is_dir()]
    try:
        for _ in watchfiles.watch(
            *folders,
            watch_filter=watchfiles.PythonFilter(),
            debounce=100,
            step=20,
            rust_timeout=500,
            yield_on_timeout=True,
        ):
            if os.getppid() != parent:
                break
            if _:
                os.kill(parent, signal.SIGHUP)
    finally:
        os._exit(0)


def _is_pipe(fd: int) -> bool:
    import stat

    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _why(status: int) -> str:
    """Why a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in signal.Signals._value2member_map_ else str(number)
        hint = ", often for want of memory" if number == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
