"""The compiled codec says of every frame what the pure one says, writes what it writes, and fails as it fails."""

import gc
import sys
from collections.abc import Callable
from enum import IntEnum, StrEnum
from http import HTTPStatus
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apisix.runner.wire.frame import WireError, pack_frame
from apisix.runner.wire.schema import InfoKind, Rewrite, Stop
from tests.wire.codec import NAMES, PURE, Codec
from tests.wire.oracle import Style, Values, full, write
from tests.wire.recorded import WHOLE
from tests.wire.strategies import MESSAGES, STYLES
from tests.wire.test_fuzz import MUTATIONS, SEED, corpus, mutate
from tests.wire.test_malformed import CASES

LAZY = {
    "HTTPReqCall.Req": (
        "id",
        "conf_token",
        "src_ip",
        "method",
        "path",
        "args",
        "headers",
        "args_by_name",
        "headers_by_name",
    ),
    "HTTPRespCall.Req": ("id", "status", "conf_token", "headers"),
}
DECODERS = {
    "Err.Resp": "decode_error",
    "PrepareConf.Req": "decode_prepare_conf_req",
    "PrepareConf.Resp": "decode_prepare_conf_resp",
    "HTTPReqCall.Req": "decode_http_req_call_req",
    "HTTPReqCall.Resp": "decode_http_req_call_resp",
    "ExtraInfo.Req": "decode_extra_info_req",
    "ExtraInfo.Resp": "decode_extra_info_resp",
    "HTTPRespCall.Req": "decode_http_resp_call_req",
    "HTTPRespCall.Resp": "decode_http_resp_call_resp",
}


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What comes of a call: its result, or what it raises, with all that an error says."""
    try:
        return function(*arguments)
    except WireError as error:
        return WireError, error.field, error.offset, error.problem
    except Exception as error:
        return type(error), str(error)


def reading(codec: Codec, name: str, frame: bytes) -> Any:
    """What comes of reading a frame, each lazy attribute for itself."""
    message = outcome(getattr(codec.m, DECODERS[name]), frame)
    if name not in LAZY or isinstance(message, tuple):
        return message
    return [outcome(getattr, message, attribute) for attribute in LAZY[name]]


def written(codec: Codec, name: str, values: Values) -> Any:
    """What comes of writing a message."""
    return outcome(codec.encode, name, values)


# Reading.


@given(message=MESSAGES, style=STYLES)
@settings(max_examples=300)
def test_sound_frames_read_the_same(compiled: Codec, message: tuple[str, Values], style: Style) -> None:
    name, values = message
    frame = write(name, values, style)
    assert reading(compiled, name, frame) == reading(PURE, name, frame)


def test_recorded_frames_read_the_same(compiled: Codec) -> None:
    for recorded in WHOLE:
        assert reading(compiled, recorded.name, recorded.frame) == reading(PURE, recorded.name, recorded.frame)


def test_fuzz_mutated_frames_read_the_same(compiled: Codec) -> None:
    random = Random(SEED)
    frames = corpus()
    for number in range(MUTATIONS):
        name, frame = random.choice(frames)
        mutated = mutate(random, frame, random.choice(frames)[1])
        if not random.randrange(8):
            name = random.choice(NAMES)
        where = f"FUZZ_SEED={SEED}, mutation {number}: {name} {mutated.hex()}"
        assert reading(compiled, name, mutated) == reading(PURE, name, mutated), where


@pytest.mark.parametrize(("name", "frame"), [case[:2] for case in CASES.values()], ids=CASES)
def test_each_broken_rule_is_the_same_error(compiled: Codec, name: str, frame: bytes) -> None:
    assert reading(compiled, name, frame) == reading(PURE, name, frame)


@pytest.mark.parametrize("name", NAMES)
def test_frames_cut_off_anywhere_read_the_same(compiled: Codec, name: str) -> None:
    frame = write(name, full(name, 7, 3), Style())
    for size in range(len(frame)):
        assert reading(compiled, name, frame[:size]) == reading(PURE, name, frame[:size]), size


@given(name=st.sampled_from(NAMES), body=st.binary(max_size=100))
@settings(max_examples=500)
def test_any_bytes_read_the_same(compiled: Codec, name: str, body: bytes) -> None:
    frame = pack_frame(0, body)
    assert reading(compiled, name, frame) == reading(PURE, name, frame)


@given(
    name=st.sampled_from(NAMES),
    words=st.lists(st.integers(0, 24) | st.sampled_from([2**31 - 1, 2**31, 2**32 - 8, 2**32 - 4]), max_size=40),
)
@settings(max_examples=500)
def test_any_small_words_read_the_same(compiled: Codec, name: str, words: list[int]) -> None:
    frame = pack_frame(0, b"".join(word.to_bytes(4, "little") for word in words))
    assert reading(compiled, name, frame) == reading(PURE, name, frame)


@given(name=st.sampled_from(NAMES), halves=st.lists(st.integers(0, 24), min_size=4, max_size=60))
@settings(max_examples=500)
def test_any_small_halves_of_words_read_the_same(compiled: Codec, name: str, halves: list[int]) -> None:
    frame = pack_frame(0, b"\4\0\0\0\xf4\xff\xff\xff" + b"".join(half.to_bytes(2, "little") for half in halves))
    assert reading(compiled, name, frame) == reading(PURE, name, frame)


def test_a_message_keeps_its_frame(compiled: Codec) -> None:
    frame = bytearray(write("HTTPReqCall.Req", full("HTTPReqCall.Req", 7, 3), Style()))
    message = compiled.m.HTTPReqCallReq(bytes(frame))
    gc.collect()
    assert message.headers == PURE.m.HTTPReqCallReq(bytes(frame)).headers


@pytest.mark.parametrize("name", ["HTTPReqCall.Req", "HTTPRespCall.Req"])
@pytest.mark.parametrize("frame", [None, "text", 7, bytearray(b"\0" * 8), memoryview(b"\0" * 8)])
def test_a_frame_is_bytes(compiled: Codec, name: str, frame: object) -> None:
    with pytest.raises(TypeError):
        getattr(compiled.m, DECODERS[name])(frame)


def test_a_message_is_made_from_a_frame_only(compiled: Codec) -> None:
    for made in (compiled.m.HTTPReqCallReq, compiled.m.HTTPRespCallReq):
        with pytest.raises(TypeError):
            made()
        with pytest.raises(TypeError):
            made.__new__(made)
        with pytest.raises(TypeError):
            type("Sub", (made,), {})


# Writing.


@given(message=MESSAGES)
@settings(max_examples=500)
def test_messages_are_written_the_same(compiled: Codec, message: tuple[str, Values]) -> None:
    assert written(compiled, *message) == written(PURE, *message)


class Pairs(list[Any]):
    """A list that is not quite list."""


class Text(str):
    """Text that is not quite str, and says something else when it is encoded."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"encoded"


