"""The codec in pure Python: whole frames to messages and back.

Rules that live here: slot numbers and types of apache/apisix `ext-plugin.fbs`; what is required where the schema
requires nothing (an entry's name, a union's value); absent and empty told apart. Every ``encode_*`` returns a whole
frame, every ``decode_*`` takes one and raises WireError on anything malformed, never anything else.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import error as StructError
from types import NoneType

from apisix.runner.wire.flatbuf import U8, U16, U32, Pair, root_table
from apisix.runner.wire.flatbuf_writer import FrameWriter, TableWriter
from apisix.runner.wire.frame import FrameType, WireError, frame_header
from apisix.runner.wire.schema import (
    METHODS,
    ExtraInfoReq,
    HTTPReqCallResp,
    HTTPRespCallResp,
    InfoKind,
    PrepareConfReq,
    Rewrite,
    Stop,
)


class HTTPReqCallReq:
    """`A6.HTTPReqCall.Req`: `id` and `conf_token` are read at once, the rest when touched.

    Raises:
        WireError: from the constructor or from any attribute, where the frame is malformed there.
    """

    __slots__ = ("_table", "conf_token", "id")

    def __init__(self, frame: bytes) -> None:
        table = root_table(frame, "HTTPReqCall.Req")
        self._table = table
        self.id = table.number(0, U32, "id")
        self.conf_token = table.number(6, U32, "conf_token")

    @property
    def src_ip(self) -> bytes:
        """The client's address, 4 or 16 bytes; empty where absent."""
        return self._table.bytes(1, "src_ip") or b""

    @property
    def method(self) -> int:
        """Number of the method, an index into METHODS (checked)."""
        method = self._table.number(2, U8, "method")
        if method >= len(METHODS):
            problem = f"expected a method number below {len(METHODS)}, got {method}"
            raise WireError("HTTPReqCall.Req.method", self._table.at(2), problem)
        return method

    @property
    def path(self) -> str | None:
        """The path without query."""
        return self._table.text(3, "path")

    @property
    def args(self) -> list[Pair] | None:
        """The query's arguments; None as a value is an argument without ``=``."""
        return self._table.pairs(4, "args")

    @property
    def headers(self) -> list[Pair] | None:
        """The request's headers."""
        return self._table.pairs(5, "headers")

    @property
    def args_by_name(self) -> dict[str, str] | None:
        """The arguments as a dict, where that says it all: there are some, each name once, with a value."""
        return _by_name(self.args)

    @property
    def headers_by_name(self) -> dict[str, str] | None:
        """The headers as a dict, where that says it all, and each name is in lower case and ASCII."""
        found = _by_name(self.headers)
        names = "".join(found or ())
        return found if names.isascii() and names == names.lower() else None


def _by_name(pairs: list[Pair] | None) -> dict[str, str] | None:
    found: dict[str, str] = dict(pairs or ())  # type: ignore[arg-type]  # as far as it has no None, which is looked at
    return found if found and len(found) == len(pairs or ()) and None not in found.values() else None


class HTTPRespCallReq:
    """`A6.HTTPRespCall.Req`: `id`, `status` and `conf_token` are read at once, the headers when touched.

    Raises:
        WireError: from the constructor or from `headers`, where the frame is malformed there.
    """

    __slots__ = ("_table", "conf_token", "id", "status")

    def __init__(self, frame: bytes) -> None:
        table = root_table(frame, "HTTPRespCall.Req")
        self._table = table
        self.id = table.number(0, U32, "id")
        self.status = table.number(1, U16, "status")
        self.conf_token = table.number(3, U32, "conf_token")

    @property
    def headers(self) -> list[Pair] | None:
        """The upstream's headers, names as it wrote them."""
        return self._table.pairs(2, "headers")


