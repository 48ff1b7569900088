"""The plots of the page on performance.

Rules that live here: a runner has the same colour everywhere; the same numbers give the same file, byte for byte;
without matplotlib there are no plots, and nothing fails.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import FLOOR, Sample, median
from benchmarks.profile import STAGES
from benchmarks.results import Results
from benchmarks.sweeps import SWEEPS, SweepRow

COLOURS = {
    "compiled": "#1f6fb4",
    "pure": "#7fb2dd",
    "Go": "#2a9d5c",
    "Go, 1 core": "#93d1ab",
    "Java": "#d9822b",
    "Python 0.2": "#8c6bb1",
    FLOOR: "#9a9a9a",
}
STAGE_COLOURS = ("#7a8ea3", "#a9b8c6", "#1f6fb4", "#7fb2dd", "#d9822b", "#2a9d5c", "#c7d3de", "#9a9a9a")
BARS = ("stop", "rewrite", "echo", "var", "respond")
QUICK = ("stop", "rewrite", "echo")
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "performance",
}
BY_RATE = ("waiting", "workers")


def draw(results: Results, folder: Path) -> bool:
    """Draw what there are numbers for.

    Args:
        results: the numbers.
        folder: for the files, `performance-NAME.svg`.

    Returns:
        Whether there is matplotlib to draw with.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(STYLE)
    folder.mkdir(parents=True, exist_ok=True)
    for name, there, figure in (
        ("cpu", results.beside, _cpu),
        ("connections", results.beside, _connections),
        ("stages", results.stages, _stages),
        ("sizes", results.sweeps, _sizes),
    ):
        if there:
            drawn = figure(results, pyplot)
            drawn.savefig(folder / f"performance-{name}.svg", bbox_inches="tight", metadata={"Date": None})
            pyplot.close(drawn)
    return True


def _cpu(results: Results, pyplot: Any) -> Any:
    servers = [server for server in results.servers if server in COLOURS]
    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    width = 0.8 / len(servers)
    most = 2.2 * max((sample.cpu for case in BARS if (sample := results.row("pure", case))), default=100.0)
    for place, server in enumerate(servers):
        for group, case in enumerate(BARS):
            sample = results.row(server, case)
            if sample is None:
                continue
            x = group + (place - (len(servers) - 1) / 2) * width
            label = server if group == 0 else None
            axes.bar(x, min(sample.cpu, most), width, color=COLOURS[server], label=label)
            if sample.cpu > most:
                axes.text(x, most, f"{sample.cpu:.0f}", rotation=90, ha="center", va="top", fontsize=8, color="white")
    axes.set_xticks(range(len(BARS)), BARS)
    axes.set_ylim(0, most)
    axes.set_ylabel("us of CPU a request")
    axes.set_title("16 connections; less is better")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _connections(results: Results, pyplot: Any) -> Any:
    figure, grid = pyplot.subplots(2, len(QUICK), figsize=(10, 5.6), sharex=True, layout="constrained")
    measures: list[tuple[str, Callable[[Sample], float]]] = [
        ("requests a second", lambda sample: sample.rate),
        ("p99, us", lambda sample: sample.p99),
    ]
    counts = sorted({row.connections for row in results.beside if row.rounds})
    for line, (title, value) in enumerate(measures):
        for column, case in enumerate(QUICK):
            axes = grid[line][column]
            for server in results.servers:
                points = [(n, value(sample)) for n in counts if (sample := results.row(server, case, n))]
                if points and server in COLOURS and server != FLOOR:
                    axes.plot(*zip(*points, strict=True), marker="o", ms=3, color=COLOURS[server], label=server)
            axes.set_xscale("log", base=2)
            axes.set_xticks(counts, [str(count) for count in counts])
            if line == 0:
                axes.set_ylim(0)
                axes.set_title(case)
            else:
                axes.set_yscale("log")
                axes.set_xlabel("connections")
            if column == 0:
                axes.set_ylabel(title)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _stages(results: Results, pyplot: Any) -> Any:
    bars = [(f"{case}, {codec}", stages) for codec, cases in results.stages.items() for case, stages in cases.items()]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.4 * len(bars)))
    lefts = [0.0] * len(bars)
    for (key, text), colour in zip(STAGES.items(), STAGE_COLOURS, strict=True):
        widths = [max(0.0, stages[key]) for _, stages in bars]
        axes.barh(range(len(bars)), widths, left=lefts, color=colour, label=text)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("us of one call")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _sizes(results: Results, pyplot: Any) -> Any:
    names = [name for name in SWEEPS if name in results.sweeps]
    figure, grid = pyplot.subplots(2, 4, figsize=(13, 5.6), layout="constrained")
    places = list(grid.flat)
    for axes, name in zip(places, names, strict=False):
        _size(axes, name, results.sweeps[name])
    for axes in places[len(names) :]:
        axes.axis("off")
    return figure


def _size(axes: Any, name: str, rows: list[SweepRow]) -> None:
    for place, series in enumerate(sorted({row.series for row in rows})):
        points = sorted((row.x, median(row.rounds)) for row in rows if row.series == series)
        xs = [x for x, _ in points]
        if name == "beside":
            ys, label = [sample.p99 for _, sample in points], "p99, us"
        elif name in BY_RATE:
            ys, label = [sample.rate for _, sample in points], "requests a second"
        else:
            ys, label = [sample.cpu for _, sample in points], "us of CPU a request"
        colour = ("#1f6fb4", "#d9822b")[place % 2]
        axes.plot(xs, ys, marker="o", ms=3, label=series, color=colour)
        axes.set_ylabel(label)
    if name == "waiting":
        ideal = sorted({row.x for row in rows})
        axes.plot(ideal, [x / 0.002 for x in ideal], "--", color="#9a9a9a", label="ideal")
    if name == "confs":
        axes.set_xscale("log")
    if name == "workers":
        axes.set_xticks(xs)
    axes.set_ylim(0)
    axes.set_title(SWEEPS[name].title, fontsize=9)
    axes.set_xlabel(SWEEPS[name].x_label)
    axes.legend(fontsize=7)
