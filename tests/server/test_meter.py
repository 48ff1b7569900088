"""Meters, with a region of their own: where in a histogram a duration is counted."""

import math
import time

import pytest

from apisix.runner.metrics.region import Region, new_memory, read
from apisix.runner.plugin.registry import REQUEST
from apisix.runner.server.meter import BOUNDS, QUEUE, STOPPED, Durations, Meter

LAST = len(BOUNDS)


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        (0.0, 0),
        (BOUNDS[0], 0),
        (math.nextafter(BOUNDS[0], 1.0), 1),
        (0.003, BOUNDS.index(0.005)),
        (BOUNDS[-1], LAST - 1),
        (math.nextafter(BOUNDS[-1], 100.0), LAST),
        (1e9, LAST),
    ],
)
def test_a_duration_is_in_the_first_range_whose_bound_it_does_not_exceed(seconds: float, place: int) -> None:
    memory = new_memory()
    Durations(Region(memory), QUEUE).count(seconds)
    (found,) = read(memory)
    assert found.cells == (*(float(at == place) for at, _ in enumerate((*BOUNDS, math.inf))), seconds)


def test_a_call_takes_from_its_start_which_its_deadline_tells_to_its_end() -> None:
    memory = new_memory()
    meter = Meter(Region(memory), REQUEST, timeout=50.0)
    meter.ended(STOPPED, time.monotonic() - 7.0 + 50.0)
    (sum_of_stopped,) = [found.cells[-1] for found in read(memory) if found.values == (REQUEST, STOPPED)]
    assert 7.0 <= sum_of_stopped < 8.0
