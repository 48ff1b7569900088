"""A check of a runner over its socket, from outside. What it is answered: health.py."""

import os
import secrets
import socket
import time
from pathlib import Path
from typing import NamedTuple

from apisix.runner.server.health import HEADER, KEY, NAME
from apisix.runner.wire.frame import FrameBuffer, FrameType, WireError
from apisix.runner.wire.messages import (
    ErrorCode,
    Stop,
    decode_error,
    decode_http_req_call_resp,
    decode_prepare_conf_resp,
    encode_http_req_call_req,
    encode_prepare_conf_req,
)


class Check(NamedTuple):
    """What came of it.

    Attributes:
        problem: what is wrong, empty where nothing is.
        seconds: how long it took.
    """

    problem: str
    seconds: float


def check(path: Path, timeout: float) -> Check:
    """Prepare a conf and call it.

    Args:
        path: the runner's socket.
        timeout: seconds for everything.
    """
    started = time.monotonic()
    try:
        problem = _exchange(path, started + timeout)
    except TimeoutError:
        problem = f"no answer within {timeout:g} s"
    except FileNotFoundError:
        problem = "there is no such socket; no runner listens there"
    except ConnectionRefusedError:
        problem = "no runner listens there"
    except (EOFError, ConnectionResetError, BrokenPipeError):
        problem = "the runner closed the connection; does socket.allow_users name this user?"
    except WireError as error:
        problem = f"the answer is malformed: {error}"
    except OSError as error:
        problem = error.strerror or str(error)
    return Check(problem, time.monotonic() - started)


def _exchange(path: Path, until: float) -> str:
    """Returns what is wrong, empty where nothing is."""
    answer = _ask(path, encode_prepare_conf_req([(NAME, "")], KEY), until)
    if answer[0] != FrameType.PREPARE_CONF:
        return f"PrepareConf was answered with {_told(answer)}"
    token = decode_prepare_conf_resp(answer)
    word = secrets.token_hex(8)
    call = encode_http_req_call_req(0, b"\x7f\0\0\1", 0, "/", [], [(HEADER, word)], token)
    answer = _ask(path, call, until)
    if answer[0] != FrameType.HTTP_REQ_CALL:
        return f"the call was answered with {_told(answer)}"
    action = decode_http_req_call_resp(answer).action
    return "" if isinstance(action, Stop) and action.body == word.encode() else "the call was answered wrongly"


def _told(answer: bytes) -> str:
    if answer[0] == FrameType.ERROR:
        return f"error {ErrorCode(decode_error(answer)).name}"
    return f"a frame of type {answer[0]}"


def _ask(path: Path, frame: bytes, until: float) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(max(until - time.monotonic(), 0.001))
        sock.connect(os.fsencode(path))
        sock.sendall(frame)
        pieces = FrameBuffer()
        while (answer := pieces.take()) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            data = sock.recv(65536)
            if not data:
                raise EOFError
            pieces.feed(data)
        return answer
