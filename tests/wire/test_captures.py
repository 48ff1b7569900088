"""Every frame that a real gateway and a runner exchanged says to us what it said to them."""

from collections import Counter
from itertools import groupby
from typing import Any

import pytest

from tests.wire import oracle
from tests.wire.codec import Codec
from tests.wire.oracle import Values
from tests.wire.recorded import SHORTENED, WHOLE, Recorded, Shortened

ASKED = {"ExtraInfo.Var": "var", "ExtraInfo.ReqBody": "body", "ExtraInfo.RespBody": "resp_body"}


def latin1(value: Any) -> Any:
    """Bytes as the captures show them."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [latin1(item) for item in value]
    if isinstance(value, dict):
        return {key: latin1(item) for key, item in value.items()}
    return value


def view(name: str, values: Values) -> Any:
    """A message in the form of the captures' views."""
    if name == "Err.Resp":
        return {"error": values["code"]}
    if name == "HTTPReqCall.Req":
        return latin1(values) | {"src_ip": values["src_ip"].hex()}
    if name == "HTTPReqCall.Resp":
        if values["action"] is None:
            return {"id": values["id"], "action": 0}
        member, fields = values["action"]
        return {"id": values["id"], member.removeprefix("HTTPReqCall.").lower(): latin1(fields)}
    if name == "ExtraInfo.Req":
        member, fields = values["info"]
        return {"ask": ASKED[member], "name": latin1(fields.get("name"))}
    return latin1(values)


def test_all_versions_directions_and_types_are_recorded() -> None:
    kinds = Counter((recorded.where.split("/")[0], recorded.name) for recorded in WHOLE)
    assert {version for version, _ in kinds} == {"2.7", "2.15.3", "3.18.0"}
    assert {name for version, name in kinds if version == "3.18.0"} == set(oracle.FRAME_TYPES)
    assert kinds.total() == 695


EXCHANGES = {case: list(frames) for case, frames in groupby(WHOLE, key=lambda recorded: recorded.where.split("#")[0])}
exchanges = pytest.mark.parametrize("frames", EXCHANGES.values(), ids=EXCHANGES)


@exchanges
def test_recorded_frames_decode_to_their_views(codec: Codec, frames: list[Recorded]) -> None:
    seen = [view(name, codec.decode(name, frame)) for _, name, frame, _ in frames]
    assert seen == [recorded.view for recorded in frames]


@exchanges
def test_recorded_messages_survive_our_encoder(codec: Codec, frames: list[Recorded]) -> None:
    for _, name, recorded, _ in frames:
        values = codec.decode(name, recorded)
        frame = codec.encode(name, values)
        oracle.verify(name, frame)
        assert oracle.read(name, frame) == values


@pytest.mark.parametrize("shortened", SHORTENED, ids=lambda shortened: shortened.where)
def test_a_shortened_frame_is_whole_again_with_the_body_that_its_client_saw(codec: Codec, shortened: Shortened) -> None:
    # The capture keeps the first 100 bytes, and says that the client saw 2^20 bytes; the kept ones are all "y".
    assert int.from_bytes(shortened.beginning[1:4], "big") + 4 == shortened.size
    frame = shortened.beginning.ljust(shortened.size, b"y")
    values = codec.decode(shortened.name, frame)
    assert values["action"] == ("HTTPReqCall.Stop", {"status": 200, "headers": None, "body": b"y" * 2**20})
