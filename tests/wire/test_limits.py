"""What a frame cannot carry is an error before a byte is sent; what just fits is carried."""

import doctest
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from apisix.runner.wire import flatbuf, flatbuf_writer, frame, pure
from apisix.runner.wire.frame import MAX_BODY, WireError
from apisix.runner.wire.schema import InfoKind, Rewrite, Stop
from tests.wire import oracle
from tests.wire.codec import Codec

CARRIERS: dict[str, tuple[str, Callable[[Any, int], bytes]]] = {
    # what is large: the message's name, and a frame with so much of it
    "the body of a stop": ("HTTPReqCall.Resp", lambda m, size: m.encode_http_req_call_resp(7, Stop(body=bytes(size)))),
    "the body of a rewrite": (
        "HTTPReqCall.Resp",
        lambda m, size: m.encode_http_req_call_resp(7, Rewrite(body=bytes(size))),
    ),
    "the path of a rewrite": ("HTTPReqCall.Resp", lambda m, size: m.encode_http_req_call_resp(7, Rewrite("/" * size))),
    "the value of a header": (
        "HTTPRespCall.Resp",
        lambda m, size: m.encode_http_resp_call_resp(7, 0, [("a", "b" * size)]),
    ),
    "the name of a header": (
        "HTTPRespCall.Resp",
        lambda m, size: m.encode_http_resp_call_resp(7, 0, [("a" * size, "b")]),
    ),
    "the body of a response": ("HTTPRespCall.Resp", lambda m, size: m.encode_http_resp_call_resp(7, body=bytes(size))),
    "a result": ("ExtraInfo.Resp", lambda m, size: m.encode_extra_info_resp(bytes(size))),
    "the value of a conf": ("PrepareConf.Req", lambda m, size: m.encode_prepare_conf_req([("a", "b" * size)], "k")),
    "the path of a call": (
        "HTTPReqCall.Req",
        lambda m, size: m.encode_http_req_call_req(7, b"", 0, "/" * size, None, None, 1),
    ),
    "a header of a response": (
        "HTTPRespCall.Req",
        lambda m, size: m.encode_http_resp_call_req(7, 200, [("a", "b" * size)], 1),
    ),
}


@pytest.mark.parametrize(("name", "encode"), CARRIERS.values(), ids=CARRIERS)
def test_the_largest_frame_is_carried_and_one_larger_is_not(
    codec: Codec, name: str, encode: Callable[[Any, int], bytes]
) -> None:
    around = len(encode(codec.m, 1)) - 4 - 4  # all but a text of 1 to 3 bytes and its end
    largest = MAX_BODY // 4 * 4 - around - 1  # bodies are whole words, and strings end with NUL
    carried = encode(codec.m, largest)
    assert len(carried) - 4 == MAX_BODY // 4 * 4
    oracle.read(name, carried)
    with pytest.raises(
        WireError, match=r"^frame\.length at offset 0: .* at most 16777215 bytes, this one has 16777216$"
    ):
        encode(codec.m, largest + 2)


@pytest.mark.parametrize(
    ("encode", "problem"),
    [
        (lambda m: m.encode_error(256), "Err.Resp.code at offset 0: expected a number from 0 to 255, got 256"),
        (
            lambda m: m.encode_prepare_conf_resp(2**32),
            "PrepareConf.Resp.conf_token at offset 0: expected a number from 0 to 4294967295, got 4294967296",
        ),
        (
            lambda m: m.encode_http_req_call_resp(-1),
            "HTTPReqCall.Resp.id at offset 0: expected a number from 0 to 4294967295, got -1",
        ),
        (
            lambda m: m.encode_http_req_call_resp(7, Stop(65536)),
            "HTTPReqCall.Stop.status at offset 0: expected a number from 0 to 65535, got 65536",
        ),
        (
            lambda m: m.encode_http_req_call_resp(7, Stop("200")),  # type: ignore[arg-type]
            "HTTPReqCall.Stop.status at offset 0: expected a number from 0 to 65535, got '200'",
        ),
        (
            lambda m: m.encode_http_req_call_resp(7, Rewrite(path="/\ud800")),
            "HTTPReqCall.Rewrite.path at offset 0: text cannot be encoded: U+D800 is a lone surrogate",
        ),
        (
            lambda m: m.encode_http_req_call_resp(7, Rewrite("/fine", None, [("a", "b"), ("c", "d\udbff")])),
            "HTTPReqCall.Rewrite.args at offset 0: text cannot be encoded: U+DBFF is a lone surrogate",
        ),
        (
            lambda m: m.encode_http_resp_call_resp(7, 200, [("x" * 64 + "\ud800", None)]),
            "HTTPRespCall.Resp.headers at offset 0: text cannot be encoded: U+D800 is a lone surrogate",
        ),
        (
            lambda m: m.encode_extra_info_req(InfoKind.VAR),
            "ExtraInfo.Var.name at offset 0: a variable has a name, this one has none",
        ),
    ],
)
def test_a_value_that_cannot_be_written_is_named(codec: Codec, encode: Callable[[Any], bytes], problem: str) -> None:
    with pytest.raises(WireError) as raised:
        encode(codec.m)
    assert str(raised.value) == problem


@pytest.mark.parametrize("module", [frame, flatbuf, flatbuf_writer, pure], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
