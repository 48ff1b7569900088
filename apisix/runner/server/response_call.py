"""A call in the response phase, and what is known of a gateway there.

Rules that live here: an error would show the upstream's body, so what fails is answered with a whole response of status
503; a gateway that does not answer in this phase is not asked.
"""

import logging
import time
from collections.abc import Sequence

from apisix.runner.http.answer import (
    Version,
    has_no_body,
    ignored_in_response,
    response_parts,
)
from apisix.runner.http.link import GatewayError
from apisix.runner.http.response import Response
from apisix.runner.http.variables import ResponsePhaseRequest
from apisix.runner.server.call import Call
from apisix.runner.server.confs import PreparedConf
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.wire.messages import (
    ExtraInfoReq,
    HTTPRespCallReq,
    InfoKind,
    encode_http_resp_call_resp,
)

log = logging.getLogger("apisix.runner.call")

RESPONSE_PHASE_ANSWERS: Version = (3, 0, 0)
ASK_AGAIN_SECONDS = 60.0
_FAILED_HEADERS = (("Content-Type", "text/plain; charset=utf-8"),)
_FAILED_BODY = b"503 Service Unavailable\n"


def failed_response(id: int) -> bytes:
    """The answer that fails closed in the response phase (contract, HTTPRespCall)."""
    return encode_http_resp_call_resp(id, 503, _FAILED_HEADERS, _FAILED_BODY)


class ResponseCall(Call):
    """One HTTPRespCall.

    Args: as `Call`, and the decoded frame, and what was learned about the gateway.
    """

    __slots__ = ("gateway",)

    def __init__(
        self,
        connection: Connection,
        message: HTTPRespCallReq,
        conf: PreparedConf,
        deadline: float,
        contexts: Contexts,
        gateway: "GatewayMemory",
    ) -> None:
        self._begin(connection, message.id, conf, conf.response, deadline, contexts)
        self.gateway = gateway
        self.response = Response(message, self)
        self.request = ResponsePhaseRequest(message.id, self, message.conf_token)

    def variables_after(self) -> tuple[str, ...]:
        """The method, where the answer may be to a HEAD request: that needs a body, see `response_parts`."""
        return ("request_method",) if self._wants_method() else ()

    def has_changes(self) -> bool:
        """Whether a plugin changed something of the upstream's response."""
        response = self.response
        headers = response.touched_headers
        return bool(response.new_status) or response.raw_body is not None or (headers is not None and headers.changed)

    def _ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        self._check_may_ask()
        try:
            results = Call._ask(self, asks)
        except GatewayError as error:
            if self.connection.broken:
                self.gateway.refused(error)
            raise
        self.gateway.answered()
        return results

    async def _ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        self._check_may_ask()
        try:
            results = await Call._ask_async(self, asks)
        except GatewayError as error:
            if self.connection.broken:
                self.gateway.refused(error)
            raise
        self.gateway.answered()
        return results

    def early_asks(self) -> tuple[ExtraInfoReq, ...]:
        """What is to be asked of the gateway before it runs, where it is known to answer in this phase."""
        if not self.gateway.has_answered:
            return ()
        return tuple([ask for ask in self.phase_chain.habits.asks if ask.kind is not InfoKind.REQ_BODY])

    def _check_may_ask(self) -> None:
        if not self.gateway.may_be_asked():
            raise GatewayError("this gateway does not answer in the response phase: APISIX does from 3.0 on")

    def _wants_method(self) -> bool:
        response = self.response
        return (
            self.gateway.may_be_asked()
            and response.raw_body is None
            and not response.stopped
            and not has_no_body(response)
        )

    def answer(self) -> bytes:
        """The answer's frame, from what the plugins did.

        Raises:
            WireError: it is larger than a frame can be.
        """
        if self.gateway.version is not None:
            for ignored in ignored_in_response(self.gateway.version, self.response):
                self.warn_once(f"sets {ignored}, which this gateway ignores")
        request = self.request
        method = request.known_method() if isinstance(request, ResponsePhaseRequest) else None
        return encode_http_resp_call_resp(self.id, *response_parts(self.response, method))

    def failed_answer(self) -> bytes:
        """The answer that fails closed."""
        return failed_response(self.id)

    def describe(self) -> str:
        """Which call this is: route and request id. The path would have to be asked for."""
        return f"{self.conf.key.route} request {self.id} (response phase)"


class GatewayMemory:
    """What a worker has learned about its gateway that the protocol does not tell.

    Before 3.0 the gateway closes the connection when it is asked for anything in the response phase, and then shows
    the client the upstream's body: asking fails open there. Where the version is not known, the first ask tells; a
    connection may close for other reasons too, so after a while one more ask is tried.
    """

    def __init__(self, version: Version | None) -> None:
        self.version = version
        self.has_answered = version is not None and version >= RESPONSE_PHASE_ANSWERS
        self._ask_again = 0.0 if version is None else float("inf")

    def may_be_asked(self) -> bool:
        """Whether it answers in the response phase, as far as is known."""
        return self.has_answered or time.monotonic() >= self._ask_again

    def answered(self) -> None:
        """It has answered in the response phase."""
        self.has_answered = True

    def refused(self, error: GatewayError) -> None:
        """It has not."""
        if not self.has_answered:
            self._ask_again = time.monotonic() + ASK_AGAIN_SECONDS
            log.warning(
                "the gateway did not answer in the response phase (%s); for %g s it is not asked there: what plugins "
                "ask fails closed, and a response to HEAD may be fetched twice; set gateway.version to say what it is",
                error,
                ASK_AGAIN_SECONDS,
            )
