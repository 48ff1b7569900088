"""The benchmarks measure what they say: the effect is checked, growth is seen, stages add up."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.cases import CASES, traffic, wrong_effect
from benchmarks.guard.__main__ import compare, dear_metrics, table
from benchmarks.in_process import InProcess
from benchmarks.measuring import FLOOR_KIND, measure, started
from benchmarks.profile import STAGES, stages

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler builds the load generator")


@needs_compiler
def test_a_server_is_measured_and_its_processes_are_counted(tmp_path: Path) -> None:
    with started(FLOOR_KIND, tmp_path) as server:
        sample = measure(server, traffic("stop"), 2, 0.1)
    assert sample.rate > 0
    assert 0 < sample.memory < 50


@needs_compiler
def test_a_server_without_the_effect_is_found_out(tmp_path: Path) -> None:
    with started(FLOOR_KIND, tmp_path) as server:
        found = {case: wrong_effect(server.socket, case) for case in ("stop", "echo", "var", "blocking")}
    assert found == {
        "stop": "the answer has not the effect of stop",
        "echo": "the answer has not the effect of echo",
        "var": "the answer has not the effect of var",
        "blocking": None,
    }


def test_every_case_has_its_frames() -> None:
    assert all(sent.prepare.exists() and sent.token_offset > 0 for sent in map(traffic, CASES))


def test_the_stages_of_a_call_add_up_to_the_whole() -> None:
    with closing(InProcess()) as worker:
        found = stages(worker, "echo", 50)
    assert sum(found[stage] for stage in STAGES) == pytest.approx(found["whole"])
    assert found["plugin"] > found["decode"]


def test_growth_over_a_tenth_is_too_much() -> None:
    grown, shrunk, new = compare({"a": 100, "b": 100}, {"a": 111, "b": 80, "c": 5})
    assert [round(change.growth, 2) for change in (grown, shrunk, new)] == [0.11, -0.2, 0.0]
    lines = table([grown, shrunk, new]).splitlines()
    assert [("TOO MUCH" in line, "renew" in line) for line in lines] == [(True, False), (False, True), (False, True)]


def test_metrics_that_make_a_call_too_dear_are_told() -> None:
    counts = {"a": 1000, "b": 1000, "a, metrics on": 1100, "b, metrics on": 1101}
    assert dear_metrics(counts) == ["b, metrics on: +10.1%  TOO MUCH, 1000 without"]
