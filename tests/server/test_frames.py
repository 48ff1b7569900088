"""Frames in every shape: in pieces, together, large, malformed, and never finished."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from apisix.runner.wire.frame import MAX_BODY, FrameType
from apisix.runner.wire.messages import (
    ErrorCode,
    Stop,
    decode_prepare_conf_resp,
    encode_error,
    encode_extra_info_resp,
    encode_http_req_call_req,
    encode_http_req_call_resp,
    encode_http_resp_call_req,
    encode_prepare_conf_req,
)
from tests.server.connections import Connection, body_of, error_of, failed_closed, passes, response_of, stop_of
from tests.server.processes import PROJECT, Runner

PLUGINS = """
class Shows(Base):
    def filter(self, request, response):
        response.body = f"{request.id} {request.method} {request.path} {request.args!r} {request.headers!r}"
        response.headers["X-From"] = str(request.remote_addr)
        self.stop(200)

class Case(Shows):
    def filter_response(self, request, response):
        response.headers["X-Headers"] = str(len(response.headers.pairs()))
        response.body = "seen"

class Large(Base):
    def filter(self, request, response):
        self.stop(200, bytes(self.config))

class Catches(Base):
    def filter(self, request, response):
        try:
            list(request.headers)
        except Exception:
            pass
"""
FLAGS = ["--limits-pending-bytes", "2MiB"]


@contextmanager
def nothing_lost(runner: Runner) -> Iterator[Connection]:
    """A connection that is served before, while and after something else happens."""
    with runner.connect() as connection:
        token = connection.prepare(("shows", ""))
        body_of(connection.call(token))
        yield connection
        body_of(connection.call(token))


def call_frame(token: int, path: str = "/") -> bytes:
    return encode_http_req_call_req(7, b"\x7f\x00\x00\x01", 0, path, [("a", "1")], [("host", "h")], token)


# Pieces.


def test_a_frame_may_come_byte_by_byte(gateway: Connection) -> None:
    for byte in encode_prepare_conf_req([("shows", "")], "route#1#ext-plugin-pre-req#1"):
        gateway.send(bytes([byte]))
    token = decode_prepare_conf_resp(gateway.receive())
    for byte in call_frame(token, "/pieces"):
        gateway.send(bytes([byte]))
    assert "/pieces" in body_of(gateway.receive())


def test_two_frames_in_one_write_are_answered_in_order(gateway: Connection) -> None:
    token = gateway.prepare(("shows", ""))
    gateway.send(call_frame(token, "/first") + call_frame(token, "/second"))
    assert "/first" in body_of(gateway.receive())
    assert "/second" in body_of(gateway.receive())


def test_many_frames_in_one_write_are_answered_in_order_in_every_lane(gateway: Connection) -> None:
    token = gateway.prepare(("shows", ""))
    gateway.send(b"".join(call_frame(token, f"/{number}") for number in range(200)))
    assert [body_of(gateway.receive()).split()[2] for _ in range(200)] == [f"/{number}" for number in range(200)]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 40])
def test_bytes_after_a_frame_are_the_beginning_of_the_next(gateway: Connection, length: int) -> None:
    token = gateway.prepare(("shows", ""))
    second = call_frame(token, "/second")
    gateway.send(call_frame(token, "/first") + second[:length])
    assert "/first" in body_of(gateway.receive())
    gateway.send(second[length:])
    assert "/second" in body_of(gateway.receive())


# Sizes.


def test_a_large_call_is_read_whole(gateway: Connection) -> None:
    token = gateway.prepare(("shows", ""))
    headers = [(f"x-{number}", "v" * 1000) for number in range(1000)]
    assert body_of(gateway.call(token, headers=headers)).count("v" * 1000) == 1000


def largest_body() -> int:
    """Bytes of the longest body that fits a Stop's frame together with its status."""
    overhead = len(encode_http_req_call_resp(7, Stop(200, None, b"1234"))) - 4 - 4
    return (MAX_BODY - overhead) & ~3  # the body is followed by padding to four bytes


@pytest.mark.parametrize("size", [1 << 20, largest_body()])
def test_a_large_answer_arrives_whole(runner: Runner, gateway: Connection, size: int) -> None:
    token = gateway.prepare(("large", str(size)))
    with nothing_lost(runner):
        assert len(stop_of(gateway.call(token)).body or b"") == size
    assert len(stop_of(gateway.call(token)).body or b"") == size


