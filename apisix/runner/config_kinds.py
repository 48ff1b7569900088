"""The kinds of values that settings have: how each is read from text, shown as text, and described.

Rules:
- A reader gets text and returns the value, or raises ValueError; the error's text, if any, is what was expected
  in place of the kind's own description.
- `show` gives text that `read` accepts.
- A setting takes one text, unless its kind says `many`.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

SOCKET_PATH_LIMIT = 107
"""Bytes that fit into `sockaddr_un.sun_path` on Linux, less the closing NUL."""


def _unchanged(value: Any, base: Path) -> object:
    return value


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How values of one kind are read, shown and described."""

    metavar: str
    expected: str
    read: Callable[[Sequence[str]], object]
    show: Callable[[Any], str] = str
    many: bool = False
    separator: str = os.pathsep
    """What stands between several texts in one."""
    settle: Callable[[Any, Path], object] = _unchanged
    """Completes a value that depends on the folder where it was written; raises ValueError with the whole reason."""


def _one(metavar: str, expected: str, read: Callable[[str], object], show: Callable[[Any], str] = str) -> Kind:
    return Kind(metavar=metavar, expected=expected, read=lambda texts: read(texts[0]), show=show)


def _expect(condition: bool, expected: str = "") -> None:
    if not condition:
        raise ValueError(expected)


def whole(minimum: int, maximum: int) -> Kind:
    """A whole number from `minimum` to `maximum`, both included."""

    def read(text: str) -> int:
        _expect(re.fullmatch("[0-9]{1,18}", text) is not None)
        number = int(text)
        _expect(minimum <= number <= maximum)
        return number

    return _one("N", f"a whole number from {minimum} to {maximum}", read)


def seconds(*, more_than: float | None = None, less_than: float = math.inf) -> Kind:
    """A finite number of seconds; 0 is the least where `more_than` is not given."""
    expected = "seconds, 0 or more" if more_than is None else f"seconds, more than {more_than:g}"
    if less_than != math.inf:
        expected += f" and less than {less_than:g}"

    def read(text: str) -> float:
        _expect(re.fullmatch(r"[0-9]+(\.[0-9]*)?", text, re.ASCII) is not None)
        number = float(text)
        _expect((number >= 0 if more_than is None else number > more_than) and number < less_than)
        return number

    return _one("SECONDS", expected, read, lambda number: f"{number:.15g}")


def choice(*choices: str) -> Kind:
    """One of a few words."""
    expected = ", ".join(choices[:-1]) + " or " + choices[-1]

    def read(text: str) -> str:
        _expect(text in choices)
        return text

    return _one("|".join(choices), expected, read)


def switch() -> Kind:
    """On or off, as YAML says it: true or false."""

    def read(text: str) -> bool:
        _expect(text.lower() in ("true", "false"))
        return text.lower() == "true"

    return _one("true|false", "true or false", read, lambda is_on: "true" if is_on else "false")


def share() -> Kind:
    """A share of a whole, from 0 to 1."""

    def read(text: str) -> float:
        _expect(re.fullmatch(r"[0-9](\.[0-9]*)?", text, re.ASCII) is not None)
        number = float(text)
        _expect(number <= 1)
        return number

    return _one("SHARE", "a share from 0 to 1, as 0.01", read, lambda number: f"{number:.15g}")


_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(minimum: int) -> Kind:
    """A number of bytes, plain or with KiB, MiB or GiB."""

    def show(number: int) -> str:
        if not number:
            return "0"
        unit = max((name for name, factor in _UNITS.items() if number % factor == 0), key=lambda name: _UNITS[name])
        return f"{number // _UNITS[unit]}{unit}"

    def read(text: str) -> int:
        match = re.fullmatch("([0-9]{1,15}) ?(KiB|MiB|GiB|)", text)
        if match is None:
            raise ValueError
        number = int(match[1]) * _UNITS[match[2]]
        _expect(number >= minimum)
        return number

    return _one("BYTES", f"bytes, as 268435456 or 256MiB, at least {show(minimum)}", read, show)


def octal() -> Kind:
    """Permissions in octal, always with the leading 0 that says so."""

    def read(text: str) -> int:
        _expect(re.fullmatch("0o?[0-7]{3}", text) is not None)
        return int(text.replace("o", ""), 8)

    return _one("MODE", "octal permissions from 0000 to 0777, as 0666", read, lambda mode: f"{mode:04o}")


def socket_path() -> Kind:
    """The absolute path of a unix socket, with or without `unix:` before it."""

    def read(text: str) -> Path:
        path = text.removeprefix("unix:")
        _expect(path.startswith("/") and not path.endswith("/") and "\0" not in path)
        length = len(os.fsencode(path))
        _expect(
            length <= SOCKET_PATH_LIMIT,
            f"a path of at most {SOCKET_PATH_LIMIT} bytes (the kernel's limit for unix sockets; this one has {length})",
        )
        return Path(path)

    return _one("PATH", "the absolute path of a unix socket, as unix:/tmp/runner.sock", read)


