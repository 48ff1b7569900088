"""`PluginClient`: one plugin, one conf, and calls as many as a test wants.

Rules that live here:
- The conf is parsed, the plugin checked and set up, and the call run by the same code as in production; the answer
  is encoded, decoded again, and applied as the gateway would.
- What the gateway knows, variables and bodies, is given with the call. What is not given is not set.
- A plugin's own exception is raised as it is. So is a conf that it rejects.
"""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from apisix.runner.http.answer import Version
from apisix.runner.http.fields import Args, FieldsLike, Headers, pairs_of
from apisix.runner.http.link import KNOWN_SINCE, GatewayError
from apisix.runner.http.variables import parse_query
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.core import PluginBase, adapt
from apisix.runner.plugin.errors import PluginFailure
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server.call import GatewayMemory, RequestCall, ResponseCall
from apisix.runner.server.confs import Confs, PreparedConf
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.testing.results import RequestResult, ResponseResult, Upstream, of_request, of_response
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import (
    METHODS,
    ExtraInfoReq,
    HTTPReqCallReq,
    HTTPRespCallReq,
    InfoKind,
    PrepareConfReq,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
)

T = TypeVar("T")
NEWEST: Version = (3, 18, 0)
CALL_SECONDS = 60.0
Body = bytes | str | Mapping[str, Any] | Sequence[Any] | None
Plugin = type[Base] | type[PluginBase]
"""A plugin's class, or several with their confs: ``[(First, {...}), (Second, None)]``."""


