"""The inspector's HTTP server: the page, what it shows, and what can be done on it.

Rules that live here: it listens on loopback only; what the page reads and writes (the addresses below `/api`, JSON);
updates are server-sent events, a few a second at most, however many requests there are; a request that is sent
again goes to the gateway over HTTP, as any other.
"""

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from apisix.runner.errors import StartError
from apisix.runner.gateway import upstream
from apisix.runner.gateway.app import Gateway, listen
from apisix.runner.gateway.headers import Header
from apisix.runner.gateway.inspector.hub import Hub
from apisix.runner.gateway.inspector.receiver import Receiver
from apisix.runner.gateway.inspector.visitors import HEADERS, refusal
from apisix.runner.gateway.routes import Node
from apisix.runner.gateway.schema import Invalid, Timeout
from apisix.runner.gateway.store import Item
from apisix.runner.gateway.upstream import UpstreamFailure

HOST = "127.0.0.1"
DEFAULT_PORT = 9081
OPTION = "--inspector-port"

BREATH = 0.05
"""Seconds between two updates of a page."""

HEARTBEAT = 15.0
"""Seconds without an update after which a page is told that the inspector lives."""

MOST_SENT = 8 << 20
"""Bytes of what the page sends."""

FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})
SEND_TIMEOUT = Timeout(connect=5, send=60, read=180)

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class RouteView(msgspec.Struct, frozen=True):
    """A route as the page gets it; `changed` says that it was changed there, and can be had back."""

    id: str
    value: dict[str, object]
    changed: bool


class RequestToSend(msgspec.Struct, frozen=True):
    """A request as the page has it sent. `raw` is the body in base64, in place of a text."""

    method: str
    target: str
    headers: list[tuple[str, str]] = []
    body: str = ""
    raw: str | None = None


