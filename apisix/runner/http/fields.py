"""Headers and arguments: mappings with several values a name, which remember what was changed.

Rules that live here:
- `fields[name]` is the first value; `getall` gives every one; `add` appends; assignment replaces all of a name.
- Headers know no case; the name that is kept is the one written last. Arguments are exact.
- An answer carries only what changed: `changes` compares with what the gateway sent, so setting a value to what it
  was costs nothing, and deleting is told apart from never having been there.
- A wrong name or value raises at the line that sets it, since the gateway would fail later and far away.
- Printing headers does not print secrets.
"""

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from typing import ClassVar

from apisix.runner.http.mapping import TextMapping
from apisix.runner.wire.flatbuf import Pair

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_breaks_line = re.compile(r"[\r\n\0]").search
_is_no_text = re.compile(r"[\ud800-\udc7f\udd00-\udfff]").search  # U+DC80 to U+DCFF are the bytes of surrogateescape
_known_names: dict[str, str] = {}
"""Names of headers that were seen to be right, and their keys."""
_MOST_KNOWN_NAMES = 1024

SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "apikey", "x-auth-token"}
"""Headers whose values are never printed. The setting logging.redact adds to them."""

FieldsLike = Mapping[str, str] | Iterable[tuple[str, str]]


def check_header_name(name: str) -> str:
    """Check a header's name (RFC 9110, token).

    Returns:
        It in lower case, by which it is known.

    Raises:
        TypeError: it is not a str.
        ValueError: it is empty or has a character that a header's name cannot have.
    """
    if not isinstance(name, str):
        raise TypeError(f"a header's name must be str, got {name!r}")
    if not _is_token(name):
        raise ValueError(f"{name!r} cannot be a header's name: expected letters, digits and !#$%&'*+-.^_`|~ only")
    key = str.lower(name)
    if len(_known_names) < _MOST_KNOWN_NAMES:
        _known_names[name] = key
    return key


def check_header_value(name: str, value: str) -> None:
    """Check a header's value: one line of text.

    Raises:
        TypeError: it is not a str.
        ValueError: it holds CR, LF or NUL, or what is no Unicode.
    """
    if not isinstance(value, str):
        raise TypeError(f"header {name!r} must be set to str, got {_not_text(value, f'del headers[{name!r}]')}")
    if _breaks_line(value):
        raise ValueError(f"header {name!r} cannot hold CR, LF or NUL: that would begin another header")
    if not value.isascii():
        check_text(value, f"header {name!r}")


def check_text(text: str, what: str) -> None:
    """Check that text can be sent: as UTF-8, and as the byte that it was where it did not decode.

    Raises:
        ValueError: it holds half of a surrogate pair, as JSON with a lone ``\\ud83d`` gives.
    """
    half = None if text.isascii() else _is_no_text(text)
    if half is not None:
        raise ValueError(f"{what} cannot hold U+{ord(half[0]):04X}: that is half of a character, and no text")


def _not_text(value: object, removal: str) -> str:
    """What a value is that should be text, and what to write instead; not the value, which may be a secret."""
    if value is None:
        return f"NoneType; to remove it: {removal}"
    kind = type(value).__name__
    return f"{kind}; write value.decode()" if isinstance(value, bytes) else f"{kind}; write str(value) if that is meant"


