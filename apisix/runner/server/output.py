"""Output: what plugins print, and who holds it open.

Rules that live here:
- What a plugin prints is written line by line.
- APISIX notices the end of a runner that it started by the end of its output. Nothing that outlives the runner may hold
  that open: neither a worker whose supervisor is gone, nor a process that a plugin has started. So a worker writes
  through descriptors of its own, which programs do not inherit; what those print is lost, unless the plugin reads it.
- What nobody can read any more is lost, and no error: APISIX closes its end a second after SIGTERM, while calls go on.
"""

import io
import os
import sys
from typing import Any, TextIO


class Output:
    """A worker's stdout and stderr.

    Args:
        is_apisix: whether they lead to APISIX, and end with the runner.
    """

    def __init__(self, is_apisix: bool) -> None:
        self._fds = [0, 1, 2]
        self._is_apisix = is_apisix
        if is_apisix:
            sys.stdout, sys.stderr = self._own(sys.stdout), self._own(sys.stderr)
        else:
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(line_buffering=True)

    def _own(self, stream: TextIO) -> TextIO:
        fd = stream.fileno()
        own = os.dup(fd)
        self._fds.append(own)
        _lead_nowhere(fd)
        return printing_to(own, stream.encoding, stream.errors)

    def in_forked_child(self) -> None:
        """Let go of it in a process that a plugin has forked."""
        if self._is_apisix:
            self.let_go()

    def let_go(self) -> None:
        """Hold it open no longer: from now on, what is written is lost."""
        for fd in self._fds:
            _lead_nowhere(fd)


class _Pipe(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def printing_to(fd: int, encoding: str, errors: str | None) -> TextIO:
    """A stream that writes line by line, and loses what is written when nobody can read it any more.

    Args:
        fd: of a pipe.
        encoding: of text.
        errors: what becomes of text that cannot be encoded.
    """
    return io.TextIOWrapper(io.BufferedWriter(_Pipe(fd, "w")), encoding, errors, line_buffering=True)


def _lead_nowhere(fd: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)
