"""The supervisor: binds the socket, keeps workers running, and never imports a plugin.

Rules that live here:
- It has one thread; signals only enqueue. TERM drains, INT and QUIT end quickly, HUP rolls the workers onto new code,
  TTIN and TTOU make one worker more or less, USR1 opens the log's file again.
- A worker that dies is replaced, sooner or later (a crash loop backs off), and the log says why it died. One without
  a sign of life is killed and replaced; one that had its number of calls, or too much memory, is replaced first.
- HUP starts the next generation beside the old one. When all of it accepts, the old one retires and hands its idle
  connections over. If the new code does not load, the new generation goes, and the log says why.
- Under APISIX's management (it sets APISIX_CONF_EXPIRE_TIME): TERM gives one second, and the successor may start
  before or after it, and take long. So the supervisor just leaves, and its workers serve until they see another socket
  on the path (worker.py). The same where it is killed, or where stdin ends: then the gateway's agent is gone.
- A successor takes the path when its workers are ready, or after PUBLISH_SECONDS.
"""

import logging
import os
import random
import resource
import select
import signal
import stat
import time
from importlib.util import find_spec

from apisix.runner import logs
from apisix.runner.config import Settings
from apisix.runner.errors import StartError
from apisix.runner.server.control import Answer, Control, Status, WorkerStatus
from apisix.runner.server.endpoint import Endpoint, Page
from apisix.runner.server.handover import Handover
from apisix.runner.server.listen import Listener, user_ids
from apisix.runner.server.notify import notify
from apisix.runner.server.overview import Facts, Overview
from apisix.runner.server.processes import Process, Processes, memory_of
from apisix.runner.server.readiness import nonblocking_pipe
from apisix.runner.server.store import open_store, remove_unused
from apisix.runner.server.title import set_title
from apisix.runner.server.watcher import start_watcher
from apisix.runner.server.worker import SHOW_STACKS, Report

log = logging.getLogger("apisix.runner.supervisor")

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
)
PUBLISH_SECONDS = 3.0  # after which the path is taken, even if the workers are not ready
FIRST_PAUSE = 0.5  # seconds before a worker that failed early is replaced; doubles up to MOST_PAUSE
MOST_PAUSE = 10.0
MOST_PAUSE_SERVING = 2.0  # the same for a worker that served: one call that ends it must not keep all others waiting
LIVED_LONG_ENOUGH = 5.0  # seconds after which a death is no crash loop
HANDED_OVER_TICK = 5  # milliseconds between two looks whether old workers have handed over
HANDED_OVER_SECONDS = 2.0  # after which a reload counts as done although one has not
FILES_BESIDES = 1024  # open files beside connections, those of plugins among them
START_SECONDS = 60.0  # that a worker may take to load the plugins
MOST_BY_DEFAULT = 4  # workers, however many cores there are
ROUND = 1.0  # seconds between two looks at the workers' rows
KILL_AFTER = 3.0  # seconds that workers have which are to end quickly: more than they give their calls