class Inspector:
    """The page of a gateway.

    Args:
        gateway: whose exchanges are shown; it is told so.
        folder: of one's own, for the socket on which the runner tells what plugins do.
        port: 0 for any free one; then `port` tells which. None for 9081, or another one where that is taken.

    Example:
        >>> async def demo(folder):
        ...     async with Gateway(port=0) as gateway, Inspector(gateway, folder, 0) as inspector:
        ...         print(inspector.url)
    """

    def __init__(self, gateway: Gateway, folder: Path, port: int | None = None) -> None:
        self.port = DEFAULT_PORT if port is None else port
        self._may_move = port is None
        self._gateway = gateway
        self._hub = Hub()
        self._before: dict[str, Item] = {}  # routes as they were before they were changed here
        self._receiver = Receiver(folder / "inspector.sock", self._hub.heard)
        self._hub.drain = self._receiver.drain
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        gateway.observer = self._hub

    @property
    def url(self) -> str:
        """Where the page is, such as ``http://127.0.0.1:9081``."""
        return f"http://{HOST}:{self.port}"

    @property
    def socket(self) -> Path:
        """Where the runner tells what its plugins do."""
        return self._receiver.path

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the port is taken.
        """
        app = web.Application(client_max_size=MOST_SENT, middlewares=[_guard])
        app.on_response_prepare.append(_harden)
        app.add_routes(
            [
                *(web.get(f"/{name}", _file(name)) for name in _static() if name != "index.html"),
                web.get("/", _file("index.html")),
                web.get("/api/updates", self._updates),
                web.get("/api/exchanges/{number}", self._exchange),
                web.delete("/api/exchanges", self._clear),
                web.get("/api/routes", self._routes),
                web.put("/api/routes/{id}", self._put_route),
                web.delete("/api/routes/{id}", self._delete_route),
                web.post("/api/routes/{id}/undo", self._undo_route),
                web.post("/api/send", self._send),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            self._listener = await listen(self._runner.server, HOST, self.port, "inspector", OPTION)
        except StartError:
            if not self._may_move:
                raise
            self._listener = await listen(self._runner.server, HOST, 0, "inspector", OPTION)
        self.port = self._listener.sockets[0].getsockname()[1]
        self._receiver.start()

    async def stop(self) -> None:
        """Stop listening and close every connection. Harmless when stopped already."""
        self._hub.close()
        self._receiver.stop()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> "Inspector":
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What the page reads.

    async def _updates(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        gateway = {"gateway": self._gateway.url, "version": str(self._gateway.version)}
        with contextlib.suppress(ConnectionError), self._hub.watcher() as watcher:
            await response.write(_event("gateway", gateway))
            while not self._hub.closed:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await watcher.changed.wait()
                except TimeoutError:
                    await response.write(b": alive\n\n")
                    continue
                await response.write(_event("update", self._hub.update(watcher)))
                await asyncio.sleep(BREATH)
        return response

    async def _exchange(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        found = self._hub.detail(int(number)) if number.isascii() and number.isdecimal() and len(number) < 16 else None
        if found is None:
            return _problem(404, "this exchange is not there any more")
        began = found.summary.started
        lines = self._hub.lines_between(began, began + (found.summary.seconds or 3600) + 0.01)
        return _json({"exchange": found, "lines": lines})

    async def _routes(self, request: web.Request) -> web.Response:
        items = self._gateway.store.all("routes")
        return _json([RouteView(item.id, item.value, item.id in self._before) for item in items])

    # What can be done on it.

    async def _clear(self, request: web.Request) -> web.Response:
        self._hub.clear()
        return _json({})

    async def _put_route(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        before = self._gateway.store.get("routes", id)
        try:
            value = msgspec.json.decode(await _sent(request), type=dict[str, object])
            self._gateway.store.put("routes", id, _without_times(value))
        except (Invalid, msgspec.DecodeError, UnicodeDecodeError) as error:
            return _problem(400, str(error))
        if before is not None:
            self._before.setdefault(id, before)
        self._hub.routes_changed()
        return _json({})

    async def _undo_route(self, request: web.Request) -> web.Response:
        before = self._before.pop(request.match_info["id"], None)
        if before is None:
            return _problem(404, "this route was not changed here")
        try:
            self._gateway.store.put("routes", before.id, _without_times(before.value), from_file=before.from_file)
        except Invalid as error:
            return _problem(400, str(error))
        self._hub.routes_changed()
        return _json({})

    async def _delete_route(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if not self._gateway.store.delete("routes", id):
            return _problem(404, "there is no such route")
        self._before.pop(id, None)
        self._hub.routes_changed()
        return _json({})

    async def _send(self, request: web.Request) -> web.Response:
        try:
            given = msgspec.json.decode(await _sent(request), type=RequestToSend)
            body = given.body.encode() if given.raw is None else base64.b64decode(given.raw, validate=True)
            headers = self._headers(given, body)
            node = Node(self._gateway.host, self._gateway.port)
            async with upstream.call([node], SEND_TIMEOUT, given.method, given.target, headers, body) as response:
                async for _ in response.chunks():
                    pass
                return _json({"exchange": self._hub.number_of(response.local_port), "status": response.status})
        except (msgspec.DecodeError, UnicodeError, binascii.Error) as error:
            return _problem(400, f"the request cannot be sent: {error}")
        except UpstreamFailure as error:
            return _problem(502, re.sub(r"(the )?upstream", "the gateway", str(error)))

    def _headers(self, given: RequestToSend, body: bytes) -> list[Header]:
        headers = [pair for pair in given.headers if pair[0].lower() not in FRAMING]
        if not any(name.lower() == "host" for name, _ in headers):
            headers.insert(0, ("Host", f"{self._gateway.host}:{self._gateway.port}"))
        if body:
            headers.append(("Content-Length", str(len(body))))
        return [*headers, ("Connection", "close")]


def _without_times(value: Mapping[str, object]) -> dict[str, object]:
    """A route without what the store itself keeps in it."""
    return {key: each for key, each in value.items() if key not in ("create_time", "update_time")}


async def _sent(request: web.Request) -> bytes:
    """The body, where it says that it is JSON: a form of another site cannot."""
    if request.content_type != "application/json":
        raise msgspec.DecodeError(f"expected Content-Type application/json, got {request.content_type}")
    return await request.read()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    problem = refusal(request.path, request.headers, request.headers.getall("Host", []))
    return await handler(request) if problem is None else web.Response(status=403, text=problem + "\n")


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _static() -> dict[str, bytes]:
    """The page's files by name."""
    folder = files(__package__) / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in _TYPES}


def _file(name: str) -> Handler:
    content = _static()[name]
    kind = _TYPES[Path(name).suffix]

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return serve


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _problem(status: int, problem: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": problem}), content_type="application/json")


def _event(name: str, value: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
