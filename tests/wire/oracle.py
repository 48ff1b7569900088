"""The official FlatBuffers runtime as judge, and a verifier as strict as those of other languages.

What our codec knows about the schema stands nowhere here: the slots below are apache/apisix `ext-plugin.fbs` once more,
and bytes are read and written by `flatbuffers.table.Table` and `flatbuffers.Builder` alone. Messages are plain values:
a dict by field for a table (None: absent), bytes for text and bodies, a list of (name, value) for entries, and
(name of the table, its dict) for a union.
"""

from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Any

from flatbuffers import Builder
from flatbuffers import number_types as N
from flatbuffers.table import Table

Values = dict[str, Any]

SCHEMA: dict[str, dict[str, str]] = {
    "Err.Resp": {"code": "u8"},
    "PrepareConf.Req": {"conf": "entries", "key": "string"},
    "PrepareConf.Resp": {"conf_token": "u32"},
    "HTTPReqCall.Req": {
        "id": "u32",
        "src_ip": "bytes",
        "method": "u8",
        "path": "string",
        "args": "entries",
        "headers": "entries",
        "conf_token": "u32",
    },
    "HTTPReqCall.Stop": {"status": "u16", "headers": "entries", "body": "bytes"},
    "HTTPReqCall.Rewrite": {
        "path": "string",
        "headers": "entries",
        "args": "entries",
        "resp_headers": "entries",
        "body": "bytes",
    },
    "HTTPReqCall.Resp": {"id": "u32", "action": "union"},
    "ExtraInfo.Var": {"name": "string"},
    "ExtraInfo.ReqBody": {},
    "ExtraInfo.RespBody": {},
    "ExtraInfo.Req": {"info": "union"},
    "ExtraInfo.Resp": {"result": "bytes"},
    "HTTPRespCall.Req": {"id": "u32", "status": "u16", "headers": "entries", "conf_token": "u32"},
    "HTTPRespCall.Resp": {"id": "u32", "status": "u16", "headers": "entries", "body": "bytes"},
}
UNIONS = {
    "HTTPReqCall.Resp": ("HTTPReqCall.Stop", "HTTPReqCall.Rewrite"),
    "ExtraInfo.Req": ("ExtraInfo.Var", "ExtraInfo.ReqBody", "ExtraInfo.RespBody"),
}
FRAME_TYPES = {
    "Err.Resp": 0,
    "PrepareConf.Req": 1,
    "PrepareConf.Resp": 1,
    "HTTPReqCall.Req": 2,
    "HTTPReqCall.Resp": 2,
    "ExtraInfo.Req": 3,
    "ExtraInfo.Resp": 3,
    "HTTPRespCall.Req": 4,
    "HTTPRespCall.Resp": 4,
}
_SIZES = {"u8": 1, "u16": 2, "u32": 4}
_FLAGS = {"u8": N.Uint8Flags, "u16": N.Uint16Flags, "u32": N.Uint32Flags}


def slots(name: str) -> list[tuple[int, str, str]]:
    """Slot, field and kind of each field of a table; a union takes the slot before its own for its type."""
    found = []
    slot = 0
    for field, kind in SCHEMA[name].items():
        slot += kind == "union"
        found.append((slot, field, kind))
        slot += 1
    return found


def full(name: str, number: int, entries: int) -> Values:
    """Values for every field of a table: this number, this many entries."""
    values: Values = {}
    for field, kind in SCHEMA[name].items():
        if kind == "union":
            member = UNIONS[name][0]
            values[field] = (member, full(member, number, entries))
        else:
            pairs = [(b"n%d" % (i % 3), b"value" if i % 4 else None) for i in range(entries)]
            values[field] = {"string": b"text", "bytes": b"bytes", "entries": pairs}.get(kind, number)
    return values


# Reading with the official runtime.


def read(name: str, frame: bytes) -> Values:
    """A frame's message, as the official runtime reads it."""
    assert frame[0] == FRAME_TYPES[name]
    assert int.from_bytes(frame[1:4], "big") == len(frame) - 4
    body = frame[4:]
    return _read_table(name, Table(body, unpack_from("<I", body)[0]))