@pytest.mark.parametrize("size", [largest_body() + 32, MAX_BODY + 1])
def test_an_answer_that_no_frame_can_carry_is_an_error_that_names_the_plugin(
    runner: Runner, gateway: Connection, size: int
) -> None:
    since = len(runner.log)
    token = gateway.prepare(("large", str(size)))
    assert error_of(gateway.call(token)) is ErrorCode.SERVICE_UNAVAILABLE
    event = runner.log.event("the call fails", since)
    assert "large" in event
    assert str(MAX_BODY) in event
    assert passes(gateway.call(gateway.prepare())), "the connection goes on"


# What is no frame of a gateway's.


@pytest.mark.parametrize("type", [FrameType.ERROR, FrameType.EXTRA_INFO, 5, 99, 255])
def test_a_type_that_no_gateway_sends_is_refused_before_its_body_has_come(
    runner: Runner, gateway: Connection, type: int
) -> None:
    since = len(runner.log)
    with nothing_lost(runner):
        assert error_of(gateway.exchange(bytes([type, 255, 255, 255]))) is ErrorCode.BAD_REQUEST
        assert gateway.gets_closed()
    line = runner.log.wait_for("malformed frame", since)
    assert f"frame.type at offset 0: expected 1, 2 or 4 from the gateway, got {type}" in line


@pytest.mark.parametrize("frame", [encode_error(1), encode_extra_info_resp(b"unasked")])
def test_a_whole_frame_that_is_no_request_is_refused(gateway: Connection, frame: bytes) -> None:
    assert error_of(gateway.exchange(frame)) is ErrorCode.BAD_REQUEST
    assert gateway.gets_closed()


@pytest.mark.parametrize("type", [FrameType.PREPARE_CONF, FrameType.HTTP_REQ_CALL])
@pytest.mark.parametrize("body", ["", "00", "00000000", "ffffffff", "08000000", "ff" * 64])
def test_a_body_that_is_no_message_is_refused_with_field_and_offset(
    runner: Runner, gateway: Connection, type: int, body: str
) -> None:
    since = len(runner.log)
    raw = bytes.fromhex(body)
    assert error_of(gateway.exchange(bytes([type, 0, 0, len(raw)]) + raw)) is ErrorCode.BAD_REQUEST
    assert gateway.gets_closed()
    assert " at offset " in runner.log.wait_for("malformed frame", since)


def test_a_malformed_response_call_is_answered_by_a_response_that_shows_nothing(gateway: Connection) -> None:
    assert failed_closed(gateway.exchange(bytes([FrameType.HTTP_RESP_CALL, 0, 0, 0])))
    assert gateway.gets_closed()


def test_a_call_whose_malformed_part_is_read_late_is_refused_too(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("shows", ""))
    frame = bytearray(call_frame(token))
    at = frame.index(b"host\0")
    frame[at - 4 : at] = b"\xff\xff\xff\x7f"
    for _ in range(2):
        with runner.connect() as connection:
            assert error_of(connection.exchange(bytes(frame))) is ErrorCode.BAD_REQUEST
            assert connection.gets_closed()


# Frames that never end.


def test_a_peer_that_vanishes_in_the_middle_of_a_frame_costs_nothing(runner: Runner) -> None:
    since = len(runner.log)
    with nothing_lost(runner) as healthy:
        frame = call_frame(healthy.prepare(("shows", "")))
        for length in (1, 4, 5, len(frame) - 1):
            with runner.connect() as vanishing:
                vanishing.send(frame[:length])
        runner.log.wait_for("closed a connection in the middle of a frame", since, count=4)


def test_a_peer_that_vanishes_before_its_answer_costs_nothing(runner: Runner) -> None:
    with nothing_lost(runner) as healthy:
        large = healthy.prepare(("large", str(1 << 20)))
        for _ in range(20):
            with runner.connect() as vanishing:
                vanishing.start_call(large)


def test_a_connection_that_announces_much_and_sends_little_waits_alone(runner: Runner, gateway: Connection) -> None:
    with nothing_lost(runner):
        gateway.send(bytes([FrameType.HTTP_REQ_CALL, 255, 255, 255]) + bytes(10))
    assert gateway.is_silent()


