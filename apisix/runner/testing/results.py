"""What became of a request or a response: the answer's frame, read as the gateway reads it.

Rules that live here: how APISIX applies an answer (ext-plugin/init.lua), as far as a plugin's author can see it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from apisix.runner.http.answer import NO_BODY_STATUSES
from apisix.runner.http.fields import Args, Headers
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import HTTPRespCallResp, Rewrite, Stop


class Upstream(NamedTuple):
    """The request as the upstream would get it.

    Attributes:
        method: as it came.
        path: decoded.
        args: of the query.
        headers: without those that the gateway adds.
        body: None where there is none.
    """

    method: str
    path: str
    args: Args
    headers: Headers
    body: bytes | None


class RequestResult(NamedTuple):
    """What became of a request.

    Attributes:
        stopped: whether the client was answered; else the request went on.
        status: of the answer; 0 where the request went on.
        headers: of the answer; where the request went on, those added to the upstream's response.
        body: of the answer, None where there is none.
        upstream: what the upstream would get; None where the client was answered.
    """

    stopped: bool
    status: int
    headers: Headers
    body: bytes | None
    upstream: Upstream | None

    @property
    def text(self) -> str:
        """The body as text, "" where there is none."""
        return (self.body or b"").decode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """The body, decoded from JSON.

        Raises:
            ValueError: it is none.
        """
        return msgspec.json.decode(self.body or b"")


class ResponseResult(NamedTuple):
    """What became of a response.

    Attributes:
        status: as the client gets it.
        headers: as the client gets them, without those that the gateway adds.
        body: as the client gets it.
    """

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """The body, decoded from JSON.

        Raises:
            ValueError: it is none.
        """
        return msgspec.json.decode(self.body)


def of_request(action: Stop | Rewrite | None, sent: Upstream) -> RequestResult:
    """What an answer to a request does.

    Args:
        action: the answer's.
        sent: the request as it came.
    """
    if isinstance(action, Stop):
        return RequestResult(True, action.status or 200, Headers(action.headers or ()), action.body, None)
    rewrite = action or Rewrite()
    headers = Headers(sent.headers.pairs())
    for name, value in rewrite.headers or ():
        if value is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    upstream = Upstream(
        sent.method,
        sent.path if rewrite.path is None else rewrite.path,
        _rewritten(sent.args, rewrite.args or ()),
        headers,
        rewrite.body or sent.body,
    )
    return RequestResult(False, 0, Headers(rewrite.resp_headers or ()), None, upstream)


def of_response(
    answer: HTTPRespCallResp, method: str, status: int, headers: Sequence[Pair], body: bytes
) -> ResponseResult:
    """What an answer to a response does.

    Args:
        answer: the answer.
        method: of the request; to a HEAD, as with status 204 and 304, the client gets no body.
        status: the upstream's.
        headers: the upstream's.
        body: the upstream's.
    """
    final = answer.status or status
    has_body = method != "HEAD" and final not in NO_BODY_STATUSES
    return ResponseResult(final, Headers(answer.headers or headers), (answer.body or body) if has_body else b"")


def _rewritten(args: Args, changes: Sequence[Pair]) -> Args:
    new = Args(args.pairs())
    seen: set[str] = set()
    for name, value in changes:
        if value is None:
            new.pop(name, None)
        elif name in seen:
            new.add(name, value)
        else:
            new[name] = value
        seen.add(name)
    return new