def _read_table(name: str, table: Table) -> Values:
    values: Values = {}
    for slot, field, kind in slots(name):
        offset = table.Offset(4 + 2 * slot)
        if kind in _SIZES:
            values[field] = table.Get(_FLAGS[kind], table.Pos + offset) if offset else 0
        elif not offset:
            values[field] = None
        elif kind == "string":
            values[field] = table.String(table.Pos + offset)
        elif kind == "bytes":
            start = table.Vector(offset)
            values[field] = table.Bytes[start : start + table.VectorLen(offset)]
        elif kind == "entries":
            first = table.Vector(offset)
            values[field] = [_read_entry(table, first + 4 * i) for i in range(table.VectorLen(offset))]
        else:
            of_type = table.Offset(4 + 2 * slot - 2)
            member = UNIONS[name][table.Get(N.Uint8Flags, table.Pos + of_type) - 1]
            inner = Table(b"", 0)
            table.Union(inner, offset)
            values[field] = (member, _read_table(member, inner))
    return values


def _read_entry(table: Table, at: int) -> tuple[bytes, bytes | None]:
    entry = Table(table.Bytes, table.Indirect(at))
    name, value = entry.Offset(4), entry.Offset(6)
    return entry.String(entry.Pos + name), entry.String(entry.Pos + value) if value else None


# Writing with the official runtime.


@dataclass(frozen=True)
class Style:
    """What writers are free to do.

    Args:
        force_defaults: write numbers that are 0.
        share_strings: write equal strings of entries once.
        names_first: the order of an entry's two fields.
        new_slots: fields that a newer schema has appended to every table.
    """

    force_defaults: bool = False
    share_strings: bool = False
    names_first: bool = True
    new_slots: int = 0


def write(name: str, values: Values, style: Style) -> bytes:
    """A frame with a message, as the official runtime writes it: children first, vtables shared."""
    builder = Builder(0)
    builder.ForceDefaults(style.force_defaults)
    builder.Finish(_write_table(builder, name, values, style))
    body = bytes(builder.Output())
    return pack(">I", FRAME_TYPES[name] << 24 | len(body)) + body


def _write_table(builder: Builder, name: str, values: Values, style: Style) -> int:
    fields = slots(name)
    children: dict[str, int] = {}
    for _, field, kind in fields:
        value = values.get(field)
        if kind in _SIZES or value is None:
            continue
        if kind == "string":
            children[field] = builder.CreateString(value)
        elif kind == "bytes":
            children[field] = builder.CreateByteVector(value)
        elif kind == "entries":
            children[field] = _write_entries(builder, value, style)
        else:
            member, fields_of_member = value
            children[field] = _write_table(builder, member, fields_of_member, style)
    builder.StartObject((fields[-1][0] + 1 if fields else 0) + style.new_slots)
    for slot, field, kind in fields:
        if kind in _SIZES:
            getattr(builder, f"PrependUint{8 * _SIZES[kind]}Slot")(slot, values[field], 0)
            continue
        if kind == "union" and field in children:
            builder.PrependUint8Slot(slot - 1, 1 + UNIONS[name].index(values[field][0]), 0)
        if field in children:
            builder.PrependUOffsetTRelativeSlot(slot, children[field], 0)
    _write_new_slots(builder, style)
    return int(builder.EndObject())


def _write_new_slots(builder: Builder, style: Style) -> None:
    last = len(builder.current_vtable) - 1
    for slot in range(style.new_slots):
        builder.PrependUint32Slot(last - slot, 0xFEEDBEEF, 0)


def _write_entries(builder: Builder, pairs: list[tuple[bytes, bytes | None]], style: Style) -> int:
    string = builder.CreateSharedString if style.share_strings else builder.CreateString
    entries = []
    for name, value in pairs:
        offsets = [(0, string(name))] if value is None else [(0, string(name)), (1, string(value))]
        builder.StartObject(2 + style.new_slots)
        for slot, offset in offsets if style.names_first else offsets[::-1]:
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        _write_new_slots(builder, style)
        entries.append(builder.EndObject())
    builder.StartVector(4, len(entries), 4)
    for entry in reversed(entries):
        builder.PrependUOffsetTRelative(entry)
    return int(builder.EndVector())


