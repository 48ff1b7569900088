"""Logs: the standard `logging` module, set up so that a plugin author's `logging.info(...)` works as it is.

Rules:
- One event is one line; what follows its first line (a traceback, a text of several lines) is indented in the text
  form and part of a field in the JSON form. Control characters are escaped: no event can pass for another.
- `extra={"route": "1"}` becomes `route=1` in the text form and a field in the JSON form.
- APISIX reads the runner's stderr from a pipe, in pieces of at most 3,800 bytes (ext-plugin/init.lua, 3.18).
  So unless on a terminal no line is longer, and lines are written in pieces of that size, cut between lines: as
  much as the kernel never mixes with what other processes write.
- Logging never raises, and hardly waits: APISIX stops reading that pipe as soon as it stops the runner. Events that
  cannot be written are counted, and the next one that can is preceded by a line that tells the count.
"""

import json
import logging
import math
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TextIO

LINE_LIMIT = 3800
"""Bytes of the longest line, its end included, where lines are limited."""

PATIENCE = 0.02
"""Seconds that a full pipe is waited for; until it was read again, there is no more waiting."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
NAMES = {number: name for name, number in LEVELS.items()} | {logging.CRITICAL: "fatal"}

Render = Callable[[logging.LogRecord, int], list[bytes]]
"""Makes the lines of an event, each with its end, none longer than the given number of bytes."""


def setup(level: str, format: str, stream: TextIO | None = None) -> None:
    """Log what is at least as serious as `level` (debug, info, warn, error) to `stream`, which is stderr by default.

    `format` is text or json. A second call replaces what the first one set up.

    Example: after ``setup("info", "text")``, ``logging.getLogger("shop").info("sold", extra={"item": 7})`` writes
    ``2026-11-21T04:00:00.123Z INFO  shop sold item=7``.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, Handler):
            root.removeHandler(handler)
    root.addHandler(Handler({"text": render_text, "json": render_json}[format], stream or sys.stderr))
    root.setLevel(LEVELS[level])
    logging.captureWarnings(True)


class Handler(logging.Handler):
    """Writes events to a stream: to its file descriptor where it has one, since only that can be asked for room."""

    def __init__(self, render: Render, stream: TextIO | None) -> None:
        super().__init__()
        self._render = render
        self._stream = stream
        self._lost = 0
        self._stuck = False
        try:
            self._descriptor = stream.fileno() if stream is not None else -1
        except (OSError, ValueError):
            self._descriptor = -1
        terminal = self._descriptor >= 0 and os.isatty(self._descriptor)
        self._limit = sys.maxsize if terminal else LINE_LIMIT

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = self._render(record, self._limit)
            if self._lost:
                lines[:0] = self._render(_lost_record(self._lost), self._limit)
            for piece in _pieces(lines, self._limit):
                self._write(piece)
            self._lost = 0
        except Exception:
            self._lost += 1

    def _write(self, piece: bytes) -> None:
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


def render_text(record: logging.LogRecord, limit: int) -> list[bytes]:
    """`time LEVEL logger message key=value ...`, and indented lines for what else there is."""
    first, *rest = _message(record).rstrip("\n").split("\n")
    head = f"{_time(record.created)} {_level(record).upper():5} {record.name} {first}"
    for key, value in _extras(record):
        head += f" {key}={_text_value(value)}"
    rest += [line for part in _traces(record).values() for line in part.split("\n")]
    return [_cut(_escape(line), limit - 1) + b"\n" for line in [head, *("    " + line for line in rest)]]


def render_json(record: logging.LogRecord, limit: int) -> list[bytes]:
    """One object: time, level, logger, message, what `extra` gave, and traceback."""
    event: dict[str, object] = {
        "time": _time(record.created),
        "level": _level(record),
        "logger": _valid(record.name),
        "message": _valid(_message(record)),
    }
    for key, value in _extras(record):
        event.setdefault(_valid(str(key)), _json_value(value))
    event.update((key, _valid(text)) for key, text in _traces(record).items())
    line = _dump(event)
    if len(line) > limit:
        line = _shorten(event, limit)
    return [line]


_STANDARD = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    return ((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg} {record.args} (these do not fit: {error})"


def _traces(record: logging.LogRecord) -> dict[str, str]:
    traces = {}
    if record.exc_info and record.exc_info[0]:
        traces["traceback"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        traces["stack"] = record.stack_info
    return traces


def _level(record: logging.LogRecord) -> str:
    return NAMES.get(record.levelno) or record.levelname.lower()


def _time(created: float) -> str:
    whole = math.floor(created)
    return f"{_second(whole)}.{int((created - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_BARE = re.compile(r"[^\s\"=]+")


def _escape(text: str) -> bytes:
    text = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text.encode("utf-8", "backslashreplace")


def _text_value(value: object) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _valid(str(value))


def _valid(text: str) -> str:
    """The text with lone surrogates (bytes that are not UTF-8) spelled out, which UTF-8 and JSON cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _dump(event: dict[str, object]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _cut(line: bytes, limit: int) -> bytes:
    if len(line) <= limit:
        return line
    marker = f"... [cut from {len(line)} bytes]".encode()
    return line[: limit - len(marker)].decode("utf-8", "ignore").encode() + marker


def _shorten(event: dict[str, object], limit: int) -> bytes:
    """The event's line with its longest texts cut until it fits; without what `extra` gave if that does not do."""
    while len(line := _dump(event)) > limit:
        texts = {key: value for key, value in event.items() if isinstance(value, str)}
        key = max(texts, key=lambda key: len(texts[key]))
        marker = "... [cut]"
        keep = len(texts[key]) - (len(line) - limit) - len(marker)
        if len(texts[key]) > 200:
            event[key] = texts[key][: max(keep, 100)] + marker
        else:
            event = {name: value for name, value in event.items() if name in _ALWAYS} | {"cut": True}
    return line


_ALWAYS = ("time", "level", "logger", "message")


def _pieces(lines: Sequence[bytes], limit: int) -> Iterator[bytes]:
    """The lines joined into pieces of at most `limit` bytes."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > limit:
            yield piece
            piece = b""
        piece += line
    yield piece


def _lost_record(count: int) -> logging.LogRecord:
    facts = {"name": __name__, "levelno": logging.WARNING, "msg": "events before this one could not be written"}
    return logging.makeLogRecord(facts | {"lost": count})
