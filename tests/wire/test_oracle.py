"""The official FlatBuffers runtime reads what we write, and we read what it writes."""

from struct import pack_into

import pytest
from hypothesis import given, settings

from apisix.runner.wire.messages import Rewrite, Stop, encode_http_req_call_resp
from tests.wire import oracle
from tests.wire.codec import NAMES, Codec
from tests.wire.oracle import Style, Values
from tests.wire.strategies import MESSAGES, STYLES

Message = tuple[str, Values]


@given(message=MESSAGES)
@settings(max_examples=400)
def test_what_we_encode_is_sound_and_read_as_meant(codec: Codec, message: Message) -> None:
    name, values = message
    frame = codec.encode(name, values)
    oracle.verify(name, frame)
    assert oracle.read(name, frame) == values


@given(message=MESSAGES, style=STYLES)
@settings(max_examples=400)
def test_what_the_official_runtime_writes_is_decoded(codec: Codec, message: Message, style: Style) -> None:
    name, values = message
    assert codec.decode(name, oracle.write(name, values, style)) == values


@given(message=MESSAGES)
@settings(max_examples=200)
def test_what_we_encode_we_decode(codec: Codec, message: Message) -> None:
    name, values = message
    assert codec.decode(name, codec.encode(name, values)) == values


@pytest.mark.parametrize("entries", [0, 1, 2, 200])
@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize("style", [Style(), Style(force_defaults=True), Style(names_first=False, new_slots=3)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_full_tables_pass_both_ways(codec: Codec, name: str, style: Style, number: int, entries: int) -> None:
    values = oracle.full(name, number, entries)
    assert codec.decode(name, oracle.write(name, values, style)) == values
    frame = codec.encode(name, values)
    oracle.verify(name, frame)
    assert oracle.read(name, frame) == values


@pytest.mark.parametrize("size", [1, 65535, 2**20 + 1, 2**24 - 100])
def test_big_bodies_pass_both_ways(codec: Codec, size: int) -> None:
    stop = {"status": 200, "headers": None, "body": b"\xa5" * size}
    values = {"id": 0, "action": ("HTTPReqCall.Stop", stop)}
    assert oracle.read("HTTPReqCall.Resp", codec.encode("HTTPReqCall.Resp", values)) == values
    assert codec.decode("HTTPReqCall.Resp", oracle.write("HTTPReqCall.Resp", values, Style())) == values


@pytest.mark.parametrize("action", [None, Stop(403), Rewrite("/x")], ids=str)
@pytest.mark.parametrize("id", [0, 1, 2**22, 2**32 - 1])
def test_an_answer_echoes_the_id(codec: Codec, id: int, action: Stop | Rewrite | None) -> None:
    assert oracle.read("HTTPReqCall.Resp", codec.m.encode_http_req_call_resp(id, action))["id"] == id


# The verifier itself: what it should refuse, made by hand.

SOUND = encode_http_req_call_resp(7, Stop(201, [("a", "b")], b"c"))


def _broken(at: int, word: int) -> bytes:
    frame = bytearray(SOUND)
    pack_into("<I", frame, at, word)
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        pytest.param(_broken(4, 5), "not aligned", id="unaligned root"),
        pytest.param(_broken(4, 4096), "has 4 bytes, the body", id="root outside"),
        pytest.param(SOUND[:-4], "has 1 bytes, the body", id="cut off"),
        pytest.param(SOUND.replace(b"\1\0\0\0b\0", b"\1\0\0\0bb"), "does not end with NUL", id="no terminator"),
    ],
)
def test_the_verifier_refuses_what_is_unsound(frame: bytes, problem: str) -> None:
    oracle.verify("HTTPReqCall.Resp", SOUND)
    with pytest.raises(oracle.Unsound, match=problem):
        oracle.verify("HTTPReqCall.Resp", frame)
