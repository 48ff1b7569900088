"""One open call: a frame on a connection, the conf that it runs, and the one answer that it gets.

Rules that live here:
- A call is answered once, by whoever takes its ticket: the thread that ran the plugins, or the watchdog at the
  deadline. An answer that comes too late is dropped with its connection.
- Every failure has an answer that fails closed; what that is depends on the phase (request_call.py, response_call.py).
- A call that waits for the gateway gives up the lead first.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import current_response, current_setup
from apisix.runner.plugin.chain import InThread
from apisix.runner.plugin.errors import ConfError, PluginFailure
from apisix.runner.server.asking import ANSWERED, Asking, answered
from apisix.runner.server.confs import PhaseChain, PreparedConf
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.meter import FAILED, PASSED, REWRITTEN, STOPPED, Meter
from apisix.runner.wire.frame import WireError
from apisix.runner.wire.messages import (
    ErrorCode,
    ExtraInfoReq,
    InfoKind,
    encode_error,
    encode_http_req_call_resp,
)

log = logging.getLogger("apisix.runner.call")

BAD_REQUEST = encode_error(ErrorCode.BAD_REQUEST)
UNAVAILABLE = encode_error(ErrorCode.SERVICE_UNAVAILABLE)
_UNCHANGED = len(encode_http_req_call_resp(1, None))
_new_asking = threading.Lock()


class Call:
    """What calls of both phases have in common.

    Args:
        connection: where it came from and is answered.
        id: the gateway's number of it.
        conf: what it runs.
        phase_chain: its chain and lane in this phase.
        deadline: when it is answered with an error, by time.monotonic().
        contexts: what plugins keep from the request phase for the response phase.

    Attributes:
        meter: counts it; None where nothing is measured.
    """

    __slots__ = (
        "asked_early",
        "asked_late",
        "asking",
        "before_wait",
        "conf",
        "connection",
        "contexts",
        "deadline",
        "ended",
        "has_failed",
        "id",
        "meter",
        "phase_chain",
        "request",
        "response",
        "task",
        "thread",
        "ticket",
        "told_seconds",
        "waited",
    )

    request: Request
    response: Response

    def __init__(
        self,
        connection: Connection,
        id: int,
        conf: PreparedConf,
        phase_chain: PhaseChain,
        deadline: float,
        contexts: Contexts,
    ) -> None:
        self._begin(connection, id, conf, phase_chain, deadline, contexts)

    def _begin(
        self,
        connection: Connection,
        id: int,
        conf: PreparedConf,
        phase_chain: PhaseChain,
        deadline: float,
        contexts: Contexts,
    ) -> None:
        self.connection = connection
        self.phase_chain = phase_chain
        self.contexts = contexts
        self.id = id
        self.conf = conf
        self.deadline = deadline
        self.before_wait: Callable[[Call], None] | None = None
        self.thread = 0
        self.task: asyncio.Task[None] | None = None
        self.ticket = [True]
        self.waited = False
        self.has_failed = False
        self.told_seconds = 0.0
        self.meter: Meter | None = None
        self.asking: Asking | None = None
        self.asked_early: tuple[ExtraInfoReq, ...] = ()
        self.asked_late: tuple[ExtraInfoReq, ...] = ()
        self.ended = False

    def answer(self) -> bytes:
        """The answer's frame, from what the plugins did.

        Raises:
            WireError: it is larger than a frame can be.
        """
        raise NotImplementedError

    def failed_answer(self) -> bytes:
        """The answer that fails closed."""
        raise NotImplementedError

    def describe(self) -> str:
        """Which call this is, for the log."""
        raise NotImplementedError

    def run(self) -> bytes:
        """Run the chain in this thread. Returns the answer's frame; never raises."""
        meter = self.meter
        if meter is not None and self.before_wait is None:  # not on the thread that polls
            meter.queued(self.deadline, self.told_seconds)
        try:
            chain = self.phase_chain.chain
            if chain.variables or self.conf.is_special:
                self.check()
                names = chain.variables + self.variables_before()
                if names:
                    self.request.vars(*names)
            chain.run(self.request, self.response)
            names = self.variables_after()
            if names:
                self.request.vars(*names)
            answer = self.answer()
        except BaseException as error:
            answer = self.failed(error)
        # In a circle with its request a call would stay until the garbage collector comes by, which with many confs is
        # seldom. So they are no link any more.
        self.ended = True
        self.request.link = self.response.link = ANSWERED
        if self.asked_late or self.phase_chain.habits.awake:
            self._tell_habits()
        if self.asking is not None:
            self.asking.end()
        if meter is not None and self.ticket:  # else it was given up on, and counted
            meter.ended(self.outcome(answer), self.deadline)
        return answer

    def run_async(self, in_thread: InThread) -> Coroutine[Any, Any, bytes]:
        """Run the chain on the loop. Returns the answer's frame; raises only when the call is given up on."""
        running = self._run_async(in_thread)
        return running if self.meter is None else self._measured(running, self.meter)

    async def _measured(self, running: Coroutine[Any, Any, bytes], meter: Meter) -> bytes:
        meter.queued(self.deadline, self.told_seconds)
        answer = b""
        try:
            answer = await running
        finally:
            if self.ticket:
                meter.ended(self.outcome(answer), self.deadline)
        return answer

    async def _run_async(self, in_thread: InThread) -> bytes:
        try:
            self.check()
            chain = self.phase_chain.chain
            names = chain.variables + self.variables_before()
            if names:
                self.request.in_coroutine = True
                await self.request.read_vars(*names)
                self.request.in_coroutine = False
            await chain.run_async(self.request, self.response, in_thread)
            names = self.variables_after()
            if names:
                self.request.in_coroutine = True
                await self.request.read_vars(*names)
            answer = self.answer()
        except Exception as error:
            answer = self.failed(error)
        self.ended = True
        self.request.link = self.response.link = ANSWERED
        if self.asked_late or self.phase_chain.habits.awake:
            self._tell_habits()
        if self.asking is not None:
            await self.asking.end_async()
        return answer

    def outcome(self, answer: bytes) -> str:
        """What became of its request, one of OUTCOMES.

        Args:
            answer: its frame, empty where none was made.
        """
        if self.has_failed or not answer:
            return FAILED
        if self.response.stopped:
            return STOPPED
        return REWRITTEN if len(answer) > _UNCHANGED and self.has_changes() else PASSED

    def has_changes(self) -> bool:
        """Whether an answer that is not empty changes something."""
        return True

    def early_asks(self) -> tuple[ExtraInfoReq, ...]:
        """What is to be asked of the gateway before it runs."""
        return self.phase_chain.habits.asks

    def told(self, asks: Sequence[ExtraInfoReq], results: Sequence[bytes | None], seconds: float) -> None:
        """Get what was asked before it runs.

        Args:
            asks: what was asked.
            results: what the gateway has answered, in the same order.
            seconds: how long that took.
        """
        self.asked_early = tuple(asks)
        self.told_seconds = seconds
        if self.meter is not None:
            self.meter.waited(seconds)
        self.request.unread = self.response.unread = unread = set()
        for ask, result in zip(asks, results, strict=True):
            unread.add(ask.name or ask.kind)
            if ask.kind is InfoKind.RESP_BODY:
                self.response.was_told(result)
            else:
                self.request.was_told(ask, result)

    def not_told(self, error: GatewayError) -> bytes:
        """The answer where that could not be had; logged."""
        if self.meter is not None:
            self.meter.ended(FAILED, self.deadline)
        names = ", ".join(repr(step.name) for step in self.phase_chain.chain.steps)
        return self.failed(GatewayError(f"before plugin {names} ran: {error}"))

    def _tell_habits(self) -> None:
        unread = self.request.unread or ()
        left = [ask for ask in self.asked_early if (ask.name or ask.kind) in unread] if unread else ()
        self.phase_chain.habits.told(self.asked_late, left)

    def check(self) -> None:
        """Raise what kept the conf from being prepared."""
        if self.conf.failure is not None:
            raise self.conf.failure

    def variables_before(self) -> tuple[str, ...]:
        """Variables that are needed before the plugins run."""
        return ()

    def variables_after(self) -> tuple[str, ...]:
        """Variables that the answer needs, beyond what the plugins asked for."""
        return ()

    def warn_once(self, problem: str) -> None:
        """Say once a conf what its plugins ask for in vain."""
        if problem not in self.conf.warned:
            self.conf.warned.add(problem)
            names = ", ".join(step.name for step in self.phase_chain.chain.steps)
            with self.current():
                log.warning("%s: plugin %s %s; told once", self.conf.key.route, names, problem)

    def kept_context(self, request_id: str) -> bytes | None:
        """What `request.context` held in the request phase of a request."""
        return self.contexts.read(request_id)

    def failed(self, error: BaseException) -> bytes:
        """Log a failure, and the answer that fails closed."""
        self.has_failed = True
        if self.meter is not None:
            self.meter.failed(error)
        cause = error.cause if isinstance(error, PluginFailure) else error
        if isinstance(cause, WireError) and cause.offset:
            self.connection.broken = True
            log.error("malformed frame: %s; it is refused and its connection closed", cause)
            return self.malformed_answer()
        with self.current():
            self._log_failure(error)
        return self.failed_answer()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Be the call that runs, for what a ``with`` block logs."""
        token = current_response.set(self.response)
        try:
            yield
        finally:
            current_response.reset(token)

    def log_fields(self) -> dict[str, object]:
        """Which call this is, for lines that are logged in it."""
        return {"route": self.conf.key.route, "request": self.id}

    def malformed_answer(self) -> bytes:
        """The answer to a frame that turns out to be malformed."""
        return self.failed_answer()

    def given_up(self) -> None:
        """It was answered at its deadline, by another thread than its own."""
        if self.meter is not None:
            self.meter.given_up(self.deadline)

    def _log_failure(self, error: BaseException) -> None:
        """One line, with the plugin's own traceback where a plugin failed. Neither headers nor query are logged."""
        where = self.describe()
        if isinstance(error, PluginFailure):
            log.error("%s: %s; the call fails\n%s", where, error, error.traceback())
        elif isinstance(error, ConfError):
            log.error("%s: %s; the call fails", where, error)
        elif isinstance(error, WireError):
            names = ", ".join(step.name for step in self.phase_chain.chain.steps)
            log.error("%s: the answer of plugins %s cannot be sent: %s; the call fails", where, names, error)
        elif isinstance(error, GatewayError):
            log.error("%s: %s; the call fails", where, error)
        else:
            log.error("%s: the call fails: a mistake of the runner, please report it", where, exc_info=error)

    # Link: ask the gateway on this call's connection.

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Ask and wait, in the thread that runs the plugin."""
        meter = self.meter
        if meter is None:
            return self._ask(asks)
        started = time.monotonic()
        try:
            return self._ask(asks)
        finally:
            meter.waited(time.monotonic() - started)

    def ask_async(self, asks: Sequence[ExtraInfoReq]) -> Coroutine[Any, Any, list[bytes | None]]:
        """Ask and await, on the loop that runs the plugin."""
        answers = self._ask_async(asks)
        return answers if self.meter is None else self.meter.waiting(answers)

    def _ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        if self.ended:
            raise answered()
        self.waited = True
        if self.before_wait is not None:
            self.before_wait(self)
        results = self._get_asking().ask(asks)
        self.asked_late += tuple(asks)
        return results

    async def _ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        if self.ended:
            raise answered()
        results = await self._get_asking().ask_async(asks)
        self.asked_late += tuple(asks)
        return results

    def _get_asking(self) -> Asking:
        with _new_asking:
            if self.asking is None:
                self.asking = Asking(self.connection, self.deadline)
            return self.asking


def fields_of_current_call() -> dict[str, object]:
    """For lines that are logged now: which call runs here, and which plugin in it, if any."""
    response = current_response.get()
    if response is None:
        return {"plugin": current_setup.get()}
    of_call: Callable[[], dict[str, object]] = getattr(response.link, "log_fields", dict)  # until it has its answer
    return {**of_call(), "plugin": response.plugin}
