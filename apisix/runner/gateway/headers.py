"""Headers as nginx keeps them: an ordered list of name and value, names as they were written.

Rules that live here: names are compared without case; setting replaces the first one in its place, under the name that
stands there, and drops its repetitions; what Lua code sets cannot break a header line (control characters are
percent-encoded). Source: lua-nginx-module `ngx.req.set_header`, `ngx.header`, `ngx.resp.add_header`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from apisix.runner.gateway.uri import to_bytes, to_text

Header = tuple[str, str]

NOT_IN_NAME = re.compile(rb"[^A-Za-z0-9!#$%&'*+\-.^_`|~]")
NOT_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

SINGLE = frozenset(
    "accept-ranges content-encoding content-length content-range content-type date etag expires "
    "last-modified location refresh server www-authenticate".split()
)
"""Response headers that nginx has one slot for: adding one replaces it."""


def clean_name(name: str) -> str:
    """`name` with every byte percent-encoded that no header's name may have."""
    return to_text(NOT_IN_NAME.sub(_escaped, to_bytes(name)))


def clean_value(value: str) -> str:
    """`value` with control characters percent-encoded, without spaces at its ends."""
    return to_text(NOT_IN_VALUE.sub(_escaped, to_bytes(value))).strip(" \t")


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


class HeaderList:
    """An ordered list of headers.

    Args:
        items: name and value of each, in order.

    Example:
        >>> headers = HeaderList([("X-A", "1"), ("X-B", "2")])
        >>> headers.set("x-a", "3")
        >>> list(headers)
        [('X-A', '3'), ('X-B', '2')]
    """

    def __init__(self, items: Iterable[Header] = ()) -> None:
        self._items = list(items)

    def __iter__(self) -> Iterator[Header]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        folded = name.lower()
        return [value for key, value in self._items if key.lower() == folded]

    def get(self, name: str) -> str | None:
        """The first value of `name`, or None."""
        values = self.all(name)
        return values[0] if values else None

    def set(self, name: str, value: str | Sequence[str] | None) -> None:
        """Replace every value of `name`; None or no values at all remove it."""
        values = [] if value is None else [value] if isinstance(value, str) else list(value)
        folded = name.lower()
        kept: list[Header] = []
        for item in self._items:
            if item[0].lower() != folded:
                kept.append(item)
            elif values:
                kept += [(item[0], each) for each in values]
                values = []
        self._items = kept + [(name, each) for each in values]

    def add(self, name: str, value: str) -> None:
        """Add a value of `name` to those that are there."""
        self._items.append((name, value))


class ResponseHeaders(HeaderList):
    """Headers of the client's response, as Lua code sets them.

    Underscores in names become hyphens, as nginx's `lua_transform_underscores_in_response_headers` has it.
    """

    def set(self, name: str, value: str | Sequence[str] | None) -> None:
        """Replace every value of `name`; of a header that nginx has one slot for, the last value counts."""
        values = [value] if isinstance(value, str) else list(value or ())
        cleaned = [clean_value(each) for each in values]
        super().set(self._key(name), cleaned[-1:] if name.lower() in SINGLE else cleaned)

    def add(self, name: str, value: str) -> None:
        """Add a value of `name`; a header that nginx has one slot for is replaced."""
        if name.lower() in SINGLE:
            self.set(name, value)
        else:
            super().add(self._key(name), clean_value(value))

    @staticmethod
    def _key(name: str) -> str:
        return clean_name(name.replace("_", "-"))
