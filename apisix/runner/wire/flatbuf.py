"""FlatBuffers, as much of it as the schema needs: tables, strings, byte vectors, vectors of TextEntry.

Rules that live here:
- Reading is lazy and checks every offset against the frame. Bad bytes are a WireError that names field and offset;
  never an IndexError, a wrong value or more memory than the frame's own size (entries that share their bytes to blow
  up are refused).
- Writing goes forward: a table stands before its children, so that offsets are known as the parts are joined. Each
  part is a multiple of four bytes and knows no absolute position; its offsets hold wherever it is put.
- Text is UTF-8 with surrogateescape: any bytes survive a round trip.
- All positions count from the start of the frame, whose first four bytes are its header.
Source: the FlatBuffers internals (vtable: its size, the table's size, one offset a slot; 0 means absent).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from struct import error as StructError

from apisix.runner.wire.frame import HEADER_SIZE, WireError

Pair = tuple[str, str | None]

_U8 = Struct("<B")
_U16 = Struct("<H")
_U32 = Struct("<I")
_I32 = Struct("<i")
_ENTRY = Struct("<iII")
_u16 = _U16.unpack_from
_u32 = _U32.unpack_from
_i32 = _I32.unpack_from
_entry = _ENTRY.unpack_from

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_TERMINATORS = (b"\0\0\0\0", b"\0\0\0", b"\0\0", b"\0")

MOST_SLOTS = 8  # no table of the schema has more; slots that a newer gateway appends are not looked at
_SLOTS = tuple(Struct(f"<{n}H").unpack_from for n in range(MOST_SLOTS + 1))


class Table:
    """One table inside a frame, read on demand.

    Args:
        frame: the whole frame, header included.
        position: where the table begins, in bytes from the start of the frame.
        name: its name in the schema, for errors.

    Raises:
        WireError: the table or its vtable does not lie inside the frame.
    """

    __slots__ = ("_slots", "frame", "name", "position")

    def __init__(self, frame: bytes, position: int, name: str) -> None:
        self.frame = frame
        self.position = position
        self.name = name
        try:
            vtable = position - _i32(frame, position)[0]
            if vtable < HEADER_SIZE:
                raise WireError(name, position, f"the vtable would begin at offset {vtable}, before the body")
            size = _u16(frame, vtable)[0]
            if size < 4 or size & 1:
                raise WireError(name, vtable, f"a vtable has an even size of at least 4, this one {size}")
            if vtable + size > len(frame):
                raise WireError(name, vtable, f"a vtable of {size} bytes ends after the frame")
            count = (size - 4) >> 1
            self._slots = _SLOTS[count if count < MOST_SLOTS else MOST_SLOTS](frame, vtable + 4)
        except StructError:
            raise WireError(name, position, "a table begins or ends outside the frame") from None

    def at(self, slot: int) -> int:
        """Position of the slot's value, or 0 where the field is absent."""
        slots = self._slots
        if slot >= len(slots):
            return 0
        offset = slots[slot]
        if not offset:
            return 0
        if offset < 4:
            raise WireError(self.name, self.position, f"slot {slot} points into the table's own header")
        return self.position + offset

    def scalar(self, slot: int, kind: Struct, field: str) -> int:
        """An unsigned number, 0 where absent (the schema's default everywhere)."""
        position = self.at(slot)
        if not position:
            return 0
        try:
            value: int = kind.unpack_from(self.frame, position)[0]
        except StructError:
            raise WireError(f"{self.name}.{field}", position, "a number ends after the frame") from None
        return value

    def u8(self, slot: int, field: str) -> int:
        """An unsigned byte, 0 where absent."""
        return self.scalar(slot, _U8, field)

    def u16(self, slot: int, field: str) -> int:
        """An unsigned 16-bit number, 0 where absent."""
        return self.scalar(slot, _U16, field)

    def u32(self, slot: int, field: str) -> int:
        """An unsigned 32-bit number, 0 where absent."""
        return self.scalar(slot, _U32, field)

    def target(self, slot: int, field: str) -> int:
        """Position that the slot's offset points to, or 0 where the field is absent."""
        position = self.at(slot)
        if not position:
            return 0
        try:
            return position + int(_u32(self.frame, position)[0])
        except StructError:
            raise WireError(f"{self.name}.{field}", position, "an offset ends after the frame") from None

    def table(self, slot: int, field: str, name: str) -> "Table | None":
        """A table, None where absent. `name` is that table's own name in the schema."""
        position = self.target(slot, field)
        return Table(self.frame, position, name) if position else None

    def bytes(self, slot: int, field: str) -> bytes | None:
        """A vector of bytes, None where absent."""
        position = self.target(slot, field)
        if not position:
            return None
        return _read_bytes(self.frame, position, f"{self.name}.{field}")

    def text(self, slot: int, field: str) -> str | None:
        """A string, None where absent."""
        value = self.bytes(slot, field)
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def pairs(self, slot: int, field: str) -> list[Pair] | None:
        """A vector of TextEntry as (name, value) pairs in order, None where absent."""
        position = self.target(slot, field)
        if not position:
            return None
        try:
            return _read_pairs(self.frame, position, self.name, field)
        except StructError:
            problem = "an entry begins or ends outside the frame"
            raise WireError(f"{self.name}.{field}", position, problem) from None


