"""Dispatch: what a frame from the gateway asks for.

Rules that live here:
- Types 1, 2 and 4 are requests. Anything else, and anything malformed, is answered with error 0 and costs its
  connection; an HTTPRespCall gets a whole response instead, since there an error protects nothing.
- A token that no conf has is error 2: the gateway prepares the conf again and repeats the call. One that only the
  store knows is prepared first, away from the poll.
"""

import logging
import time

from apisix.runner.http.answer import Version
from apisix.runner.plugin.errors import ConfError
from apisix.runner.server import health
from apisix.runner.server.call import BAD_REQUEST, UNAVAILABLE, Call
from apisix.runner.server.confs import Confs
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.request_call import RequestCall
from apisix.runner.server.response_call import GatewayMemory, failed_response
from apisix.runner.server.watch import Watch
from apisix.runner.wire.frame import FrameType, WireError
from apisix.runner.wire.messages import (
    ErrorCode,
    HTTPReqCallReq,
    HTTPRespCallReq,
    decode_prepare_conf_req,
    encode_error,
    encode_prepare_conf_resp,
)

log = logging.getLogger("apisix.runner.dispatch")

HTTP_REQ_CALL = int(FrameType.HTTP_REQ_CALL)  # plain numbers: comparing with a member of the enum takes longer
HTTP_RESP_CALL = int(FrameType.HTTP_RESP_CALL)
TOKEN_NOT_FOUND = encode_error(ErrorCode.CONF_TOKEN_NOT_FOUND)


class Refused(Exception):
    """A frame that gets an answer at once.

    Args:
        answer: the frame to answer with.
        reason: one line for the log; None where the answer is part of the protocol's usual course.
    """

    def __init__(self, answer: bytes, reason: str | None = None) -> None:
        super().__init__(reason)
        self.answer = answer
        self.reason = reason


class Unprepared(Exception):
    """A call whose conf is in the store and not prepared in this worker.

    Args:
        token: the conf's.
        failed_answer: the answer that fails closed.
    """

    def __init__(self, token: int, failed_answer: bytes) -> None:
        super().__init__(token)
        self.token = token
        self.failed_answer = failed_answer

    @property
    def is_check(self) -> bool:
        """Whether it is a check of health, which is nobody's call."""
        return self.token == health.TOKEN

    def give_up(self, problem: str) -> bytes:
        """The answer when its conf cannot be had in time."""
        log.error("conf token %d: restoring it %s", self.token, problem)
        return self.failed_answer


class Dispatcher:
    """Turns frames into calls.

    Args:
        confs: the prepared confs.
        timeout: seconds until a call is answered with an error.
        version: the gateway's, None where it is not known.
        contexts: what plugins keep from the request phase for the response phase.
        watch: what is watched of calls; None for nothing.
    """

    def __init__(
        self,
        confs: Confs,
        timeout: float,
        version: Version | None,
        contexts: Contexts,
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch or Watch()
        self._request_call = self.watch.request_call
        self._response_call = self.watch.response_call
        self._request_meter = self.watch.request_meter
        self._response_meter = self.watch.response_meter
        self._confs = confs
        self._find_conf = confs.get  # looked up once, not for each call
        self._contexts = contexts
        self.timeout = timeout
        self._version = version
        self._gateway = GatewayMemory(version)

    def open_call(self, connection: Connection, frame: bytes, now: float) -> Call:
        """The call of an HTTPReqCall or HTTPRespCall.

        Args:
            connection: where the frame came from.
            frame: whole.
            now: time.monotonic().

        Raises:
            Refused: it is malformed, of another type, or its token is not known.
            Unprepared: its conf is to be restored first.
        """
        kind = frame[0]
        call: Call
        try:
            if kind == HTTP_REQ_CALL:
                message = HTTPReqCallReq(frame)
                conf = self._find_conf(message.conf_token)
                if conf is None:
                    raise self._unknown(message.conf_token, UNAVAILABLE)
                conf.used = now
                call = self._request_call(connection, message, conf, now + self.timeout, self._contexts, self._version)
                call.meter = self._request_meter
                return call
            if kind == HTTP_RESP_CALL:
                response = HTTPRespCallReq(frame)
                conf = self._find_conf(response.conf_token)
                if conf is None or conf.outdated:
                    raise self._unknown(response.conf_token, failed_response(response.id))
                if conf.failure is None:
                    conf.used = now
                call = self._response_call(
                    connection, response, conf, now + self.timeout, self._contexts, self._gateway
                )
                call.meter = self._response_meter
                return call
        except WireError as error:
            answer = BAD_REQUEST if kind == HTTP_REQ_CALL else failed_response(0)
            raise Refused(answer, str(error)) from None
        raise Refused(BAD_REQUEST, f"frame.type at offset 0: expected 1, 2 or 4 from the gateway, got {kind}")

    def _unknown(self, token: int, failed_answer: bytes) -> Refused | Unprepared:
        if self._confs.is_stored(token) or (token == health.TOKEN and failed_answer is UNAVAILABLE):
            return Unprepared(token, failed_answer)
        return Refused(TOKEN_NOT_FOUND)

    def restore(self, connection: Connection, frame: bytes, unprepared: Unprepared) -> bytes | Call:
        """The call of a frame whose conf is to be restored first. May take as long as the plugins' `setup` does.

        A check of health is answered here.

        Raises:
            Refused: the conf is gone, or its plugins reject it now.
        """
        if unprepared.is_check:
            return self._checked(connection, frame)
        try:
            if self._confs.restore(unprepared.token):
                return self.open_call(connection, frame, time.monotonic())
        except ConfError:
            raise Refused(unprepared.failed_answer) from None
        except Unprepared:
            raise Refused(unprepared.failed_answer) from None
        raise Refused(TOKEN_NOT_FOUND)

    def _checked(self, connection: Connection, frame: bytes) -> bytes:
        """The answer to a check of health."""
        deadline = time.monotonic() + self.timeout
        conf = health.health_conf()
        return RequestCall(connection, HTTPReqCallReq(frame), conf, deadline, self._contexts, self._version).run()

    @property
    def plugin_files(self) -> set[str]:
        """The files of all plugins."""
        return self._confs.plugin_files

    def give_up_preparing(self, frame: bytes, problem: str) -> bytes:
        """The answer to a PrepareConf that takes too long. Never raises.

        Args:
            frame: whole.
            problem: for the log.
        """
        try:
            return encode_prepare_conf_resp(self._confs.give_up(decode_prepare_conf_req(frame), problem))
        except (WireError, ConfError):
            return UNAVAILABLE

    def prepare(self, frame: bytes) -> bytes:
        """Answer a PrepareConf. May take as long as the plugins' `setup` does.

        Raises:
            Refused: it is malformed.
        """
        try:
            request = decode_prepare_conf_req(frame)
        except WireError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        if request.key == health.KEY:
            return encode_prepare_conf_resp(health.TOKEN)
        started = time.monotonic()
        done = False
        try:
            token = self._confs.prepare(request)
            done = True
            return encode_prepare_conf_resp(token)
        except ConfError:
            return UNAVAILABLE
        finally:
            seconds = time.monotonic() - started
            self.watch.prepared(seconds, done)
            log.debug("PrepareConf took %.1f ms", seconds * 1000)
