"""Measuring: what a worker counts of its calls, and of the plugins in them.

Rules that live here:
- Every call is counted once, when its answer is made or when it is given up on; a plugin whenever it has run.
- A count is one addition to a cell of the region (metrics/region.py), at a place that was found when the conf was
  prepared. Nothing is looked up, made or locked while a call runs.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, TypeVar

from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.metrics.region import Cells, Family, Region
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import InThread, Step
from apisix.runner.plugin.errors import ConfError, PluginFailure
from apisix.runner.plugin.registry import REQUEST, RESPONSE, Definition
from apisix.runner.server.call import Call
from apisix.runner.server.watch import Watch
from apisix.runner.wire.frame import WireError
from apisix.runner.wire.messages import ExtraInfoReq, encode_http_req_call_resp

BOUNDS = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Seconds: from a plugin that reads a header to a call that passes its deadline."""

SUM = len(BOUNDS) + 1
PASSED, REWRITTEN, STOPPED, FAILED = "passed", "rewritten", "stopped", "failed"
ERRORS = ("plugin", "timeout", "deadline", "conf", "gateway", "frame", "answer", "runner")

CALLS = Family(
    "apisix_runner_call_duration_seconds",
    "histogram",
    "Seconds from a call's frame to its answer, by phase and by what became of the request.",
    ("phase", "outcome"),
    BOUNDS,
)
PLUGINS = Family(
    "apisix_runner_plugin_duration_seconds",
    "histogram",
    "Seconds that a plugin ran in a call, by plugin, phase and outcome.",
    ("plugin", "phase", "outcome"),
    BOUNDS,
)
QUEUE = Family(
    "apisix_runner_queue_wait_seconds",
    "histogram",
    "Seconds that calls waited for a thread or for the event loop; calls that ran at once are not among them.",
    (),
    BOUNDS,
)
GATEWAY = Family(
    "apisix_runner_gateway_wait_seconds",
    "histogram",
    "Seconds that calls waited for variables and bodies of the gateway, by phase; one for each round trip.",
    ("phase",),
    BOUNDS,
)
PREPARES = Family(
    "apisix_runner_prepare_duration_seconds",
    "histogram",
    "Seconds that preparing a conf took, by outcome.",
    ("outcome",),
    BOUNDS,
)
CALL_ERRORS = Family(
    "apisix_runner_call_errors_total", "counter", "Calls that failed, by the kind of error.", ("kind",)
)
REFUSED = Family(
    "apisix_runner_frames_refused_total",
    "counter",
    "Frames that were refused: malformed ones, and those whose conf token is not known.",
    ("reason",),
)

_UNCHANGED = len(encode_http_req_call_resp(1, None))
_clock = time.monotonic
C = TypeVar("C", bound=Call)


def measure(watch: Watch, region: Region, timeout: float) -> None:
    """Have calls and plugins measured.

    Args:
        watch: that is chosen from.
        region: where this worker counts.
        timeout: seconds that a call has, from which its start is known.
    """
    watch.request_call = _measured_call(watch.request_call, REQUEST, region, timeout)
    watch.response_call = _measured_call(watch.response_call, RESPONSE, region, timeout)
    watch.make_step = _MeasuredSteps(region)
    cells = region.cells
    refused = {reason: region.series(REFUSED, (reason,)) for reason in ("malformed", "unknown_token")}
    prepares = {done: region.series(PREPARES, ("done" if done else FAILED,)) for done in (True, False)}

    def count_refused(reason: str | None) -> None:
        cells[refused["malformed" if reason is not None else "unknown_token"]] += 1.0

    def count_prepared(seconds: float, done: bool) -> None:
        cells[prepares[done] + bisect_left(BOUNDS, seconds)] += 1.0
        cells[prepares[done] + SUM] += seconds

    watch.refused = count_refused
    watch.prepared = count_prepared


