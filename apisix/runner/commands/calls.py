"""One call of one plugin: in this process, or in a runner that listens on a socket.

Rules that live here: what the runner asks for, variables and bodies, is answered from what was given; what is not given
is not set. Nothing is shown here.
"""

import socket
import uuid
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from apisix.runner.commands.loading import fail
from apisix.runner.http.link import GatewayError
from apisix.runner.plugin.errors import ConfError, own_traceback
from apisix.runner.plugin.registry import METHODS as FILTERS
from apisix.runner.plugin.registry import REQUEST, RESPONSE, Definition
from apisix.runner.testing.calls import Knowledge
from apisix.runner.testing.client import PluginClient
from apisix.runner.testing.given import arriving, variables_of
from apisix.runner.testing.results import RequestResult, ResponseResult, Upstream, of_request, of_response
from apisix.runner.wire.frame import FrameBuffer, FrameType, WireError
from apisix.runner.wire.messages import (
    METHODS,
    ErrorCode,
    decode_error,
    decode_extra_info_req,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    decode_prepare_conf_resp,
    encode_extra_info_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
    encode_prepare_conf_req,
)

ROUTE = "apisix-runner-call"
VERSION = (3, 18, 0)
ANSWER_SECONDS = 60.0  # that APISIX waits


class Given(NamedTuple):
    """A request, the upstream's response, and the conf.

    Attributes:
        conf: the value in the route.
        method: of the request.
        target: path and query.
        headers: of the request.
        body: of the request, None for none.
        remote_addr: the client's address.
        variables: the gateway's, beside those that the request makes.
        status: of the upstream's response.
        upstream_headers: of it.
        upstream_body: of it.
    """

    conf: str
    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes | None
    remote_addr: str
    variables: Mapping[str, str]
    status: int
    upstream_headers: Sequence[tuple[str, str]]
    upstream_body: bytes

    def sent(self) -> Upstream:
        """The request as it comes to the plugin.

        Raises:
            ValueError: the method, the target or the address is none.
        """
        ip_address(self.remote_addr)
        return arriving(self.method, self.target, self.headers, self.body)[0]


class Outcome(NamedTuple):
    """What became of it: a result for each phase that ran, or why it failed."""

    plugin: str
    request: RequestResult | None = None
    response: ResponseResult | None = None
    failure: str = ""


def in_process(definition: Definition, given: Given, phase: str | None) -> Outcome:
    """Run a plugin in this process.

    Args:
        definition: the plugin.
        given: what it runs on.
        phase: ``request``, ``response`` or ``both``; None for those that the plugin has.

    Raises:
        ConfError: the plugin rejects the conf.
        ValueError: what is given is no request.
    """
    phases = _phases(phase) or [one for one in FILTERS if one in definition.phases]
    for one in phases:
        if one not in definition.phases:
            fail(f"plugin {definition.name!r} has no {FILTERS[one]}: it does not run in the {one} phase")
    given.sent()
    outcome = Outcome(definition.name)
    with PluginClient(definition.plugin_class, given.conf or None) as client:
        try:
            if REQUEST in phases:
                request = client.request(
                    given.method,
                    given.target,
                    headers=given.headers,
                    body=given.body,
                    vars=given.variables,
                    remote_addr=given.remote_addr,
                )
                outcome = outcome._replace(request=request)
            if RESPONSE in phases and not (outcome.request and outcome.request.stopped):
                response = client.respond(
                    given.status,
                    given.upstream_headers,
                    given.upstream_body,
                    method=given.method,
                    target=given.target,
                    request_headers=given.headers,
                    vars=given.variables,
                    remote_addr=given.remote_addr,
                )
                outcome = outcome._replace(response=response)
        except ConfError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            trace = own_traceback(error, definition.origin)
            return outcome._replace(failure=f"{trace}\nplugin {definition.name!r} failed: the client gets status 503")
    return outcome


