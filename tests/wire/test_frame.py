"""Frames come out of the stream as they went in, in whatever pieces they arrive."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.wire.frame import MAX_BODY, FrameBuffer, FrameType, WireError, frame_length, pack_frame
from tests.wire.recorded import WHOLE

FRAMES = st.lists(st.builds(pack_frame, st.integers(0, 255), st.binary(max_size=300)), max_size=6)


def take_all(pieces: FrameBuffer) -> list[bytes]:
    return list(iter(pieces.take, None))


def test_types_are_the_protocols() -> None:
    assert {type.name: type.value for type in FrameType} == {
        "ERROR": 0,
        "PREPARE_CONF": 1,
        "HTTP_REQ_CALL": 2,
        "EXTRA_INFO": 3,
        "HTTP_RESP_CALL": 4,
    }


def test_a_frame_is_type_then_big_endian_length_then_body() -> None:
    assert pack_frame(FrameType.EXTRA_INFO, b"x" * 0x010203)[:5] == b"\x03\x01\x02\x03x"


def test_the_largest_body_fits() -> None:
    frame = pack_frame(FrameType.HTTP_REQ_CALL, bytes(MAX_BODY))
    assert frame[:4] == b"\x02\xff\xff\xff"
    assert frame_length(frame) == len(frame) == 2**24 + 3


def test_one_byte_more_does_not_and_leaves_the_type_alone() -> None:
    with pytest.raises(WireError, match=r"^frame\.length at offset 0: .*at most 16777215 bytes.* has 16777216$"):
        pack_frame(FrameType.HTTP_REQ_CALL, bytes(MAX_BODY + 1))


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_length_needs_a_whole_header(size: int) -> None:
    with pytest.raises(WireError, match=rf"^frame\.header at offset 0: expected 4 bytes, got {size}$"):
        frame_length(bytes(size))


def test_every_recorded_frame_passes_whole() -> None:
    pieces = FrameBuffer()
    for recorded in WHOLE:
        pieces.feed(recorded.frame)
        assert take_all(pieces) == [recorded.frame]


def test_every_recorded_frame_passes_byte_by_byte() -> None:
    pieces = FrameBuffer()
    for recorded in WHOLE:
        for at in range(len(recorded.frame) - 1):
            pieces.feed(recorded.frame[at : at + 1])
            assert pieces.take() is None
        pieces.feed(recorded.frame[-1:])
        assert take_all(pieces) == [recorded.frame]
    assert len(pieces) == 0


def test_what_follows_a_frame_waits() -> None:
    pieces = FrameBuffer()
    pieces.feed(pack_frame(1, b"one") + pack_frame(2, b"") + b"\3\0\0")
    assert take_all(pieces) == [b"\1\0\0\3one", b"\2\0\0\0"]
    assert len(pieces) == 3
    pieces.feed(b"\1")
    assert pieces.take() is None
    pieces.feed(b"x")
    assert take_all(pieces) == [b"\3\0\0\1x"]


@given(FRAMES, st.data())
def test_any_pieces_give_the_same_frames(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = FrameBuffer()
    taken = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pieces.feed(stream[start:end])
        taken += take_all(pieces)
    assert taken == frames
    assert len(pieces) == 0


def test_the_largest_frame_passes_in_pieces() -> None:
    frame = pack_frame(FrameType.EXTRA_INFO, bytes(range(256)) * 65535 + bytes(255))
    pieces = FrameBuffer()
    for start in range(0, len(frame), 65536):
        assert pieces.take() is None
        pieces.feed(frame[start : start + 65536])
    assert pieces.take() == frame


def test_a_length_that_never_comes_holds_only_what_came() -> None:
    pieces = FrameBuffer()
    pieces.feed(pack(">I", 2 << 24 | MAX_BODY) + b"no more")
    assert pieces.take() is None
    assert len(pieces) == 11


def test_the_type_is_known_from_the_first_byte() -> None:
    pieces = FrameBuffer()
    assert pieces.first_byte is None
    pieces.feed(b"\3")
    assert pieces.first_byte == FrameType.EXTRA_INFO
    pieces.feed(b"\0\0\0\4")
    pieces.take()
    assert pieces.first_byte == FrameType.HTTP_RESP_CALL
