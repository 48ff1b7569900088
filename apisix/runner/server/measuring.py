"""Measuring: what a worker counts, where metrics are on.

Rules that live here: what counts is chosen once, when the worker starts (watch.py), and its places when a conf is
prepared (meter.py).
"""

import time
from typing import Any

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.metrics.region import Family, Region
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import Step
from apisix.runner.plugin.registry import REQUEST, RESPONSE, Definition
from apisix.runner.server.meter import BOUNDS, FAILED, Durations, Meter, PluginMeter
from apisix.runner.server.watch import Watch

PREPARES = Family(
    "apisix_runner_prepare_duration_seconds",
    "histogram",
    "Seconds that preparing a conf took, by outcome.",
    ("outcome",),
    BOUNDS,
)
REFUSED = Family(
    "apisix_runner_frames_refused_total",
    "counter",
    "Frames that were refused: malformed ones, and those whose conf token is not known.",
    ("reason",),
)


def measure(watch: Watch, region: Region, timeout: float) -> None:
    """Have calls and plugins measured.

    Args:
        watch: that is chosen from.
        region: where this worker counts.
        timeout: seconds that a call has, from which its start is known.
    """
    watch.request_meter = Meter(region, REQUEST, timeout)
    watch.response_meter = Meter(region, RESPONSE, timeout)
    watch.make_step = _MeasuredSteps(region)
    cells = region.cells
    refused = {reason: region.series(REFUSED, (reason,)) for reason in ("malformed", "unknown_token")}
    prepares = {done: Durations(region, PREPARES, ("done" if done else FAILED,)) for done in (True, False)}

    def count_refused(reason: str | None) -> None:
        cells[refused["malformed" if reason is not None else "unknown_token"]] += 1.0

    def count_prepared(seconds: float, done: bool) -> None:
        prepares[done].count(seconds)

    watch.refused = count_refused
    watch.prepared = count_prepared


class _MeasuredSteps:
    """Makes steps that count what they run."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def __call__(self, name: str, definition: Definition, instance: Base, phase: str) -> Step:
        step = Step(name, definition, instance, phase)
        if phase in definition.phases:
            meter = PluginMeter(self._region, definition.name, phase, step.run)
            step.run = _measured_coroutine(step.run, meter) if step.coroutine else meter.run
        return step


def _measured_coroutine(run: Any, meter: PluginMeter) -> Any:
    """As `PluginMeter.run`, here, since the stack of a coroutine (stacks.py) ends in one that is compiled."""

    async def measured(request: Request, response: Response) -> Any:
        durations = meter.failed
        started = time.monotonic()
        try:
            result = await run(request, response)
            if result is None:
                durations = meter.stopped if response.stopped else meter.passed
            return result
        finally:
            durations.count(time.monotonic() - started)

    return measured