class PluginClient:
    """Runs a plugin, or a chain of several.

    Args:
        plugin: its class, or pairs of class and conf in order of execution.
        conf: the value in the route: text as it is, anything else as JSON; None for none. Not with a chain.
        phase: the gateway's plugin that calls: ``ext-plugin-pre-req`` or ``ext-plugin-post-req``.
        version: the gateway's, for what older ones do not answer.

    Raises:
        LoadError: something about the class is wrong.
        ConfError: the plugin rejects the conf.

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
        version: Version = NEWEST,
    ) -> None:
        chain = [(plugin, conf)] if isinstance(plugin, type) else list(plugin)
        registry = Registry()
        entries: list[Pair] = []
        for one, value in chain:
            definition = Definition(adapt(one) if issubclass(one, PluginBase) else one, _file_of(one))
            registry.add(definition)
            entries.append((definition.name, _conf_text(value)))
        self._version = version
        self._contexts = _ContextsInMemory()
        self._confs = Confs(registry, CALL_SECONDS)
        self._prepared: dict[str, PreparedConf] = {}
        self._entries = entries
        self._phase = phase
        self._ids = itertools.count()
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

    def get(self, target: str = "/", **request: Any) -> RequestResult:
        """A GET; arguments as `request`."""
        return self.request("GET", target, **request)

    def post(self, target: str = "/", body: Body = None, **request: Any) -> RequestResult:
        """A POST; arguments as `request`."""
        return self.request("POST", target, body=body, **request)

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
            vars: the gateway's variables.
            remote_addr: the client's address.

        Raises:
            Exception: what the plugin raised.
            ValueError: the method or the target is none.
        """
        sent, raw_args = _sent(method, target, headers, body)
        address = socket.inet_pton(socket.AF_INET6 if ":" in remote_addr else socket.AF_INET, remote_addr)
        id = next(self._ids)
        frame = encode_http_req_call_req(
            id, address, METHODS.index(sent.method), sent.path, raw_args, list(sent.headers.pairs()), 1
        )
        known = _Knowledge(self._version, False, _variables(sent, target, remote_addr, vars), sent.body, None)
        conf = self._prepare(self._phase)
        deadline = time.monotonic() + CALL_SECONDS
        call = _TestedRequest(_connection(), HTTPReqCallReq(frame), conf, deadline, self._contexts, self._version)
        call.known = known
        return of_request(decode_http_req_call_resp(_run(call)).action, sent)

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
            vars: the gateway's variables, besides those that the request makes.
            remote_addr: the client's address.

        Raises:
            Exception: what the plugin raised.
        """
        raw = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        pairs: list[Pair] = list(pairs_of(headers or ()))
        sent, _ = _sent(method, target, request_headers, None)
        id = next(self._ids)
        frame = encode_http_resp_call_req(id, status, pairs, 1)
        known = _Knowledge(self._version, True, _variables(sent, target, remote_addr, vars), None, raw)
        conf = self._prepare("ext-plugin-post-resp")
        deadline = time.monotonic() + CALL_SECONDS
        memory = GatewayMemory(self._version)
        call = _TestedResponse(_connection(), HTTPRespCallReq(frame), conf, deadline, self._contexts, memory)
        call.known = known
        return of_response(decode_http_resp_call_resp(_run(call)), method, status, pairs, raw)

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


class _ContextsInMemory(Contexts):
    """What plugins keep between the phases, for one client."""

    def __init__(self) -> None:
        super().__init__(None)
        self._kept: dict[str, bytes] = {}

    def keep(self, request_id: str, context: Mapping[str, Any]) -> None:
        self._kept[request_id] = msgspec.json.encode(context)

    def read(self, request_id: str) -> bytes | None:
        return self._kept.get(request_id)


class _Knowledge:
    """What the gateway knows about a call."""

    def __init__(
        self,
        version: Version,
        response_phase: bool,
        variables: Mapping[str, str | None],
        body: bytes | None,
        response_body: bytes | None,
    ) -> None:
        self._version = version
        self._response_phase = response_phase
        self._variables = variables
        self._body = body
        self._response_body = response_body

    def answer(self, ask: ExtraInfoReq) -> bytes | None:
        """What it answers to one ask."""
        since = "3.0" if self._response_phase else KNOWN_SINCE[ask.kind]
        if self._version < tuple(map(int, since.split("."))):
            raise GatewayError(f"the gateway closes the connection: it answers {ask.kind.name} from {since} on")
        if ask.kind is InfoKind.REQ_BODY:
            return self._body
        if ask.kind is InfoKind.RESP_BODY:
            return self._response_body
        value = self._variables.get(ask.name or "")
        return None if value is None else value.encode("utf-8", "surrogateescape")


class _Tested:
    """What makes a call of the server one of a test: the gateway is known, and failures are raised."""

    known: _Knowledge
    failure: BaseException | None = None

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Answer at once."""
        return [self.known.answer(ask) for ask in asks]

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Answer at once."""
        return self.ask(asks)

    def failed(self, error: BaseException) -> bytes:
        """Keep what is to be raised in the test."""
        self.failure = error.cause if isinstance(error, PluginFailure) else error
        return b""


class _TestedRequest(_Tested, RequestCall):
    pass


class _TestedResponse(_Tested, ResponseCall):
    pass


def _run(call: _TestedRequest | _TestedResponse) -> bytes:
    chain = call.phase_chain.chain
    answer = _awaited(call.run_async(_in_thread)) if chain.coroutine else call.run()
    call.connection.close()
    if call.failure is not None:
        raise call.failure
    for function, args in call.response.after or ():
        result = function(*args)
        if asyncio.iscoroutine(result):
            _awaited(result)
    return answer


def _awaited(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where a loop runs in this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _in_thread(function: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function)


def _connection() -> Connection:
    return Connection(socket.socket(socket.AF_UNIX))


def _sent(method: str, target: str, headers: FieldsLike | None, body: Body) -> tuple[Upstream, list[Pair]]:
    if method not in METHODS:
        raise ValueError(f"expected a method of {', '.join(METHODS)}, got {method!r}")
    if not target.startswith("/"):
        raise ValueError(f"expected a target that begins with '/', got {target!r}")
    parts = urlsplit(target)
    sent_headers = Headers((name.lower(), value) for name, value in pairs_of(headers or ()))
    raw: bytes | None
    if body is None or isinstance(body, bytes):
        raw = body
    elif isinstance(body, str):
        raw = body.encode("utf-8", "surrogateescape")
    else:
        raw = msgspec.json.encode(body)
        sent_headers.setdefault("content-type", "application/json")
    if raw is not None:
        sent_headers.setdefault("content-length", str(len(raw)))
    sent_headers.setdefault("host", "test")
    path = unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape")
    raw_args = list(parse_query(parts.query))
    return Upstream(method, path, Args(raw_args), sent_headers, raw or None), raw_args


def _variables(
    sent: Upstream, target: str, remote_addr: str, given: Mapping[str, str | None] | None
) -> Mapping[str, str | None]:
    """The variables that every request has, and those that a test gives."""
    variables: dict[str, str | None] = {
        "request_method": sent.method,
        "uri": sent.path,
        "request_uri": target,
        "args": urlsplit(target).query or None,
        "host": sent.headers["host"],
        "remote_addr": remote_addr,
        "request_id": f"{threading.get_ident():032x}"[-32:],
    }
    for name, value in sent.headers.pairs():
        variables.setdefault("http_" + name.replace("-", "_"), value)
    for name, value in sent.args.items():
        variables.setdefault(f"arg_{name}", value)
    return {**variables, **(given or {})}


def _conf_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _file_of(plugin: type) -> str:
    import inspect

    try:
        return inspect.getfile(plugin)
    except (OSError, TypeError):
        return f"<{plugin.__module__}>"
