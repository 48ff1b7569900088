"""The embedded gateway: an HTTP server that stands in for APISIX in front of a plugin runner.

Rules that live here: what makes up a gateway, how it starts and stops, and how a request gets from aiohttp to its
route. For tests and development only: it serves HTTP/1.1 on one event loop, and knows routes, upstreams and the plugins
that matter to a runner.
"""

import asyncio
import contextlib
import errno
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from apisix.runner.errors import StartError
from apisix.runner.gateway import admin, pipeline
from apisix.runner.gateway.admin import AdminAPI
from apisix.runner.gateway.answers import Exit
from apisix.runner.gateway.client import ClientResponse
from apisix.runner.gateway.errors import BrokenAnswer
from apisix.runner.gateway.exchange import Arrival, Exchange
from apisix.runner.gateway.ext_plugin import Runner
from apisix.runner.gateway.headers import Header
from apisix.runner.gateway.routes import match
from apisix.runner.gateway.rpc import Limits
from apisix.runner.gateway.schema import Invalid
from apisix.runner.gateway.standalone import RoutesFile
from apisix.runner.gateway.store import Store
from apisix.runner.gateway.uri import BadTarget, Target, parse_target, to_text
from apisix.runner.gateway.versions import DEFAULT_VERSION, Version

log = logging.getLogger(__name__)
http_log = logging.getLogger(f"{__name__}.http")


def _bad_request_in_one_line(record: logging.LogRecord) -> bool:
    """What a client sent wrong is one line of the log, not a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "bad request: %s", (" ".join(str(error).split()),)
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


http_log.addFilter(_bad_request_in_one_line)

DEFAULT_PORT = 9080
LINE_LIMIT = 1 << 15
"""Bytes of a request line, or of one header, at most (nginx has four buffers of 8 KiB)."""


class Observer(Protocol):
    """Sees every exchange; the Admin API's are none."""

    def began(self, exchange: Exchange) -> None:
        """An exchange has arrived."""

    def ended(self, exchange: Exchange) -> None:
        """It is over, and its record is complete."""


