"""A worker: one process that loads the plugins and serves the gateway.

Rules that live here:
- It reports to the supervisor once, when it accepts or why it cannot, and then lives by signals: TERM drains, HUP
  retires it in favour of the next generation (its idle connections go there), INT and QUIT end it quickly.
- When the supervisor is gone, so is the one who would replace it: it lets go of stdout, which APISIX waits on to notice
  the runner's end, and drains. Under APISIX's management it first serves until the next runner is on the path, and
  hands its connections over to that one; or until nobody is connected any more.
"""

import contextlib
import faulthandler
import gc
import logging
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from apisix.runner import logs
from apisix.runner.config import Settings
from apisix.runner.http.fields import SECRET_HEADERS
from apisix.runner.inspection import SOCKET_VARIABLE
from apisix.runner.logs.context import look_up
from apisix.runner.metrics import metric
from apisix.runner.metrics.region import Region
from apisix.runner.plugin.discovery import load_plugins
from apisix.runner.plugin.registry import Registry
from apisix.runner.server.access_log import log_calls
from apisix.runner.server.board import OwnRow
from apisix.runner.server.call import fields_of_current_call
from apisix.runner.server.confs import Confs
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.dispatch import Dispatcher
from apisix.runner.server.handover import Handover
from apisix.runner.server.listen import Listener, user_ids
from apisix.runner.server.measuring import measure
from apisix.runner.server.output import Output
from apisix.runner.server.poller import Poller
from apisix.runner.server.readiness import nonblocking_pipe
from apisix.runner.server.store import open_store
from apisix.runner.server.watch import Watch

log = logging.getLogger("apisix.runner.worker")

QUICK_END = 2.0  # seconds that open calls have when the worker is to end quickly
SWITCH_INTERVAL = 0.0005  # seconds a computing thread may keep the interpreter from the one that serves
HUSH_SECONDS = 60.0  # between two equal complaints about a collector that is not there
EXPIRE_EVERY = 60.0  # seconds, or less where confs expire sooner
LOOK_EVERY = 1.0  # seconds between two looks whether the store is still there
AFTER_TAKE_OVER = 0.1  # seconds to go on accepting, for who has found the old socket on the path
UNUSED_SECONDS = 8.0  # without a connection, after which nobody waits for this runner's successor
SHOW_STACKS = signal.SIGUSR2  # prints the stacks of all threads to stderr, even while a plugin holds the interpreter
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)


class Report(msgspec.Struct):
    """What a worker tells the supervisor, as one line of JSON.

    Attributes:
        ready: whether it accepts.
        problems: what is wrong with plugins' files, a line each.
        plugins: names of those that can be used.
    """

    ready: bool
    problems: list[str] = []
    plugins: list[str] = []


class Channels(msgspec.Struct):
    """What connects a worker with the supervisor and with other workers.

    Attributes:
        report: file descriptor to write the report to.
        lifeline: file descriptor that reaches EOF when the supervisor is gone.
        handover: where connections come from, and go when this worker retires.
        row: its numbers, shared.
        memory: where it counts its metrics, shared; None where nothing is measured.
    """

    report: int
    lifeline: int
    handover: Handover
    row: OwnRow
    memory: mmap.mmap | None = None


