"""Runners for the tests of a module, and for one test."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.server.connections import Connection
from tests.server.processes import Runner, Start


class Spares:
    """Runners that start while the test before runs: half the time of a test would be the start of its runner."""

    def __init__(self) -> None:
        self._uses: Counter[str] = Counter()
        self._spares: dict[str, Runner] = {}

    def take(self, arguments: Sequence[Any], keywords: dict[str, Any]) -> Runner:
        """A runner with these arguments; from the second one on, the next is started too."""
        key = repr((arguments, keywords))
        runner = self._spares.pop(key, None) or Runner(*arguments, **keywords)
        self._uses[key] += 1
        if self._uses[key] > 1 and "socket_path" not in keywords:
            self._spares[key] = Runner(*arguments, **keywords)
        return runner

    def stop(self) -> None:
        """End those that no test took."""
        for runner in self._spares.values():
            runner.stop()


@pytest.fixture(scope="module")
def spares() -> Iterator[Spares]:
    found = Spares()
    yield found
    found.stop()


@pytest.fixture
def start(spares: Spares) -> Iterator[Start]:
    """Starts runners for one test (arguments as `Runner`), waits until they accept, and ends them afterwards."""
    runners: list[Runner] = []

    def start_one(*arguments: Any, **keywords: Any) -> Runner:
        runner = spares.take(arguments, keywords)
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
    """A connection to the module's runner, whose log holds all that earlier tests did."""
    runner.catch_up()
    with runner.connect() as connection:
        yield connection


def _check(runner: Runner) -> None:
    mistakes = runner.log.events("please report it")
    assert not mistakes, "\n".join(mistakes)
