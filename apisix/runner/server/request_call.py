"""A call in the request phase.

Rules that live here: what fails is answered with an error, of which the gateway makes a 503; no change is no action.
"""

from typing import Any

from apisix.runner.http.answer import (
    Version,
    ignored_by,
    rewrite_action,
    stop_action,
)
from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import UPSTREAM_URI, Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.errors import PluginFailure
from apisix.runner.server.call import BAD_REQUEST, UNAVAILABLE, Call
from apisix.runner.server.confs import PreparedConf
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.wire.frame import WireError
from apisix.runner.wire.messages import (
    ExtraInfoReq,
    HTTPReqCallReq,
    InfoKind,
    encode_http_req_call_resp,
)

_REQUEST_BODY = ExtraInfoReq(InfoKind.REQ_BODY)


class RequestCall(Call):
    """One HTTPReqCall.

    Args: as `Call`, and the decoded frame and the gateway's version, None where it is not known.
    """

    __slots__ = ("version",)

    def __init__(
        self,
        connection: Connection,
        message: HTTPReqCallReq,
        conf: PreparedConf,
        deadline: float,
        contexts: Contexts,
        version: Version | None,
    ) -> None:
        self._begin(connection, message.id, conf, conf.request, deadline, contexts)
        self.version = version
        self.response = Response(None, self)
        self.request = Request(message, self, conf.post_req)

    def early_asks(self) -> tuple[ExtraInfoReq, ...]:
        """What is to be asked of the gateway before it runs; not a body that it cannot send."""
        asks = self.phase_chain.habits.asks
        if _REQUEST_BODY in asks:
            try:
                self.request.check_body_length()
            except (GatewayError, WireError):  # as it will be where the plugin reads it
                asks = tuple([ask for ask in asks if ask != _REQUEST_BODY])
        return asks

    def variables_before(self) -> tuple[str, ...]:
        """Whether the path is encoded, where that makes a difference."""
        return (UPSTREAM_URI,) if self.conf.post_req and self.request.has_percent_sign else ()

    def variables_after(self) -> tuple[str, ...]:
        """What a context is found by in the response phase, and whether arguments need their path."""
        names: tuple[str, ...] = ("request_id",) if self.request.touched_context else ()
        if self.conf.post_req and not self.response.stopped and self.request.has_new_args:
            names += (UPSTREAM_URI,)
        return names

    def answer(self) -> bytes:
        """The answer's frame, from what the plugins did.

        Raises:
            WireError: it is larger than a frame can be.
        """
        response = self.response
        context = self.request.touched_context
        if context:
            self._keep(context)
        if response.stopped:
            return encode_http_req_call_resp(self.id, stop_action(response))
        if response.new_status or response.raw_body is not None:
            self.warn_once("sets response.status_code or response.body and does not say self.stop(): neither is sent")
        action = rewrite_action(self.request, response, self.version)
        if action is not None:
            for ignored in ignored_by(self.version, action):
                self.warn_once(f"sets {ignored}, which this gateway ignores")
        return encode_http_req_call_resp(self.id, action)

    def failed_answer(self) -> bytes:
        """The answer that fails closed."""
        return UNAVAILABLE

    def malformed_answer(self) -> bytes:
        """The answer to a frame that turns out to be malformed."""
        return BAD_REQUEST

    def _keep(self, context: dict[str, Any]) -> None:
        try:
            self.contexts.keep(self.request.var("request_id") or "", context)
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            names = ", ".join(step.name for step in self.phase_chain.chain.steps)
            raise PluginFailure(names, "", error) from error

    def describe(self) -> str:
        """Which call this is: route, request id and path."""
        try:
            path = self.request.path
        except (WireError, GatewayError, RuntimeError):
            path = "?"
        return f"{self.conf.key.route} request {self.id} {path!r}"