def in_runner(name: str, given: Given, path: Path, phase: str) -> Outcome:
    """Run a plugin in the runner that listens on a socket, as APISIX calls it.

    Args:
        name: the plugin's in a route.
        given: what it runs on.
        path: the socket's.
        phase: ``request``, ``response`` or ``both``.

    Raises:
        ValueError: what is given is no request.
    """
    sent, raw_args = arriving(given.method, given.target, given.headers, given.body)
    address = ip_address(given.remote_addr).packed
    variables = {"request_id": uuid.uuid4().hex, **variables_of(sent, given.target, given.remote_addr)}
    known = {**variables, **given.variables}
    outcome = Outcome(name)
    try:
        with _Runner(path) as runner:
            if phase != RESPONSE:
                token = runner.prepare(name, given.conf, "ext-plugin-pre-req")
                method = METHODS.index(sent.method)
                call = encode_http_req_call_req(
                    1, address, method, sent.path, raw_args, list(sent.headers.pairs()), token
                )
                answer = runner.call(call, FrameType.HTTP_REQ_CALL, Knowledge(VERSION, False, known, sent.body, None))
                outcome = outcome._replace(request=of_request(decode_http_req_call_resp(answer).action, sent))
            if phase != REQUEST and not (outcome.request and outcome.request.stopped):
                token = runner.prepare(name, given.conf, "ext-plugin-post-resp")
                call = encode_http_resp_call_req(2, given.status, list(given.upstream_headers), token)
                facts = Knowledge(VERSION, True, known, None, given.upstream_body)
                response = decode_http_resp_call_resp(runner.call(call, FrameType.HTTP_RESP_CALL, facts))
                result = of_response(response, given.method, given.status, given.upstream_headers, given.upstream_body)
                outcome = outcome._replace(response=result)
    except (_Refused, WireError, GatewayError) as error:
        return outcome._replace(failure=f"apisix-runner: {error}")
    return outcome


def _phases(phase: str | None) -> list[str]:
    return [REQUEST, RESPONSE] if phase == "both" else [phase] if phase else []


class _Refused(Exception):
    """The runner does not answer as it should."""


class _Runner:
    """A connection to a runner, as APISIX has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces = FrameBuffer()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)

    def __enter__(self) -> "_Runner":
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            raise _Refused(f"no runner listens on {self._path}: {error.strerror or error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def prepare(self, name: str, conf: str, ext_plugin: str) -> int:
        frame = encode_prepare_conf_req([(name, conf)], f"route#{ROUTE}#{ext_plugin}#1")
        return decode_prepare_conf_resp(self._ask(frame, FrameType.PREPARE_CONF, None))

    def call(self, frame: bytes, type: FrameType, known: Knowledge) -> bytes:
        return self._ask(frame, type, known)

    def _ask(self, frame: bytes, type: FrameType, known: Knowledge | None) -> bytes:
        """Send a frame, answer what the runner asks for, and return its answer."""
        try:
            self._socket.sendall(frame)
            while (answer := self._receive())[0] == FrameType.EXTRA_INFO and known is not None:
                self._socket.sendall(encode_extra_info_resp(known.answer(decode_extra_info_req(answer))))
        except TimeoutError:
            raise _Refused(f"the runner does not answer within {ANSWER_SECONDS:g} s, as long as APISIX waits") from None
        except OSError as error:
            raise _Refused(f"the connection to the runner broke: {error.strerror or error}") from None
        if answer[0] == FrameType.ERROR:
            code = decode_error(answer)
            name = ErrorCode(code).name if code in set(ErrorCode) else str(code)
            raise _Refused(f"the runner answers with the error {name}: the client gets status 503; its log says why")
        if answer[0] != type:
            raise _Refused(f"expected an answer of type {type.name}, got type {answer[0]}")
        return answer

    def _receive(self) -> bytes:
        while (frame := self._pieces.take()) is None:
            data = self._socket.recv(1 << 20)
            if not data:
                raise _Refused("the runner closed the connection: the client gets status 503; its log says why")
            self._pieces.feed(data)
        return frame
