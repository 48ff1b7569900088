"""What can be read: told by epoll, compiled or not; on a platform without it, poll does its work."""

import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apisix.runner.compiled import why_not_compiled
from apisix.runner.server.readiness import READABLE, Polled, Readiness, nonblocking_pipe, readiness
from tests.server.connections import SECONDS, body_of
from tests.server.load import Load
from tests.server.processes import Start

PLUGINS = """
class Quick(Base):
    def filter(self, request, response):
        self.stop(200, "quick")

class Sleeps(Base):
    def filter(self, request, response):
        time.sleep(0.05)
        self.stop(200, "slept")

class Asks(Base):
    def filter(self, request, response):
        self.stop(200, request.var("uri"))
"""
WITHOUT = "import os, select\ndel select.epoll, os.eventfd\n"


def epolls() -> list[Callable[[], Readiness]]:
    """Those that there are here."""
    return [*([select.epoll] if hasattr(select, "epoll") else []), *([] if why_not_compiled() else [readiness])]


@pytest.fixture(params=[Polled, *epolls()])
def polled(request: pytest.FixtureRequest) -> Iterator[Readiness]:
    one: Readiness = request.param()
    yield one
    one.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The end to read from, and the end to write to."""
    ends = nonblocking_pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_what_can_be_read_is_told(polled: Readiness, pipe: tuple[int, int]) -> None:
    polled.register(pipe[0], READABLE)
    assert polled.poll(0.0) == []
    os.write(pipe[1], b"x")
    assert polled.poll(SECONDS) == [(pipe[0], READABLE)]


def test_what_is_not_registered_any_more_is_not_told(polled: Readiness, pipe: tuple[int, int]) -> None:
    polled.register(pipe[0])
    os.write(pipe[1], b"x")
    polled.unregister(pipe[0])
    assert polled.poll(0.0) == []


def test_what_is_registered_while_one_waits_is_told(polled: Readiness, pipe: tuple[int, int]) -> None:
    found: list[tuple[int, int]] = []

    def wait() -> None:
        while not found:
            found.extend(polled.poll(-1))

    waiting = threading.Thread(target=wait)
    waiting.start()
    polled.register(pipe[0])
    os.write(pipe[1], b"x")
    waiting.join(SECONDS)
    assert found == [(pipe[0], READABLE)]


def test_more_than_fit_at_once_are_told_by_and_by(polled: Readiness) -> None:
    pipes = [nonblocking_pipe() for _ in range(300)]
    for end, other in pipes:
        polled.register(end, READABLE)
        os.write(other, b"x")
    told: set[int] = set()
    while len(told) < len(pipes):
        for end, _ in polled.poll(0.0, 256):
            told.add(end)
            polled.unregister(end)
    assert told == {end for end, _ in pipes}
    for ends in pipes:
        for end in ends:
            os.close(end)


def test_what_is_not_open_cannot_be_registered(polled: Readiness) -> None:
    end, other = nonblocking_pipe()
    os.close(end)
    os.close(other)
    if not isinstance(polled, Polled):  # poll notices when it looks
        with pytest.raises(OSError, match="Bad file descriptor"):
            polled.register(end, READABLE)


def test_a_runner_serves_without_epoll_and_says_so(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    runner = start(PLUGINS, "--workers", "2", environ={"PYTHONPATH": str(tmp_path)})
    runner.worker(2)
    assert len(runner.log.events("this platform has no epoll: poll does its work")) == 2
    with Load(runner.path, ("quick", "")) as quick, Load(runner.path, ("sleeps", "")) as sleeps:
        with runner.connect() as connection:
            token = connection.prepare(("asks", ""))
            for _ in range(20):
                assert body_of(connection.call(token, {"uri": b"/"})) == "/"
        since = len(runner.log)
        runner.signal(1)
        runner.log.wait_for("reloaded: generation", since)
        for load in (quick, sleeps):
            load.wait_for_more()
    assert quick.failures == sleeps.failures == []
    assert set(quick.answers) | set(sleeps.answers) == {"quick", "slept"}
