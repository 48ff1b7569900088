"""The overview: what the supervisor knows of the runner, as pages for its endpoint.

Rules that live here: the metrics of all workers are added up, and those of ended ones with them; each worker is told
by its row's number, which the next one takes over, since a label of process ids would never stop growing.
"""

import contextlib
import logging
import platform
import time
from collections.abc import Iterable
from typing import NamedTuple

from apisix.runner import __version__
from apisix.runner.compiled import CODEC
from apisix.runner.metrics import text
from apisix.runner.metrics.region import Family, Found, Kind, overflown, read
from apisix.runner.metrics.totals import Totals
from apisix.runner.server.board import Row
from apisix.runner.server.endpoint import Page
from apisix.runner.server.processes import Process, memory_of

log = logging.getLogger("apisix.runner.metrics")

STATES = ("starting", "ready", "retiring", "hung")


class Facts(NamedTuple):
    """What only the supervisor knows.

    Attributes:
        started: when, by time.time().
        generation: which code serves, counted from 0.
        target: workers that there should be.
        restarts: workers that died and were replaced.
        reloads: by outcome.
        not_ready: why calls are not served, empty where they are.
        most_connections: the setting limits.connections.
        most_threads: the setting threads.
    """

    started: float
    generation: int
    target: int
    restarts: int
    reloads: dict[str, int]
    not_ready: str
    most_connections: int
    most_threads: int


class Overview:
    """Adds up what is known, and remembers what ended workers have counted."""

    def __init__(self) -> None:
        self._past = Totals()
        self._overflown = 0

    def keep(self, process: Process) -> None:
        """Remember what a worker has counted that has ended."""
        if process.memory is not None:
            with contextlib.suppress(ValueError):  # of a damaged one, whose cells are too few
                self._past.keep(_read(process))
            self._overflown += overflown(process.memory)
            process.memory.close()
            process.memory = None

    def metrics(self, facts: Facts, workers: Iterable[tuple[Process, Row]]) -> Page:
        """The metrics of the runner and all of its workers.

        Args:
            facts: the supervisor's.
            workers: those that live, with their rows.
        """
        workers = list(workers)
        totals = Totals()
        for process, _ in sorted(workers, key=lambda worker: worker[0].started, reverse=True):
            totals.add(_read(process))
        totals.add(self._past.found())
        totals.add(self._own(facts, workers))
        return Page(200, text.write(totals.families.values()), text.CONTENT_TYPE)

    def _own(self, facts: Facts, workers: list[tuple[Process, Row]]) -> Iterable[Found]:
        overflow = self._overflown + sum(overflown(one.memory) for one, _ in workers if one.memory is not None)
        build = (__version__, CODEC, platform.python_version())
        yield _one("build_info", "gauge", "Always 1; the labels tell what runs.", 1, version=build[0], codec=build[1],
                   python=build[2])  # fmt: skip
        yield _one("start_time_seconds", "gauge", "When the runner was started, in seconds since 1970.", facts.started)
        yield _one("ready", "gauge", "1 while calls are served, else 0.", not facts.not_ready)
        yield _one("generation", "gauge", "How often new plugin code was loaded since the start.", facts.generation)
        yield _one("workers_wanted", "gauge", "Workers that there should be.", facts.target)
        for state in STATES:
            count = sum(one.state == state for one, _ in workers)
            yield _one("workers", "gauge", "Workers, by state.", count, state=state)
        yield _one("worker_restarts_total", "counter", "Workers that died and were replaced.", facts.restarts)
        for outcome, count in facts.reloads.items():
            yield _one("reloads_total", "counter", "Reloads of plugin code, by outcome.", count, outcome=outcome)
        yield _one("connections_limit", "gauge", "Connections that each worker takes.", facts.most_connections)
        yield _one("threads_limit", "gauge", "Threads for calls that each worker has at most.", facts.most_threads)
        yield _one("series_overflown_total", "counter", "Series that found no room and are not counted.", overflow)
        for process, row in workers:
            yield from _of_worker(process, row)


def _of_worker(process: Process, row: Row) -> Iterable[Found]:
    worker = str(process.row)
    info = "Always 1; the labels tell which process a worker is, and which code it runs."
    yield _one("worker_info", "gauge", info, 1, worker=worker, pid=str(process.pid), generation=str(process.generation))
    numbers: tuple[tuple[str, str, float], ...] = (
        ("connections", "Open connections from the gateway.", row.connections),
        ("calls_in_flight", "Calls without an answer yet.", row.open_calls),
        ("threads_in_use", "Threads that run calls, beside the one that polls.", row.threads),
        ("threads_stuck", "Threads whose call was given up on and that still run.", row.stuck),
        ("confs", "Prepared confs.", row.confs),
        ("worker_memory_bytes", "Memory that a worker has for itself.", memory_of(process.pid)),
        ("worker_silence_seconds", "Seconds since a worker's last sign of life.", time.monotonic() - row.beat),
    )
    for name, help, value in numbers:
        yield _one(name, "gauge", f"{help[:-1]}, by worker.", value, worker=worker)


def _one(name: str, kind: Kind, help: str, value: float, **labels: str) -> Found:
    return Found(Family(f"apisix_runner_{name}", kind, help, tuple(labels)), tuple(labels.values()), (float(value),))


def _read(process: Process) -> Iterable[Found]:
    if process.memory is None:
        return []
    try:
        return list(read(process.memory))
    except Exception as error:  # whatever a plugin may have done to it
        log.error("the metrics of worker %d are damaged and left out: %s", process.pid, error)
        return []
