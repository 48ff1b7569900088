"""Writes the page on performance from what was measured: `python -m benchmarks.report`.

Rules that live here: the prose of docs/performance.md is written by hand; what stands between ``<!-- NAME -->`` and
``<!-- end -->`` is written by this program from the JSON. Without --publish it leaves a draft in results/; with it the
JSON goes to published/, and page and plots to docs/.
"""

import argparse
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence

from benchmarks import plots
from benchmarks.aims import THREADS, aims
from benchmarks.cases import COMPARED
from benchmarks.measuring import RESULTS, ROOT, Failure, Sample, median
from benchmarks.profile import STAGES
from benchmarks.results import PUBLISHED, Results, find, load
from benchmarks.sweeps import SWEEPS

PAGE = ROOT / "docs" / "performance.md"
NOT_MEASURED = "Not measured yet."
SECTION = re.compile(r"(<!-- (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
CONNECTIONS = 16
HOW_IT_RUNS = {"compiled": "Compiled", "pure": "From source"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """With three digits that say something, thousands apart."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def machine(results: Results) -> str:
    """Where it was measured."""
    parts = {part: dict(about) for part, about in results.machines.items()}
    if not parts:
        return NOT_MEASURED
    about = parts.get("peers") or next(iter(parts.values()))
    rows = [(str(name), str(value)) for name, value in about.items()]
    rows += [(name, version) for name, version in results.peers.items()]
    rows += [(name, f"not measured: {reason}") for name, reason in results.missing.items()]
    other = {part: one["commit"] for part, one in parts.items() if one["commit"] != about["commit"]}
    rows += [(f"commit of {part}", str(commit)) for part, commit in other.items()]
    for part, plan in results.plans.items():
        quick = ", **quick: a trial of the benchmarks, no measurement**" if plan.get("quick") else ""
        rows.append((f"rounds of {part}", f"{plan['rounds']:.0f} of {plan['seconds']:g} s{quick}"))
    disturbed = [sample.foreign for row in [*results.beside, *results.alone] for sample in row.rounds]
    if disturbed:
        rows.append(("cores busy with something else", f"{statistics.median(disturbed):.2f} (median of all samples)"))
    return table(("", ""), rows)


def aims_table(results: Results) -> str:
    """Each aim, met or missed."""
    found = aims(results)
    if not found:
        return NOT_MEASURED
    rows = [(aim.text, aim.wanted, aim.measured, "met" if aim.met else "**missed**") for aim in found]
    return table(("aim", "wanted", "measured", ""), rows)


def _by_server(results: Results, value: Callable[[Sample], float], connections: int) -> str:
    servers = [server for server in results.servers if any(results.row(server, case, connections) for case in COMPARED)]
    if not servers:
        return NOT_MEASURED
    rows = []
    for case in COMPARED:
        samples = [results.row(server, case, connections) for server in servers]
        if any(samples):
            rows.append([f"`{case}`", *(number(value(sample)) if sample else "" for sample in samples)])
    return table(["", *servers], rows)


def beside(results: Results) -> str:
    """Our runner beside the others, at sixteen connections, and all the rest folded."""
    if not results.beside:
        return NOT_MEASURED
    measures: dict[str, Callable[[Sample], float]] = {
        "CPU a request, us": lambda sample: sample.cpu,
        "Requests a second": lambda sample: sample.rate,
        "p50, us": lambda sample: sample.p50,
        "p99, us": lambda sample: sample.p99,
        "p99.9, us": lambda sample: sample.p999,
        "Peak memory of all processes, MB": lambda sample: sample.memory,
    }
    parts = [_image("cpu", "CPU a request of each runner")]
    for title, value in measures.items():
        parts.append(f"### {title}\n\n{CONNECTIONS} connections.\n\n{_by_server(results, value, CONNECTIONS)}")
    parts.append(_image("connections", "Throughput and p99 over the number of connections"))
    for connections in sorted({row.connections for row in results.beside if row.rounds} - {CONNECTIONS}):
        inner = "\n\n".join(
            f"{title}:\n\n{_by_server(results, value, connections)}" for title, value in measures.items()
        )
        parts.append(f"<details><summary>All of it with {connections} connections</summary>\n\n{inner}\n\n</details>")
    failures = [f"- `{row.case}`, {row.server}: {row.failure}." for row in results.beside if row.failure]
    if failures:
        parts.append("Not measured:\n\n" + "\n".join(dict.fromkeys(failures)))
    return "\n\n".join(parts)


def stages(results: Results) -> str:
    """Where the microseconds of a call go."""
    if not results.stages:
        return NOT_MEASURED
    parts = [_image("stages", "Microseconds of each stage of a call")]
    for codec, cases in results.stages.items():
        rows = [[text, *(f"{stage[key]:.2f}" for stage in cases.values())] for key, text in STAGES.items()]
        rows.append(["**whole call**", *(f"**{stage['whole']:.2f}**" for stage in cases.values())])
        rows.append(["of the plugin's: decoding what it reads", *(f"{stage['reads']:.2f}" for stage in cases.values())])
        loaded = [results.row(codec, case) for case in cases]
        if any(loaded):
            cells = (f"{sample.cpu:.1f}" if sample else "" for sample in loaded)
            rows.append([f"CPU a request under load, {CONNECTIONS} connections", *cells])
        parts.append(f"{HOW_IT_RUNS[codec]}, microseconds:\n\n" + table(["", *(f"`{case}`" for case in cases)], rows))
    return "\n\n".join(parts)


def sizes(results: Results) -> str:
    """Each sweep."""
    if not results.sweeps:
        return NOT_MEASURED
    parts = [_image("sizes", "Cost over sizes")]
    for name, rows in results.sweeps.items():
        waits = name == "waiting"
        head = [SWEEPS[name].x_label, "plugin", "CPU a request, us", "requests a second", "p99, us", "memory, MB"]
        lines = []
        for row in sorted(rows, key=lambda row: (row.x, row.series)):
            middle = median(row.rounds)
            cells = [f"{row.x:,.0f}", f"`{row.series}`", number(middle.cpu), number(middle.rate), number(middle.p99)]
            lines.append([*cells, number(middle.memory)])
            if waits:
                lines[-1].append(f"{middle.rate * 0.002 / min(row.x, THREADS):.0%}" if row.series == "blocking" else "")
        parts.append(f"### {SWEEPS[name].title}\n\n{table([*head, 'of the ideal'] if waits else head, lines)}")
    return "\n\n".join(parts)


def starting(results: Results) -> str:
    """How the runners come up."""
    if not results.starts:
        return NOT_MEASURED
    rows = []
    for start in results.starts:
        accepts, answers = statistics.median(start.accepts), statistics.median(start.answers)
        memory = " + ".join(f"{size:.0f}" for size in start.megabytes)
        rows.append((start.server, f"{accepts:.2f}", f"{answers:.2f}", memory))
    return table(("", "accepts after, s", "first answer after, s", "memory of its processes then, MB"), rows)


def gateways(results: Results) -> str:
    """Requests through gateways."""
    if not results.gateways:
        return NOT_MEASURED
    parts = []
    for gateway, routes in results.gateways.items():
        rows = []
        for route, samples in routes.items():
            rate, p50, p99, cpu = (statistics.median(values) for values in zip(*samples, strict=True))
            rows.append((f"`{route}`", number(rate), number(p50), number(p99), number(cpu) if cpu else ""))
        title = {"embedded": "The embedded gateway", "apisix": "APISIX"}[gateway]
        head = ("route", "requests a second", "p50, us", "p99, us", "CPU of the runner a request, us")
        parts.append(f"{title}, {CONNECTIONS} connections:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


SECTIONS: dict[str, Callable[[Results], str]] = {
    "machine": machine,
    "aims": aims_table,
    "beside": beside,
    "stages": stages,
    "sizes": sizes,
    "starting": starting,
    "gateways": gateways,
}


def _image(name: str, text: str) -> str:
    return f"![{text}](images/performance-{name}.svg)"


def fill(page: str, results: Results) -> str:
    """The page with its generated sections written anew.

    Raises:
        Failure: it has a section that nobody writes, or lacks one.
    """
    found = [match["name"] for match in SECTION.finditer(page)]
    if sorted(found) != sorted(SECTIONS):
        raise Failure(f"{PAGE.name}: expected the sections {', '.join(SECTIONS)}, got {', '.join(found) or 'none'}")
    return SECTION.sub(lambda match: f"{match[1]}{SECTIONS[match['name']](results)}\n{match[4]}", page)


def main() -> None:
    """Write the page and its plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("--publish", action="store_true", help="into docs/, and keep the JSON in published/")
    chosen = parser.parse_args()
    parts = find()
    if chosen.publish:
        PUBLISHED.mkdir(exist_ok=True)
        for path in parts.values():
            if path.parent != PUBLISHED:
                shutil.copy(path, PUBLISHED / path.name)
    folder = PAGE.parent if chosen.publish else RESULTS
    results = load(parts)
    page = fill(PAGE.read_text(), results)
    drawn = plots.draw(results, folder / "images")
    if chosen.publish and not drawn:
        raise Failure("the plots need matplotlib; install it: pip install -e '.[bench]'")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE.name).write_text(page)
    print(f"written to {folder / PAGE.name}{'' if drawn else ', without plots: matplotlib is not installed'}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"report: {failure}")
