"""The handler: what becomes of an event.

Rules that live here:
- Logging never raises, and hardly waits. Events that cannot be written are counted, and the next one that can is
  preceded by a line that tells the count.
- What cannot be written to the file goes to stderr; that is said once, and again after a while if it happens again.
- In text, a line of the runner's own does not repeat route, request and plugin, which its message names.
"""

import logging
import time
from collections.abc import Iterator, Sequence

from apisix.runner.logs.context import fields
from apisix.runner.logs.lines import Render, render_json
from apisix.runner.logs.sinks import FileSink, Sink

TELL_EVERY = 60.0
"""Seconds between two lines that say that the file cannot be written, where it can in between."""

_OWN = "apisix.runner"


class Handler(logging.Handler):
    """Writes events to a sink.

    Args:
        render: makes lines of them.
        sink: where lines go.
        fallback: where they go when the sink does not take them; None for nowhere.
    """

    def __init__(self, render: Render, sink: Sink, fallback: Sink | None = None) -> None:
        super().__init__()
        self._render = render
        self._sink = sink
        self._fallback = fallback
        self._lost = 0
        self._told = False
        self._tell_again = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event."""
        try:
            self._add_context(record)
            try:
                self._put(self._sink, record)
                self._told = False
            except OSError as error:
                if self._fallback is None:
                    raise
                self._tell(self._fallback, error)
                self._put(self._fallback, record)
            self._lost = 0
        except Exception:
            self._lost += 1

    def _add_context(self, record: logging.LogRecord) -> None:
        found = fields()
        if not found:
            return
        if self._render is not render_json and record.name.startswith(_OWN):
            found = {}
        found["worker"] = record.process
        for name, value in found.items():
            record.__dict__.setdefault(name, value)

    def _put(self, sink: Sink, record: logging.LogRecord) -> None:
        lines = self._render(record, sink.limit)
        if self._lost:
            lost = _record("events before this one could not be written", lost=self._lost)
            lines[:0] = self._render(lost, sink.limit)
        for piece in _pieces(lines, sink.limit):
            sink.write(piece)

    def _tell(self, fallback: Sink, error: OSError) -> None:
        now = time.monotonic()
        if not self._told and now >= self._tell_again and isinstance(self._sink, FileSink):
            self._told = True
            self._tell_again = now + TELL_EVERY
            problem = f"logging.file {self._sink.path} cannot be written ({error.strerror}): lines go to stderr instead"
            for piece in _pieces(self._render(_record(problem), fallback.limit), fallback.limit):
                fallback.write(piece)

    def reopen(self) -> None:
        """Go on in the file that has the name now, where it writes to one."""
        if isinstance(self._sink, FileSink):
            with self.lock:  # type: ignore[union-attr]  # every handler has one
                try:
                    self._sink.reopen()
                except OSError as error:
                    problem = error.strerror
                else:
                    return
            logging.getLogger(_record("").name).error(
                "logging.file %s cannot be opened again (%s): the file that was open goes on", self._sink.path, problem
            )

    def close(self) -> None:
        """Let go of the file."""
        self._sink.close()
        super().close()


class Hush(logging.Filter):
    """Lets lines of one library pass once in some seconds for each place in its code. Arguments as `logs.hush`."""

    def __init__(self, library: str, seconds: float) -> None:
        super().__init__()
        self._is_of = logging.Filter(library).filter
        self._seconds = seconds
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line passes."""
        place = record.pathname, record.lineno
        if self._is_of(record):
            if record.created - self._said.get(place, 0.0) < self._seconds:
                return False
            self._said[place] = record.created
        return True


def _pieces(lines: Sequence[bytes], limit: int) -> Iterator[bytes]:
    """The lines joined into pieces of at most `limit` bytes."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > limit:
            yield piece
            piece = b""
        piece += line
    yield piece


def _record(message: str, **extra: object) -> logging.LogRecord:
    facts = {"name": "apisix.runner.logs", "levelno": logging.WARNING, "msg": message}
    return logging.makeLogRecord(facts | extra)
