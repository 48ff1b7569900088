"""FlatBuffers, as much of it as the schema needs, read: tables, strings, byte vectors, vectors of TextEntry.

Rules that live here:
- Reading is lazy and checks every offset against the frame. Bad bytes are a WireError that names field and offset;
  never an IndexError, a wrong value, or memory and time out of proportion to the frame (entries may share strings, as
  FlatBuffers allows, but not to blow up).
- Text is UTF-8 with surrogateescape: any bytes survive a round trip.
- All positions count from the start of the frame, whose first four bytes are its header.
Source: the FlatBuffers internals (vtable: its size, the table's size, one offset a slot; 0 means absent).
"""

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from struct import error as StructError

from apisix.runner.wire.frame import HEADER_SIZE, WireError

Pair = tuple[str, str | None]

U8 = Struct("<B")
U16 = Struct("<H")
U32 = Struct("<I")
_I32 = Struct("<i")
_u16 = U16.unpack_from
_u32 = U32.unpack_from
_i32 = _I32.unpack_from


@lru_cache(256)
def words_of(count: int) -> Struct:
    """So many unsigned 32-bit numbers."""
    return Struct(f"<{count}I")


_MOST_SLOTS = 8  # no table of the schema has more; slots that a newer gateway appends are not looked at
_SLOTS = {4 + 2 * count: Struct(f"<{count}H").unpack_from for count in range(_MOST_SLOTS + 1)}  # by the vtable's size

_ENTRY_BYTES = 16  # that an entry takes at least: its offset in the vector, its table, the length of its name
_entry = Struct("<iII").unpack_from  # what a name's offset and its length leave room for, even without a value
_SHARED_BYTES = 65536  # of text that entries may have in common


class Table:
    """One table inside a frame, read on demand.

    Args:
        frame: the whole frame, header included.
        position: where the table begins, in bytes from the start of the frame.
        name: its name in the schema, for errors.

    Raises:
        WireError: the table or its vtable does not lie inside the frame.
    """

    __slots__ = ("frame", "name", "position", "slots")

    def __init__(self, frame: bytes, position: int, name: str) -> None:
        self.frame = frame
        self.position = position
        self.name = name
        try:
            vtable = position - _i32(frame, position)[0]
            if vtable < HEADER_SIZE:
                raise WireError(name, position, f"its vtable would begin at offset {vtable}, before the body")
            size = _u16(frame, vtable)[0]
            self.slots = (_SLOTS.get(size) or _long_vtable(frame, vtable, size, name))(frame, vtable + 4)
        except StructError:
            problem = f"a table begins here or has its vtable here, but the frame ends at {len(frame)}"
            raise WireError(name, position, problem) from None

    def at(self, slot: int) -> int:
        """Position of the slot's value, or 0 where the field is absent."""
        slots = self.slots
        offset = slots[slot] if slot < len(slots) else 0
        if offset >= 4:
            return self.position + offset
        if offset:
            raise WireError(self.name, self.position, f"slot {slot} points into the table's own header")
        return 0

    def number(self, slot: int, kind: Struct, field: str) -> int:
        """An unsigned number (`kind` is U8, U16 or U32), 0 where absent: the schema's default everywhere."""
        slots = self.slots
        offset = slots[slot] if slot < len(slots) else 0
        if offset < 4:
            return self.at(slot)
        try:
            value: int = kind.unpack_from(self.frame, self.position + offset)[0]
        except StructError:
            raise WireError(f"{self.name}.{field}", self.at(slot), self._outside("a number")) from None
        return value

    def table(self, slot: int, field: str, name: str) -> "Table | None":
        """A table, None where absent. `name` is that table's own name in the schema."""
        position = self._target(slot, field)
        return Table(self.frame, position, name) if position else None

    def bytes(self, slot: int, field: str) -> bytes | None:
        """A vector of bytes, None where absent."""
        position = self._target(slot, field)
        if not position:
            return None
        start = position + 4
        try:
            end = start + int(_u32(self.frame, position)[0])
        except StructError:
            raise WireError(f"{self.name}.{field}", position, self._outside("a length")) from None
        if end > len(self.frame):
            raise WireError(f"{self.name}.{field}", position, self._outside(f"a value of {end - start} bytes"))
        return self.frame[start:end]

    def text(self, slot: int, field: str) -> str | None:
        """A string, None where absent."""
        value = self.bytes(slot, field)
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def pairs(self, slot: int, field: str) -> list[Pair] | None:
        """A vector of TextEntry as (name, value) pairs in order, None where absent."""
        position = self._target(slot, field)
        if not position:
            return None
        name = f"{self.name}.{field}"
        try:
            return _read_pairs(self.frame, position, name)
        except StructError:
            raise WireError(name, position, self._outside("a vector, or an entry of it,")) from None

    def _target(self, slot: int, field: str) -> int:
        """Position that the slot's offset points to, or 0 where the field is absent."""
        position = self.at(slot)
        if not position:
            return 0
        try:
            return position + int(_u32(self.frame, position)[0])
        except StructError:
            raise WireError(f"{self.name}.{field}", position, self._outside("an offset")) from None

    def _outside(self, what: str) -> str:
        return f"{what} ends after the frame, which has {len(self.frame)} bytes"