_ERROR = FrameWriter(FrameType.ERROR, "Err.Resp", code="u8")
_PREPARE_CONF_REQ = FrameWriter(FrameType.PREPARE_CONF, "PrepareConf.Req", conf="pairs", key="text")
_PREPARE_CONF_RESP = FrameWriter(FrameType.PREPARE_CONF, "PrepareConf.Resp", conf_token="u32")
_HTTP_REQ_CALL_REQ = FrameWriter(
    FrameType.HTTP_REQ_CALL,
    "HTTPReqCall.Req",
    id="u32",
    src_ip="bytes",
    method="u8",
    path="text",
    args="pairs",
    headers="pairs",
    conf_token="u32",
)
_STOP = TableWriter("HTTPReqCall.Stop", status="u16", headers="pairs", body="bytes")
_REWRITE = TableWriter(
    "HTTPReqCall.Rewrite", path="text", headers="pairs", args="pairs", resp_headers="pairs", body="bytes"
)
_HTTP_REQ_CALL_RESP = FrameWriter(
    FrameType.HTTP_REQ_CALL, "HTTPReqCall.Resp", id="u32", action_type="u8", action="table"
)
_VAR = TableWriter("ExtraInfo.Var", name="text")
_EMPTY = TableWriter("ExtraInfo.ReqBody")
_EXTRA_INFO_REQ = FrameWriter(FrameType.EXTRA_INFO, "ExtraInfo.Req", info_type="u8", info="table")
_EXTRA_INFO_RESP = FrameWriter(FrameType.EXTRA_INFO, "ExtraInfo.Resp", result="bytes")
_HTTP_RESP_CALL_REQ = FrameWriter(
    FrameType.HTTP_RESP_CALL, "HTTPRespCall.Req", id="u32", status="u16", headers="pairs", conf_token="u32"
)
_HTTP_RESP_CALL_RESP = FrameWriter(
    FrameType.HTTP_RESP_CALL, "HTTPRespCall.Resp", id="u32", status="u16", headers="pairs", body="bytes"
)


@lru_cache(8)
def encode_error(code: int) -> bytes:
    """`A6.Err.Resp`, which always has type 0: an error sent with the request's own type reads as "no action"."""
    return _ERROR.frame((code,))


def decode_error(frame: bytes) -> int:
    """The code of an `A6.Err.Resp`; codes that ErrorCode does not know are returned as they are."""
    return root_table(frame, "Err.Resp").number(0, U8, "code")


def encode_prepare_conf_req(conf: Sequence[Pair] | None, key: str | None) -> bytes:
    """`A6.PrepareConf.Req`, the gateway's side."""
    return _PREPARE_CONF_REQ.frame((conf, key))


def decode_prepare_conf_req(frame: bytes) -> PrepareConfReq:
    """The plugins of a route, and its key."""
    table = root_table(frame, "PrepareConf.Req")
    return PrepareConfReq(table.pairs(0, "conf"), table.text(1, "key"))


def encode_prepare_conf_resp(conf_token: int) -> bytes:
    """`A6.PrepareConf.Resp`. `conf_token` is a u32."""
    return _PREPARE_CONF_RESP.frame((conf_token,))


def decode_prepare_conf_resp(frame: bytes) -> int:
    """The conf token."""
    return root_table(frame, "PrepareConf.Resp").number(0, U32, "conf_token")


def encode_http_req_call_req(
    id: int,
    src_ip: bytes,
    method: int,
    path: str | None,
    args: Sequence[Pair] | None,
    headers: Sequence[Pair] | None,
    conf_token: int,
) -> bytes:
    """`A6.HTTPReqCall.Req`, the gateway's side. `method` is an index into METHODS."""
    return _HTTP_REQ_CALL_REQ.frame((id, src_ip, method, path, args, headers, conf_token))


decode_http_req_call_req = HTTPReqCallReq


def _answer(kind: int | None, writer: TableWriter) -> tuple[bytes, bytes, TableWriter]:
    """Up to its action an answer is always the same, but for its id: what stands before the id, and behind it."""
    action = None if kind is None else (_EMPTY, ())
    body = _HTTP_REQ_CALL_RESP.frame((0, kind, action))[4:]
    behind_id = body[12:] if action is None else body[12 : -_EMPTY.write((), [])]
    return body[:8], behind_id, writer


_ANSWERS = {NoneType: _answer(None, _EMPTY), Stop: _answer(1, _STOP), Rewrite: _answer(2, _REWRITE)}


def encode_http_req_call_resp(id: int, action: Stop | Rewrite | None = None) -> bytes:
    """`A6.HTTPReqCall.Resp`.

    Args:
        id: the call's, 0 included.
        action: None lets the request pass unchanged.

    Raises:
        WireError: a value cannot be written, or the answer is larger than a frame can be.

    Example:
        >>> decode_http_req_call_resp(encode_http_req_call_resp(7, Stop(403, body=b"no")))
        HTTPReqCallResp(id=7, action=Stop(status=403, headers=None, body=b'no'))
    """
    before_id, behind_id, writer = _ANSWERS[type(action)]
    try:
        pieces = [b"", before_id, U32.pack(id), behind_id]
    except StructError:
        raise WireError("HTTPReqCall.Resp.id", 0, f"expected a number from 0 to {2**32 - 1}, got {id}") from None
    size = len(before_id) + 4 + len(behind_id)
    if action is not None:
        size += writer.write(action, pieces)
    pieces[0] = frame_header(FrameType.HTTP_REQ_CALL, size)
    return b"".join(pieces)