def address() -> Kind:
    """Where to listen for HTTP: an IP address and port, the path of a unix socket, or None for `none`."""
    unix = socket_path()

    def read(text: str) -> object:
        if text == "none":
            return None
        if text.startswith(("/", "unix:")):
            return unix.read([text])
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):([0-9]{1,5})", text, re.ASCII)
        _expect(match is not None and _is_address(match[1], match[2]) and int(match[3]) <= 65535)
        assert match is not None
        return match[1] or match[2], int(match[3])

    def show(place: tuple[str, int] | Path | None) -> str:
        if isinstance(place, tuple):
            return f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"
        return "none" if place is None else f"unix:{place}"

    expected = "an address and port as 127.0.0.1:9464, a unix socket as unix:/run/metrics.sock, or none"
    return _one("ADDRESS", expected, read, show)


def _is_address(version_6: str | None, version_4: str | None) -> bool:
    """Whether it is an IP address, or `localhost`: no name that somebody else would have to resolve."""
    try:
        return version_4 == "localhost" or ip_address(version_6 or version_4 or "").version == (6 if version_6 else 4)
    except ValueError:
        return False


def account() -> Kind:
    """The name or number of a user or group; empty for `none`."""

    def read(text: str) -> str:
        _expect(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", text, re.ASCII) is not None)
        return "" if text == "none" else text

    return _one("NAME", "the name or number of a user or group, or none", read, lambda name: name or "none")


def accounts() -> Kind:
    """Users, by name or number; those in a flag are given one by one, those in a variable with colons between.

    Empty for `any`.
    """

    def read(texts: Sequence[str]) -> tuple[str, ...]:
        for text in texts:
            account().read([text])
        return () if list(texts) == ["any"] else tuple(texts)

    return Kind(
        metavar="USER",
        expected="names or numbers of users",
        read=read,
        show=lambda names: os.pathsep.join(names) or "any",
        many=True,
    )


def classes() -> Kind:
    """Classes of modules; those in a flag are given one by one, those in a variable with commas between.

    Empty for `none`.
    """

    def read(texts: Sequence[str]) -> tuple[str, ...]:
        if list(texts) == ["none"]:
            return ()
        for text in texts:
            parts = text.split(":")
            _expect(len(parts) == 2 and all(name.isidentifier() for part in parts for name in part.split(".")))
        return tuple(texts)

    return Kind(
        metavar="MODULE:CLASS",
        expected="classes as module:Class, or none",
        read=read,
        show=lambda names: ",".join(names) or "none",
        many=True,
        separator=",",
    )


def version() -> Kind:
    """An APISIX version as three numbers, or None for `unknown`."""

    def read(text: str) -> tuple[int, int, int] | None:
        if text == "unknown":
            return None
        match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", text, re.ASCII)
        if match is None:
            raise ValueError
        return int(match[1]), int(match[2]), int(match[3] or 0)

    def show(numbers: tuple[int, int, int] | None) -> str:
        return ".".join(map(str, numbers)) if numbers else "unknown"

    return _one("VERSION", "an APISIX version as 3.18.0, or unknown", read, show)


def header_names() -> Kind:
    """Names of headers; those in a flag are given one by one, those in a variable with colons between.

    Empty for `none`. They are read in lower case.
    """

    def read(texts: Sequence[str]) -> tuple[str, ...]:
        if list(texts) == ["none"]:
            return ()
        for text in texts:
            _expect(re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", text) is not None)
        return tuple(text.lower() for text in texts)

    return Kind(
        metavar="HEADER",
        expected="names of headers",
        read=read,
        show=lambda names: os.pathsep.join(names) or "none",
        many=True,
    )


def file() -> Kind:
    """The path of a file in a folder that is there, or None for `none`."""

    def read(text: str) -> Path | None:
        _expect(bool(text) and not text.endswith("/") and "\0" not in text)
        return None if text == "none" else Path(text)

    def settle(path: Path | None, base: Path) -> Path | None:
        return None if path is None else Path(os.path.abspath(base / path))

    return Kind(
        metavar="FILE",
        expected="the path of a file, or none",
        read=lambda texts: read(texts[0]),
        show=lambda path: "none" if path is None else str(path),
        settle=settle,
    )


def folders() -> Kind:
    """One folder or several; those in a flag are given one by one, those in a variable with colons between."""

    def read(texts: Sequence[str]) -> tuple[Path, ...]:
        _expect(bool(texts) and all(text and "\0" not in text for text in texts))
        return tuple(Path(text) for text in texts)

    def settle(paths: tuple[Path, ...], base: Path) -> tuple[Path, ...]:
        absolute = tuple(Path(os.path.abspath(base / path)) for path in paths)
        for path in absolute:
            _expect(path.is_dir(), f"expected a folder, but {path} is none; create it or name another")
        return absolute

    return Kind(
        metavar="FOLDER",
        expected="one folder or more",
        read=read,
        show=lambda paths: os.pathsep.join(map(str, paths)),
        many=True,
        settle=settle,
    )