def root_table(frame: bytes, name: str) -> Table:
    """The message of a frame.

    Raises:
        WireError: the body is too short, or the root is not inside it.
    """
    try:
        root = HEADER_SIZE + _u32(frame, HEADER_SIZE)[0]
    except StructError:
        problem = f"a body has at least 4 bytes, this one {max(len(frame) - HEADER_SIZE, 0)}"
        raise WireError(name, HEADER_SIZE, problem) from None
    return Table(frame, root, name)


def _long_vtable(frame: bytes, vtable: int, size: int, name: str) -> Callable[..., tuple[int, ...]]:
    """Reads the slots that the schema knows, where a newer gateway has appended some."""
    if size < 4 or size & 1:
        raise WireError(name, vtable, f"a vtable has an even size of at least 4, this one {size}")
    if vtable + size > len(frame):
        raise WireError(name, vtable, f"a vtable of {size} bytes ends after the frame, which has {len(frame)} bytes")
    return _SLOTS[4 + 2 * _MOST_SLOTS]


def _read_pairs(frame: bytes, position: int, name: str) -> list[Pair]:
    size = len(frame)
    count = _u32(frame, position)[0]
    budget = size + _SHARED_BYTES - _ENTRY_BYTES * count
    if budget < 0:
        raise WireError(name, position, f"{count} entries do not fit a frame of {size} bytes")
    letters = frame.decode("latin-1")  # text that is ASCII, nearly all, is cut from here at half the price
    pairs: list[Pair] = []
    at = position + 4
    vtable = 0
    for offset in words_of(count).unpack_from(frame, at):
        entry = at + offset
        at += 4
        words = _entry(frame, entry)
        if entry - words[0] != vtable or not vtable:
            # Writers share one vtable between entries of one shape, so this runs once or twice a vector.
            vtable = entry - words[0]
            name_word, value_word, wide = _entry_shape(frame, entry, name, len(pairs))
        if wide:
            words = wide(frame, entry)
        where = entry + 4 * name_word + words[name_word]
        length = _u32(frame, where)[0]
        start = where + 4
        end = start + length
        if end > size:
            problem = f"a string of {length} bytes ends after the frame, which has {size} bytes"
            raise WireError(f"{name}[{len(pairs)}].name", where, problem)
        key = letters[start:end]
        if not key.isascii():
            key = frame[start:end].decode("utf-8", "surrogateescape")
        budget -= length
        value = None
        if value_word:
            where = entry + 4 * value_word + words[value_word]
            length = _u32(frame, where)[0]
            start = where + 4
            end = start + length
            if end > size:
                problem = f"a string of {length} bytes ends after the frame, which has {size} bytes"
                raise WireError(f"{name}[{len(pairs)}].value", where, problem)
            value = letters[start:end]
            if not value.isascii():
                value = frame[start:end].decode("utf-8", "surrogateescape")
            budget -= length
        if budget < 0:
            raise WireError(f"{name}[{len(pairs)}]", entry, "entries overlap: together they hold more than the frame")
        pairs.append((key, value))
    return pairs


def _entry_shape(
    frame: bytes, entry: int, vector: str, index: int
) -> tuple[int, int, Callable[..., tuple[int, ...]] | None]:
    """Which words of an entry are the offsets of its name and value (0: absent), and how to read them beyond three."""
    try:
        slots = Table(frame, entry, vector).slots
    except WireError as error:
        raise WireError(f"{vector}[{index}]", error.offset, error.problem) from None
    name_slot = slots[0] if slots else 0
    value_slot = slots[1] if len(slots) > 1 else 0
    if not name_slot:
        raise WireError(f"{vector}[{index}].name", entry, "an entry has a name, this one has none")
    if (name_slot | value_slot) & 3:
        problem = f"an entry's slots are multiples of 4, here they are {name_slot} and {value_slot}"
        raise WireError(f"{vector}[{index}]", entry, problem)
    last = max(name_slot, value_slot) >> 2
    return name_slot >> 2, value_slot >> 2, words_of(last + 1).unpack_from if last > 2 else None