# Verifying, as the verifiers of C++ and Rust do, and beyond.


class Unsound(AssertionError):
    """What a strict verifier would refuse."""


def verify(name: str, frame: bytes) -> None:
    """Check alignment, bounds and terminators of everything, and that no byte belongs to two things.

    Raises:
        Unsound: the frame breaks a rule.
    """
    claims = _Claims(frame[4:])
    claims.table(name, claims.offset(0, "root"))


class _Claims:
    """The bytes of a body and what each belongs to. Only vtables may be used twice."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.owners: list[str | None] = [None] * len(body)
        self.vtables: set[int] = set()

    def claim(self, at: int, size: int, align: int, owner: str) -> None:
        if at % align:
            raise Unsound(f"{owner} at {at} is not aligned to {align}")
        if at < 0 or at + size > len(self.body):
            raise Unsound(f"{owner} at {at} has {size} bytes, the body {len(self.body)}")
        taken = next((other for other in self.owners[at : at + size] if other), None)
        if taken:
            raise Unsound(f"{owner} at {at} overlaps {taken}")
        self.owners[at : at + size] = [owner] * size

    def number(self, at: int, size: int, owner: str) -> int:
        self.claim(at, size, size, owner)
        return int.from_bytes(self.body[at : at + size], "little")

    def offset(self, at: int, owner: str) -> int:
        return at + self.number(at, 4, f"offset of {owner}")

    def table(self, name: str, at: int) -> None:
        slots_of = self.vtable(name, at)
        for slot, field, kind in slots(name):
            where, owner = slots_of(slot), f"{name}.{field}"
            if kind == "union":
                tag = slots_of(slot - 1)
                member = self.number(tag, 1, f"{owner}_type") if tag else 0
                if bool(member) != bool(where):
                    raise Unsound(f"{owner} has type {member} and {'a' if where else 'no'} value")
                if where:
                    self.table(UNIONS[name][member - 1], self.offset(where, owner))
            elif not where:
                continue
            elif kind in _SIZES:
                self.number(where, _SIZES[kind], owner)
            elif kind == "entries":
                self.entries(self.offset(where, owner), owner)
            else:
                self.vector(self.offset(where, owner), owner, terminated=kind == "string")

    def vtable(self, name: str, at: int) -> Any:
        """Claims a table's head and its vtable; returns where a slot's value is, 0 if it is absent."""
        self.claim(at, 4, 4, f"head of {name}")
        vtable = at - unpack_from("<i", self.body, at)[0]
        if vtable not in self.vtables:
            self.vtables.add(vtable)
            size = self.number(vtable, 2, f"vtable of {name}")
            if size < 4 or size % 2:
                raise Unsound(f"vtable of {name} has {size} bytes")
            self.claim(vtable + 2, size - 2, 2, f"vtable of {name}")
        size, table_size = unpack_from("<HH", self.body, vtable)
        if at + table_size > len(self.body):
            raise Unsound(f"{name} at {at} has {table_size} bytes, the body {len(self.body)}")

        def where(slot: int) -> int:
            if 4 + 2 * slot >= size:
                return 0
            offset = unpack_from("<H", self.body, vtable + 4 + 2 * slot)[0]
            if offset and not 4 <= offset < table_size:
                raise Unsound(f"slot {slot} of {name} is at {offset} of {table_size} bytes")
            return at + offset if offset else 0

        return where

    def vector(self, at: int, owner: str, terminated: bool) -> None:
        length = self.number(at, 4, f"length of {owner}")
        self.claim(at + 4, length + terminated, 1, owner)
        if terminated and self.body[at + 4 + length]:
            raise Unsound(f"{owner} at {at} does not end with NUL")

    def entries(self, at: int, owner: str) -> None:
        for i in range(self.number(at, 4, f"length of {owner}")):
            entry = self.offset(at + 4 + 4 * i, f"{owner}[{i}]")
            where = self.vtable(f"{owner}[{i}]", entry)
            if not where(0):
                raise Unsound(f"{owner}[{i}] has no name")
            for slot, part in enumerate(("name", "value")):
                if where(slot):
                    self.vector(self.offset(where(slot), part), f"{owner}[{i}].{part}", terminated=True)