class _Items(ItemsView[str, str]):
    """Names with their first values. Reads them all at once: the way of most plugins to go through headers."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._mapping._first_pairs())  # type: ignore[attr-defined]  # of the view's own class


class Fields(TextMapping):
    """What headers and arguments have in common.

    Args:
        pairs: names and values in order, as the gateway sent them; a value of None reads as empty. A function that
            gives them is called when they are first read: what is only written need not be decoded. It may give a new
            dict where each name is its own key and has one value.
    """

    # A name with one value has it as str, one with several has a tuple: the former is nearly all there is.
    # `_several` says that there may be tuples, `_names` how a key was written, where that is not the key itself.
    # `_before` has what a touched name had before; it is None where there was nothing at all.
    __slots__ = ("_before", "_load", "_names", "_several", "_values", "_written")

    _read_only: ClassVar[frozenset[str]] = frozenset()
    """Names whose values cannot be changed."""
    _kept: ClassVar[frozenset[str]] = frozenset()
    """Names that cannot be removed; `replace` and `clear` leave them."""

    _copies_headers: ClassVar[bool] = False
    """Whether these are headers that need no check to be taken over from, or into, others of which that is true."""

    def __init__(self, pairs: Iterable[Pair] | Callable[[], Iterable[Pair] | dict[str, str]] = ()) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, str | tuple[str, ...]] = {}
        self._before: dict[str, str | tuple[str, ...] | None] | None = None
        self._several = False
        self._load: Callable[[], Iterable[Pair] | dict[str, str]] | None = None
        if callable(pairs):
            self._load = pairs
            self._written: dict[str, tuple[str, str]] = {}
            self._before = {}
        elif pairs:
            self._before = {}
            self._fill(pairs)

    def _fill(self, pairs: Iterable[Pair]) -> None:
        values = self._values
        for name, value in pairs:
            key = self._key(name)
            known = values.get(key)
            if known is None:
                values[key] = value or ""
                if key != name:
                    self._names[key] = name
            else:
                values[key] = (*((known,) if isinstance(known, str) else known), value or "")
                self._several = True

    def _read(self) -> None:
        """Load what was not loaded yet, and write again what was written meanwhile."""
        load, self._load = self._load, None
        if load is not None:
            try:
                loaded = load()
                if type(loaded) is dict:
                    self._values = loaded  # type: ignore[assignment]  # of str, which a value may be
                else:
                    self._fill(loaded)  # type: ignore[arg-type]  # no dict, so pairs
            except BaseException:
                self._load = load
                raise
            for key, (name, value) in self._written.items():
                self._write(key, name, value)

    # What the kinds of fields do in their own way.

    def _key(self, name: str) -> str:
        return name

    def _check(self, name: str, value: str) -> str:
        """The name's key, where name and value can be sent."""
        raise NotImplementedError

    # Reading.

    def __getitem__(self, name: str) -> str:
        if self._load is not None:
            self._read()
        value = self._values[self._key(name)]
        return value[0] if type(value) is tuple else value  # type: ignore[return-value]

    def _find(self, name: str) -> str | None:
        if self._load is not None:
            self._read()
        value = self._values.get(self._key(name))
        return value[0] if type(value) is tuple else value  # type: ignore[return-value]

    def __contains__(self, name: object) -> bool:
        if self._load is not None:
            self._read()
        return isinstance(name, str) and self._key(name) in self._values

    def __iter__(self) -> Iterator[str]:
        if self._load is not None:
            self._read()
        names = self._names
        return iter([names.get(key, key) for key in self._values]) if names else iter(list(self._values))

    def __len__(self) -> int:
        if self._load is not None:
            self._read()
        return len(self._values)

    def items(self) -> ItemsView[str, str]:
        """Every name with its first value.

        Example:
            >>> list(Args([("a", "1"), ("a", "2"), ("b", "3")]).items())
            [('a', '1'), ('b', '3')]
        """
        return _Items(self)

    def _first_pairs(self) -> list[tuple[str, str]]:
        return [(name, self[name]) for name in self] if self._several else self.pairs()

    def getall(self, name: str) -> list[str]:
        """Every value of a name, in order; an empty list where there is none.

        Example:
            >>> Args([("tag", "a"), ("tag", "b")]).getall("tag")
            ['a', 'b']
        """
        if self._load is not None:
            self._read()
        return _listed(self._values.get(self._key(name), ()))

    def pairs(self) -> list[tuple[str, str]]:
        """Every name with every value, in order; a name stands once for each of its values."""
        return self.pairs_without(frozenset())

    def pairs_without(self, keys: frozenset[str]) -> list[tuple[str, str]]:
        """As `pairs`, less some names (of headers: in lower case)."""
        if self._load is not None:
            self._read()
        values, names = self._values, self._names
        if not self._several:
            single: dict[str, str] = values  # type: ignore[assignment]  # there are no tuples
            if not names and single.keys().isdisjoint(keys):
                return list(single.items())
            return [(names.get(key, key), value) for key, value in single.items() if key not in keys]
        return [
            (names.get(key, key), value)
            for key, several in values.items()
            if key not in keys
            for value in ((several,) if isinstance(several, str) else several)
        ]

    # Writing.

    def __setitem__(self, name: str, value: str) -> None:
        key = self._check(name, value)
        if self._load is not None:
            if key not in self._read_only:
                self._written[key] = name, value
                return
            self._read()
        elif self._before is None and key == name and not self._names and not self._read_only:
            self._values[key] = value  # as below: what a plugin answers with begins as nothing
            return
        self._write(key, name, value)

    def _write(self, key: str, name: str, value: str | tuple[str, ...]) -> None:
        if self._read_only and key in self._read_only:
            self._check_read_only(name, _listed(value))
        before = self._before
        if before is not None and key not in before:
            before[key] = self._values.get(key)
        self._values[key] = value
        if key != name:
            self._names[key] = name
        elif self._names:
            self._names.pop(key, None)

    def __delitem__(self, name: str) -> None:
        if self._load is not None:
            self._read()
        key = self._key(name)
        if key in self._kept and key in self._values:
            raise ValueError(f"{name!r} cannot be removed: the message needs it")
        value = self._values.pop(key)
        if self._before is not None:
            self._before.setdefault(key, value)
        self._names.pop(key, None)

    def add(self, name: str, value: str) -> None:
        """Append a value to a name, keeping those it has.

        Raises:
            TypeError: name or value is not a str.
            ValueError: the name or the value cannot be sent.
        """
        key = self._check(name, value)
        if self._load is not None:
            self._read()
        self._write_all(key, name, [*self.getall(name), value])

    def setall(self, name: str, values: Iterable[str]) -> None:
        """Replace a name's values by several; none at all removes the name.

        Raises:
            TypeError: name or a value is not a str.
            ValueError: the name or a value cannot be sent.
        """
        if self._load is not None:
            self._read()
        new = [values] if isinstance(values, str) else list(values)
        for value in new:
            key = self._check(name, value)
        if new:
            self._write_all(key, name, new)
        elif name in self:
            del self[name]

    def _write_all(self, key: str, name: str, values: list[str]) -> None:
        if len(values) > 1:
            self._several = True
        self._write(key, name, tuple(values) if len(values) > 1 else values[0])

    def replace(self, fields: FieldsLike) -> None:
        """Make these the only fields: what is not among them is removed.

        Args:
            fields: a mapping, other fields (every value is taken), or pairs of name and value.

        Raises:
            TypeError, ValueError: as `add`; nothing has changed then.
        """
        if self._load is not None:
            self._read()
        if isinstance(fields, Headers) and self._copies_headers and fields._copies_headers:
            if not self._values and not self._read_only:
                self._copy(fields)
                return
        new = self._checked(fields)
        for key in [key for key in self._values if key not in new and key not in self._kept]:
            del self[key]
        for key, (name, values) in new.items():
            self._write_all(key, name, values)

    def _copy(self, fields: "Fields") -> None:
        """Take over all of other fields of the same kind: they were checked there, or came from the gateway."""
        if fields._load is not None:
            fields._read()
        if self._before is not None:
            for key in fields._values:
                self._before.setdefault(key, None)
        self._values.update(fields._values)
        self._names.update(fields._names)
        self._several = fields._several

    def update(self, fields: FieldsLike = (), /, **named: str) -> None:  # type: ignore[override]
        """Set these fields, and leave the others. A name's values are replaced by all that are given for it.

        Args:
            fields: a mapping, other fields (every value is taken), or pairs of name and value.
            named: more of them.

        Raises:
            TypeError, ValueError: as `add`; nothing has changed then.
        """
        for name, values in self._checked([*pairs_of(fields), *named.items()]).values():
            if len(values) == 1:
                self[name] = values[0]  # need not be read for that
            else:
                self.setall(name, values)

    def clear(self) -> None:
        """Remove what can be removed."""
        self.replace(())

    def _checked(self, fields: FieldsLike) -> dict[str, tuple[str, list[str]]]:
        """Names and values by key, each of them checked."""
        checked: dict[str, tuple[str, list[str]]] = {}
        for name, value in pairs_of(fields):
            _, values = checked.setdefault(self._check(name, value), (name, []))
            values.append(value)
        for name, values in checked.values():
            self._check_read_only(name, values)
        return checked

    def _check_read_only(self, name: str, values: list[str]) -> None:
        if self._key(name) in self._read_only and self.getall(name) != values:
            raise ValueError(f"{name!r} cannot be changed: the gateway computes it from the message")

    # What changed.

    @property
    def changed(self) -> bool:
        """Whether anything differs from what the gateway sent."""
        if self._load is not None:
            return bool(self._written)
        if self._before is None:
            return bool(self._values)
        return any(self._values.get(key) != before for key, before in self._before.items())

    def is_set(self, name: str) -> bool:
        """Whether a name has a value that was set here, even if to what the gateway sent."""
        key = self._key(name)
        if self._load is not None:
            return key in self._written
        return key in self._values and (self._before is None or key in self._before)

    def changes(self) -> list[tuple[str, list[str] | None]]:
        """Names whose values differ from what the gateway sent, with the new values; None where it was removed.

        What was written and never read is not compared: it is sent.
        """
        if self._load is not None:
            return [(key, [value]) for key, (_, value) in self._written.items()]
        values = self._values
        if self._before is None:
            return [(key, _listed(value)) for key, value in values.items()]
        changed = [key for key, before in self._before.items() if values.get(key) != before]
        return [(key, _listed(values[key]) if key in values else None) for key in changed]


