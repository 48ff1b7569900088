"""Each rule of FlatBuffers and of the schema, broken once by hand: the error names the field, the offset, the problem.

Bodies are written as they lie: a number is a word of four bytes, a tuple holds two-byte numbers, bytes stand for
themselves. A body begins at offset 4 of its frame, so that the word with index i is at offset 4 + 4i.
"""

from struct import pack

import pytest

from apisix.runner.wire.frame import WireError, pack_frame
from tests.wire.codec import NAMES, Codec
from tests.wire.oracle import full


def body(*parts: int | tuple[int, ...] | bytes) -> bytes:
    """A frame with such a body."""
    raw = b""
    for part in parts:
        if isinstance(part, bytes):
            raw += part
        elif isinstance(part, tuple):
            raw += pack(f"<{len(part)}H", *part)
        else:
            raw += pack("<I", part % 2**32)
    return pack_frame(0, raw)


def text(value: bytes) -> bytes:
    """A string: length, bytes, NUL, padding."""
    return pack("<I", len(value)) + value + b"\0" * (4 - len(value) % 4)


def conf(*parts: int | tuple[int, ...] | bytes) -> bytes:
    """A PrepareConf.Req whose conf begins at offset 24 with `parts`."""
    return body(4, -8, 12, (6, 8), (4, 0), *parts)


def entry(distance: int, name: int, value: int | None, *behind: int | tuple[int, ...] | bytes) -> bytes:
    """A PrepareConf.Req with one entry: vector at 24, vtable at 32, table at 40, `behind` at 52 (without value: 48)."""
    if value is None:
        return conf(1, 12, (6, 8, 4, 0), distance, name, *behind)
    return conf(1, 12, (8, 12, 4, 8), distance, name, value, *behind)


TOKEN = body(4, -8, 9, (6, 8), (4, 0))  # table at 8, its field at 12, its vtable at 16


def test_the_forms_below_are_sound_before_they_are_broken(codec: Codec) -> None:
    assert codec.decode("PrepareConf.Resp", TOKEN) == {"conf_token": 9}
    assert codec.decode("PrepareConf.Req", entry(8, 8, 12, text(b"abc"), text(b"v")))["conf"] == [(b"abc", b"v")]
    assert codec.decode("PrepareConf.Req", entry(8, 4, None, text(b"abc")))["conf"] == [(b"abc", None)]


