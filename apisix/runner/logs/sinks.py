"""Sinks: where lines go, a stream or a file.

Rules that live here:
- APISIX reads the runner's stderr from a pipe, in pieces of at most 3,800 bytes (ext-plugin/init.lua, 3.18). So unless
  on a terminal no line is longer, and lines are written in pieces of that size, cut between lines: as much as the
  kernel never mixes with what other processes write.
- A pipe is hardly waited for: APISIX stops reading it as soon as it stops the runner.
- A file is opened by each process for itself, to append, so that whole pieces of several processes follow each other.
"""

import os
import select
import sys
import time
from pathlib import Path
from typing import Protocol, TextIO

LINE_LIMIT = 3800
"""Bytes of the longest line, its end included, where lines are limited."""

FILE_LINE_LIMIT = 1 << 20
"""The same in a file."""

FILE_MODE = 0o640
PATIENCE = 0.02
"""Seconds that a full pipe is waited for; until it was read again, there is no more waiting."""

OPEN_AGAIN = 1.0
"""Seconds between two attempts to open a file that cannot be opened."""


class Sink(Protocol):
    """Takes pieces of whole lines.

    Attributes:
        limit: bytes of the longest line, and of the longest piece.
    """

    limit: int

    def write(self, piece: bytes) -> None:
        """Write a piece.

        Raises:
            OSError: it cannot be written now.
        """
        ...

    def close(self) -> None:
        """Let go of what it has opened itself."""
        ...


class StreamSink:
    """A stream: its file descriptor where it has one, since only that can be asked for room.

    Args:
        stream: None where there is none, as for a process without stderr.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._stuck = False
        try:
            self._descriptor = stream.fileno() if stream is not None else -1
        except (OSError, ValueError):
            self._descriptor = -1
        terminal = self._descriptor >= 0 and os.isatty(self._descriptor)
        self.limit = sys.maxsize if terminal else LINE_LIMIT

    def write(self, piece: bytes) -> None:
        """Write a piece."""
        if self._descriptor < 0:
            if self._stream is None:
                raise BrokenPipeError
            self._stream.write(piece.decode())
            self._stream.flush()
            return
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        self._stuck = not poll.poll(0 if self._stuck else PATIENCE * 1000)
        if self._stuck:
            raise BlockingIOError
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]

    def close(self) -> None:
        """Nothing: the stream is somebody else's."""


class FileSink:
    """A file, made if need be.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.limit = FILE_LINE_LIMIT
        self.path = path
        self._descriptor = -1
        self._is_cut = False  # the file ends in the middle of a line
        self._open_again = 0.0
        self._why = OSError()

    def write(self, piece: bytes) -> None:
        """Write a piece."""
        if self._descriptor < 0:
            self._open()
        if self._is_cut:
            piece = b"\n" + piece
        while piece:
            written = os.write(self._descriptor, piece)
            piece = piece[written:]
            self._is_cut = bool(piece)

    def _open(self) -> None:
        now = time.monotonic()
        if now < self._open_again:
            raise self._why
        try:
            self._descriptor = self._opened()
        except OSError as error:
            self._open_again = now + OPEN_AGAIN
            self._why = error
            raise

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def reopen(self) -> None:
        """Go on in the file that has the name now.

        Raises:
            OSError: it cannot be opened; the one that was open stays.
        """
        descriptor = self._opened()
        self.close()
        self._descriptor = descriptor
        self._is_cut = False

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
