"""Frames made to cost more than they weigh are refused, or cost no more than honest frames of their size.

Memory is what tracemalloc counts at the peak, as a multiple of the frame; time is CPU time of this process, with wide
bounds, since what must not happen (a loop without end, work that grows with a count and not with the bytes) is far
beyond them.
"""

import time
import tracemalloc
from struct import pack

import pytest

from apisix.runner.wire.frame import MAX_BODY, WireError, pack_frame
from tests.wire.codec import NAMES, Codec

HEAD = pack("<IiI4H", 4, -8, 12, 6, 8, 4, 0)  # of a PrepareConf.Req, its conf behind, at 24
VTABLE = pack("<4H", 8, 12, 4, 8)


def vector(count: int, target: int) -> bytes:
    """`count` offsets that all point to one place, `target` bytes behind the vector's end."""
    size = 4 * count
    return pack(f"<{count + 1}I", count, *range(size + target, target, -4))


def cost(codec: Codec, frame: bytes, name: str = "PrepareConf.Req") -> tuple[float, float]:
    """Memory at the peak per byte of the frame, and seconds of CPU."""
    start = time.process_time()
    _attempt(codec, name, frame)
    seconds = time.process_time() - start
    tracemalloc.start()
    _attempt(codec, name, frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / len(frame), seconds


def _attempt(codec: Codec, name: str, frame: bytes) -> None:
    try:
        codec.decode(name, frame)
    except WireError:
        pass


def test_millions_of_entries_in_one_place_are_refused_before_they_are_read(codec: Codec) -> None:
    count = 4_100_000
    shared = VTABLE + pack("<iII", 8, 8, 8) + b"\0" * 12
    frame = pack_frame(1, HEAD + vector(count, 8) + shared)
    with pytest.raises(WireError, match=f"{count} entries do not fit a frame of {len(frame)} bytes"):
        codec.decode("PrepareConf.Req", frame)
    memory, seconds = cost(codec, frame)
    assert memory < 1
    assert seconds < 1


def test_entries_that_share_a_large_text_are_refused(codec: Codec) -> None:
    text = b"x" * 2**20
    shared = VTABLE + pack("<iII", 8, 8, 4) + pack("<I", len(text)) + text + b"\0" * 4
    frame = pack_frame(1, HEAD + vector(1000, 8) + shared)
    with pytest.raises(WireError, match=r"conf\[\d\].* entries overlap: together they hold more than the frame"):
        codec.decode("PrepareConf.Req", frame)
    memory, seconds = cost(codec, frame)
    assert memory < 8
    assert seconds < 1


def test_entries_share_no_more_than_64_kib(codec: Codec) -> None:
    def frame(length: int) -> bytes:
        text = pack("<I", length) + b"x" * length + b"\0" * (4 - length % 4)
        return pack_frame(1, HEAD + vector(1000, 8) + VTABLE + pack("<iII", 8, 8, 4) + text)

    count = 2 * 1000  # of texts: a name and a value each
    longest = max(length for length in range(100) if count * length + 16 * 1000 <= len(frame(length)) + 65536)
    conf = codec.decode("PrepareConf.Req", frame(longest))["conf"]
    assert conf == [(b"x" * longest, b"x" * longest)] * 1000
    with pytest.raises(WireError, match=r"conf\[\d+\].* entries overlap"):
        codec.decode("PrepareConf.Req", frame(longest + 1))


def test_entries_that_share_small_texts_are_read(codec: Codec) -> None:
    shared = VTABLE + pack("<iII", 8, 8, 4) + pack("<I", 3) + b"abc\0"
    frame = pack_frame(1, HEAD + vector(1000, 8) + shared)
    assert codec.decode("PrepareConf.Req", frame)["conf"] == [(b"abc", b"abc")] * 1000


def test_as_many_entries_as_a_frame_can_hold_cost_in_proportion(codec: Codec) -> None:
    count = 40_000
    entry = pack("<iIII", 0, 8, 0, 0)  # its vtable's distance is set below
    entries = b"".join(pack("<i", 8 + 16 * i) + entry[4:] for i in range(count))
    words = pack(f"<{count + 1}I", count, *(4 * count - 4 * i + 8 + 16 * i for i in range(count)))
    frame = pack_frame(1, HEAD + words + pack("<4H", 6, 16, 4, 0) + entries)
    decoded = codec.decode("PrepareConf.Req", frame)["conf"]
    assert decoded is not None
    assert len(decoded) == count
    memory, seconds = cost(codec, frame)
    assert memory < 40
    assert seconds < 5


@pytest.mark.parametrize("count", [2**16, 2**24, 2**31, 2**32 - 1])
def test_a_count_without_entries_costs_nothing(codec: Codec, count: int) -> None:
    frame = pack_frame(1, HEAD + pack("<I", count) + bytes(4096))
    memory, seconds = cost(codec, frame)
    assert memory < 20
    assert seconds < 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("word", [0, 1, 2, 4, 8, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1])
def test_a_body_of_one_word_over_and_over_is_cheap(codec: Codec, name: str, word: int) -> None:
    frame = pack_frame(1, pack("<I", word) * 25_000)
    memory, seconds = cost(codec, frame, name)
    assert memory < 40
    assert seconds < 5


def test_fields_that_share_one_large_value_cost_no_more_than_so_many_fields(codec: Codec) -> None:
    text = b"\xff" * (MAX_BODY - 100)  # as bytes that are no UTF-8, which take the most as text
    table = pack("<iII6H", -12, 20, 16, 12, 12, 0, 4, 0, 8)  # src_ip and path are the same bytes
    frame = pack_frame(2, pack("<I", 4) + table + pack("<I", len(text)) + text)
    decoded = codec.decode("HTTPReqCall.Req", frame)
    assert (decoded["src_ip"], decoded["path"]) == (text, text)
    memory, seconds = cost(codec, frame, "HTTPReqCall.Req")
    assert memory < 20
    assert seconds < 5
