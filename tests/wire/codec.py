"""Our codec in the oracle's terms: messages by name, as plain values, every lazy attribute touched."""

from collections.abc import Callable, Sequence
from typing import Any

from apisix.runner.wire import messages as m
from apisix.runner.wire.flatbuf import Pair
from tests.wire.oracle import Values


def raw(text: str | None) -> bytes | None:
    """Text as the bytes that it stands for."""
    return None if text is None else text.encode("utf-8", "surrogateescape")


def text(value: bytes | None) -> str | None:
    """Bytes as the text that stands for them."""
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _raw_pairs(pairs: Sequence[Pair] | None) -> list[tuple[bytes | None, bytes | None]] | None:
    return None if pairs is None else [(raw(name), raw(value)) for name, value in pairs]


def _text_pairs(pairs: list[tuple[bytes, bytes | None]] | None) -> list[Pair] | None:
    return None if pairs is None else [(name.decode("utf-8", "surrogateescape"), text(value)) for name, value in pairs]


def _prepare_conf_req(frame: bytes) -> Values:
    message = m.decode_prepare_conf_req(frame)
    return {"conf": _raw_pairs(message.conf), "key": raw(message.key)}


def _http_req_call_req(frame: bytes) -> Values:
    message = m.decode_http_req_call_req(frame)
    return {
        "id": message.id,
        "src_ip": message.src_ip,
        "method": message.method,
        "path": raw(message.path),
        "args": _raw_pairs(message.args),
        "headers": _raw_pairs(message.headers),
        "conf_token": message.conf_token,
    }


def _http_req_call_resp(frame: bytes) -> Values:
    id, action = m.decode_http_req_call_resp(frame)
    if action is None:
        return {"id": id, "action": None}
    if isinstance(action, m.Stop):
        stop = {"status": action.status, "headers": _raw_pairs(action.headers), "body": action.body}
        return {"id": id, "action": ("HTTPReqCall.Stop", stop)}
    rewrite = {
        "path": raw(action.path),
        "headers": _raw_pairs(action.headers),
        "args": _raw_pairs(action.args),
        "resp_headers": _raw_pairs(action.resp_headers),
        "body": action.body,
    }
    return {"id": id, "action": ("HTTPReqCall.Rewrite", rewrite)}


def _action(action: tuple[str, Values] | None) -> m.Stop | m.Rewrite | None:
    if action is None:
        return None
    name, values = action
    if name == "HTTPReqCall.Stop":
        return m.Stop(values["status"], _text_pairs(values["headers"]), values["body"])
    return m.Rewrite(
        text(values["path"]),
        _text_pairs(values["headers"]),
        _text_pairs(values["args"]),
        _text_pairs(values["resp_headers"]),
        values["body"],
    )


_INFO = {
    "ExtraInfo.Var": m.InfoKind.VAR,
    "ExtraInfo.ReqBody": m.InfoKind.REQ_BODY,
    "ExtraInfo.RespBody": m.InfoKind.RESP_BODY,
}


def _extra_info_req(frame: bytes) -> Values:
    kind, name = m.decode_extra_info_req(frame)
    union = next(union for union, member in _INFO.items() if member is kind)
    return {"info": (union, {"name": raw(name)} if kind is m.InfoKind.VAR else {})}


def _encode_extra_info_req(values: Values) -> bytes:
    union, fields = values["info"]
    return m.encode_extra_info_req(_INFO[union], text(fields.get("name")))


def _http_resp_call_req(frame: bytes) -> Values:
    message = m.decode_http_resp_call_req(frame)
    return {
        "id": message.id,
        "status": message.status,
        "headers": _raw_pairs(message.headers),
        "conf_token": message.conf_token,
    }


def _http_resp_call_resp(frame: bytes) -> Values:
    id, status, headers, body = m.decode_http_resp_call_resp(frame)
    return {"id": id, "status": status, "headers": _raw_pairs(headers), "body": body}


DECODERS: dict[str, Callable[[bytes], Values]] = {
    "Err.Resp": lambda frame: {"code": m.decode_error(frame)},
    "PrepareConf.Req": _prepare_conf_req,
    "PrepareConf.Resp": lambda frame: {"conf_token": m.decode_prepare_conf_resp(frame)},
    "HTTPReqCall.Req": _http_req_call_req,
    "HTTPReqCall.Resp": _http_req_call_resp,
    "ExtraInfo.Req": _extra_info_req,
    "ExtraInfo.Resp": lambda frame: {"result": m.decode_extra_info_resp(frame)},
    "HTTPRespCall.Req": _http_resp_call_req,
    "HTTPRespCall.Resp": _http_resp_call_resp,
}
ENCODERS: dict[str, Callable[[Values], bytes]] = {
    "Err.Resp": lambda v: m.encode_error(v["code"]),
    "PrepareConf.Req": lambda v: m.encode_prepare_conf_req(_text_pairs(v["conf"]), text(v["key"])),
    "PrepareConf.Resp": lambda v: m.encode_prepare_conf_resp(v["conf_token"]),
    "HTTPReqCall.Req": lambda v: m.encode_http_req_call_req(
        v["id"],
        v["src_ip"],
        v["method"],
        text(v["path"]),
        _text_pairs(v["args"]),
        _text_pairs(v["headers"]),
        v["conf_token"],
    ),
    "HTTPReqCall.Resp": lambda v: m.encode_http_req_call_resp(v["id"], _action(v["action"])),
    "ExtraInfo.Req": _encode_extra_info_req,
    "ExtraInfo.Resp": lambda v: m.encode_extra_info_resp(v["result"]),
    "HTTPRespCall.Req": lambda v: m.encode_http_resp_call_req(
        v["id"], v["status"], _text_pairs(v["headers"]), v["conf_token"]
    ),
    "HTTPRespCall.Resp": lambda v: m.encode_http_resp_call_resp(
        v["id"], v["status"], _text_pairs(v["headers"]), v["body"]
    ),
}
NAMES = tuple(DECODERS)


def decode(name: str, frame: bytes) -> Values:
    """A frame's message with everything in it read. Raises WireError."""
    values: Any = DECODERS[name](frame)
    return dict(values)


def encode(name: str, values: Values) -> bytes:
    """A frame with a message. Raises WireError."""
    return ENCODERS[name](values)