class Number(IntEnum):
    """A number that is not quite int."""

    SEVEN = 7


class Name(StrEnum):
    """Text that is not quite str."""

    HOST = "host"


class Index:
    """Something that can stand for a number."""

    def __index__(self) -> int:
        return 9


NUMBERS = [0, 1, -1, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63, 2**64, -(2**64)]
ODD_NUMBERS = st.sampled_from([*NUMBERS, None, True, 7.0, "7", HTTPStatus.OK, Number.SEVEN, Index()])
TEXTS = ["", "a", "é", "€", "𝄞", "a\0b", "\udc80", "a\udcff", "\ud800", "x\udfff", "a" * 1000, "é" * 1000]
ODD_TEXT = st.sampled_from([*TEXTS, None, b"bytes", 7, Text("text"), Name.HOST])
ODD_BYTES = st.sampled_from([None, b"", b"abc", b"abcd", b"\0" * 3000, bytearray(b"abc"), "text", 7])
ODD_PAIR = st.one_of(
    st.tuples(ODD_TEXT, ODD_TEXT),
    st.tuples(ODD_TEXT, ODD_TEXT).map(list),
    st.sampled_from([(), ("a",), ("a", "b", "c"), "ab", None, {"a": 1, "b": 2}]),
)
FEW_ODD_PAIRS = st.lists(st.tuples(st.just("a"), st.none() | st.just("é")) | ODD_PAIR, max_size=3)
ODD_PAIRS = st.one_of(
    st.none(),
    FEW_ODD_PAIRS,
    FEW_ODD_PAIRS.map(tuple),
    FEW_ODD_PAIRS.map(Pairs),
    st.sampled_from([{"a": "b"}, {"ab": 1}.keys(), "ab", "", 7, [("a", "b")] * 300, range(0)]),
)
STOPS = st.builds(Stop, ODD_NUMBERS, ODD_PAIRS, ODD_BYTES)
REWRITES = st.builds(Rewrite, ODD_TEXT, ODD_PAIRS, ODD_PAIRS, ODD_PAIRS, ODD_BYTES)
SHORT = st.sampled_from([tuple.__new__(Stop, ()), tuple.__new__(Rewrite, ("/",)), (1, None, None), "stop"])


