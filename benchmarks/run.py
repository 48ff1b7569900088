"""Measures our runner: plugins, sizes, start, gateways. `make bench` runs all of it; see README.md.

A real runner process serves the plugins of ./plugins on a socket of its own; a6load.c plays the gateway, over and over
with the same frame on some connections at once. What is shown are the medians of the rounds.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, traffic
from benchmarks.http_load import PATHS, HTTPSample, closed_loop, embedded, wrk
from benchmarks.measuring import (
    FLOOR,
    FLOOR_KIND,
    RESULTS,
    Failure,
    Plan,
    Row,
    about_python,
    compare,
    machine,
    median,
    ours,
    progress,
    runner,
)
from benchmarks.starting import Start, starts
from benchmarks.sweeps import SWEEPS, SweepRow, sweep

DEFAULT_PLUGINS = "stop,rewrite,echo"
GATEWAY_CONNECTIONS = 16
STARTS = 11


def table(rows: Sequence[Row]) -> str:
    """The medians; how far the rounds' CPU lay apart; how often the floor's CPU that is."""
    floors = {row.connections: median(row.rounds).cpu for row in rows if row.server == FLOOR and row.rounds}
    titles = "plugin|runner|conns|CPU us/req|(from-to)|x floor|req/s|p50 us|p99 us|p99.9 us|MB|disturbed"
    lines = [tuple(titles.split("|"))]
    for row in rows:
        if not row.rounds:
            continue
        middle, floor = median(row.rounds), floors.get(row.connections)
        lowest, highest = (pick(sample.cpu for sample in row.rounds) for pick in (min, max))
        ratio = f"{middle.cpu / floor:.1f}" if floor else "-"
        times = (f"{middle.p50:.0f}", f"{middle.p99:.0f}", f"{middle.p999:.0f}")
        first = (row.case, row.server, str(row.connections), f"{middle.cpu:.1f}", f"({lowest:.1f}-{highest:.1f})")
        lines.append((*first, ratio, f"{middle.rate:.0f}", *times, f"{middle.memory:.0f}", f"{middle.foreign:.2f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    shown += [f"{row.case}, {row.server}: not measured: {row.failure}" for row in rows if row.failure]
    return "\n".join(shown)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--plugins", default=DEFAULT_PLUGINS, help=f"of {','.join(CASES)}, or all (default: %(default)s)"
    )
    parser.add_argument("--connections", default="16", help="how many at once, several with commas (default: 16)")
    parser.add_argument("--seconds", type=float, help="of one measurement (default: 2)")
    parser.add_argument("--rounds", type=int, help="that the medians are taken of (default: 5)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the runner (default: 1)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the runner")
    parser.add_argument("--codec", choices=("compiled", "pure"), help="only the runner with this one")
    parser.add_argument("--sweeps", default="", help=f"of {','.join(SWEEPS)}, or all (default: none)")
    parser.add_argument("--starts", action="store_true", help="how long it takes to come up")
    parser.add_argument("--gateway", action="store_true", help="through the embedded gateway")
    parser.add_argument("--apisix", default="", metavar="URL,URL...", help="through a real APISIX, with wrk")
    parser.add_argument("--all", action="store_true", help="all of it, at 1, 16, 64 and 256 connections")
    parser.add_argument("--quick", action="store_true", help="short and few: to try the benchmarks, not the runner")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "bench.json", help="the JSON file (default: %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.all:
        chosen.plugins, chosen.sweeps, chosen.starts, chosen.gateway = "all", "all", True, True
        chosen.connections = "1,16" if chosen.quick else "1,16,64,256"
    chosen.seconds = chosen.seconds or (0.3 if chosen.quick else 2.0)
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 5)
    chosen.plugins = _names(parser, chosen.plugins, list(CASES))
    chosen.sweeps = _names(parser, chosen.sweeps, list(SWEEPS))
    chosen.connections = [int(count) for count in chosen.connections.split(",")]
    return chosen


def _names(parser: argparse.ArgumentParser, given: str, there_are: list[str]) -> list[str]:
    names = there_are if given == "all" else [name for name in given.split(",") if name]
    unknown = [name for name in names if name not in there_are]
    if unknown:
        parser.error(f"expected some of {', '.join(there_are)}, got {', '.join(unknown)}")
    return names


def through_gateways(chosen: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[HTTPSample]]]:
    """Requests through the embedded gateway, and through a real one where its routes' addresses are given."""
    found: dict[str, dict[str, list[HTTPSample]]] = {}
    if chosen.gateway:
        server = runner(folder, python=chosen.python)
        try:
            with embedded(server, chosen.python) as address:
                pids = server.pids()
                routes = found.setdefault("embedded", {path: [] for path in PATHS})
                for number in range(chosen.rounds):
                    for path, samples in routes.items():
                        progress(f"embedded gateway: round {number + 1} of {chosen.rounds}, {path}")
                        samples.append(closed_loop(f"{address}/{path}", GATEWAY_CONNECTIONS, chosen.seconds, pids))
        finally:
            server.end()
    urls = [url for url in chosen.apisix.split(",") if url]
    for number in range(chosen.rounds if urls else 0):
        for url in urls:
            progress(f"APISIX: round {number + 1} of {chosen.rounds}, {url}")
            sample = wrk(url, GATEWAY_CONNECTIONS, chosen.seconds)
            found.setdefault("apisix", {}).setdefault(url, []).append(sample)
    progress("")
    return found


def as_json(value: Any) -> Any:
    """Named tuples become objects."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: as_json(one) for key, one in value._asdict().items()}
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report, numbers rounded to what is worth keeping."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(as_json(report)), parse_float=lambda text: round(float(text), 3))
    path.write_text(json.dumps(rounded, indent=1) + "\n")
    print(f"written to {path}")


def main() -> None:
    """Measure, print the table, write the JSON."""
    chosen = options()
    about: dict[str, Any] = {"machine": machine() | about_python(chosen.python) | {"workers": chosen.workers}}
    print(", ".join(f"{name} {value}" for name, value in about["machine"].items()))
    kinds = [kind for kind in ours(chosen.python, chosen.workers) if chosen.codec in (None, kind.name)]
    if not kinds:
        raise Failure("the compiled codec was not built; install again where there is a C compiler")
    rows: list[Row] = []
    swept: dict[str, list[SweepRow]] = {}
    up: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="a6bench-") as name:
        folder = Path(name)
        if chosen.plugins:
            plan = Plan(chosen.plugins, chosen.connections, chosen.rounds, chosen.seconds)
            rows = compare([FLOOR_KIND, *kinds], plan, traffic, folder)
        print(table(rows))
        if chosen.starts:
            up = [starts(kind, folder, 3 if chosen.quick else STARTS) for kind in kinds]
        for question in chosen.sweeps:
            swept[question] = sweep(question, folder, chosen.python, chosen.rounds, chosen.seconds, chosen.quick)
        gateways = through_gateways(chosen, folder)
    plan_made = {"rounds": chosen.rounds, "seconds": chosen.seconds, "quick": chosen.quick}
    report = about | {"plan": plan_made, "rows": rows, "starts": up, "sweeps": swept, "gateways": gateways}
    write_json(chosen.output, report)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