def decode_http_req_call_resp(frame: bytes) -> HTTPReqCallResp:
    """The runner's answer, read by a gateway."""
    table = root_table(frame, "HTTPReqCall.Resp")
    id = table.number(0, U32, "id")
    kind = table.number(1, U8, "action_type")
    if kind == 0:
        return HTTPReqCallResp(id, None)
    if kind not in (1, 2):
        problem = f"expected Stop (1) or Rewrite (2), got {kind}"
        raise WireError("HTTPReqCall.Resp.action_type", table.at(1), problem)
    inner = table.table(2, "action", "HTTPReqCall.Stop" if kind == 1 else "HTTPReqCall.Rewrite")
    if inner is None:
        raise WireError("HTTPReqCall.Resp.action", table.position, f"action type {kind} has no value")
    if kind == 1:
        return HTTPReqCallResp(
            id, Stop(inner.number(0, U16, "status"), inner.pairs(1, "headers"), inner.bytes(2, "body"))
        )
    rewrite = Rewrite(
        inner.text(0, "path"),
        inner.pairs(1, "headers"),
        inner.pairs(2, "args"),
        inner.pairs(3, "resp_headers"),
        inner.bytes(4, "body"),
    )
    return HTTPReqCallResp(id, rewrite)


def encode_extra_info_req(kind: InfoKind, name: str | None = None) -> bytes:
    """`A6.ExtraInfo.Req`: ask the gateway, while a call is open. `name` is the variable's.

    Raises:
        WireError: a variable without a name, which the gateway would answer by breaking off the call.
    """
    if kind != InfoKind.VAR:
        return _EXTRA_INFO_REQ.frame((kind, (_EMPTY, ())))
    if name is None:
        raise WireError("ExtraInfo.Var.name", 0, "a variable has a name, this one has none")
    return _EXTRA_INFO_REQ.frame((kind, (_VAR, (name,))))


def decode_extra_info_req(frame: bytes) -> ExtraInfoReq:
    """What the runner asks for, read by a gateway."""
    table = root_table(frame, "ExtraInfo.Req")
    number = table.number(0, U8, "info_type")
    if not 1 <= number <= 3:
        problem = f"expected Var (1), ReqBody (2) or RespBody (3), got {number}"
        raise WireError("ExtraInfo.Req.info_type", table.at(0) or table.position, problem)
    kind = InfoKind(number)
    info = table.table(1, "info", f"ExtraInfo.{kind.name}")
    if info is None:
        raise WireError("ExtraInfo.Req.info", table.position, f"info type {kind.name} has no value")
    if kind is not InfoKind.VAR:
        return ExtraInfoReq(kind)
    name = info.text(0, "name")
    if name is None:
        raise WireError("ExtraInfo.Var.name", info.position, "a variable has a name, this one has none")
    return ExtraInfoReq(kind, name)


def encode_extra_info_resp(result: bytes | None) -> bytes:
    """`A6.ExtraInfo.Resp`, the gateway's side: None is "not set"."""
    return _EXTRA_INFO_RESP.frame((result,))


def decode_extra_info_resp(frame: bytes) -> bytes | None:
    """What the gateway knows: None is "not set", empty is set and empty."""
    return root_table(frame, "ExtraInfo.Resp").bytes(0, "result")


def encode_http_resp_call_req(id: int, status: int, headers: Sequence[Pair] | None, conf_token: int) -> bytes:
    """`A6.HTTPRespCall.Req`, the gateway's side."""
    return _HTTP_RESP_CALL_REQ.frame((id, status, headers, conf_token))


decode_http_resp_call_req = HTTPRespCallReq


def encode_http_resp_call_resp(
    id: int, status: int = 0, headers: Sequence[Pair] | None = None, body: bytes | None = None
) -> bytes:
    """`A6.HTTPRespCall.Resp`.

    Raises:
        WireError: a value cannot be written, or the answer is larger than a frame can be.
    """
    return _HTTP_RESP_CALL_RESP.frame((id, status, headers, body))


def decode_http_resp_call_resp(frame: bytes) -> HTTPRespCallResp:
    """The runner's answer in the response phase, read by a gateway."""
    table = root_table(frame, "HTTPRespCall.Resp")
    return HTTPRespCallResp(
        table.number(0, U32, "id"), table.number(1, U16, "status"), table.pairs(2, "headers"), table.bytes(3, "body")
    )
