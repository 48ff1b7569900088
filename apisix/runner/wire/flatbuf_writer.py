"""FlatBuffers, as much of it as the schema needs, written: a schema of TableWriters, and values that go in.

Rules that live here:
- Writing goes forward: a table, its vtable, its children. A child adds its pieces, a multiple of four bytes in all, to
  the pieces of its frame and returns how many bytes they have; it knows no absolute position, so that it holds wherever
  it is put, and every field takes a word of four bytes, so that nothing is ever out of alignment.
- How a table is laid out depends only on which of its fields are there, and is worked out once for each such case.
- Strings end with NUL, as FlatBuffers requires; text is UTF-8 with surrogateescape.
- A value that cannot be written is a WireError that names its field.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import Any

from apisix.runner.wire.flatbuf import U32, Pair, words_of
from apisix.runner.wire.frame import FrameType, WireError, frame_header

Pieces = list[bytes]

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_TERMINATORS = (b"\0\0\0\0", b"\0\0\0", b"\0\0", b"\0")


def _write_text(text: str, pieces: Pieces) -> int:
    raw = text.encode("utf-8", "surrogateescape")
    size = len(raw)
    pieces += U32.pack(size), raw, _TERMINATORS[size & 3]
    return 8 + size - (size & 3)


def _write_bytes(value: bytes, pieces: Pieces) -> int:
    size = len(value)
    padding = _PADDING[size & 3]
    pieces += U32.pack(size), value, padding
    return 4 + size + len(padding)


@lru_cache(1024)
def _name_string(name: str) -> bytes:
    """A string in one piece, and kept: names of headers and arguments recur from call to call."""
    pieces: Pieces = []
    _write_text(name, pieces)
    return b"".join(pieces)


_ENTRY_VTABLES = Struct("<8H").pack(8, 12, 4, 8, 6, 8, 4, 0)  # of an entry with a value, and of one without
_ENTRY = Struct("<iIII")  # distance from the vtable, offsets of name and value, length of the value
_BARE_ENTRY = Struct("<iI")  # distance from the vtable, offset of the name


def _write_pairs(pairs: Sequence[Pair], pieces: Pieces) -> int:
    """A vector of TextEntry: the offsets, the two vtables, then each entry, its value and its name behind it."""
    count = len(pairs)
    vtables = 4 + 4 * count
    at = vtables + len(_ENTRY_VTABLES)
    words = [count]
    vector = len(pieces)
    pieces += b"", _ENTRY_VTABLES
    word_at = 4
    for name, value in pairs:
        words.append(at - word_at)
        word_at += 4
        key = _name_string(name) if len(name) < 64 else _name_string.__wrapped__(name)
        if value is None:
            pieces += _BARE_ENTRY.pack(at - vtables - 8, 4), key
            at += 8 + len(key)
        else:
            raw = value.encode("utf-8", "surrogateescape")
            size = len(raw)
            text_end = 4 + size - (size & 3)
            pieces += _ENTRY.pack(at - vtables, 12 + text_end, 4, size), raw, _TERMINATORS[size & 3], key
            at += 16 + text_end + len(key)
    pieces[vector] = words_of(count + 1).pack(*words)
    return at


def _write_table(value: "tuple[TableWriter, Sequence[Any]]", pieces: Pieces) -> int:
    table, values = value
    return table.write(values, pieces)


_NUMBERS = {"u8": ("B3x", 2**8), "u16": ("H2x", 2**16), "u32": ("I", 2**32)}  # how a word is packed, and the limit
_CHILDREN: dict[str, Callable[[Any, Pieces], int]] = {
    "text": _write_text,
    "bytes": _write_bytes,
    "pairs": _write_pairs,
    "table": _write_table,
}


class TableWriter:
    """How one table of the schema is written.

    Args:
        name: its name in the schema, for errors.
        fields: the slots in order, each with its kind: ``u8``, ``u16``, ``u32``, ``text``, ``bytes``, ``pairs``, or
            ``table`` (whose value is a TableWriter and that table's values).

    Example:
        >>> pieces = []; TableWriter("ExtraInfo.Var", name="text").write(("uri",), pieces)
        24
    """

    def __init__(self, name: str, /, **fields: str) -> None:
        self.name = name
        self.fields = fields
        self._writers = tuple(map(_CHILDREN.get, fields.values()))
        self._vtable_size = 4 + 2 * len(fields)
        self._room = 4 + 4 * len(fields) + self._vtable_size + -self._vtable_size % 4
        self._layouts: dict[int, tuple[Callable[..., bytes], int, bytes]] = {}

    def write(self, values: Sequence[Any], pieces: Pieces) -> int:
        """Add the table, its vtable and its children to `pieces`.

        Args:
            values: one a slot; None leaves the field out.
            pieces: what the frame is joined from.

        Returns:
            The size of what was added, in bytes.

        Raises:
            WireError: a number that its field cannot hold, or text that is no Unicode.
        """
        present = 0
        words: list[int] = []
        first = len(pieces)
        pieces.append(b"")
        at = self._room - 4 * values.count(None)
        word_at = 4
        writers = self._writers
        try:
            for slot, value in enumerate(values):
                if value is None:
                    continue
                present |= 1 << slot
                write = writers[slot]
                if write is None:
                    words.append(value)
                else:
                    words.append(at - word_at)
                    at += write(value, pieces)
                word_at += 4
            pack, distance, vtable = self._layouts.get(present) or self._layout(present)
            pieces[first] = pack(distance, *words, vtable)
        except (StructError, UnicodeEncodeError):
            raise self._misfit(values) from None
        return at

    def _layout(self, present: int) -> tuple[Callable[..., bytes], int, bytes]:
        """The table's packer, its distance from its vtable, and the vtable, for the fields that are present."""
        words = ""
        slots = []
        size = 4
        for slot, kind in enumerate(self.fields.values()):
            here = present >> slot & 1
            slots.append(size if here else 0)
            if here:
                words += _NUMBERS[kind][0] if kind in _NUMBERS else "I"
                size += 4
        vtable = Struct(f"<{2 + len(slots)}H").pack(self._vtable_size, size, *slots)
        vtable += b"\0" * (-len(vtable) % 4)
        layout = Struct(f"<i{words}{len(vtable)}s").pack, -size, vtable
        self._layouts[present] = layout
        return layout

    def _misfit(self, values: Sequence[Any]) -> WireError:
        """The error for values of which one cannot be written."""
        problems = (
            (field, _problem(kind, value))
            for (field, kind), value in zip(self.fields.items(), values, strict=True)
            if value is not None
        )
        field, problem = next((field, problem) for field, problem in problems if problem)
        return WireError(f"{self.name}.{field}", 0, problem)


def _problem(kind: str, value: Any) -> str:
    """Why a value cannot be written, or nothing if it can."""
    if kind in _NUMBERS:
        limit = _NUMBERS[kind][1]
        fits = isinstance(value, int) and 0 <= value < limit
        return "" if fits else f"expected a number from 0 to {limit - 1}, got {value!r}"
    try:
        _CHILDREN[kind](value, [])
    except UnicodeEncodeError as error:
        return f"text cannot be encoded: U+{ord(error.object[error.start]):04X} is a lone surrogate"
    return ""


class FrameWriter(TableWriter):
    """How the table that is a frame's root is written.

    Example:
        >>> FrameWriter(FrameType.PREPARE_CONF, "PrepareConf.Resp", conf_token="u32").frame((9,)).hex()
        '0100001404000000f8ffffff090000000600080004000000'
    """

    def __init__(self, type: FrameType, name: str, /, **fields: str) -> None:
        super().__init__(name, **fields)
        self.type = int(type)

    def frame(self, values: Sequence[Any]) -> bytes:
        """A whole frame. `values` has one a slot; None leaves the field out.

        Raises:
            WireError: a value cannot be written, or the frame would be longer than a frame can be.
        """
        pieces = [b"", b"\4\0\0\0"]  # the frame's header, and where its root table begins: right behind
        size = 4 + self.write(values, pieces)
        pieces[0] = frame_header(self.type, size)
        return b"".join(pieces)
