"""Runners for the tests of a module, and for one test."""

from collections.abc import Iterator

import pytest

from tests.server.connections import Connection
from tests.server.processes import Runner, Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts runners for one test (arguments as `Runner`), waits until they accept, and ends them afterwards."""
    runners: list[Runner] = []

    def start_one(*arguments: object, **keywords: object) -> Runner:
        runner = Runner(*arguments, **keywords)  # type: ignore[arg-type]
        runners.append(runner)
        return runner.wait_until_ready()

    yield start_one
    for runner in runners:
        runner.stop()
    for runner in runners:
        _check(runner)


@pytest.fixture(scope="module")
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """The module's runner, with its PLUGINS and FLAGS. At the end it is still the process that it was."""
    flags = getattr(request.module, "FLAGS", ())
    with Runner(request.module.PLUGINS, *flags) as one:
        one.wait_until_ready()
        yield one
        assert one.process.poll() is None, f"the runner ended:\n{one.log.end()}"
        assert not one.log.events("ended ("), one.log.events("ended (")
    _check(one)


@pytest.fixture
def gateway(runner: Runner) -> Iterator[Connection]:
    """A connection to the module's runner."""
    with runner.connect() as connection:
        yield connection


def _check(runner: Runner) -> None:
    mistakes = runner.log.events("please report it")
    assert not mistakes, "\n".join(mistakes)