class Supervisor:
    """Keeps workers running on one listener.

    Args:
        settings: all of them.
        listener: bound.
        reload: whether to roll the workers when plugins' files change.
    """

    def __init__(self, settings: Settings, listener: Listener, reload: bool) -> None:
        self._settings = settings
        self._listener = listener
        self._reload = reload
        self._target = settings.workers or min(_cores(), MOST_BY_DEFAULT)
        self._generation = 0
        self._rolling = False
        self._roll_again = False
        self._reloads_asked: list[int] = []
        self._problems: list[str] | None = None
        self._ending = False
        self._publish_at = time.monotonic() + PUBLISH_SECONDS
        self._kill_at = float("inf")
        self._pause = FIRST_PAUSE
        self._start_at = 0.0
        self._restarts = 0
        self._reloads = {"done": 0, "refused": 0}
        self._started = time.time()
        self._watcher = 0
        self._told_ready = False
        self._handing_over: list[Process] = []
        self._handed_over_by = 0.0
        self._leaving = False
        self._signals, self._wakeup = nonblocking_pipe()
        self._poll = select.poll()
        self._control = Control(listener.path, self._poll)
        store = open_store(listener.path)
        if store is not None:
            remove_unused(store)
        self._handover = Handover(store.folder if store is not None else None)
        self._processes = Processes(settings, listener, self._handover, self._poll, self._become_child)
        self._overview = Overview()
        self._endpoint = self._open_endpoint()
        if listener.is_published:
            self._handover.publish()

    def run(self) -> int:
        """Run until told to stop. Returns the exit code."""
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._poll.register(self._signals, select.POLLIN)
        watches_stdin = self._listener.managed and _is_pipe(0)
        if watches_stdin:
            self._poll.register(0, select.POLLIN)
        log.info("listening on %s, pid %d, workers %d", self._listener.path, os.getpid(), self._target)
        if self._reload:
            self._watcher = start_watcher(self._settings.plugins.paths, self._become_child)
        next_round = time.monotonic() + ROUND
        self._fill()
        while len(self._processes) or not self._ending:
            for fd, _ in self._poll.poll(HANDED_OVER_TICK if self._handing_over else ROUND * 1000):
                if fd == self._signals:
                    for received in os.read(fd, 64):
                        self._obey(received)
                elif fd == 0 and watches_stdin:
                    self._read_stdin()
                elif self._control.owns(fd):
                    self._obey_control(fd)
                elif self._endpoint is not None and self._endpoint.owns(fd):
                    self._endpoint.event(fd)
                else:
                    reported = self._processes.read_report(fd)
                    if reported is not None:
                        self._reported(*reported)
            if time.monotonic() >= next_round:
                next_round = time.monotonic() + ROUND
                self._look_round()
            if self._handing_over:
                self._look_at_handover()
            if not self._ending:
                self._fill()
            elif self._leaving:
                log.info("leaving; %d workers serve until another runner is on the path", len(self._processes))
                return 0
        if self._endpoint is not None:
            self._endpoint.remove()
        self._listener.remove()
        log.info("ended")
        return 0

    def _become_child(self) -> None:
        """In a process that was forked off: let go of what is the supervisor's."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a new worker has the file open under its new name already
        os.close(self._signals)
        os.close(self._wakeup)
        self._control.close()
        if self._endpoint is not None:
            self._endpoint.close()

    def _read_stdin(self) -> None:
        if not os.read(0, 4096):
            self._poll.unregister(0)
            log.warning("the gateway's agent is gone (end of stdin): draining")
            self._end(signal.SIGTERM)

    # Workers.

    def _current(self) -> list[Process]:
        return [process for process in self._processes.of(self._generation) if process.replaces is None]

    def _fill(self) -> None:
        """Start the workers that are missing, unless they died too fast, and let those go that are too many."""
        missing = self._target - len(self._current())
        if missing > 0 and time.monotonic() >= self._start_at:
            for _ in range(missing):
                self._processes.start(self._generation, None)
        for process in self._current()[: max(-missing, 0)]:
            self._processes.retire(process)

    def _reported(self, process: Process, report: Report) -> None:
        if process.retiring:
            return
        if process.generation > self._generation:
            self._next_reported(report)
        elif report.ready:
            self._problems = report.problems
            if process.replaces is not None:
                self._processes.retire(process.replaces)
                process.replaces = None
            self._roll_if_asked()
            if not self._told_ready and all(one.ready for one in self._current()):
                self._told_ready = True
                self._publish()
                notify("READY=1")

    def _publish(self) -> None:
        """Take the path over from the runner that was there before."""
        if not self._listener.is_published and not self._ending:
            self._handover.publish()
            self._listener.publish()
            log.info("took over %s", self._listener.path)

    def _look_round(self) -> None:
        """Replace workers that hang, or that had enough."""
        settings = self._settings
        now = time.monotonic()
        self._control.look()
        if self._endpoint is not None:
            self._endpoint.look()
        if now > self._kill_at:
            self._kill_the_rest()
        if now > self._publish_at:
            self._publish()
        for process in self._processes.all():
            row = self._processes.row(process)
            patience = settings.hang_timeout if process.ready else START_SECONDS
            silence = now - row.beat
            if process.hung and silence > patience:
                process.signal(signal.SIGKILL)
            elif process.hung:  # it was the machine that stood still, or the whole runner
                process.hung = False
                log.warning("worker %d gives signs of life again; it goes on", process.pid)
            elif settings.hang_timeout and silence > patience:
                log.error("worker %d gives no sign of life since %.0f s; it is killed soon", process.pid, silence)
                process.hung = True
                process.signal(SHOW_STACKS)
            elif not process.ready or process.retiring or any(one.replaces is process for one in self._processes.all()):
                continue
            elif settings.max_requests and row.served > settings.max_requests * _jitter(process.pid):
                self._replace(process, f"it served {row.served} calls")
            elif settings.max_memory and (memory := memory_of(process.pid)) > settings.max_memory:
                self._replace(process, f"it has {memory / 2**20:.0f} MiB of memory")

    def _replace(self, process: Process, why: str) -> None:
        if not self._ending and process.generation == self._generation:
            log.info("worker %d is replaced: %s", process.pid, why)
            self._processes.start(self._generation, None, replaces=process)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            why = self._processes.why(status)
            process = self._processes.ended(pid)
            if process is not None:
                self._overview.keep(process)
                self._lost(process, why)
            elif pid == self._watcher:
                self._watcher = 0
                if not self._ending:
                    log.error("the watcher of plugins' files ended (%s): changes are not seen", why)

    def _lost(self, process: Process, why: str) -> None:
        if process.generation > self._generation:
            self._refuse_next(f"a new worker ended ({why})")
            return
        for other in self._processes.all():
            if other.replaces is process:
                other.replaces = None
        if self._ending or (process.retiring and not process.hung):
            return
        self._restarts += 1
        now = time.monotonic()
        lived = now - process.started
        if process.ready and lived > LIVED_LONG_ENOUGH:
            self._pause, self._start_at = FIRST_PAUSE, 0.0
            log.error("worker %d ended (%s); it is replaced", process.pid, why)
        else:
            if now >= self._start_at:  # else one is due already, and starts no later for this one's death
                self._start_at = now + (min(self._pause, MOST_PAUSE_SERVING) if process.ready else self._pause)
                self._pause = min(self._pause * 2, MOST_PAUSE)
            pause = round(self._start_at - now, 1)
            log.error("worker %d ended (%s) after %.1f s; the next starts in %g s", process.pid, why, lived, pause)

    # New code.

    def _roll(self) -> None:
        """Start the next generation: after the one that is starting, if one is."""
        if self._rolling or self._problems is None:
            self._roll_again = True
            return
        self._rolling = True
        notify("RELOADING=1")
        for _ in range(self._target):
            self._processes.start(self._generation + 1, self._problems)

    def _next_reported(self, report: Report) -> None:
        if not report.ready:
            known = set(self._problems or ())
            self._refuse_next("; ".join(problem for problem in report.problems if problem not in known))
        elif all(process.ready for process in self._processes.of(self._generation + 1)):
            old = [process for process in self._processes.all() if process.generation <= self._generation]
            self._generation += 1
            self._problems = report.problems
            self._pause, self._start_at = FIRST_PAUSE, 0.0
            for process in old:
                self._processes.retire(process)
            self._handing_over = old
            self._handed_over_by = time.monotonic() + HANDED_OVER_SECONDS

    def _look_at_handover(self) -> None:
        """Say that the new code serves once no old worker has an idle connection, which it would answer on."""
        there = self._processes.all()
        old = [one for one in self._handing_over if one in there and self._processes.row(one).accepting]
        if not old or time.monotonic() > self._handed_over_by:
            self._handing_over = []
            log.info("reloaded: generation %d serves", self._generation)
            self._rolled(Answer(True, f"generation {self._generation} serves"))

    def _refuse_next(self, why: str) -> None:
        if not self._rolling:
            return
        for process in self._processes.of(self._generation + 1):
            process.generation = self._generation
            self._processes.retire(process)  # no kill: it may have accepted, and calls may be open
        log.error("reload refused, the old code goes on: %s", why)
        self._rolled(Answer(False, f"reload refused, the old code goes on: {why}"))

    def _rolled(self, answer: Answer) -> None:
        self._rolling = False
        self._reloads["done" if answer.ok else "refused"] += 1
        notify("READY=1")
        asked, self._reloads_asked = self._reloads_asked, []
        for client in asked:
            self._control.answer(client, answer)
        self._roll_if_asked()

    def _roll_if_asked(self) -> None:
        if self._roll_again and not self._rolling:
            self._roll_again = False
            self._roll()

    # What it is told.

    def _obey(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGUSR1:
            logs.reopen()
            for process in self._processes.all():
                process.signal(number)
        elif number == signal.SIGTTIN:
            self._target += 1
        elif number == signal.SIGTTOU:
            self._target = max(self._target - 1, 1)
        elif number != signal.SIGHUP:
            self._end(number)
        elif not self._ending:
            self._roll()

    def _obey_control(self, fd: int) -> None:
        asked = self._control.event(fd)
        if asked is None:
            return
        client, command = asked
        if command == "status":
            self._control.answer(client, Answer(True, status=self._status()))
        elif self._ending:
            self._control.answer(client, Answer(False, "the runner is stopping"))
        else:
            self._reloads_asked.append(client)
            self._roll()

    def _status(self) -> Status:
        now = time.monotonic()
        workers = []
        for process in self._processes.all():
            row = self._processes.row(process)
            workers.append(
                WorkerStatus(
                    pid=process.pid,
                    generation=process.generation,
                    state=process.state,
                    seconds=round(now - process.started, 1),
                    connections=row.connections,
                    open_calls=row.open_calls,
                    served=row.served,
                    confs=row.confs,
                    stuck=row.stuck,
                    memory=memory_of(process.pid),
                )
            )
        plugins = next((process.plugins for process in self._current() if process.ready), [])
        return Status(
            pid=os.getpid(),
            socket=str(self._listener.path),
            generation=self._generation,
            restarts=self._restarts,
            plugins=plugins,
            problems=self._problems or [],
            workers=workers,
        )

    # What is asked over HTTP.

    def _open_endpoint(self) -> Endpoint | None:
        address = self._settings.metrics.listen
        if address is None:
            return None
        pages = {"/metrics": self._metrics, "/healthz": lambda: Page(200, "ok\n"), "/readyz": self._readiness}
        return Endpoint(address, self._settings.socket.mode, self._poll, pages)

    def _not_ready(self) -> str:
        """Why calls are not served, empty where they are."""
        if self._ending:
            return "the runner is stopping"
        ready = sum(process.state == "ready" for process in self._current())
        if not ready:
            return f"none of {self._target} workers accepts"
        return "" if self._listener.is_published else "another runner is on the path"

    def _readiness(self) -> Page:
        why = self._not_ready()
        return Page(503, f"not ready: {why}\n") if why else Page(200, "ready\n")

    def _metrics(self) -> Page:
        settings = self._settings
        facts = Facts(
            started=self._started,
            generation=self._generation,
            target=self._target,
            restarts=self._restarts,
            reloads=self._reloads,
            not_ready=self._not_ready(),
            most_connections=settings.limits.connections,
            most_threads=settings.threads,
        )
        return self._overview.metrics(facts, [(one, self._processes.row(one)) for one in self._processes.all()])

    # The end.

    def _end(self, number: int) -> None:
        quickly = number != signal.SIGTERM or self._ending or not self._listener.is_published
        if not self._ending:
            self._ending = True
            notify("STOPPING=1")
            if self._watcher:
                os.kill(self._watcher, signal.SIGKILL)
            log.info("stopping on %s", signal.Signals(number).name)
            if self._listener.managed and not quickly:
                self._leaving = True
                return
            self._listener.remove()
        if quickly:
            self._kill_at = time.monotonic() + KILL_AFTER
        for process in self._processes.all():
            process.retiring = True
            process.signal(signal.SIGINT if quickly else signal.SIGTERM)

    def _kill_the_rest(self) -> None:
        """End workers that were told to end quickly and did not: a plugin holds their interpreter."""
        self._kill_at = float("inf")
        for process in self._processes.all():
            log.error("worker %d does not end; it is killed", process.pid)
            process.signal(signal.SIGKILL)


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
    _raise_open_files(settings.limits.connections + FILES_BESIDES)
    if settings.tracing.enabled and find_spec("opentelemetry") is None:
        raise StartError("tracing.enabled needs opentelemetry-api; install it: pip install 'apisix-runner[tracing]'")
    managed = "APISIX_CONF_EXPIRE_TIME" in os.environ
    user_ids(settings.socket.allow_users)  # a user that is not there is a mistake to tell now
    listener = Listener(settings.socket, managed)
    set_title(f"supervisor on {listener.path}")
    return Supervisor(settings, listener, reload).run()


def _raise_open_files(wanted: int) -> None:
    """Raise the limit of open files as far as it is needed and allowed; often it is 1,024 for no reason but age."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _jitter(pid: int) -> float:
    """The same number from 0.9 to 1.1 for the same worker, so that workers are not replaced all at once."""
    return random.Random(pid).uniform(0.9, 1.1)
