"""The page on performance is made of what was measured, and says where an aim is missed."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import plots
from benchmarks.measuring import Failure, Row, Sample
from benchmarks.report import PAGE, SECTIONS, fill
from benchmarks.results import PUBLISHED, Results, find, load
from benchmarks.run import write_json
from benchmarks.starting import Start
from benchmarks.sweeps import SweepRow

MACHINE = {"CPU": "A processor", "cores": 2, "commit": "abc1234"}
NOT_MEASURED = "Not measured yet."


def sample(cpu: float, rate: float = 1000.0, p99: float = 300.0) -> Sample:
    return Sample(cpu, rate, 50.0, p99, 900.0, 55.0, 0.1)


def rows(costs: Mapping[str, float], case: str = "stop") -> list[Row]:
    """One row a server; the rounds lie around the cost, which is their median."""
    return [
        Row(server, case, 16, [sample(cost * factor) for factor in (0.9, 1.0, 5.0)]) for server, cost in costs.items()
    ]


@pytest.fixture
def measured(tmp_path: Path) -> Results:
    """What a small measurement leaves."""
    plan = {"rounds": 3, "seconds": 2.0, "quick": False}
    peers = {
        "machine": MACHINE,
        "plan": plan,
        "peers": {"Go": "v0.5.0"},
        "missing": {"Java": "JAVA_RUNNER is not set"},
        "rows": [*rows({"compiled": 8, "pure": 21, "Go": 17, "floor": 3}), Row("Go", "async", 0, [], "it does not")],
        "starts": [Start("compiled", [0.2, 0.2], [0.21, 0.22], [24.0, 29.0])],
    }
    bench = {
        "machine": MACHINE,
        "plan": plan,
        "rows": rows({"compiled": 9}),
        "starts": [],
        "sweeps": {
            "confs": [SweepRow("stop", 1, [sample(10.0)]), SweepRow("stop", 10_000, [sample(12.0)])],
            "headers": [SweepRow("echo", x, [sample(cpu)]) for x, cpu in ((0, 5.0), (10, 14.0), (100, 105.0))],
            "waiting": [SweepRow("blocking", 32, [sample(60.0, rate=8000.0)])],
        },
        "gateways": {"embedded": {"plain": [{"rate": 900.0, "p50": 8000.0, "p99": 9000.0, "cpu": 0.0}]}},
    }
    stage = dict.fromkeys(("poll", "receive", "decode", "open", "plugin", "encode", "send", "rest", "reads"), 1.0)
    profile = {"machine": MACHINE, "stages": {"compiled": {"stop": stage | {"whole": 8.0}}}}
    for name, part in {"peers": peers, "bench": bench, "profile": profile}.items():
        write_json(tmp_path / f"{name}.json", part)
    return load(find((tmp_path,)))


def page(results: Results) -> str:
    return fill(PAGE.read_text(), results)


def test_cells_are_medians_of_the_rounds(measured: Results) -> None:
    assert (
        "|  | compiled | pure | Go | floor |\n| --- | ---: | ---: | ---: | ---: |\n| `stop` | 8.0 | 21.0 | 17.0 | 3.0 |"
        in page(measured)
    )


@pytest.mark.parametrize(
    "line",
    [
        "| `stop`: CPU a request, of Go's | at most 0.5 | 0.47 | met |",
        "| `stop`, pure Python: CPU a request | at most 20 us | 21.0 us | **missed** |",
        "| 1 to 10,000 prepared confs: dearest over cheapest | within 10% | 20% | **missed** |",
        "| `echo` of 0 to 100 headers: most above the straight line | within 10% | 0%; 1.00 us a header | met |",
        "| `blocking`: of threads / 2 ms, up to 32 threads | at least 75% | 50% (with 32 threads) | **missed** |",
        "| Memory of a worker, after its first conf | at most 30 MB | 29 MB | met |",
    ],
)
def test_an_aim_is_met_or_missed(measured: Results, line: str) -> None:
    assert line in page(measured)


def test_what_could_not_be_measured_says_why(measured: Results) -> None:
    assert "| Java | not measured: JAVA_RUNNER is not set |" in page(measured)
    assert "- `async`, Go: it does not." in page(measured)


def test_a_trial_is_never_shown_as_a_measurement(measured: Results) -> None:
    trial = measured._replace(plans={"peers": {"rounds": 2, "seconds": 0.3, "quick": True}})
    assert "**quick: a trial of the benchmarks, no measurement**" in page(trial)


def test_without_numbers_every_section_says_so() -> None:
    assert page(load({})).count(NOT_MEASURED) == len(SECTIONS)


def test_filling_twice_changes_nothing(measured: Results) -> None:
    assert fill(page(measured), measured) == page(measured)


def test_a_page_that_lacks_a_section_is_refused(measured: Results) -> None:
    with pytest.raises(Failure, match="expected the sections machine"):
        fill(PAGE.read_text().replace("<!-- machine -->", ""), measured)


def test_the_page_shows_what_was_published() -> None:
    assert PAGE.read_text() == page(load(find((PUBLISHED,))))


def test_plots_are_the_same_for_the_same_numbers(measured: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one_plot = measured._replace(beside=[], sweeps={})
    for folder in ("once", "again"):
        assert plots.draw(one_plot, tmp_path / folder)
    drawn = [(tmp_path / folder / "performance-stages.svg").read_bytes() for folder in ("once", "again")]
    assert drawn[0] == drawn[1]


def test_the_json_is_what_was_measured(measured: Results, tmp_path: Path) -> None:
    assert json.loads((tmp_path / "peers.json").read_text())["rows"][0]["rounds"][1]["cpu"] == 8
    assert measured.row("compiled", "stop") == sample(8.0)