def _listed(value: str | tuple[str, ...]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def pairs_of(fields: FieldsLike) -> Iterable[tuple[str, str]]:
    """Names and values of a mapping, of other fields (every value of a name), or of pairs.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(fields, Fields):
        return fields.pairs()
    if isinstance(fields, Mapping):
        return fields.items()
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        raise TypeError(f"expected a mapping or pairs of name and value, got {type(fields).__name__}")
    return fields


class Headers(Fields):
    """Headers of a request or a response: names without case.

    Example:
        >>> headers = Headers([("content-type", "text/html")])
        >>> headers["Content-Type"]
        'text/html'
        >>> headers.add("Set-Cookie", "a=1"); headers.add("Set-Cookie", "b=2")
        >>> headers.getall("set-cookie")
        ['a=1', 'b=2']
    """

    __slots__ = ()

    _copies_headers = True

    def _key(self, name: str) -> str:
        return str.lower(name)  # not name.lower(): no bytes are taken for a name

    def _check(self, name: str, value: str) -> str:
        key = _known_names.get(name) if type(name) is str else None
        if key is None:
            key = check_header_name(name)
        if type(value) is not str or not value.isascii() or "\n" in value or "\r" in value or "\0" in value:
            check_header_value(name, value)
        return key

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}: {'***' if n.lower() in SECRET_HEADERS else v}" for n, v in self.pairs())
        return f"<Headers {shown}>"


class Args(Fields):
    """Arguments of the query. One without ``=`` reads as empty, and stays without as long as it is not changed.

    Example:
        >>> args = Args([("a", "1"), ("flag", None)])
        >>> args["flag"], "flag" in args, args.get("missing")
        ('', True, None)
    """

    __slots__ = ()

    def _check(self, name: str, value: str) -> str:
        if not isinstance(name, str):
            raise TypeError(f"an argument's name must be str, got {name!r}")
        if not name:
            raise ValueError("an argument's name cannot be empty")
        if not isinstance(value, str):
            raise TypeError(f"argument {name!r} must be set to str, got {_not_text(value, f'del args[{name!r}]')}")
        if not (name.isascii() and value.isascii()):
            check_text(name, "an argument's name")
            check_text(value, f"argument {name!r}")
        return name

    def __repr__(self) -> str:
        return f"<Args {', '.join(f'{name}={value}' for name, value in self.pairs())}>"
