"""What a worker tells the inspector of `apisix-runner dev`: events, a line of JSON each, over a unix socket.

Rules that live here: the events' fields; how much of a text is told; bytes that are not UTF-8 are spelled out. Only a
worker whose environment names the inspector's socket tells anything.
"""

from typing import Any

import msgspec

SOCKET_VARIABLE = "APISIX_RUNNER_INSPECTOR"
"""Environment variable with the path of the inspector's socket; `dev` sets it for the runner that it starts."""

MOST_CHARACTERS = 2048
"""Of a name, a value or a log line."""

MOST_BODY = 16 * 1024
"""Bytes of a body."""

MOST_LINES = 100
"""Log lines of one run of a plugin, and changes that it made."""


class Body(msgspec.Struct, frozen=True):
    """A body as far as it is shown, and how many bytes it has."""

    text: str
    length: int


class Change(msgspec.Struct, frozen=True):
    """A difference that a plugin made: values before and after, None where there was nothing.

    Attributes:
        part: `path`, `argument`, `request header`, `request body`, `status`, `response header`, `response body` or
            `context`.
        name: of the argument, header or entry of the context; else empty.
    """

    part: str
    name: str
    before: list[str] | None
    after: list[str] | None


class Asked(msgspec.Struct, frozen=True):
    """What a plugin asked the gateway for.

    Attributes:
        what: `variable request_id`, `request body` or `response body`.
        value: None where it is not set.
        seconds: until it came; several that were asked in one round trip have the same. 0 where the runner had asked
            before the plugin ran, since it always does.
    """

    what: str
    value: Body | None
    seconds: float


class Line(msgspec.Struct, frozen=True, tag="line"):
    """A line of the log. As an event of its own: one that no run of a plugin logged.

    Attributes:
        time: seconds since the epoch.
        traceback: empty where there is none.
    """

    time: float
    level: str
    logger: str
    text: str
    traceback: str = ""


class PluginRun(msgspec.Struct, tag="run", kw_only=True):
    """One run of a plugin.

    Attributes:
        call: the gateway's number of the call.
        phase: `request` or `response`.
        name: its name in the conf.
        file: where its class is.
        started: seconds since the epoch.
        seconds: that it took, waiting included.
        stopped: whether it answered the client.
        error: its failure in one line, or empty.
        traceback: of the failure, from the plugin's file on.
        continues: whether the request goes on after a failure, as its `on_error` says.
    """

    call: int
    phase: str
    name: str
    file: str
    started: float
    seconds: float = 0.0
    changes: list[Change] = []
    asked: list[Asked] = []
    lines: list[Line] = []
    stopped: bool = False
    error: str = ""
    traceback: str = ""
    continues: bool = False


class PluginInfo(msgspec.Struct, frozen=True):
    """A plugin that is loaded.

    Attributes:
        about: the class's docstring, else its module's.
        phases: `request`, `response`, with `async` before one whose filter is `async def`.
        schema: the JSON Schema of its conf; None where it has no `Conf`, or one that cannot be put into a schema.
    """

    name: str
    file: str
    about: str
    phases: list[str]
    on_error: str
    timeout: float | None
    variables: list[str]
    schema: dict[str, Any] | None


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """What a worker has loaded, told once when it starts.

    Attributes:
        problems: what is wrong with plugins' files, a line each.
        used: whether it serves with that; else the worker before goes on, with what it has.
    """

    pid: int
    plugins: list[PluginInfo]
    problems: list[str]
    used: bool


Event = PluginRun | Line | Loaded


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text as it is told: cut where it is long, with bytes that were no UTF-8 spelled out.

    Example:
        >>> shown("caf\\udce9, and more", 5)
        'caf\\\\xe9,… (14 characters)'
    """
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
    return cut if cut.isascii() else _bytes(cut).decode("utf-8", "backslashreplace")


def shown_body(raw: bytes) -> Body:
    """A body as it is told."""
    return Body(raw[:MOST_BODY].decode("utf-8", "backslashreplace"), len(raw))


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character, which is no byte either
        return text.encode("utf-8", "backslashreplace")
