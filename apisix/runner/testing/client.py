"""`PluginClient`: one plugin, one conf, and calls as many as a test wants.

Rules that live here:
- The conf is parsed, the plugin checked and set up, and the call run by the same code as in production; the answer
  is encoded, decoded again, and applied as the gateway would.
- What the gateway knows, variables and bodies, is given with the call. What is not given is not set.
- A plugin's own exception is raised as it is. So is a conf that it rejects.
"""

import inspect
import itertools
import re
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from apisix.runner.http.answer import Version
from apisix.runner.http.fields import FieldsLike, pairs_of
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.core import PluginBase, adapt
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server.confs import Confs, PreparedConf
from apisix.runner.server.response_call import GatewayMemory
from apisix.runner.testing.calls import ContextsInMemory, Knowledge, TestedRequest, TestedResponse, connection, run
from apisix.runner.testing.given import Body, arriving, conf_text, variables_of
from apisix.runner.testing.results import RequestResult, ResponseResult, Upstream, of_request, of_response
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import (
    METHODS,
    HTTPReqCallReq,
    HTTPRespCallReq,
    PrepareConfReq,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
)

NEWEST = "3.18.0"
CALL_SECONDS = 60.0
Plugin = type[Base] | type[PluginBase]
"""A plugin's class, or several with their confs: ``[(First, {...}), (Second, None)]``."""


