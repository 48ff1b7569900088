"""The way from a worker to the inspector of `apisix-runner dev`.

Rules that live here: an event is a line of JSON; what the inspector's socket does not take at once is dropped, and the
next event that it takes is preceded by one that tells how many were; telling never waits and never raises.
"""

import contextlib
import socket
import threading
import time

import msgspec

from apisix.runner.inspection import Event, Line

BUFFER = 1 << 20
"""Bytes that the inspector may be behind."""


class Reporter:
    """The way to the inspector.

    Args:
        path: of its socket.
    """

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._rest = b""
        self._dropped = 0
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            self._socket.setblocking(False)
            self._socket.connect(path)
        except OSError:
            self.close()

    def tell(self, event: Event) -> None:
        """Send an event, or drop it. Never waits, never raises."""
        with contextlib.suppress(Exception), self._lock:
            if self._socket is None:
                return
            if self._rest and not self._flush():
                self._dropped += 1
                return
            self._rest = msgspec.json.encode(event) + b"\n"
            if self._dropped:
                text = f"{self._dropped} events before this one were dropped: the inspector was too slow"
                note = Line(time.time(), "warn", __name__, text)
                self._rest = msgspec.json.encode(note) + b"\n" + self._rest
                self._dropped = 0
            self._flush()

    def _flush(self) -> bool:
        """Send what is left of the last event. Whether all of it went."""
        assert self._socket is not None
        try:
            while self._rest:
                self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
