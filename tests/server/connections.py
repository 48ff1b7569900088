"""The gateway's side of one connection, byte by byte."""

import contextlib
import select
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.frame import FrameBuffer, FrameType
from apisix.runner.wire.messages import (
    METHODS,
    ErrorCode,
    ExtraInfoReq,
    HTTPRespCallResp,
    InfoKind,
    Rewrite,
    Stop,
    decode_error,
    decode_extra_info_req,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    decode_prepare_conf_resp,
    encode_extra_info_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
    encode_prepare_conf_req,
)

SECONDS = 15.0
"""How long anything may take before a test gives up: far more than it needs."""

Answers = Mapping[str | InfoKind, bytes | None]
"""What the gateway knows: variables by name, bodies by kind."""


def can_be_read(file: int | socket.socket, seconds: float) -> bool:
    """Whether something can be read before the seconds are over. Unlike select, for any number of open files."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Closed(EOFError):
    """The runner closed the connection where a frame was expected."""


class Connection:
    """A connection as the gateway holds it.

    Args:
        path: the runner's socket.

    Attributes:
        asked: what the runner asked for while calls were open, in order.
    """

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        self.asked: list[ExtraInfoReq] = []
        self._pieces = FrameBuffer()

    def send(self, data: bytes) -> None:
        """Send bytes, whole frames or not."""
        self.sock.sendall(data)

    def send_while_open(self, data: bytes) -> None:
        """Send bytes to a runner that may close the connection meanwhile."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(data)

    def receive(self) -> bytes:
        """The next whole frame. Raises `Closed`, or TimeoutError when none comes."""
        while (frame := self._pieces.take()) is None:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed(f"{len(self._pieces)} bytes of a frame had come")
            self._pieces.feed(data)
        return frame

    def exchange(self, frame: bytes) -> bytes:
        """Send a frame and receive the next one."""
        self.send(frame)
        return self.receive()

    def gets_closed(self) -> bool:
        """Whether the runner closes the connection, with nothing more said on it; waits for either."""
        try:
            self.receive()
        except Closed:
            return True
        return False

    def is_silent(self) -> bool:
        """Whether nothing has come, neither a frame nor the end."""
        return not len(self._pieces) and not can_be_read(self.sock, 0)

    def close(self) -> None:
        """Close the connection, whatever is open on it."""
        self.sock.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Whole exchanges.

    def prepare(self, *conf: Pair, key: str | None = "route#1#ext-plugin-pre-req#1") -> int:
        """Prepare a conf of plugins and their values. Returns its token."""
        return decode_prepare_conf_resp(self.exchange(encode_prepare_conf_req(conf, key)))

    def start_call(
        self,
        token: int,
        *,
        id: int = 7,
        method: str = "GET",
        path: str = "/",
        args: Sequence[Pair] = (),
        headers: Sequence[Pair] = (),
    ) -> None:
        """Send an HTTPReqCall."""
        number = METHODS.index(method)
        self.send(encode_http_req_call_req(id, b"\x7f\x00\x00\x01", number, path, args, headers, token))

    def start_response_call(
        self, token: int, *, id: int = 8, status: int = 200, headers: Sequence[Pair] = (("X-Upstream", "yes"),)
    ) -> None:
        """Send an HTTPRespCall."""
        self.send(encode_http_resp_call_req(id, status, headers, token))

    def finish(self, answers: Answers | None = None) -> bytes:
        """Answer what the runner asks for, and return the frame that is the call's answer."""
        while (frame := self.receive())[0] == FrameType.EXTRA_INFO:
            ask = decode_extra_info_req(frame)
            self.asked.append(ask)
            key = ask.kind if ask.name is None else ask.name
            self.send(encode_extra_info_resp((answers or {}).get(key)))
        return frame

    def call(self, token: int, answers: Answers | None = None, **call: object) -> bytes:
        """Make an HTTPReqCall. Returns its answer's frame; keywords as `start_call`."""
        self.start_call(token, **call)  # type: ignore[arg-type]
        return self.finish(answers)

    def response_call(self, token: int, answers: Answers | None = None, **call: object) -> bytes:
        """Make an HTTPRespCall. Returns its answer's frame; keywords as `start_response_call`."""
        self.start_response_call(token, **call)  # type: ignore[arg-type]
        return self.finish(answers)

    @property
    def asked_names(self) -> list[str]:
        """The names of the variables that the runner asked for."""
        return [ask.name for ask in self.asked if ask.name is not None]


# What an answer says. Each fails where the frame says something else.


def stop_of(frame: bytes) -> Stop:
    """The Stop of an HTTPReqCall's answer."""
    action = decode_http_req_call_resp(frame).action
    assert isinstance(action, Stop), action
    return action


def rewrite_of(frame: bytes) -> Rewrite:
    """The Rewrite of an HTTPReqCall's answer."""
    action = decode_http_req_call_resp(frame).action
    assert isinstance(action, Rewrite), action
    return action


def passes(frame: bytes) -> bool:
    """Whether an HTTPReqCall's answer lets the request pass unchanged."""
    return decode_http_req_call_resp(frame).action is None


def body_of(frame: bytes) -> str:
    """The body of a Stop, as text."""
    return (stop_of(frame).body or b"").decode()


def error_of(frame: bytes) -> ErrorCode:
    """The code of an error frame, whose type byte is 0 and never the request's own."""
    assert frame[0] == FrameType.ERROR, frame
    return ErrorCode(decode_error(frame))


def response_of(frame: bytes) -> HTTPRespCallResp:
    """An HTTPRespCall's answer."""
    return decode_http_resp_call_resp(frame)


def failed_closed(frame: bytes) -> bool:
    """Whether an HTTPRespCall's answer shows the client a failure, and nothing of the upstream's."""
    answer = response_of(frame)
    return 500 <= answer.status <= 599 and bool(answer.headers) and bool(answer.body)
