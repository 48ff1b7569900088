"""New code and new runners, under load: not one call fails."""

import time
from pathlib import Path

import pytest

from apisix.runner.server.control import ask
from tests.chaos.agent import Agent
from tests.chaos.load import PLUGINS, USUAL, Load
from tests.chaos.processes import children, ready_workers
from tests.chaos.table import Table
from tests.server.processes import Start

EARLIEST, LATEST = -0.1, 0.2
"""Seconds after SIGTERM in which APISIX starts the successor."""
WITH_LONG_CALLS = USUAL * 20 + ("chatty",) * 20 + ("long",)
"""Calls longer than the second that APISIX gives are among them, and a plugin that prints where nobody reads."""


def test_rolling_reloads(start: Start, table: Table) -> None:
    runner = start(PLUGINS, "--workers", "2")
    with Load(runner.path, WITH_LONG_CALLS) as load:
        for _ in range(200):
            answer = ask(runner.path, "reload")
            assert answer.ok, answer
        load.run_for(2)
    table.add("rolling reload", "200 times in a row, 2 workers", load)
    assert not load.failures, load.failures
    assert len(ready_workers(runner.path)) == len(children(runner.pid)) == 2, "those that retired have ended"


def restart(agent: Agent, load: Load, times: int, period: float) -> None:
    """Restart as often, the successors started at all moments from the earliest to the latest."""
    for number in range(times):
        began = time.monotonic()
        agent.restart(EARLIEST + (LATEST - EARLIEST) * number / (times - 1))
        load.run_for(period - (time.monotonic() - began))


@pytest.mark.parametrize(
    ("times", "period", "serving", "told"),
    [
        (
            50,
            1.3,
            50,
            "50 times, the successor started from 0.1 s before to 0.2 s after SIGTERM; some calls take 1.5 s",
        ),
        (20, 0.4, 4, "20 times in 8 s: some are ended before they serve"),  # most of them on a busy machine
    ],
)
def test_restarts_by_apisix(tmp_path: Path, table: Table, times: int, period: float, serving: int, told: str) -> None:
    old: list[int] = []
    with Agent(tmp_path, PLUGINS, APISIX_RUNNER_WORKERS="2") as agent:
        with Load(agent.path, WITH_LONG_CALLS) as load:
            load.run_for(1)
            restart(agent, load, times, period)
            load.run_for(2)
            workers = children(agent.last.process.pid)
        table.add("restart by APISIX", told, load)
        old = [pid for pid in load.workers if pid not in workers]
        agent.wait_for_death_of(*old)
    assert not load.failures, load.failures
    assert len(load.workers) > serving, "many runners have served"