class PluginClient:
    """Runs a plugin, or a chain of several.

    Args:
        plugin: its class, or pairs of class and conf in order of execution.
        conf: the value in the route: text as it is, anything else as JSON; None for none. Not with a chain.
        phase: the gateway's plugin that calls: ``ext-plugin-pre-req`` or ``ext-plugin-post-req``.
        version: the APISIX to be, such as ``2.15``, for what older ones do not answer.

    Raises:
        LoadError: something about the class is wrong.
        ConfError: the plugin rejects the conf.
        ValueError: the version is none.

    Example:
        >>> client = PluginClient(Stop, conf={"body": "hello"})
        >>> result = client.get("/get?a=1", headers={"X-Token": "t"})
        >>> result.stopped, result.status, result.headers["X-Resp-A6-Runner"]
        (True, 201, 'Python')
    """

    def __init__(
        self,
        plugin: Plugin | Sequence[tuple[Plugin, object]],
        conf: object = None,
        *,
        phase: str = "ext-plugin-pre-req",
        version: str = NEWEST,
    ) -> None:
        chain = [(plugin, conf)] if isinstance(plugin, type) else list(plugin)
        definitions = {one: _definition(one) for one, _ in chain}
        registry = Registry()
        for definition in definitions.values():
            registry.add(definition)
        entries: list[Pair] = [(definitions[one].name, conf_text(value)) for one, value in chain]
        self._version = _version(version)
        self._contexts = ContextsInMemory()
        self._confs = Confs(registry, CALL_SECONDS)
        self._prepared: dict[str, PreparedConf] = {}
        self._entries = entries
        self._phase = phase
        self._ids = itertools.count()
        self._request_id = _request_id(0)
        phases = set().union(*(definition.phases for definition in registry.definitions()))
        if "request" in phases:
            self._prepare(phase)
        else:
            self._prepare("ext-plugin-post-resp")

    def _prepare(self, phase: str) -> PreparedConf:
        prepared = self._prepared.get(phase)
        if prepared is None:
            token = self._confs.prepare(PrepareConfReq(self._entries, f"route#test#{phase}#1"))
            prepared = self._confs.all()[-1]
            if prepared.failure is not None:
                raise prepared.failure
            assert prepared.token == token
            self._prepared[phase] = prepared
        return prepared

    # The request phase.

    def get(
        self,
        target: str = "/",
        *,
        headers: FieldsLike | None = None,
        vars: Mapping[str, str | None] | None = None,
        remote_addr: str = "127.0.0.1",
    ) -> RequestResult:
        """A GET; arguments as `request`."""
        return self.request("GET", target, headers=headers, vars=vars, remote_addr=remote_addr)

    def post(
        self,
        target: str = "/",
        body: Body = None,
        *,
        headers: FieldsLike | None = None,
        vars: Mapping[str, str | None] | None = None,
        remote_addr: str = "127.0.0.1",
    ) -> RequestResult:
        """A POST; arguments as `request`."""
        return self.request("POST", target, headers=headers, body=body, vars=vars, remote_addr=remote_addr)

    def request(
        self,
        method: str,
        target: str = "/",
        *,
        headers: FieldsLike | None = None,
        body: Body = None,
        vars: Mapping[str, str | None] | None = None,
        remote_addr: str = "127.0.0.1",
    ) -> RequestResult:
        """Run the plugins on a request.

        Args:
            method: for example ``GET``.
            target: path and query, percent-encoded as in a URL.
            headers: names in any case.
            body: bytes; text; anything else as JSON, with its Content-Type.
            vars: the gateway's variables, besides those that the request makes. None: not set.
            remote_addr: the client's address.

        Raises:
            Exception: what the plugin raised.
            ValueError: the method or the target is none.

        Example:
            >>> client.request("PUT", "/books/1", headers={"X-Token": "t"}, body={"title": "Emma"}).upstream.path
            '/books/1'
        """
        sent, raw_args = arriving(method, target, headers, body)
        address = socket.inet_pton(socket.AF_INET6 if ":" in remote_addr else socket.AF_INET, remote_addr)
        id = next(self._ids)
        self._request_id = _request_id(id)
        frame = encode_http_req_call_req(
            id, address, METHODS.index(sent.method), sent.path, raw_args, list(sent.headers.pairs()), 1
        )
        known = Knowledge(self._version, False, self._variables(sent, target, remote_addr, vars), sent.body, None)
        conf = self._prepare(self._phase)
        deadline = time.monotonic() + CALL_SECONDS
        call = TestedRequest(connection(), HTTPReqCallReq(frame), conf, deadline, self._contexts, self._version)
        call.known = known
        return of_request(decode_http_req_call_resp(run(call)).action, sent)

    # The response phase.

    def respond(
        self,
        status: int = 200,
        headers: FieldsLike | None = None,
        body: bytes | str = b"",
        *,
        method: str = "GET",
        target: str = "/",
        request_headers: FieldsLike | None = None,
        vars: Mapping[str, str | None] | None = None,
        remote_addr: str = "127.0.0.1",
    ) -> ResponseResult:
        """Run the plugins on an upstream's response. They see the `request.context` that the last request left.

        Args:
            status: the upstream's.
            headers: the upstream's.
            body: the upstream's.
            method: of the request that it answers.
            target: of that request.
            request_headers: of that request.
            vars: the gateway's variables, besides those that the request makes. None: not set.
            remote_addr: the client's address.

        Raises:
            Exception: what the plugin raised.

        Example:
            >>> "X-Powered-By" in PluginClient(Hardened).respond(200, {"Server": "a", "X-Powered-By": "b"}).headers
            False
        """
        raw = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        pairs: list[Pair] = list(pairs_of(headers or ()))
        sent, _ = arriving(method, target, request_headers, None)
        id = next(self._ids)
        frame = encode_http_resp_call_req(id, status, pairs, 1)
        known = Knowledge(self._version, True, self._variables(sent, target, remote_addr, vars), None, raw)
        conf = self._prepare("ext-plugin-post-resp")
        deadline = time.monotonic() + CALL_SECONDS
        memory = GatewayMemory(self._version)
        call = TestedResponse(connection(), HTTPRespCallReq(frame), conf, deadline, self._contexts, memory)
        call.known = known
        return of_response(decode_http_resp_call_resp(run(call)), method, status, pairs, raw)

    def _variables(
        self, sent: Upstream, target: str, remote_addr: str, given: Mapping[str, str | None] | None
    ) -> Mapping[str, str | None]:
        own = {"request_id": self._request_id}
        return {**own, **variables_of(sent, target, remote_addr), **(given or {})}

    def close(self) -> None:
        """Tear the plugins down."""
        for conf in self._confs.all():
            conf.teardown()

    def __enter__(self) -> "PluginClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _version(text: str) -> Version:
    found = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise ValueError(f"expected a version such as 3.18.0, got {text!r}")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _request_id(number: int) -> str:
    return f"{number:032x}"


def _definition(plugin: Plugin) -> Definition:
    return Definition(adapt(plugin) if issubclass(plugin, PluginBase) else plugin, _file_of(plugin))


def _file_of(plugin: type) -> str:
    try:
        return inspect.getfile(plugin)
    except (OSError, TypeError):
        return f"<{plugin.__module__}>"