def test_unfinished_frames_hold_no_more_bytes_than_the_limit(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    with nothing_lost(runner):
        gateway.send(bytes([FrameType.HTTP_REQ_CALL, 255, 255, 255]) + bytes(2 << 20))
        gateway.send_while_open(bytes(1 << 20))
        assert gateway.gets_closed()
    assert "limits.pending_bytes is 2097152" in runner.log.wait_for("unfinished frames hold", since)


def test_bytes_of_connections_that_went_count_no_more(runner: Runner) -> None:
    for _ in range(4):
        with runner.connect() as connection, nothing_lost(runner):
            connection.send(bytes([FrameType.HTTP_REQ_CALL, 255, 255, 255]) + bytes(1 << 20))
    with nothing_lost(runner), runner.connect() as connection:
        connection.call(connection.prepare(("shows", "")), headers=[("x", "v" * (1 << 20))])


# Every byte of a recorded call.


def refuses(answer: bytes) -> bool:
    """Whether an answer is the one to a malformed frame."""
    if answer[0] == FrameType.HTTP_RESP_CALL:
        return response_of(answer).status == 503
    return answer[0] == FrameType.ERROR and error_of(answer) is ErrorCode.BAD_REQUEST


class Recorded:
    """A recorded conf and call, the call's token replaced by ours."""

    def __init__(self, case: str) -> None:
        frames = json.loads((PROJECT / "tests" / "captures" / "3.18.0" / f"{case}.json").read_text())["frames"]
        self.prepare, call = [bytes.fromhex(one["frame"]) for one in frames if one["from"] == "gateway"][:2]
        token = next(one["view"]["conf_token"] for one in frames if one["type"] == 1 and one["from"] == "runner")
        self._call = call
        self._at = call.index(token.to_bytes(4, "little"))
        assert call.count(token.to_bytes(4, "little")) == 1

    def call(self, token: int) -> bytes:
        return self._call[: self._at] + token.to_bytes(4, "little") + self._call[self._at + 4 :]


@pytest.mark.parametrize(
    ("case", "which"), [("rewrite-everything", "prepare"), ("rewrite-everything", "call"), ("resp-all", "call")]
)
def test_a_recorded_frame_with_one_wrong_byte_costs_its_own_connection_at_most(
    runner: Runner, case: str, which: str
) -> None:
    recorded = Recorded(case)
    with runner.connect() as healthy:
        token = decode_prepare_conf_resp(healthy.exchange(recorded.prepare))
        frame = recorded.prepare if which == "prepare" else recorded.call(token)
        right = healthy.exchange(frame)
        refused = 0
        for offset in range(4, len(frame)):
            for flip in (0xFF, 0x01, 0x80):
                wrong = bytearray(frame)
                wrong[offset] ^= flip
                with runner.connect() as connection:
                    answer = connection.exchange(bytes(wrong))
                    assert answer[0] in (FrameType.ERROR, frame[0])
                    if refuses(answer):
                        refused += 1
                        assert connection.gets_closed()
            assert healthy.exchange(frame) == right
        assert refused > len(frame) / 4


def test_a_recorded_frame_that_ends_too_early_costs_its_own_connection(runner: Runner) -> None:
    recorded = Recorded("rewrite-everything")
    with runner.connect() as healthy:
        frame = recorded.call(decode_prepare_conf_resp(healthy.exchange(recorded.prepare)))
        right = healthy.exchange(frame)
        for length in range(len(frame) - 4):
            body = frame[4 : 4 + length]
            with runner.connect() as connection:
                answer = connection.exchange(frame[:1] + length.to_bytes(3, "big") + body)
                assert answer[0] in (FrameType.ERROR, FrameType.HTTP_REQ_CALL)
        assert healthy.exchange(frame) == right


def test_response_calls_too_are_read_whole(gateway: Connection) -> None:
    token = gateway.prepare(("case", ""), key="route#1#ext-plugin-post-resp#1")
    gateway.send(encode_http_resp_call_req(0, 200, [(f"x-{n}", "v" * 1000) for n in range(500)], token))
    answer = gateway.receive()
    assert len(answer) > 500_000
