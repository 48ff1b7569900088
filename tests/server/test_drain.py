"""How a worker's drain begins: what comes at that very moment."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server.confs import Confs
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.dispatch import Dispatcher
from apisix.runner.server.poller import Poller
from tests.server.connections import SECONDS, Connection, body_of


class Waits(Base):
    """Answers when it is allowed to."""

    begun = threading.Event()
    go = threading.Event()

    def filter(self, request: Request, response: Response) -> None:
        self.begun.set()
        self.go.wait(SECONDS)
        self.stop(200, "waited")


class Listener(socket.socket):
    """Says when it is about to accept."""

    before_accept: Callable[[], None] | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        before, self.before_accept = self.before_accept, None
        if before is not None:
            before()
        return super().accept()


def test_a_drain_does_not_end_while_connections_still_come(tmp_path: Path) -> None:
    """The only connection is about to go while the worker empties its backlog, where another one waits."""
    path = tmp_path / "sock"
    registry = Registry()
    registry.add(Definition(Waits, "test_drain.py"))
    with Listener(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        dispatcher = Dispatcher(Confs(registry, 3600.0), 50.0, None, Contexts(None))
        poller = Poller(listener, dispatcher, threads=1, setup_timeout=2.5, most_connections=9, most_pending=1 << 20)
        poller.start()
        late: list[Connection] = []
        ended: list[bool] = []
        with Connection(path) as first:
            token = first.prepare(("waits", ""))
            first.start_call(token)
            assert Waits.begun.wait(SECONDS)

            def first_ends() -> None:
                late.append(Connection(path))
                Waits.go.set()
                assert body_of(first.receive()) == "waited"
                ended.append(poller.drained.wait(0.2))

            listener.before_accept = first_ends
            poller.drain(lambda fd: None)
            assert poller.drained.wait(SECONDS)
        late[0].close()
        assert ended == [False]
