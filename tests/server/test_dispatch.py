"""Dispatch: what a frame asks for, and the answer to what cannot be done."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server import confs as confs_module
from apisix.runner.server.call import BAD_REQUEST, UNAVAILABLE, Call
from apisix.runner.server.confs import Confs
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.dispatch import TOKEN_NOT_FOUND, Dispatcher, Refused, Unprepared
from apisix.runner.server.request_call import RequestCall
from apisix.runner.server.response_call import ResponseCall
from apisix.runner.server.store import Store
from apisix.runner.wire.frame import FrameType
from apisix.runner.wire.messages import (
    decode_prepare_conf_resp,
    encode_error,
    encode_extra_info_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
    encode_prepare_conf_req,
)
from tests.server.connections import failed_closed

NOW = 1000.0


class Picky(Base):
    """Fails in setup where its conf says so."""

    def setup(self) -> None:
        if self.config == "fails":
            raise OSError("no database")

    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, "picky")

    def filter_response(self, request: Request, response: Response) -> None:
        pass


@pytest.fixture
def connection() -> Iterator[Connection]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours)


def make(folder: Path | None = None, plugins: bool = True) -> Dispatcher:
    """The dispatcher of a worker that has just started."""
    registry = Registry()
    if plugins:
        registry.add(Definition(Picky, __file__))
    store = Store(folder) if folder is not None else None
    return Dispatcher(Confs(registry, 3600, store), 50.0, None, Contexts(None))


def prepare(dispatcher: Dispatcher, value: str = "", phase: str = "pre-req") -> int:
    frame = encode_prepare_conf_req([("picky", value)], f"route#1#ext-plugin-{phase}#1")
    return decode_prepare_conf_resp(dispatcher.prepare(frame))


def request_call(token: int) -> bytes:
    return encode_http_req_call_req(7, b"\x7f\x00\x00\x01", 0, "/", [], [], token)


def response_call(token: int) -> bytes:
    return encode_http_resp_call_req(8, 200, [], token)


def test_each_kind_of_call_is_one_of_its_conf_with_its_deadline(connection: Connection) -> None:
    dispatcher = make()
    token = prepare(dispatcher)
    request = dispatcher.open_call(connection, request_call(token), NOW)
    response = dispatcher.open_call(connection, response_call(token), NOW)
    assert isinstance(request, RequestCall)
    assert isinstance(response, ResponseCall)
    assert (request.id, request.conf.token, request.deadline) == (7, token, NOW + 50)
    assert (response.id, response.conf.token, response.deadline) == (8, token, NOW + 50)


def test_a_call_keeps_its_conf_from_expiring(connection: Connection) -> None:
    dispatcher = make()
    token = prepare(dispatcher)
    call = dispatcher.open_call(connection, request_call(token), NOW)
    assert call.conf.used == NOW
    dispatcher.open_call(connection, response_call(token), NOW + 1)
    assert call.conf.used == NOW + 1


@pytest.mark.parametrize("frame", [request_call(4711), response_call(4711)])
def test_a_token_that_nobody_knows_is_error_2_and_nothing_to_log(connection: Connection, frame: bytes) -> None:
    with pytest.raises(Refused) as refused:
        make().open_call(connection, frame, NOW)
    assert refused.value.answer == TOKEN_NOT_FOUND
    assert refused.value.reason is None


@pytest.mark.parametrize("frame", [encode_error(1), encode_extra_info_resp(b""), b"\xff\x00\x00\x00"])
def test_what_no_gateway_asks_is_refused_and_its_type_told(connection: Connection, frame: bytes) -> None:
    with pytest.raises(Refused, match=f"expected 1, 2 or 4 from the gateway, got {frame[0]}") as refused:
        make().open_call(connection, frame, NOW)
    assert refused.value.answer == BAD_REQUEST


@pytest.mark.parametrize("type", [FrameType.HTTP_REQ_CALL, FrameType.HTTP_RESP_CALL])
def test_a_malformed_call_is_refused_in_the_way_of_its_phase(connection: Connection, type: FrameType) -> None:
    with pytest.raises(Refused, match="at offset") as refused:
        make().open_call(connection, bytes([type, 0, 0, 4, 255, 255, 255, 255]), NOW)
    answer = refused.value.answer
    assert failed_closed(answer) if type == FrameType.HTTP_RESP_CALL else answer == BAD_REQUEST


def test_a_malformed_prepare_conf_is_refused() -> None:
    with pytest.raises(Refused, match="at offset") as refused:
        make().prepare(bytes([FrameType.PREPARE_CONF, 0, 0, 4, 255, 255, 255, 255]))
    assert refused.value.answer == BAD_REQUEST


def test_a_conf_that_is_rejected_is_error_1() -> None:
    assert make().prepare(encode_prepare_conf_req([("picky", "fails")], "route#1#ext-plugin-pre-req#1")) == UNAVAILABLE


# What another worker, or the runner before, has prepared.


@pytest.mark.parametrize("encode", [request_call, response_call])
def test_a_call_of_a_stored_conf_runs_when_it_is_restored(
    connection: Connection, tmp_path: Path, encode: Callable[[int], bytes]
) -> None:
    token = prepare(make(tmp_path))
    dispatcher = make(tmp_path)
    with pytest.raises(Unprepared) as unprepared:
        dispatcher.open_call(connection, encode(token), NOW)
    call = dispatcher.restore(connection, encode(token), unprepared.value)
    assert isinstance(call, Call)
    assert call.conf.token == token


def test_a_stored_conf_that_is_gone_meanwhile_is_not_found(connection: Connection, tmp_path: Path) -> None:
    token = prepare(make(tmp_path))
    dispatcher = make(tmp_path)
    with pytest.raises(Unprepared) as unprepared:
        dispatcher.open_call(connection, request_call(token), NOW)
    (tmp_path / f"{token:08x}").unlink()
    with pytest.raises(Refused) as refused:
        dispatcher.restore(connection, request_call(token), unprepared.value)
    assert refused.value.answer == TOKEN_NOT_FOUND


@pytest.mark.parametrize("phase", ["pre-req", "post-resp"])
def test_a_stored_conf_that_new_code_rejects_fails_closed(connection: Connection, tmp_path: Path, phase: str) -> None:
    """Not error 2: the gateway would prepare it again and again."""
    token = prepare(make(tmp_path), phase=phase)
    dispatcher = make(tmp_path, plugins=False)
    frame = request_call(token) if phase == "pre-req" else response_call(token)
    with pytest.raises(Unprepared) as unprepared:
        dispatcher.open_call(connection, frame, NOW)
    if phase == "pre-req":
        with pytest.raises(Refused) as refused:
            dispatcher.restore(connection, frame, unprepared.value)
        assert refused.value.answer == UNAVAILABLE
    else:
        call = dispatcher.restore(connection, frame, unprepared.value)
        assert isinstance(call, Call)
        assert failed_closed(call.run())


def test_in_the_response_phase_a_failed_conf_is_tried_again_after_a_moment(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = make(tmp_path)
    token = prepare(dispatcher, "fails", "post-resp")
    assert failed_closed(dispatcher.open_call(connection, response_call(token), NOW).run())
    monkeypatch.setattr(confs_module, "REMEMBER_FAILURE", -1)
    with pytest.raises(Unprepared):
        dispatcher.open_call(connection, response_call(token), NOW)
    assert dispatcher.open_call(connection, request_call(token), NOW).run() == UNAVAILABLE