class _MeasuredSteps:
    """Makes steps that count what they run."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def __call__(self, name: str, definition: Definition, instance: Base, phase: str) -> Step:
        step = Step(name, definition, instance, phase)
        if phase not in definition.phases:
            return step
        at = [self._region.series(PLUGINS, (definition.name, phase, what)) for what in (PASSED, STOPPED, FAILED)]
        measured = _measured_coroutine if step.coroutine else _measured_function
        step.run = measured(step.run, self._region.cells, *at)
        return step


def _measured_function(run: Any, cells: Cells, passed: int, stopped: int, failed: int) -> Any:
    def measured(request: Request, response: Response) -> Any:
        started = _clock()
        at = failed
        try:
            result = run(request, response)
            if result is None:
                at = stopped if response.stopped else passed
            return result
        finally:
            seconds = _clock() - started
            cells[at + bisect_left(BOUNDS, seconds)] += 1.0
            cells[at + SUM] += seconds

    return measured


def _measured_coroutine(run: Any, cells: Cells, passed: int, stopped: int, failed: int) -> Any:
    async def measured(request: Request, response: Response) -> Any:
        started = _clock()
        at = failed
        try:
            result = await run(request, response)
            if result is None:
                at = stopped if response.stopped else passed
            return result
        finally:
            seconds = _clock() - started
            cells[at + bisect_left(BOUNDS, seconds)] += 1.0
            cells[at + SUM] += seconds

    return measured


def error_kind(error: BaseException) -> str:
    """Which kind of error failed a call, one of ERRORS."""
    cause = error.cause if isinstance(error, PluginFailure) else error
    if isinstance(cause, WireError):
        return "frame" if cause.offset else "answer"
    if isinstance(cause, ConfError):
        return "conf"
    if isinstance(cause, GatewayError):
        return "gateway"
    if isinstance(error, PluginFailure):
        return "timeout" if isinstance(cause, TimeoutError) else "plugin"
    return "runner"


def _has_changed(response: Response) -> bool:
    """Whether a plugin changed something of the upstream's response."""
    headers = response.touched_headers
    return bool(response.new_status) or response.raw_body is not None or (headers is not None and headers.changed)


def outcome_of(call: Any, answer: bytes, phase: str) -> str:
    """What became of a call's request.

    Args:
        call: whose class has set `has_failed`.
        answer: its frame, empty where none was made.
        phase: of the call.
    """
    if call.has_failed or not answer:
        return FAILED
    if call.response.stopped:
        return STOPPED
    if len(answer) > _UNCHANGED and (phase == REQUEST or _has_changed(call.response)):
        return REWRITTEN
    return PASSED


def _measured_call(base: type[C], phase: str, region: Region, timeout: float) -> type[C]:
    cells = region.cells
    outcomes = {what: region.series(CALLS, (phase, what)) for what in (PASSED, REWRITTEN, STOPPED, FAILED)}
    passed, rewritten, stopped, failed = outcomes.values()
    is_request = phase == REQUEST
    base_run = base.run  # quicker than super()
    errors = {kind: region.series(CALL_ERRORS, (kind,)) for kind in ERRORS}
    queue = region.series(QUEUE)
    gateway = region.series(GATEWAY, (phase,))

    class MeasuredCall(base):  # type: ignore[valid-type, misc]
        __slots__ = ("has_failed", "told_seconds")

        def run(self) -> bytes:
            self.has_failed = False
            if self.before_wait is None:  # not on the thread that polls
                count_queue(self)
            answer = base_run(self)
            if self.ticket:  # else it was given up on, and counted
                # As `outcome_of`, in place: most calls come here.
                if self.has_failed:
                    at = failed
                elif self.response.stopped:
                    at = stopped
                elif len(answer) > _UNCHANGED and (is_request or _has_changed(self.response)):
                    at = rewritten
                else:
                    at = passed
                seconds = _clock() - self.deadline + timeout
                cells[at + bisect_left(BOUNDS, seconds)] += 1.0
                cells[at + SUM] += seconds
            return answer

        async def run_async(self, in_thread: InThread) -> bytes:
            self.has_failed = False
            count_queue(self)
            answer: bytes = b""
            try:
                answer = await super().run_async(in_thread)
            finally:
                if self.ticket:
                    count(outcomes[outcome_of(self, answer, phase)], _clock() - self.deadline + timeout)
            return answer

        def failed(self, error: BaseException) -> bytes:
            self.has_failed = True
            cells[errors[error_kind(error)]] += 1.0
            answer: bytes = super().failed(error)
            return answer

        def given_up(self) -> None:
            cells[errors["deadline"]] += 1.0
            count(failed, _clock() - self.deadline + timeout)
            super().given_up()

        def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
            started = _clock()
            try:
                results: list[bytes | None] = super().ask(asks)
                return results
            finally:
                count(gateway, _clock() - started)

        def not_told(self, error: GatewayError) -> bytes:
            count(outcomes[FAILED], _clock() - self.deadline + timeout)
            answer: bytes = super().not_told(error)
            return answer

        def told(self, asks: Sequence[ExtraInfoReq], results: Sequence[bytes | None], seconds: float) -> None:
            count(gateway, seconds)
            self.told_seconds = seconds
            super().told(asks, results, seconds)

        async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
            started = _clock()
            try:
                results: list[bytes | None] = await super().ask_async(asks)
                return results
            finally:
                count(gateway, _clock() - started)

    def count_queue(call: MeasuredCall) -> None:
        asked = call.told_seconds if call.asked_early else 0.0
        count(queue, _clock() - call.deadline + timeout - asked)

    def count(at: int, seconds: float) -> None:
        cells[at + bisect_left(BOUNDS, seconds)] += 1.0
        cells[at + SUM] += seconds

    return MeasuredCall
