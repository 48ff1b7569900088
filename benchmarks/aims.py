"""What the runner is to reach, and whether the numbers reach it."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.measuring import FLOOR, median
from benchmarks.results import Results

QUICK = ("stop", "rewrite", "echo")
PURE_MICROSECONDS = {"stop": 20.0, "rewrite": 25.0, "echo": 60.0}
FLAT = 0.10
BLOCKING_SHARE = 0.75
BLOCKING_SECONDS = 0.002
THREADS = 32
WORKER_MEGABYTES = 30.0
START_SECONDS = 0.3


class Aim(NamedTuple):
    """One aim: what, how much, and what was measured."""

    text: str
    wanted: str
    measured: str
    met: bool


def aims(results: Results) -> list[Aim]:
    """Those that there are numbers for."""
    groups = (_beside_go, _floor, _pure, _waiting, _flat, _linear, _up)
    return [aim for group in groups for aim in group(results)]


def _best(results: Results) -> str:
    """Our runner as it is installed where there is a compiler."""
    return "compiled" if "compiled" in results.servers else "pure"


def _beside_go(results: Results) -> Iterator[Aim]:
    for case in QUICK:
        mine, go = results.row(_best(results), case), results.row("Go", case)
        if mine is None or go is None:
            continue
        cpu, rate = mine.cpu / go.cpu, mine.rate / go.rate
        yield Aim(f"`{case}`: CPU a request, of Go's", "at most 0.5", f"{cpu:.2f}", cpu <= 0.5)
        yield Aim(f"`{case}`: throughput, of Go's", "at least 1.5", f"{rate:.2f}", rate >= 1.5)
        yield Aim(f"`{case}`: p99", f"at most Go's, {go.p99:.0f} us", f"{mine.p99:.0f} us", mine.p99 <= go.p99)


def _floor(results: Results) -> Iterator[Aim]:
    mine, floor = results.row(_best(results), "stop"), results.row(FLOOR, "stop")
    if mine and floor:
        ratio = mine.cpu / floor.cpu
        yield Aim("`stop`: CPU a request, of the floor's", "at most 2.5", f"{ratio:.1f}", ratio <= 2.5)


def _pure(results: Results) -> Iterator[Aim]:
    for case, most in PURE_MICROSECONDS.items():
        pure = results.row("pure", case)
        if pure:
            yield Aim(
                f"`{case}`, pure Python: CPU a request",
                f"at most {most:.0f} us",
                f"{pure.cpu:.1f} us",
                pure.cpu <= most,
            )


def _waiting(results: Results) -> Iterator[Aim]:
    points = [row for row in results.sweeps.get("waiting", []) if row.series == "blocking" and row.x <= THREADS]
    if points:
        shares = {row.x: median(row.rounds).rate * BLOCKING_SECONDS / row.x for row in points}
        at = min(shares, key=lambda x: shares[x])
        measured = f"{shares[at]:.0%} (with {at:.0f} threads)"
        wanted = f"at least {BLOCKING_SHARE:.0%}"
        yield Aim("`blocking`: of threads / 2 ms, up to 32 threads", wanted, measured, shares[at] >= BLOCKING_SHARE)


def _flat(results: Results) -> Iterator[Aim]:
    for name, unit in {"confs": "prepared confs", "idle": "idle connections"}.items():
        costs = {row.x: median(row.rounds).cpu for row in results.sweeps.get(name, [])}
        if costs:
            growth = max(costs.values()) / min(costs.values()) - 1
            text = f"{min(costs):,.0f} to {max(costs):,.0f} {unit}: dearest over cheapest"
            yield Aim(text, f"within {FLAT:.0%}", f"{growth:.0%}", growth <= FLAT)


def _linear(results: Results) -> Iterator[Aim]:
    costs = {row.x: median(row.rounds).cpu for row in results.sweeps.get("headers", []) if row.series == "echo"}
    if len(costs) > 2:
        first, last = min(costs), max(costs)
        slope = (costs[last] - costs[first]) / (last - first)
        most = max(cost / (costs[first] + slope * (x - first)) - 1 for x, cost in costs.items())
        text = f"`echo` of {first:.0f} to {last:.0f} headers: most above the straight line"
        yield Aim(text, f"within {FLAT:.0%}", f"{most:.0%}; {slope:.2f} us a header", most <= FLAT)


def _up(results: Results) -> Iterator[Aim]:
    for start in results.starts:
        if start.server == _best(results):
            accepts, worker = (
                sorted(start.accepts)[len(start.accepts) // 2],
                start.megabytes[-1],
            )  # behind the supervisor
            wanted = f"at most {START_SECONDS} s"
            yield Aim("Accepting after start", wanted, f"{accepts:.2f} s", accepts <= START_SECONDS)
            wanted = f"at most {WORKER_MEGABYTES:.0f} MB"
            yield Aim(
                "Memory of a worker, after its first conf", wanted, f"{worker:.0f} MB", worker <= WORKER_MEGABYTES
            )
