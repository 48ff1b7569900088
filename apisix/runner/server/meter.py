"""Meters: where a worker counts its calls, and the runs of the plugins in them.

Rules that live here:
- Every call is counted once, when its answer is made or when it is given up on; a plugin whenever it has run.
- A count is one addition to a cell of the region (metrics/region.py), at a place that was found before. Nothing is made
  or locked while a call runs.
- A meter knows no call: it is told what to count.
"""

from bisect import bisect_left
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.metrics.region import Family, Region
from apisix.runner.plugin.errors import ConfError, PluginFailure
from apisix.runner.wire.frame import WireError

BOUNDS = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Seconds: from a plugin that reads a header to a call that passes its deadline."""

OUTCOMES = PASSED, REWRITTEN, STOPPED, FAILED = "passed", "rewritten", "stopped", "failed"
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
CALL_ERRORS = Family(
    "apisix_runner_call_errors_total", "counter", "Calls that failed, by the kind of error.", ("kind",)
)


class Durations:
    """One series of a histogram of seconds.

    Args:
        region: where it is counted.
        family: a histogram with BOUNDS.
        values: the labels'.
    """

    __slots__ = ("at", "cells", "sum_at")

    def __init__(self, region: Region, family: Family, values: tuple[str, ...] = ()) -> None:
        self.cells = region.cells
        self.at = region.series(family, values)
        self.sum_at = self.at + len(BOUNDS) + 1

    def count(self, seconds: float) -> None:
        """Count one."""
        self.cells[self.at + bisect_left(BOUNDS, seconds)] += 1.0
        self.cells[self.sum_at] += seconds


class Meter:
    """Counts the calls of one phase.

    Args:
        region: where they are counted.
        phase: of the calls.
        timeout: seconds that a call has, from which its start is known.
    """

    __slots__ = ("_cells", "_errors", "_gateway", "_outcomes", "_queue", "_timeout")

    def __init__(self, region: Region, phase: str, timeout: float) -> None:
        self._timeout = timeout
        self._cells = region.cells
        self._outcomes = {outcome: Durations(region, CALLS, (phase, outcome)) for outcome in OUTCOMES}
        self._errors = {kind: region.series(CALL_ERRORS, (kind,)) for kind in ERRORS}
        self._queue = Durations(region, QUEUE)
        self._gateway = Durations(region, GATEWAY, (phase,))

    def queued(self, deadline: float, asked: float) -> None:
        """A call begins to run that had to wait for it.

        Args:
            deadline: the call's.
            asked: seconds of that in which it waited for the gateway.
        """
        self._queue.count(monotonic() - deadline + self._timeout - asked)

    def waited(self, seconds: float) -> None:
        """A call has waited for the gateway."""
        self._gateway.count(seconds)

    async def waiting(self, answers: Coroutine[Any, Any, list[bytes | None]]) -> list[bytes | None]:
        """Wait for the gateway's answers."""
        started = monotonic()
        try:
            return await answers
        finally:
            self._gateway.count(monotonic() - started)

    def failed(self, error: BaseException) -> None:
        """A call failed; it is yet to end."""
        at = self._errors[error_kind(error)]
        self._cells[at] += 1.0

    def given_up(self, deadline: float) -> None:
        """A call was given up on, which is its end."""
        at = self._errors["deadline"]
        self._cells[at] += 1.0
        self.ended(FAILED, deadline)

    def ended(self, outcome: str, deadline: float) -> None:
        """A call has ended.

        Args:
            outcome: one of OUTCOMES.
            deadline: the call's.
        """
        durations = self._outcomes[outcome]
        seconds = monotonic() - deadline + self._timeout
        # As `Durations.count`, in place, here and below: all come this way, and from source it makes a difference.
        durations.cells[durations.at + bisect_left(BOUNDS, seconds)] += 1.0
        durations.cells[durations.sum_at] += seconds


class PluginMeter:
    """Counts the runs of one plugin in one phase.

    Args:
        region: where they are counted.
        plugin: its name.
        phase: the one.
        run: its method.
    """

    __slots__ = ("_run", "failed", "passed", "stopped")

    def __init__(self, region: Region, plugin: str, phase: str, run: Callable[[Request, Response], Any]) -> None:
        self._run = run
        self.passed = Durations(region, PLUGINS, (plugin, phase, PASSED))
        self.stopped = Durations(region, PLUGINS, (plugin, phase, STOPPED))
        self.failed = Durations(region, PLUGINS, (plugin, phase, FAILED))

    def run(self, request: Request, response: Response) -> Any:
        """Run a plugin's ``def`` method."""
        durations = self.failed
        started = monotonic()
        try:
            result = self._run(request, response)
            if result is None:
                durations = self.stopped if response.stopped else self.passed
            return result
        finally:
            seconds = monotonic() - started
            durations.cells[durations.at + bisect_left(BOUNDS, seconds)] += 1.0
            durations.cells[durations.sum_at] += seconds


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