def root_table(frame: bytes, name: str) -> Table:
    """The message of a frame.

    Raises:
        WireError: the body is too short, or the root is not inside it.
    """
    try:
        return Table(frame, HEADER_SIZE + _u32(frame, HEADER_SIZE)[0], name)
    except StructError:
        problem = f"a body has at least 4 bytes, this one {len(frame) - HEADER_SIZE}"
        raise WireError(name, HEADER_SIZE, problem) from None


def _read_bytes(frame: bytes, position: int, field: str) -> bytes:
    start = position + 4
    try:
        end = start + int(_u32(frame, position)[0])
    except StructError:
        raise WireError(field, position, "a length ends after the frame") from None
    if end > len(frame):
        raise WireError(field, position, f"{end - start} bytes begin at {start}, but the frame ends at {len(frame)}")
    return frame[start:end]


def _read_pairs(frame: bytes, position: int, name: str, field: str) -> list[Pair]:
    size = len(frame)
    count = _u32(frame, position)[0]
    first = position + 4
    if first + 4 * count > size:
        raise WireError(f"{name}.{field}", position, f"a vector of {count} entries ends after the frame")
    pairs: list[Pair] = []
    budget = size
    known_vtable = name_slot = value_slot = 0
    for i, offset in enumerate(Struct(f"<{count}I").unpack_from(frame, first)):
        entry = first + 4 * i + offset
        vtable = entry - _i32(frame, entry)[0]
        if vtable != known_vtable:
            # Writers share one vtable between entries of one shape, so this runs once or twice a vector.
            slots = Table(frame, entry, f"{name}.{field}[{i}]")
            name_slot = slots.at(0) - entry
            if name_slot < 0:
                raise WireError(f"{name}.{field}[{i}].name", entry, "an entry has a name, this one has none")
            value_slot = max(slots.at(1) - entry, 0)
            known_vtable = vtable
        at = entry + name_slot
        at += _u32(frame, at)[0]
        start = at + 4
        end = start + _u32(frame, at)[0]
        key = frame[start:end].decode("utf-8", "surrogateescape")
        budget -= end - start
        value = None
        if end > size:
            raise WireError(f"{name}.{field}[{i}].name", at, f"a string of {end - start} bytes ends after the frame")
        if value_slot:
            at = entry + value_slot
            at += _u32(frame, at)[0]
            start = at + 4
            end = start + _u32(frame, at)[0]
            if end > size:
                problem = f"a string of {end - start} bytes ends after the frame"
                raise WireError(f"{name}.{field}[{i}].value", at, problem)
            value = frame[start:end].decode("utf-8", "surrogateescape")
            budget -= end - start
        if budget < 0:
            raise WireError(f"{name}.{field}[{i}]", entry, "entries overlap: together they hold more than the frame")
        pairs.append((key, value))
    return pairs


# Writing. A part is bytes of a length that is a multiple of four.


def text_part(text: str) -> bytes:
    """A string: length, UTF-8 bytes, terminator, padding."""
    raw = text.encode("utf-8", "surrogateescape")
    size = len(raw)
    return _U32.pack(size) + raw + _TERMINATORS[size & 3]


