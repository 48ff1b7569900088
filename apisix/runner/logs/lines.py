"""Lines: an event as text for people, or as a JSON object.

Rules that live here:
- One event is one line; what follows its first line (a traceback, a text of several lines) is indented in the text
  form and part of a field in the JSON form. Control characters are escaped: no event can pass for another.
- `extra={"route": "1"}` becomes `route=1` in the text form and a field in the JSON form.
- No line is longer than the limit that is given.
"""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
NAMES = {number: name for name, number in LEVELS.items()} | {logging.CRITICAL: "fatal"}

Render = Callable[[logging.LogRecord, int], list[bytes]]
"""Makes the lines of an event, each with its end, none longer than the given number of bytes."""


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
