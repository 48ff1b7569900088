"""Which connections can be read: epoll, or poll on a platform that has no epoll, such as macOS.

Rules that live here: connections are registered from any thread, while the lead waits; poll does not notice that, so
there it is woken. What is done by poll costs more with every connection: it is for development.
"""

import logging
import os
import select
from typing import Protocol

from apisix.runner.compiled import CODEC

if CODEC == "compiled":
    from apisix.runner.server._io import Epoll

log = logging.getLogger("apisix.runner.readiness")

READABLE = select.POLLIN  # the same number for epoll


class Readiness(Protocol):
    """As much of `select.epoll` as is used."""

    def register(self, fd: int, eventmask: int = ..., /) -> None:
        """Look at a file descriptor from now on."""

    def unregister(self, fd: int, /) -> None:
        """Look at it no more."""

    def poll(self, timeout: float | None = ..., maxevents: int = ..., /) -> list[tuple[int, int]]:
        """Wait so many seconds (-1: for ever) for some that can be read."""

    def close(self) -> None:
        """Let go of what it holds."""


class Wakeup:
    """What one thread is woken with by another: readable from `set` to `clear`.

    Attributes:
        fd: to be registered.
    """

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._write_fd = nonblocking_pipe()

    def set(self) -> None:
        """Wake."""
        try:
            os.write(self._write_fd, (1).to_bytes(8, "little"))
        except BlockingIOError:  # it is full: who is to wake has not yet read
            pass

    def clear(self) -> None:
        """Be silent again."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close it."""
        for fd in {self.fd, self._write_fd}:
            os.close(fd)


class Polled:
    """Readiness by poll."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._changed = Wakeup()
        self._poll.register(self._changed.fd, select.POLLIN)

    def register(self, fd: int, eventmask: int = READABLE, /) -> None:
        """Look at a file descriptor from now on."""
        self._poll.register(fd, eventmask)
        self._changed.set()

    def unregister(self, fd: int, /) -> None:
        """Look at it no more."""
        self._poll.unregister(fd)
        self._changed.set()

    def poll(self, timeout: float | None = None, maxevents: int = -1, /) -> list[tuple[int, int]]:
        """Wait so many seconds (-1: for ever) for some that can be read."""
        found = self._poll.poll(None if timeout is None or timeout < 0 else timeout * 1000)
        if any(fd == self._changed.fd for fd, _ in found):
            self._changed.clear()
        return [event for event in found if event[0] != self._changed.fd]

    def close(self) -> None:
        """Let go of what it holds."""
        self._changed.close()


def readiness() -> Readiness:
    """The best that the platform has."""
    if hasattr(select, "epoll"):
        return Epoll() if CODEC == "compiled" else select.epoll()
    log.warning("this platform has no epoll: poll does its work, at a cost that grows with the connections")
    return Polled()


def nonblocking_pipe() -> tuple[int, int]:
    """A pipe that neither blocks nor is inherited: the end to read from, the end to write to."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