CASES: dict[str, tuple[str, bytes, str, int, str]] = {
    # case: message, frame, field and offset of the error, a part of its problem
    "no body": ("PrepareConf.Resp", body(), "PrepareConf.Resp", 4, "at least 4 bytes, this one 0"),
    "not even a header": ("PrepareConf.Resp", b"\1", "PrepareConf.Resp", 4, "at least 4 bytes, this one 0"),
    "body of 3 bytes": ("PrepareConf.Resp", body(b"\4\0\0"), "PrepareConf.Resp", 4, "at least 4 bytes, this one 3"),
    "root outside": ("PrepareConf.Resp", body(400, 0), "PrepareConf.Resp", 404, "the frame ends at 12"),
    "root at the very end": ("PrepareConf.Resp", body(8, 0), "PrepareConf.Resp", 12, "the frame ends at 12"),
    "vtable in the header": ("PrepareConf.Resp", body(4, 8), "PrepareConf.Resp", 8, "at offset 0, before the body"),
    "vtable in the header, which looks like one": (
        "PrepareConf.Req",
        body(256, bytes(63 * 4), 257, bytes(7 * 4)),
        "PrepareConf.Req",
        260,
        "at offset 3, before the body",
    ),
    "vtable before the frame": (
        "PrepareConf.Resp",
        body(4, 16),
        "PrepareConf.Resp",
        8,
        "at offset -8, before",
    ),
    "vtable behind the frame": ("PrepareConf.Resp", body(4, -400), "PrepareConf.Resp", 8, "the frame ends at 12"),
    "vtable of odd size": ("PrepareConf.Resp", body(4, -4, (7, 4, 0, 0)), "PrepareConf.Resp", 12, "even size"),
    "vtable of size 2": ("PrepareConf.Resp", body(4, -4, (2, 4)), "PrepareConf.Resp", 12, "at least 4, this one 2"),
    "a table that is its own vtable": ("PrepareConf.Resp", body(4, 0), "PrepareConf.Resp", 8, "at least 4, this one 0"),
    "vtable cut off": ("PrepareConf.Resp", body(4, -4, (6, 4)), "PrepareConf.Resp", 8, "the frame ends at 16"),
    "long vtable cut off": ("PrepareConf.Resp", body(4, -4, (40, 4)), "PrepareConf.Resp", 12, "40 bytes ends after"),
    "slot in the table's head": (
        "PrepareConf.Resp",
        body(4, -4, (6, 8, 3, 0)),
        "PrepareConf.Resp",
        8,
        "slot 0 points into the table's own header",
    ),
    "slot in a call's head": (
        "HTTPReqCall.Req",
        body(4, -4, (6, 8, 3, 0)),
        "HTTPReqCall.Req",
        8,
        "slot 0 points into the table's own header",
    ),
    "number outside": (
        "PrepareConf.Resp",
        body(4, -4, (6, 8, 10, 0)),
        "PrepareConf.Resp.conf_token",
        18,
        "a number ends after the frame, which has 20 bytes",
    ),
    "offset outside": (
        "ExtraInfo.Resp",
        body(4, -4, (6, 8, 10, 0)),
        "ExtraInfo.Resp.result",
        18,
        "an offset ends",
    ),
    "length outside": (
        "ExtraInfo.Resp",
        body(4, -8, 12, (6, 8, 4, 0)),
        "ExtraInfo.Resp.result",
        24,
        "a length ends after the frame, which has 24 bytes",
    ),
    "length too large": (
        "ExtraInfo.Resp",
        body(4, -8, 12, (6, 8, 4, 0), 5, b"1234"),
        "ExtraInfo.Resp.result",
        24,
        "a value of 5 bytes ends after the frame, which has 32 bytes",
    ),
    "length of 2^32 - 1": ("ExtraInfo.Resp", body(4, -8, 12, (6, 8, 4, 0), -1), "ExtraInfo.Resp.result", 24, "after"),
    "text too long": (
        "PrepareConf.Req",
        body(4, -8, 12, (8, 8, 0, 4), 9, b"1234"),
        "PrepareConf.Req.key",
        24,
        "a value of 9 bytes ends after the frame, which has 32 bytes",
    ),
    "vector outside": (
        "PrepareConf.Req",
        conf(),
        "PrepareConf.Req.conf",
        24,
        "a vector, or an entry of it, ends",
    ),
    "vector cut off": ("PrepareConf.Req", conf(2, 4), "PrepareConf.Req.conf", 24, "a vector, or an entry of it, ends"),
    "too many entries": (
        "PrepareConf.Req",
        conf(2**32 - 1),
        "PrepareConf.Req.conf",
        24,
        "4294967295 entries",
    ),
    "entry outside": ("PrepareConf.Req", conf(1, 400), "PrepareConf.Req.conf", 24, "an entry of it, ends after"),
    "entry whose vtable is in the header": (
        "PrepareConf.Req",
        entry(40, 8, 12, text(b"abc")),
        "PrepareConf.Req.conf[0]",
        40,
        "its vtable would begin at offset 0, before the body",
    ),
    "entry without name": (
        "PrepareConf.Req",
        conf(1, 12, (8, 12, 0, 4), 8, 4, text(b"v")),
        "PrepareConf.Req.conf[0].name",
        40,
        "an entry has a name, this one has none",
    ),
    "entry without fields": (
        "PrepareConf.Req",
        conf(1, 8, (4, 4), 4, text(b"v")),
        "PrepareConf.Req.conf[0].name",
        36,
        "an entry has a name, this one has none",
    ),
    "entry with slots out of alignment": (
        "PrepareConf.Req",
        conf(1, 12, (8, 12, 4, 6), 8, 8, 0, text(b"abc")),
        "PrepareConf.Req.conf[0]",
        40,
        "multiples of 4, here they are 4 and 6",
    ),
    "entry with a slot in its head": (
        "PrepareConf.Req",
        conf(1, 12, (8, 12, 4, 2), 8, 8, 0, text(b"abc")),
        "PrepareConf.Req.conf[0]",
        40,
        "multiples of 4, here they are 4 and 2",
    ),
    "entry without room for a name": (
        "PrepareConf.Req",
        conf(1, 12, (6, 8, 4, 0), 8, 0),
        "PrepareConf.Req.conf",
        24,
        "an entry of it, ends after",
    ),
    "name outside": ("PrepareConf.Req", entry(8, 400, 0), "PrepareConf.Req.conf", 24, "an entry of it, ends after"),
    "name too long": (
        "PrepareConf.Req",
        entry(8, 4, None, 99, b"abc\0"),
        "PrepareConf.Req.conf[0].name",
        48,
        "a string of 99 bytes ends after the frame, which has 56 bytes",
    ),
    "value outside": (
        "PrepareConf.Req",
        entry(8, 8, 400, text(b"abc")),
        "PrepareConf.Req.conf",
        24,
        "an entry of it, ends after",
    ),
    "value too long": (
        "PrepareConf.Req",
        entry(8, 8, 12, text(b"abc"), 99, b"v\0\0\0"),
        "PrepareConf.Req.conf[0].value",
        60,
        "a string of 99 bytes ends after the frame, which has 68 bytes",
    ),
    "second entry, of another shape, is the broken one": (
        "PrepareConf.Req",
        conf(2, 16, 32, (6, 8, 4, 0), 8, 4, text(b"a"), (4, 4), 4, text(b"a")),
        "PrepareConf.Req.conf[1].name",
        64,
        "an entry has a name, this one has none",
    ),
    "method 15": (
        "HTTPReqCall.Req",
        body(4, -8, 15, (10, 8, 0, 0, 4, 0)),
        "HTTPReqCall.Req.method",
        12,
        "expected a method number below 15, got 15",
    ),
    "action of an unknown type": (
        "HTTPReqCall.Resp",
        body(4, -8, 3, (8, 8, 0, 4)),
        "HTTPReqCall.Resp.action_type",
        12,
        r"expected Stop (1) or Rewrite (2), got 3",
    ),
    "action without a value": (
        "HTTPReqCall.Resp",
        body(4, -8, 1, (8, 8, 0, 4)),
        "HTTPReqCall.Resp.action",
        8,
        "action type 1 has no value",
    ),
    "action outside": (
        "HTTPReqCall.Resp",
        body(4, -12, 2, 400, (10, 12, 0, 4, 8, 0)),
        "HTTPReqCall.Rewrite",
        416,
        "the frame ends at 32",
    ),
    "nothing asked": ("ExtraInfo.Req", body(4, -4, (4, 4)), "ExtraInfo.Req.info_type", 8, "RespBody (3), got 0"),
    "asked for an unknown kind": (
        "ExtraInfo.Req",
        body(4, -8, 4, (6, 8, 4, 0)),
        "ExtraInfo.Req.info_type",
        12,
        "expected Var (1), ReqBody (2) or RespBody (3), got 4",
    ),
    "kind without a value": (
        "ExtraInfo.Req",
        body(4, -8, 2, (6, 8, 4, 0)),
        "ExtraInfo.Req.info",
        8,
        "info type REQ_BODY has no value",
    ),
    "variable without a name": (
        "ExtraInfo.Req",
        body(4, -12, 1, 12, (8, 12, 4, 8), -4, (4, 4)),
        "ExtraInfo.Var.name",
        28,
        "a variable has a name, this one has none",
    ),
}


