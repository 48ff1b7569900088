"""Calls without a pause, as a gateway makes them that has many clients."""

import contextlib
import threading
from pathlib import Path

from apisix.runner.wire.flatbuf import Pair
from tests.server.connections import SECONDS, Closed, Connection, body_of, can_be_read

NOTICES = 0.003
"""Seconds in which the gateway notices that a connection was closed after an answer, before it is used again."""


class Load:
    """Calls on several connections, made until it is left. A connection that was closed after an answer is replaced.

    Args:
        path: the runner's socket.
        conf: what is called.
        connections: how many at a time.

    Attributes:
        answers: the body of every call's answer, in order of arrival.
        histories: the same, for each client.
        failures: what went wrong instead, one line each; a call without its answer is among them.
    """

    def __init__(self, path: Path, *conf: Pair, connections: int = 8) -> None:
        self.answers: list[str] = []
        self.histories: list[list[str]] = [[] for _ in range(connections)]
        self.failures: list[str] = []
        self._path = path
        self._conf = conf
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(history,)) for history in self.histories]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def wait_for_more(self, count: int = 50) -> None:
        """Wait until more calls were answered (or one failed)."""
        wanted = len(self.answers) + count
        with self._changed:
            self._changed.wait_for(lambda: len(self.answers) >= wanted or self.failures, SECONDS)
        assert not self.failures, self.failures

    def wait_for_answer(self, body: str) -> None:
        """Wait until a call was answered so (or one failed)."""
        with self._changed:
            self._changed.wait_for(lambda: body in self.answers[-20:] or self.failures, SECONDS)
        assert not self.failures, self.failures
        assert body in self.answers

    def _run(self, history: list[str]) -> None:
        try:
            while not self._stop.is_set():
                with Connection(self._path) as connection:
                    self._use(connection, history)
        except (Closed, OSError, AssertionError) as error:
            self._tell(None, f"{type(error).__name__}: {error}")

    def _use(self, connection: Connection, history: list[str]) -> None:
        token = connection.prepare(*self._conf)
        while not self._stop.is_set() and not self._is_closed(connection):
            history.append(body_of(connection.call(token)))
            self._tell(history[-1], None)

    def _is_closed(self, connection: Connection) -> bool:
        with contextlib.suppress(OSError):
            return can_be_read(connection.sock, NOTICES)
        return True

    def _tell(self, answer: str | None, failure: str | None) -> None:
        with self._changed:
            if answer is not None:
                self.answers.append(answer)
            if failure is not None:
                self.failures.append(failure)
            self._changed.notify_all()
