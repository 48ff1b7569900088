"""The socket on which the runner's workers tell what their plugins do.

Rules that live here: a line of JSON is an event; a connection that sends anything else, or a line without an end, is
closed; what has come so far can be read at once, so that an exchange is shown with all that was told before its end.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from apisix.runner.inspection import Event

log = logging.getLogger(__name__)

CHUNK = 1 << 18
MOST_LINE = 8 << 20
"""Bytes of an event at most."""

_decode = msgspec.json.Decoder(Event).decode


class Receiver:
    """Listens for workers.

    Args:
        path: of the socket; in a folder of one's own.
        heard: called with each event.
    """

    def __init__(self, path: Path, heard: Callable[[Event], None]) -> None:
        self.path = path
        self._heard = heard
        self._listener: socket.socket | None = None
        self._rests: dict[socket.socket, bytes] = {}

    def start(self) -> None:
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Stop listening and close every connection. Harmless when stopped already."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in list(self._rests):
            self._close(connection)

    def drain(self) -> None:
        """Read all that has come."""
        if self._listener is not None:
            self._accept()
        for connection in list(self._rests):
            self._read(connection)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._rests[connection] = b""
                asyncio.get_running_loop().add_reader(connection, self._read, connection)

    def _read(self, connection: socket.socket) -> None:
        while connection in self._rests:
            try:
                data = connection.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(connection)
                return
            *lines, rest = (self._rests[connection] + data).split(b"\n")
            self._rests[connection] = rest
            try:
                for line in lines:
                    self._heard(_decode(line))
                if len(rest) > MOST_LINE:
                    raise msgspec.DecodeError(f"a line of more than {MOST_LINE} bytes")
            except msgspec.DecodeError as error:
                log.warning("what a worker tells the inspector cannot be read: %s", error)
                self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(connection)
        self._rests.pop(connection, None)
        connection.close()