@pytest.mark.parametrize(("name", "frame", "field", "offset", "problem"), CASES.values(), ids=CASES)
def test_a_broken_rule_is_one_error(
    codec: Codec, name: str, frame: bytes, field: str, offset: int, problem: str
) -> None:
    with pytest.raises(WireError) as raised:
        codec.decode(name, frame)
    assert (raised.value.field, raised.value.offset) == (field, offset)
    assert problem in raised.value.problem
    assert str(raised.value) == f"{field} at offset {offset}: {raised.value.problem}"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_cut_off_anywhere_is_an_error_or_lacks_only_padding(codec: Codec, name: str) -> None:
    values = full(name, 7, 3)
    frame = codec.encode(name, values)
    for size in range(len(frame)):
        try:
            decoded = codec.decode(name, frame[:size])
        except WireError:
            continue
        assert decoded == values
        assert not frame[size:].strip(b"\0")


def test_a_table_may_be_longer_than_we_know(codec: Codec) -> None:
    frame = body(4, -52, *range(1, 13), (28, 52), tuple(range(4, 52, 4)))
    assert codec.decode("PrepareConf.Resp", frame) == {"conf_token": 1}


def test_an_entry_may_be_longer_than_we_know(codec: Codec) -> None:
    entries = conf(1, 16, (10, 20, 12, 16, 4, 0), 12, 7, 7, 8, 12, text(b"abc"), text(b"v"))
    assert codec.decode("PrepareConf.Req", entries)["conf"] == [(b"abc", b"v")]


def test_a_union_type_of_none_is_no_action(codec: Codec) -> None:
    assert codec.decode("HTTPReqCall.Resp", body(4, -8, 0, (8, 8, 0, 4))) == {"id": 0, "action": None}


def test_an_unknown_error_code_is_handed_on(codec: Codec) -> None:
    assert codec.decode("Err.Resp", body(4, -8, 200, (6, 8, 4, 0))) == {"code": 200}
