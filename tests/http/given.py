"""Requests and responses as a gateway would give them, and a gateway that answers what they ask."""

import asyncio
from collections.abc import Mapping, Sequence

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.http.variables import ResponsePhaseRequest
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import (
    METHODS,
    ExtraInfoReq,
    HTTPReqCallReq,
    HTTPRespCallReq,
    InfoKind,
    decode_http_req_call_req,
    encode_http_req_call_req,
    encode_http_resp_call_req,
)


class Gateway:
    """Answers what is asked, and remembers what that was: one list for each round trip."""

    def __init__(
        self,
        variables: Mapping[str, bytes] | None = None,
        body: bytes | None = None,
        response_body: bytes | None = None,
        contexts: Mapping[str, bytes] | None = None,
    ) -> None:
        self.variables = variables or {}
        self.body = body
        self.response_body = response_body
        self.contexts = contexts or {}
        self.rounds: list[list[str]] = []
        self.fails: Exception | None = None

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """As `Link.ask`."""
        self.rounds.append([ask.name or ask.kind.name for ask in asks])
        if self.fails is not None:
            raise self.fails
        return [self._answer(ask) for ask in asks]

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """As `Link.ask_async`: other coroutines run before the answer is there."""
        answers = self.ask(asks)
        for _ in range(3):
            await asyncio.sleep(0)
        return answers

    def kept_context(self, request_id: str) -> bytes | None:
        """As `Link.kept_context`."""
        return self.contexts.get(request_id)

    def _answer(self, ask: ExtraInfoReq) -> bytes | None:
        if ask.kind is InfoKind.VAR:
            return self.variables.get(ask.name or "")
        if ask.kind is InfoKind.REQ_BODY:
            return self.body
        body, self.response_body = self.response_body, None  # APISIX gives it once
        return body


def call(
    *,
    id: int = 7,
    src_ip: bytes = bytes([127, 0, 0, 1]),
    method: str = "GET",
    path: str | None = "/get",
    args: Sequence[Pair] | None = None,
    headers: Sequence[Pair] | None = None,
    conf_token: int = 1,
) -> HTTPReqCallReq:
    """An HTTPReqCall that went over the wire."""
    number = METHODS.index(method)
    return decode_http_req_call_req(encode_http_req_call_req(id, src_ip, number, path, args, headers, conf_token))


def request(
    gateway: Gateway | None = None,
    *,
    path: str | None = "/get",
    args: Sequence[Pair] | None = None,
    headers: Sequence[Pair] | None = None,
    post_req: bool = False,
) -> Request:
    """A request in the request phase."""
    return Request(call(path=path, args=args, headers=headers), gateway or Gateway(), post_req)


def upstream_response(
    gateway: Gateway | None = None, *, status: int = 200, headers: Sequence[Pair] | None = None
) -> Response:
    """A response in the response phase."""
    return Response(HTTPRespCallReq(encode_http_resp_call_req(7, status, headers, 1)), gateway or Gateway())


def sent_request(gateway: Gateway | None = None) -> ResponsePhaseRequest:
    """A request in the response phase."""
    return ResponsePhaseRequest(7, gateway or Gateway())