class Worker:
    """The process's one worker.

    Args:
        listener: listening; shared with other workers.
        settings: all of them.
        channels: to supervisor and other workers.
        accepted_problems: what may be wrong with plugins' files; with anything else the worker does not start. None
            accepts everything.
    """

    def __init__(
        self,
        listener: Listener,
        settings: Settings,
        channels: Channels,
        accepted_problems: Sequence[str] | None,
    ) -> None:
        self._listener = listener
        self._settings = settings
        self._channels = channels
        self._accepted = accepted_problems
        self._output = Output(listener.managed)
        logs.setup(settings.logging.level, settings.logging.format, file=settings.logging.file)
        look_up(fields_of_current_call)
        SECRET_HEADERS.update(settings.logging.redact)
        self._signals, self._wakeup = nonblocking_pipe()
        self._take_signals()

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        faulthandler.enable()  # shows the stacks where an extension in C crashes
        faulthandler.register(SHOW_STACKS, all_threads=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def run(self) -> int:
        """Serve until told to end. Returns the exit code."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        watch = self._choose_what_is_watched()
        sys.dont_write_bytecode = True  # its cache tells files saved twice within a second apart by their size alone
        plugins = self._settings.plugins
        installed = plugins.installed == "all"
        registry = load_plugins(plugins.paths, plugins.classes, installed=installed, limit=plugins.load_timeout)
        self._take_signals()  # again: a plugin's file may have taken or blocked them
        problems = [str(problem) for problem in registry.problems]
        is_accepted = self._accepted is None or set(problems) <= set(self._accepted)
        self._report_to_inspector(watch, registry, is_accepted)
        if not is_accepted:
            self._report(Report(False, problems))
            return 1
        if self._accepted is None:
            for problem in problems:
                log.error("%s; routes that use it fail", problem)
        store = open_store(self._settings.socket.file)
        confs = Confs(registry, self._settings.conf.expire, store, watch.make_step)
        contexts = Contexts(store.folder / "contexts" if store is not None else None)
        poller = self._start_poller(confs, contexts, registry, watch)
        # What lives now lives as long as the worker: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._report(Report(True, problems, [definition.name for definition in registry.definitions()]))
        return self._live(poller, confs, watch)

    def _choose_what_is_watched(self) -> Watch:
        """Before plugins are loaded: their own metrics are made then."""
        watch = Watch()
        if self._channels.memory is not None:
            region = Region(self._channels.memory)
            metric.use(region)
            measure(watch, region, self._settings.timeout)
        if self._settings.tracing.enabled:
            from apisix.runner.server.tracing import trace_calls

            logs.hush("opentelemetry", HUSH_SECONDS)
            trace_calls(watch)
        if self._settings.logging.access:
            log_calls(watch, self._settings.logging.access, self._settings.timeout)
        return watch

    def _report_to_inspector(self, watch: Watch, registry: Registry, used: bool) -> None:
        """Where `apisix-runner dev` has started this runner."""
        path = os.environ.get(SOCKET_VARIABLE)
        if path:
            from apisix.runner.server.reporting import loaded, report  # of no use to any other runner

            report(watch, path).tell(loaded(registry, used))

    def _start_poller(self, confs: Confs, contexts: Contexts, registry: Registry, watch: Watch) -> Poller:
        settings = self._settings
        poller = Poller(
            self._listener.socket,
            Dispatcher(confs, settings.timeout, settings.gateway.version, contexts, watch),
            threads=settings.threads,
            setup_timeout=settings.setup_timeout,
            most_connections=settings.limits.connections,
            most_pending=settings.limits.pending_bytes,
            row=self._channels.row,
            allowed_users=user_ids(settings.socket.allow_users),
        )
        poller.confs = confs.__len__
        os.register_at_fork(after_in_child=poller.in_forked_child)
        os.register_at_fork(after_in_child=self._output.in_forked_child)
        expire_every = min(EXPIRE_EVERY, settings.conf.expire)
        next_expiry = time.monotonic() + expire_every
        next_look = 0.0

        def housekeeping(now: float) -> None:
            nonlocal next_expiry, next_look
            if now > next_look:
                next_look = now + LOOK_EVERY
                confs.look()
            if now > next_expiry:
                next_expiry = now + expire_every
                contexts.sweep()
                for conf in confs.expire():
                    conf.teardown()

        poller.housekeeping = housekeeping
        poller.start(self._channels.handover.receiver)
        names = ", ".join(definition.name for definition in registry.definitions())
        log.info("accepting, pid %d, plugins: %s", os.getpid(), names or "none")
        return poller

    def _report(self, report: Report) -> None:
        with contextlib.suppress(OSError):
            os.write(self._channels.report, msgspec.json.encode(report) + b"\n")
        os.close(self._channels.report)

    def _live(self, poller: Poller, confs: Confs, watch: Watch) -> int:
        ends_at = float("inf")
        orphan: _Orphan | None = None
        waiting = select.poll()
        waiting.register(self._signals, select.POLLIN)
        waiting.register(self._channels.lifeline, select.POLLIN)
        while not poller.drained.is_set() and time.monotonic() < ends_at:
            # While it drains, look often: the end of the last call is no event here.
            events = waiting.poll(None if ends_at == float("inf") else 10)
            for fd, _ in events:
                if fd == self._channels.lifeline:
                    waiting.unregister(fd)
                    self._output.let_go()
                    ends_at = min(ends_at, time.monotonic() + self._settings.drain_timeout)
                    if self._listener.managed:
                        orphan = _Orphan(self._listener, poller, self._settings)
                    else:
                        poller.drain()
                    continue
                for number in filter(SIGNALS.__contains__, os.read(fd, 64)):  # the rest are plugins' own
                    ends_at = min(ends_at, time.monotonic() + self._obey(number, poller))
            if orphan is not None and orphan.is_over(time.monotonic()):
                orphan = None
                poller.drain(self._channels.handover.give_to_next)
        if not poller.drained.is_set() and poller.open_calls:
            log.error("ending with %d calls open", poller.open_calls)
        for conf in confs.all():
            conf.teardown()
        for end in watch.at_end:
            end()
        return 0

    def _obey(self, number: int, poller: Poller) -> float:
        """Do what a signal says. Returns the seconds that are left."""
        if number == signal.SIGUSR1:
            logs.reopen()
            return float("inf")
        if number == signal.SIGHUP:
            poller.drain(self._channels.handover.give)
        elif number == signal.SIGTERM:
            poller.drain()
        else:
            poller.close()
            return QUICK_END
        return self._settings.drain_timeout


class _Orphan:
    """How long a worker goes on serving whose supervisor has left it to APISIX to start the next runner."""

    def __init__(self, listener: Listener, poller: Poller, settings: Settings) -> None:
        now = time.monotonic()
        self._listener = listener
        self._poller = poller
        self._taken_over_at = float("inf")
        self._used_at = now
        self._ends_at = now + max(settings.drain_timeout - settings.timeout, 0)  # calls that are open then may end

    def is_over(self, now: float) -> bool:
        """Whether the next runner is on the path, or nobody asks for one any more."""
        if self._listener.is_taken_over():
            self._taken_over_at = min(self._taken_over_at, now)
        if self._poller.connections:
            self._used_at = now
        return now > min(self._taken_over_at + AFTER_TAKE_OVER, self._used_at + UNUSED_SECONDS, self._ends_at)


def main(
    listener: Listener, settings: Settings, channels: Channels, accepted_problems: Sequence[str] | None
) -> NoReturn:
    """Run a worker in this process, and end the process."""
    code = 1
    try:
        code = Worker(listener, settings, channels, accepted_problems).run()
    except BaseException:
        log.exception("a worker failed: a mistake of the runner, please report it")
    finally:
        logging.shutdown()
        os._exit(code)  # daemon threads of plugins that hang must not keep the process