def bytes_part(value: bytes) -> bytes:
    """A vector of bytes: length, bytes, padding."""
    return b"".join((_U32.pack(len(value)), value, _PADDING[len(value) & 3]))


_name_part = lru_cache(1024)(text_part)  # names of headers and arguments recur from call to call

_VTABLES = Struct("<8H").pack(8, 12, 4, 8, 6, 8, 4, 0)  # of an entry with a value, and of one without


def pairs_part(pairs: Sequence[Pair]) -> bytes:
    """A vector of TextEntry; a value of None is left out."""
    count = len(pairs)
    tables = 4 + 4 * count  # where the two shared vtables stand, from the start of the part
    at = tables + len(_VTABLES)
    offsets = [count]
    parts = [b"", _VTABLES]
    add = parts.append
    slot = 4
    for name, value in pairs:
        offsets.append(at - slot)
        slot += 4
        key = _name_part(name) if len(name) < 64 else text_part(name)
        if value is None:
            add(_ENTRY.pack(at - tables - 8, 4, 0)[:8])
            add(key)
            at += 8 + len(key)
        else:
            text = text_part(value)
            add(_ENTRY.pack(at - tables, 8, 4 + len(key)))
            add(key)
            add(text)
            at += 12 + len(key) + len(text)
    parts[0] = Struct(f"<{count + 1}I").pack(*offsets)
    return b"".join(parts)


@lru_cache(256)
def _layout(shape: str) -> tuple[bytes, Callable[..., bytes], tuple[int, ...]]:
    """How a table of a shape is laid out: vtable, packer of the table, and the positions of its offsets in it.

    A shape has a letter a slot: ``I`` for a u32, ``H`` u16, ``B`` u8, ``O`` an offset, ``-`` an absent field. The
    packer takes the values in slot order, after the table's distance from its vtable.
    """
    sizes = {"I": 4, "O": 4, "H": 2, "B": 1}
    packed = "<i"
    at = 4
    positions = {}
    order = sorted((slot for slot, kind in enumerate(shape) if kind != "-"), key=lambda slot: -sizes[shape[slot]])
    for slot in order:
        positions[slot] = at
        at += sizes[shape[slot]]
        packed += "I" if shape[slot] == "O" else shape[slot]
    padding = -at % 4
    packer = Struct(packed + "x" * padding)
    slots = [positions.get(slot, 0) for slot in range(len(shape))]
    vtable = Struct(f"<{len(shape) + 2}H").pack(4 + 2 * len(shape), at + padding, *slots)
    vtable += b"\0" * (-len(vtable) % 4)
    taken = [sorted(order).index(slot) for slot in order]

    def pack(*values: int) -> bytes:
        return packer.pack(len(vtable), *(values[i] for i in taken))

    offsets = tuple(positions[slot] for slot, kind in enumerate(shape) if kind == "O")
    return vtable, pack, offsets


TableParts = tuple[int, list[bytes]]  # where the table begins in its parts, and the parts
Field = tuple[str, int | bytes | TableParts | None]


def table_parts(*fields: Field) -> TableParts:
    """A table with its children behind it.

    Args:
        fields: one a slot: a letter of `_layout` (``I``, ``H``, ``B`` with a number, ``O`` with a child: a part, or
            another table's parts) and the value; None leaves the field out.

    Returns:
        Where the table begins, in bytes from the start of the first part, and the parts.
    """
    shape = "".join("-" if value is None else kind for kind, value in fields)
    vtable, pack, offsets = _layout(shape)
    values: list[int] = []
    parts: list[bytes] = [vtable, b""]
    at = _u16(vtable, 2)[0]
    positions = iter(offsets)
    for _, value in fields:
        if isinstance(value, bytes):
            values.append(at - next(positions))
            parts.append(value)
            at += len(value)
        elif isinstance(value, tuple):
            start, children = value
            values.append(at + start - next(positions))
            parts += children
            at += sum(map(len, children))
        elif value is not None:
            values.append(value)
    parts[1] = pack(*values)
    return len(vtable), parts


def root_part(table: int) -> bytes:
    """The first part of a body: the offset of its root table, which begins `table` bytes after this part."""
    return _U32.pack(4 + table)