class Gateway:
    """A stand-in for APISIX.

    Args:
        runner: the socket that the plugin runner listens on (or will); with or without ``unix:``.
        routes: a file in APISIX's standalone format, read again when it changes.
        host: the address to listen on.
        port: 0 for any free one; then `port` tells which.
        version: the APISIX to be, such as ``"2.7"`` or ``"3.18.0"``.
        admin_key: what the Admin API expects in ``X-API-KEY``.
        nodes: where to connect instead of an upstream's node, by ``host:port``: ``{"web:80": "127.0.0.1:8001"}``.
        limits: timeouts and the pool towards the runner; the version's by default.
        conf_expiry: seconds for which a conf token may be used.

    Raises:
        ValueError: not a version of APISIX, or a node that is no address.

    Attributes:
        observer: sees every exchange, once it is set.

    Example:
        >>> async def demo():
        ...     async with Gateway("/tmp/runner.sock", port=0) as gateway:
        ...         gateway.put_route(1, {"uri": "/get", "plugins": {"ext-plugin-pre-req": {}}})
        ...         print(gateway.url)
    """

    def __init__(
        self,
        runner: str | Path = "/tmp/runner.sock",
        *,
        routes: str | Path | None = None,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        version: str = DEFAULT_VERSION,
        admin_key: str = admin.DEFAULT_KEY,
        nodes: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        conf_expiry: float = 3600,
    ) -> None:
        self.host = host
        self.port = port
        self.version = Version(version)
        self.store = Store(self.version, nodes or {})
        socket = Path(str(runner).removeprefix("unix:"))
        self.runner = Runner(socket, self.version, limits, conf_expiry)
        self._admin = AdminAPI(self.store, admin_key)
        self._file = None if routes is None else RoutesFile(Path(routes), self.store)
        self.observer: Observer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where the gateway answers, such as ``http://127.0.0.1:9080``."""
        return f"http://{self.host}:{self.port}"

    def put_route(self, id: str | int, route: Mapping[str, Any]) -> None:
        """Create or replace a route, as the Admin API's PUT does.

        Raises:
            ValueError: the route cannot be used; the text says why.
        """
        self.store.put("routes", id, route)

    def put_upstream(self, id: str | int, upstream: Mapping[str, Any]) -> None:
        """Create or replace an upstream, as the Admin API's PUT does.

        Raises:
            ValueError: the upstream cannot be used; the text says why.
        """
        self.store.put("upstreams", id, upstream)

    async def start(self) -> None:
        """Load the routes and listen.

        Raises:
            StartError: the routes cannot be used, or the port is taken.
        """
        if self._file is not None:
            try:
                self._file.load()
            except Invalid as error:
                raise StartError(str(error)) from None
        self._http = web.Server(
            self._handle,
            access_log=None,
            logger=http_log,
            auto_decompress=False,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            max_headers=1000,
        )
        self._listener = await listen(self._http, self.host, self.port, "gateway", "--port")
        self.port = self._listener.sockets[0].getsockname()[1]
        if self._file is not None:
            self._watch = asyncio.create_task(self._file.watch())

    async def stop(self) -> None:
        """Stop listening and close every connection, those to the runner included. Harmless when stopped already."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._http is not None:
            await self._http.shutdown(timeout=0.5)
            self._http = None
        self.runner.close()

    async def __aenter__(self) -> "Gateway":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        client = ClientResponse(request, f"APISIX/{self.version}")
        try:
            await self._serve(request, client)
        except ConnectionError:
            log.info("the client went away")
        return client

    async def _serve(self, request: web.BaseRequest, client: ClientResponse) -> None:
        headers = tuple((to_text(name), to_text(value)) for name, value in request.raw_headers)
        if any(name.lower() == "expect" for name, _ in headers):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.content.read()
        try:
            target = parse_target(request.raw_path)
            if request.version >= (1, 1) and not any(name.lower() == "host" for name, _ in headers):
                raise BadTarget("a request of HTTP/1.1 without a Host header")
        except BadTarget as error:
            log.info("bad request: %s", error)
            exchange = self._exchange(request, Target("/", "/", ""), headers, body)
            with self._observed(exchange, client):
                await pipeline.finish(exchange, client, Exit(400, None))
            return
        exchange = self._exchange(request, target, headers, body)
        if AdminAPI.serves(target.path):
            await self._administer(exchange, client)
            return
        with self._observed(exchange, client):
            await self._route(exchange, client)

    async def _route(self, exchange: Exchange, client: ClientResponse) -> None:
        remote = exchange.arrival.remote[0]
        exchange.route = match(self.store.routes, exchange.host, exchange.path, exchange.method, remote)
        if exchange.route is None:
            await pipeline.finish(exchange, client, Exit(404, b'{"error_msg":"404 Route Not Found"}\n'))
            return
        try:
            await pipeline.run(exchange, self.runner, self.store.upstream(exchange.route), client)
        except BrokenAnswer as error:
            log.error("%s", error)
            await pipeline.finish(exchange, client, Exit(500, None))

    @contextlib.contextmanager
    def _observed(self, exchange: Exchange, client: ClientResponse) -> Iterator[None]:
        exchange.record.client = client.record
        if self.observer is not None:
            self.observer.began(exchange)
        try:
            yield
        finally:
            exchange.record.end()
            if self.observer is not None:
                self.observer.ended(exchange)

    def _exchange(self, request: web.BaseRequest, target: Target, headers: tuple[Header, ...], body: bytes) -> Exchange:
        if request.transport is None:
            raise ConnectionResetError
        remote = request.transport.get_extra_info("peername")
        local = request.transport.get_extra_info("sockname")
        protocol = f"HTTP/{request.version.major}.{request.version.minor}"
        arrival = Arrival(request.method, protocol, target, headers, body, remote[:2], local[:2])
        return Exchange(arrival, self.version)

    async def _administer(self, exchange: Exchange, client: ClientResponse) -> None:
        target = exchange.arrival.target
        key = exchange.headers.get("X-API-KEY")
        reply = self._admin.answer(exchange.method, target.path, target.query, key, exchange.body)
        exchange.response.set("Content-Type", "application/json")
        exchange.response.set("X-API-VERSION", "v3")
        body = json.dumps(reply.body, separators=(",", ":")).encode() + b"\n"
        await pipeline.finish(exchange, client, Exit(reply.status, body))


async def listen(http: web.Server, host: str, port: int, what: str, option: str) -> asyncio.Server:
    """Let `http` listen.

    Args:
        what: what listens.
        option: the option of `dev` that chooses the port.

    Raises:
        StartError: with what the port was for, and what to do.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(http, host, port, reuse_address=True)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} for the {what} is taken by another process; stop that one or choose another with {option}"
            ) from None
        raise StartError(f"{host}:{port} for the {what}: {error.strerror or error}") from None
