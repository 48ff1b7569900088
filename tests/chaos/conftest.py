"""Runners for the faults, and the tables that are printed when all is done."""

from collections.abc import Iterator

import pytest

from tests.chaos.table import Table
from tests.server.processes import Runner, Start

_table = Table()


@pytest.fixture
def table() -> Table:
    """Where each fault adds its row, and each bound its line."""
    return _table


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts runners (arguments as `Runner`), waits until they accept, and ends them afterwards."""
    runners: list[Runner] = []

    def start_one(*arguments: object, **keywords: object) -> Runner:
        runners.append(Runner(*arguments, **keywords))  # type: ignore[arg-type]
        return runners[-1].wait_until_ready()

    yield start_one
    for runner in runners:
        print(_told(runner))
        runner.stop()
    for runner in runners:
        assert not runner.log.events("please report it"), runner.log.events("please report it")


def _told(runner: Runner) -> str:
    """What a runner has logged, for the report of a test that failed: without the lines that the load causes."""
    lines = [
        line[:400] for line in runner.log.text().splitlines() if ": prepared for " not in line and line[:9] != "x" * 9
    ]
    return "\n".join(lines[-200:])


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """These tests take minutes: only who names their folder runs them, as `make chaos` does."""
    return None if any("chaos" in argument for argument in config.args) else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables."""
    if _table.rows or _table.bounds:
        terminalreporter.write_line("")
        terminalreporter.write_line(_table.text())
