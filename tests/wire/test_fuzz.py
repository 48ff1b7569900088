"""Decode or raise WireError: whatever is done to a frame, nothing else happens, and what is decoded can be sent on.

Recorded frames are changed at random, always in the same way for the same seed. `FUZZ_MUTATIONS` says how many (20,000
unless set), `FUZZ_SEED` from where (0 unless set); a failure prints both and the frame.
"""

import os
from random import Random
from struct import pack_into

from apisix.runner.wire.frame import WireError
from tests.wire.codec import NAMES, PURE, Codec
from tests.wire.oracle import Style, Values, full, write
from tests.wire.recorded import WHOLE

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
WORDS = (0, 1, 2, 3, 4, 8, 12, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFC, 0xFFFFFFFF)


def corpus() -> list[tuple[str, bytes]]:
    """Frames to begin with, the recorded ones once each, and every field of every message."""
    recorded = {(frame.name, frame.frame) for frame in WHOLE if len(frame.frame) < 2048}
    written = {(name, write(name, full(name, 7, 3), style)) for name in NAMES for style in (Style(), Style(True, True))}
    ours = {(name, PURE.encode(name, full(name, 7, 3))) for name in NAMES}
    return sorted(recorded | written | ours)


def mutate(random: Random, frame: bytes, other: bytes) -> bytes:
    """The frame with one to four things done to it."""
    data = bytearray(frame)
    for _ in range(random.randint(1, 4)):
        if len(data) < 8:
            break
        at = random.randrange(4, len(data))
        match random.randrange(8):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = random.randrange(256)
            case 2:
                pack_into("<I", data, min(at & ~3, len(data) - 4), random.choice(WORDS))
            case 3:
                pack_into("<I", data, min(at & ~3, len(data) - 4), random.randrange(2 * len(data)))
            case 4:
                pack_into("<H", data, min(at & ~1, len(data) - 2), random.randrange(32))
            case 5:
                del data[at:]
            case 6:
                data[at:at] = data[at : at + random.randrange(1, 16)]
            case _:
                data[at : at + 16] = other[at : at + 16]
    return bytes(data)


def attempt(codec: Codec, name: str, frame: bytes) -> Values | WireError:
    """What the frame says, or the one error. Whatever else is raised comes through."""
    try:
        return codec.decode(name, frame)
    except WireError as error:
        return error


def check(codec: Codec, name: str, frame: bytes) -> bool:
    """Whether the frame decoded. If so, what it says can be sent on; if not, the error says where."""
    outcome = attempt(codec, name, frame)
    if isinstance(outcome, WireError):
        assert outcome.field.startswith(name.partition(".")[0])
        assert outcome.offset >= 0
        return False
    assert codec.decode(name, codec.encode(name, outcome)) == outcome
    return True


def test_fuzz_decodes_or_raises_the_one_error(codec: Codec) -> None:
    random = Random(SEED)
    frames = corpus()
    decoded = 0
    for number in range(MUTATIONS):
        name, frame = random.choice(frames)
        mutated = mutate(random, frame, random.choice(frames)[1])
        if not random.randrange(8):
            name = random.choice(NAMES)  # the frame of one message, read as another
        try:
            decoded += check(codec, name, mutated)
        except Exception as error:
            where = f"FUZZ_SEED={SEED}, mutation {number}: {name} {mutated.hex()}"
            raise AssertionError(where) from error
    # Neither side may starve: mutations that always break, or never do, test half of the promise.
    assert MUTATIONS / 10 < decoded < MUTATIONS * 9 / 10


def test_fuzz_is_the_same_for_the_same_seed() -> None:
    _, frame = corpus()[0]
    assert mutate(Random(1), frame, frame) == mutate(Random(1), frame, frame)


def test_fuzz_of_no_structure_at_all(codec: Codec) -> None:
    random = Random(SEED)
    for number in range(MUTATIONS // 10):
        frame = random.randbytes(random.randrange(80))
        name = random.choice(NAMES)
        try:
            check(codec, name, frame)
        except Exception as error:
            where = f"FUZZ_SEED={SEED}, random frame {number}: {name} {frame.hex()}"
            raise AssertionError(where) from error