@given(id=ODD_NUMBERS, action=st.none() | STOPS | REWRITES | SHORT)
@settings(max_examples=1000)
def test_odd_answers_are_written_or_refused_the_same(compiled: Codec, id: Any, action: Any) -> None:
    ours = outcome(compiled.m.encode_http_req_call_resp, id, action)
    assert ours == outcome(PURE.m.encode_http_req_call_resp, id, action)


@given(id=ODD_NUMBERS, status=ODD_NUMBERS, headers=ODD_PAIRS, body=ODD_BYTES)
@settings(max_examples=500)
def test_odd_answers_of_the_response_phase_are_written_or_refused_the_same(
    compiled: Codec, id: Any, status: Any, headers: Any, body: Any
) -> None:
    ours = outcome(compiled.m.encode_http_resp_call_resp, id, status, headers, body)
    assert ours == outcome(PURE.m.encode_http_resp_call_resp, id, status, headers, body)


@given(kind=st.sampled_from(InfoKind) | ODD_NUMBERS, name=ODD_TEXT)
def test_odd_questions_are_written_or_refused_the_same(compiled: Codec, kind: Any, name: Any) -> None:
    assert outcome(compiled.m.encode_extra_info_req, kind, name) == outcome(PURE.m.encode_extra_info_req, kind, name)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 900, 1000, 1001, 1002, 1003, 1024, 5000, 2**20])
def test_a_frame_grows_to_any_size(compiled: Codec, size: int) -> None:
    for stop in (Stop(200, [("a" * size, "b" * size)] * 3, b"c" * size), Stop(200, [("é" * size, None)], None)):
        assert compiled.m.encode_http_req_call_resp(7, stop) == PURE.m.encode_http_req_call_resp(7, stop)


# What is not seen in results.


def test_arguments_have_the_same_names(compiled: Codec) -> None:
    encode = compiled.m.encode_http_resp_call_resp
    assert encode(id=1, status=2, headers=[], body=b"") == encode(1, 2, [], b"")
    assert compiled.m.encode_http_req_call_resp(id=1, action=None) == compiled.m.encode_http_req_call_resp(1)
    assert compiled.m.encode_extra_info_req(kind=InfoKind.VAR, name="a")
    assert compiled.m.HTTPReqCallReq(frame=write("HTTPReqCall.Req", full("HTTPReqCall.Req", 7, 3), Style())).id == 7


def test_an_error_stands_alone(compiled: Codec) -> None:
    with pytest.raises(WireError) as raised:
        compiled.m.HTTPReqCallReq(b"\1")
    assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_nothing_is_kept(compiled: Codec) -> None:
    random = Random(1)
    frames = corpus()
    mutated = [(name, mutate(random, frame, frame)) for name, frame in (random.choice(frames) for _ in range(300))]
    odd = [Stop(headers=[("a", "\ud800")]), Stop(-1), Stop(headers=[("a", "\udc80"), ("b", None)]), Rewrite("é" * 2000)]

    def rounds(count: int) -> int:
        for _ in range(count):
            for name, frame in mutated:
                reading(compiled, name, frame)
            for stop in odd:
                outcome(compiled.m.encode_http_req_call_resp, 7, stop)
        gc.collect()
        return sys.getallocatedblocks()

    before = rounds(3)
    assert rounds(20) - before < 100  # a block a round and frame would be thousands
