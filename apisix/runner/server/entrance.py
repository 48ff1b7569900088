"""The entrance: how connections come to a worker.

Rules that live here:
- All workers accept on one socket, without blocking. A worker that has more connections than another leaves that one
  a moment to be faster: so bursts of long-lived connections are spread evenly.
- Workers that retire hand their connections over on a second socket; those are taken the same way.
- Out of file descriptors, or at limits.connections, it pauses; what waits in the backlog is served later.
- Where socket.allow_users names users, the kernel's word for who connects counts.
"""

import errno
import logging
import os
import socket
import time
from collections.abc import Callable

from apisix.runner.server.board import OwnRow
from apisix.runner.server.listen import peer_of
from apisix.runner.server.readiness import READABLE, Readiness

log = logging.getLogger("apisix.runner.entrance")

PAUSE = 0.1  # seconds without accepting, when the process is out of file descriptors
TELL_EVERY = 10.0  # seconds between two lines that say why it pauses
YIELD = 0.02  # seconds that a worker with more connections than another waits for that one to accept
YIELD_TICK = 0.004  # seconds between two looks while it waits
MOST_AT_ONCE = 64


class Entrance:
    """Accepts connections, and takes those that are handed over.

    Args:
        listener: bound and listening; becomes non-blocking.
        epoll: the poller's, which tells `event`.
        most_connections: above, no more are accepted until one closes.
        allowed_users: numbers of the users that may connect; without any, everyone.
        row: this worker's numbers and those of others; None where there is nobody else.
        count: how many connections the worker has.
        welcome: gets each connection.
    """

    def __init__(
        self,
        listener: socket.socket,
        epoll: Readiness,
        *,
        most_connections: int,
        allowed_users: frozenset[int],
        row: OwnRow | None,
        count: Callable[[], int],
        welcome: Callable[[socket.socket], None],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._epoll = epoll
        self._most_connections = most_connections
        self._allowed_users = allowed_users
        self._row = row
        self._count = count
        self._welcome = welcome
        self._predecessors: socket.socket | None = None
        self._accept_by = 0.0  # when to accept although other workers have fewer connections; 0 while not waiting
        self._accept_again = 0.0
        self._tell_again = 0.0
        self._closed = False
        self.accepting = False

    def open(self, predecessors: socket.socket | None) -> None:
        """Begin to accept.

        Args:
            predecessors: a datagram socket on which workers that retire send their connections.
        """
        if predecessors is not None:
            predecessors.setblocking(False)
            self._predecessors = predecessors
            self._epoll.register(predecessors.fileno(), READABLE)
        self.resume()

    def close(self) -> None:
        """Take what waits already, and no more: who connects from now on is refused rather than kept waiting."""
        self._closed = True
        self._end_yielding()
        if self._predecessors is not None:
            self._adopt(None)
            self._epoll.unregister(self._predecessors.fileno())
            self._predecessors = None
        if self.accepting:
            self._accept(None)
            self._stop()
        self._listener.close()

    def in_forked_child(self) -> None:
        """Close what a process has that a plugin forked: the poll is the parent's, and left alone."""
        self._listener.close()
        if self._predecessors is not None:
            self._predecessors.close()

    def event(self, fd: int) -> None:
        """Handle an event of one of its sockets; of others, nothing."""
        if fd == self._listener.fileno():
            self._accept(MOST_AT_ONCE)
        elif self._predecessors is not None and fd == self._predecessors.fileno():
            self._adopt(MOST_AT_ONCE)

    @property
    def yields(self) -> bool:
        """Whether it leaves connections to other workers for a moment; then `look` is due soon."""
        return bool(self._accept_by)

    def look(self) -> None:
        """See whether others have taken what was left to them."""
        self._accept(MOST_AT_ONCE)
        self._adopt(MOST_AT_ONCE)

    def is_due(self, now: float) -> bool:
        """Whether a pause is over."""
        return not self.accepting and not self._closed and now > self._accept_again

    def resume(self) -> None:
        """Accept again, if there is room."""
        if not self.accepting and not self._closed and self._count() < self._most_connections:
            self._end_yielding()
            self.accepting = True
            self._epoll.register(self._listener.fileno(), READABLE)

    def _pause(self, why: str) -> None:
        now = time.monotonic()
        if now > self._tell_again:
            self._tell_again = now + TELL_EVERY
            log.error("not accepting for a moment: %s", why)
        self._accept_again = now + PAUSE
        self._stop()

    def _stop(self) -> None:
        if self.accepting:
            self._end_yielding()
            self.accepting = False
            self._epoll.unregister(self._listener.fileno())

    def _accept(self, most: int | None) -> None:
        accepted = 0
        while most is None or (self.accepting and accepted < most and self._is_my_turn()):
            if self._count() >= self._most_connections and most is not None:
                self._pause(f"{self._count()} connections are open, as limits.connections allows")
                return
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._end_yielding()
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(f"{error.strerror}; raise the limit of open files")
                return
            accepted += 1
            self._let_in(sock)
            self._end_yielding()

    def _adopt(self, most: int | None) -> None:
        """Take connections that workers hand over which retire."""
        adopted = 0
        while self._predecessors is not None and (most is None or (adopted < most and self._is_my_turn())):
            try:
                _, fds, _, _ = socket.recv_fds(self._predecessors, 1, 1)
            except OSError:
                return
            adopted += 1
            for fd in fds:  # none, where this process is out of file descriptors
                os.set_inheritable(fd, False)  # recv_fds ignores its flags in Python 3.11
                self._let_in(socket.socket(fileno=fd))
            self._end_yielding()

    def _let_in(self, sock: socket.socket) -> None:
        if self._allowed_users:
            pid, uid, _ = peer_of(sock)
            if uid not in self._allowed_users:
                log.error("a connection of user %d (pid %d) is refused: socket.allow_users does not name it", uid, pid)
                sock.close()
                return
        self._welcome(sock)

    def _is_my_turn(self) -> bool:
        """Whether to accept now: a worker that is ahead of the emptiest one leaves it a moment to be faster."""
        if self._row is None or self._count() <= self._row.fewest_connections():
            return True
        now = time.monotonic()
        if not self._accept_by:
            self._accept_by = now + YIELD
            for source in self._sources():
                self._epoll.unregister(source.fileno())
        return now >= self._accept_by

    def _end_yielding(self) -> None:
        if self._accept_by:
            self._accept_by = 0.0
            for source in self._sources():
                self._epoll.register(source.fileno(), READABLE)

    def _sources(self) -> list[socket.socket]:
        """What brings connections and is polled, unless this worker yields to others."""
        sources = [self._listener] if self.accepting else []
        return sources if self._predecessors is None else [*sources, self._predecessors]
