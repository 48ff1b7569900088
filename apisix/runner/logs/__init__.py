"""Logs: the standard `logging` module, set up so that a plugin author's `logging.info(...)` works as it is.

What each module is for: `lines` makes lines of events, `context` knows the call that they come from, `sinks` writes to
a stream or a file, and `handler` puts it together.
"""

import logging
import sys
from pathlib import Path
from typing import TextIO

from apisix.runner.logs.handler import Handler, Hush
from apisix.runner.logs.lines import LEVELS, render_json, render_text
from apisix.runner.logs.sinks import FileSink, StreamSink


def setup(level: str, format: str, stream: TextIO | None = None, file: Path | None = None) -> None:
    """Log what is at least as serious as `level` (debug, info, warn, error).

    A second call replaces what the first one set up.

    Args:
        level: debug, info, warn or error.
        format: text or json.
        stream: where lines go; stderr by default.
        file: where they go instead, as long as it can be written.

    Example: after ``setup("info", "text")``, ``logging.getLogger("shop").info("sold", extra={"item": 7})`` writes
    ``2026-11-21T04:00:00.123Z INFO  shop sold item=7``.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, Handler):
            root.removeHandler(handler)
            handler.close()
    render = {"text": render_text, "json": render_json}[format]
    sink = StreamSink(stream or sys.stderr)
    root.addHandler(Handler(render, sink) if file is None else Handler(render, FileSink(file), sink))
    root.setLevel(LEVELS[level])
    logging.captureWarnings(True)


def reopen() -> None:
    """Go on in the file that has the log's name now: who rotates logs has given the old one another name."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.reopen()


def hush(library: str, seconds: float) -> None:
    """Let a library say the same thing once in a while only, such as that something it sends to is not there.

    Args:
        library: the name that its loggers begin with.
        seconds: between two lines from the same place in its code.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.addFilter(Hush(library, seconds))
