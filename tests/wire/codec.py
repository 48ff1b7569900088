"""The codecs in the oracle's terms: messages by name, as plain values, every lazy attribute touched.

`PURE` and `COMPILED` are the two; tests ask for the fixture `codec`, which is one after the other. What is not compiled
is the pure codec's in both.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from apisix.runner import compiled as choice
from apisix.runner.wire import pure
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.schema import InfoKind, Rewrite, Stop
from tests.wire.oracle import FRAME_TYPES, Values

NAMES = tuple(FRAME_TYPES)
_INFO = {
    "ExtraInfo.Var": InfoKind.VAR,
    "ExtraInfo.ReqBody": InfoKind.REQ_BODY,
    "ExtraInfo.RespBody": InfoKind.RESP_BODY,
}


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


class Codec:
    """One codec.

    Args:
        name: what the runner calls it.
        functions: its functions and classes, by name; they are the attributes of `m`, as of a module.
    """

    def __init__(self, name: str, functions: dict[str, Any]) -> None:
        self.name = name
        self.m = SimpleNamespace(**functions)
        self._decoders: dict[str, Callable[[bytes], Values]] = {
            "Err.Resp": lambda frame: {"code": self.m.decode_error(frame)},
            "PrepareConf.Req": self._prepare_conf_req,
            "PrepareConf.Resp": lambda frame: {"conf_token": self.m.decode_prepare_conf_resp(frame)},
            "HTTPReqCall.Req": self._http_req_call_req,
            "HTTPReqCall.Resp": self._http_req_call_resp,
            "ExtraInfo.Req": self._extra_info_req,
            "ExtraInfo.Resp": lambda frame: {"result": self.m.decode_extra_info_resp(frame)},
            "HTTPRespCall.Req": self._http_resp_call_req,
            "HTTPRespCall.Resp": self._http_resp_call_resp,
        }

    def decode(self, name: str, frame: bytes) -> Values:
        """A frame's message with everything in it read. Raises WireError."""
        return self._decoders[name](frame)

    def encode(self, name: str, values: Values) -> bytes:
        """A frame with a message. Raises WireError."""
        function, arguments = call(name, values)
        frame: bytes = getattr(self.m, function)(**arguments)
        return frame

    def _prepare_conf_req(self, frame: bytes) -> Values:
        conf, key = self.m.decode_prepare_conf_req(frame)
        return {"conf": _raw_pairs(conf), "key": raw(key)}

    def _http_req_call_req(self, frame: bytes) -> Values:
        message = self.m.decode_http_req_call_req(frame)
        return {
            "id": message.id,
            "src_ip": message.src_ip,
            "method": message.method,
            "path": raw(message.path),
            "args": _raw_pairs(message.args),
            "headers": _raw_pairs(message.headers),
            "conf_token": message.conf_token,
        }

    def _http_req_call_resp(self, frame: bytes) -> Values:
        id, action = self.m.decode_http_req_call_resp(frame)
        if action is None:
            return {"id": id, "action": None}
        if isinstance(action, Stop):
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

    def _extra_info_req(self, frame: bytes) -> Values:
        kind, name = self.m.decode_extra_info_req(frame)
        union = next(union for union, member in _INFO.items() if member is kind)
        return {"info": (union, {"name": raw(name)} if kind is InfoKind.VAR else {})}

    def _http_resp_call_req(self, frame: bytes) -> Values:
        message = self.m.decode_http_resp_call_req(frame)
        return {
            "id": message.id,
            "status": message.status,
            "headers": _raw_pairs(message.headers),
            "conf_token": message.conf_token,
        }

    def _http_resp_call_resp(self, frame: bytes) -> Values:
        id, status, headers, body = self.m.decode_http_resp_call_resp(frame)
        return {"id": id, "status": status, "headers": _raw_pairs(headers), "body": body}


def call(name: str, values: Values) -> tuple[str, dict[str, Any]]:
    """The function that encodes a message, and what it is called with."""
    function = _ENCODERS[name]
    if name == "HTTPReqCall.Resp":
        return function, {"id": values["id"], "action": _action(values["action"])}
    if name == "ExtraInfo.Req":
        union, fields = values["info"]
        return function, {"kind": _INFO[union], "name": text(fields.get("name"))}
    return function, {field: _CONVERTERS.get(field, _as_it_is)(value) for field, value in values.items()}


def _as_it_is(value: Any) -> Any:
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "conf": _text_pairs,
    "args": _text_pairs,
    "headers": _text_pairs,
    "key": text,
    "path": text,
}
_ENCODERS = {
    "Err.Resp": "encode_error",
    "PrepareConf.Req": "encode_prepare_conf_req",
    "PrepareConf.Resp": "encode_prepare_conf_resp",
    "HTTPReqCall.Req": "encode_http_req_call_req",
    "HTTPReqCall.Resp": "encode_http_req_call_resp",
    "ExtraInfo.Req": "encode_extra_info_req",
    "ExtraInfo.Resp": "encode_extra_info_resp",
    "HTTPRespCall.Req": "encode_http_resp_call_req",
    "HTTPRespCall.Resp": "encode_http_resp_call_resp",
}


def _action(action: tuple[str, Values] | None) -> Stop | Rewrite | None:
    if action is None:
        return None
    name, values = action
    if name == "HTTPReqCall.Stop":
        return Stop(values["status"], _text_pairs(values["headers"]), values["body"])
    return Rewrite(
        text(values["path"]),
        _text_pairs(values["headers"]),
        _text_pairs(values["args"]),
        _text_pairs(values["resp_headers"]),
        values["body"],
    )


WHY_NOT_COMPILED = choice.why_not_compiled()
PURE = Codec("pure", vars(pure))
COMPILED: Codec | None = None
if not WHY_NOT_COMPILED:
    _speedups = import_module("apisix.runner.wire._speedups")
    COMPILED = Codec("compiled", vars(PURE.m) | {name: getattr(_speedups, name) for name in _speedups.__all__})
