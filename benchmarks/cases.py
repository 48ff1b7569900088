"""What is measured: plugins of known effect, the frames that call them, and what a right answer holds.

Rules that live here: a case is the same for every runner, whatever language its plugin is written in; a runner whose
answer has not the effect is not measured.
"""

import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from apisix.runner.wire.frame import FrameType, frame_length
from apisix.runner.wire.messages import (
    HTTPReqCallResp,
    Rewrite,
    Stop,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    decode_prepare_conf_resp,
    encode_extra_info_resp,
    encode_prepare_conf_req,
)

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
FRAMES = HERE / "frames"
TOKEN = bytes.fromhex("1eab577e")  # stands in a call's frame where the conf token goes
HEADER = "x-resp-a6-runner"  # what the plugins set
Pairs = Sequence[tuple[str, str | None]] | None
PATIENCE = 30.0  # seconds for one answer


class Case(NamedTuple):
    """A plugin, the frame that calls it, and what the gateway answers when asked."""

    plugin: str
    call: str = "call"
    extra_info: bytes | None = None


CASES = {
    "stop": Case("stop"),
    "rewrite": Case("rewrite"),
    "echo": Case("echo"),
    "example-stop": Case("example-stop"),
    "example-rewrite": Case("example-rewrite"),
    "var": Case("var", extra_info=b"127.0.0.1"),
    "body-4k": Case("body", extra_info=b"b" * 4096),
    "body-1m": Case("body", extra_info=b"b" * 2**20),
    "blocking": Case("blocking"),
    "async": Case("async"),
    "respond": Case("respond", call="respond_call", extra_info=b"GET"),
}
COMPARED = ("stop", "rewrite", "echo", "var", "body-4k", "body-1m", "blocking", "async", "respond")


class Traffic(NamedTuple):
    """Files for a6load: whole frames, and conf tokens to go through instead of the one that `prepare` gets."""

    prepare: Path
    call: Path
    extra_info: Path | None = None
    tokens: Path | None = None

    @property
    def token_offset(self) -> int:
        """Where the call's frame has the conf token."""
        return self.call.read_bytes().index(TOKEN)


def write(name: str, frame: bytes) -> Path:
    """A file of that name, made for this run, that holds a frame."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / name
    path.write_bytes(frame)
    return path


def prepare_frame(plugin: str) -> Path:
    """The frame that prepares a plugin: recorded where there is one, else written."""
    recorded = FRAMES / f"prepare_{plugin}.bin"
    if recorded.exists():
        return recorded
    return write(recorded.name, encode_prepare_conf_req([(plugin, "{}")], f"route#{plugin}#ext-plugin-pre-req#1"))


def traffic(name: str) -> Traffic:
    """What a case sends."""
    case = CASES[name]
    answer = case.extra_info
    extra_info = None if answer is None else write(f"info_{name}.bin", encode_extra_info_resp(answer))
    return Traffic(prepare_frame(case.plugin), FRAMES / f"{case.call}.bin", extra_info)


class Gateway:
    """A gateway's connection to a runner, one call at a time.

    Args:
        path: the runner's socket.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))  # without a timeout: with one it would not wait where the backlog is full
            self._socket.settimeout(PATIENCE)
        except OSError:
            self._socket.close()
            raise

    def ask(self, frame: bytes, extra_info: bytes | None = None) -> bytes:
        """Send a frame and return its answer, answering any question in between.

        Args:
            frame: whole.
            extra_info: the frame that answers a question.

        Raises:
            OSError: the runner closed the connection or took too long.
        """
        self._socket.sendall(frame)
        while (answer := self._receive())[0] == FrameType.EXTRA_INFO and extra_info is not None:
            self._socket.sendall(extra_info)
        return answer

    def _receive(self) -> bytes:
        data = bytearray()
        while len(data) < 4 or len(data) < frame_length(bytes(data[:4])):
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError(f"the runner closed the connection after {len(data)} bytes of an answer")
            data += piece
        return bytes(data)

    def prepare(self, frame: bytes) -> int:
        """Prepare a conf. Returns its token.

        Raises:
            ValueError: it is answered with an error.
        """
        answer = self.ask(frame)
        if answer[0] != FrameType.PREPARE_CONF:
            raise ValueError(f"PrepareConf was answered with a frame of type {answer[0]}")
        return decode_prepare_conf_resp(answer)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def wrong_effect(path: Path, name: str) -> str | None:
    """What is wrong with a runner's answer in a case; None where its plugin did what it should.

    Args:
        path: the runner's socket.
        name: of the case.
    """
    sent = traffic(name)
    try:
        with closing(Gateway(path)) as gateway:
            token = gateway.prepare(sent.prepare.read_bytes())
        call = sent.call.read_bytes().replace(TOKEN, token.to_bytes(4, "little"))
        with closing(Gateway(path)) as gateway:  # as APISIX, which prepares on another connection
            answer = gateway.ask(call, None if sent.extra_info is None else sent.extra_info.read_bytes())
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    if answer[0] != call[0]:
        return f"the call was answered with a frame of type {answer[0]}"
    if answer[0] == FrameType.HTTP_RESP_CALL:
        headers = decode_http_resp_call_resp(answer).headers
        return None if HEADER in _names(headers) else f"expected a header {HEADER}, got {headers}"
    return None if _has_effect(name, decode_http_req_call_resp(answer)) else f"the answer has not the effect of {name}"


def _has_effect(name: str, answer: HTTPReqCallResp) -> bool:
    waits = name in ("blocking", "async")
    match answer.action:
        case None:
            return waits
        case Stop(status, headers, body):
            least = {"stop": 1, "example-stop": 2, "echo": 9}.get(name)
            return (
                least is not None
                and bool(status and body)
                and HEADER in _names(headers)
                and least <= len(headers or ())
            )
        case Rewrite(path, headers, args):
            if name in ("rewrite", "example-rewrite"):
                return bool(path) and HEADER in _names(headers) and "a6_runner" in _names(args)
            if name == "var":
                return ("x-remote-addr", "127.0.0.1") in _lower(headers)
            if name.startswith("body"):
                return ("x-body-length", str(len(CASES[name].extra_info or b""))) in _lower(headers)
            return waits  # a runner may send back what nobody changed


def _lower(pairs: Pairs) -> set[tuple[str, str | None]]:
    return {(key.lower(), value) for key, value in pairs or ()}


def _names(pairs: Pairs) -> set[str]:
    return {key for key, _ in _lower(pairs)}
