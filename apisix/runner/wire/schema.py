"""The schema's tables as Python values, and its enums.

Rules that live here: names and numbers of apache/apisix `ext-plugin.fbs` (unchanged since 2023; fields were only ever
appended). None stands for absent, which is not the same as empty.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from apisix.runner.wire.flatbuf import Pair

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "TRACE",
)
"""Names of the methods by their number in the schema."""


class ErrorCode(IntEnum):
    """`A6.Err.Code`. Only CONF_TOKEN_NOT_FOUND makes the gateway prepare again; the others are final."""

    BAD_REQUEST = 0
    SERVICE_UNAVAILABLE = 1
    CONF_TOKEN_NOT_FOUND = 2


class InfoKind(IntEnum):
    """What an ExtraInfo asks for: the union's type byte."""

    VAR = 1
    REQ_BODY = 2
    RESP_BODY = 3


class PrepareConfReq(NamedTuple):
    """`A6.PrepareConf.Req`: plugins in order of execution; `key` is None before APISIX 2.9."""

    conf: list[Pair] | None
    key: str | None


# Stop and Rewrite are written as they stand: their fields are in the order of the slots.


class Stop(NamedTuple):
    """`A6.HTTPReqCall.Stop`: answer the client now. Status 0 means 200 (but does not stop on 2.7)."""

    status: int = 0
    headers: Sequence[Pair] | None = None
    body: bytes | None = None


class Rewrite(NamedTuple):
    """`A6.HTTPReqCall.Rewrite`: what to change before the request goes on. A value of None deletes."""

    path: str | None = None
    headers: Sequence[Pair] | None = None
    args: Sequence[Pair] | None = None
    resp_headers: Sequence[Pair] | None = None
    body: bytes | None = None


class HTTPReqCallResp(NamedTuple):
    """`A6.HTTPReqCall.Resp`: no action lets the request pass unchanged."""

    id: int
    action: Stop | Rewrite | None = None


class ExtraInfoReq(NamedTuple):
    """`A6.ExtraInfo.Req`: `name` is the variable's, for InfoKind.VAR only."""

    kind: InfoKind
    name: str | None = None


class HTTPRespCallResp(NamedTuple):
    """`A6.HTTPRespCall.Resp`: status 0 leaves the upstream's, no headers and no body likewise."""

    id: int
    status: int = 0
    headers: Sequence[Pair] | None = None
    body: bytes | None = None
