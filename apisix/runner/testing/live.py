"""`LiveGateway`: a gateway, a runner and an upstream, for tests from end to end.

Rules that live here:
- The gateway is the one of `apisix-runner dev`, the runner a process as APISIX starts it, and the upstream the echo.
  Each listens where nobody else does; nothing leaves this machine.
- It is up when `start` returns, and nothing of it is left when `stop` returns.
- What needs aiohttp is imported when it starts.
"""

import asyncio
import contextlib
import http.client
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from apisix.runner.http.fields import Args, FieldsLike, Headers, pairs_of
from apisix.runner.http.variables import parse_query
from apisix.runner.server.store import open_store
from apisix.runner.testing.client import NEWEST
from apisix.runner.testing.given import Body, conf_text, encoded
from apisix.runner.testing.results import ResponseResult, Upstream

if TYPE_CHECKING:
    from apisix.runner.gateway import Echo, Gateway
    from apisix.runner.gateway.echo import Received

HOST = "127.0.0.1"
UPSTREAM_NODE = f"{HOST}:1980"
"""The node that routes name for the upstream; wherever it really listens."""

PATIENCE = 60.0
"""Seconds for a response, at most."""

LOOK = 0.02
"""Seconds between two looks at the log."""

Route = Mapping[str, Any]
"""A route, as the Admin API takes it."""


def plugin_route(
    plugin: str, conf: object = None, *, uri: str = "/*", phase: str = "ext-plugin-pre-req"
) -> dict[str, Any]:
    """A route that runs one plugin and leads to the upstream.

    Args:
        plugin: its name.
        conf: the value in the route: text as it is, anything else as JSON; None for none.
        uri: the paths that it is for.
        phase: the gateway's plugin that calls: also ``ext-plugin-post-req`` or ``ext-plugin-post-resp``.

    Example:
        >>> plugin_route("stop", {"body": "hello"})["plugins"]
        {'ext-plugin-pre-req': {'conf': [{'name': 'stop', 'value': '{"body":"hello"}'}]}}
    """
    plugins = {phase: {"conf": [{"name": plugin, "value": conf_text(conf)}]}}
    return {"uri": uri, "plugins": plugins, "upstream": {"type": "roundrobin", "nodes": {UPSTREAM_NODE: 1}}}


class LiveGateway:
    """A gateway on a free port, with a runner that has the plugins of some folders.

    Args:
        routes: a file in APISIX's standalone format, or routes. Their node ``127.0.0.1:1980`` is the upstream.
        plugins: folders of plugins.
        version: the APISIX to be.
        flags: for `apisix-runner start`, such as ``("--workers", "2")``.

    Attributes:
        url: where the gateway answers, such as ``http://127.0.0.1:40123``.
        upstream_url: where the upstream does.

    Raises:
        ModuleNotFoundError: the extra ``gateway`` is not installed (when it starts).
        StartError: the routes cannot be used, or the runner does not start (when it starts).

    Example:
        >>> with LiveGateway([plugin_route("stop")], ["apisix/plugins"]) as live:
        ...     print(live.get("/get").status)
        201
    """

    def __init__(
        self,
        routes: str | Path | Sequence[Route],
        plugins: Sequence[str | Path],
        *,
        version: str = NEWEST,
        flags: Sequence[str] = (),
    ) -> None:
        self.url = ""
        self.upstream_url = ""
        self._routes = routes
        self._version = version
        self._flags = ["--gateway-version", version, *flags]
        for folder in plugins:
            self._flags += ["--plugins", str(Path(folder).resolve())]
        self._log = ""
        self._log_file: Path | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway")
        self._serving: Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gateway: Gateway | None = None
        self._upstream: Echo | None = None
        self._stopped: asyncio.Event | None = None

    # Life.

    def start(self) -> None:
        """Start all three, and return when they answer."""
        ready: Future[None] = Future()
        self._serving = self._thread.submit(asyncio.run, self._serve(ready))
        ready.result()

    def stop(self) -> None:
        """Stop all three. Harmless when stopped already."""
        if self._loop is not None and self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.shutdown()
        self._loop = None
        if self._serving is not None:
            self._serving.result()

    def __enter__(self) -> "LiveGateway":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, ready: "Future[None]") -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._open(stack)
                ready.set_result(None)
                assert self._stopped is not None
                await self._stopped.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        from apisix.runner.gateway import Echo, Gateway
        from apisix.runner.gateway.child import RunnerChild

        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apisix-runner-")))
        socket = folder / "runner.sock"
        stack.callback(_remove_store, socket)
        self._log_file = folder / "runner.log"
        output = stack.enter_context(self._log_file.open("wb"))
        stack.callback(self._keep_log)
        self._upstream = await stack.enter_async_context(Echo(HOST, 0))
        self.upstream_url = f"http://{HOST}:{self._upstream.port}"
        file = self._routes if isinstance(self._routes, str | Path) else None
        routes = () if isinstance(self._routes, str | Path) else self._routes
        nodes = {UPSTREAM_NODE: f"{HOST}:{self._upstream.port}"}
        gateway = Gateway(socket, routes=file, port=0, version=self._version, nodes=nodes)
        child = RunnerChild(socket, self._flags, gateway.runner.flush, output.fileno())
        stack.push_async_callback(child.stop)
        self._gateway = await stack.enter_async_context(gateway)
        for number, route in enumerate(routes, 1):
            gateway.put_route(route.get("id", number), route)
        await child.start()
        self.url = gateway.url

    # Requests.

    def get(self, target: str = "/", *, headers: FieldsLike | None = None) -> ResponseResult:
        """A GET; arguments as `request`."""
        return self.request("GET", target, headers=headers)

    def post(self, target: str = "/", body: Body = None, *, headers: FieldsLike | None = None) -> ResponseResult:
        """A POST; arguments as `request`."""
        return self.request("POST", target, headers=headers, body=body)

    def request(
        self, method: str, target: str = "/", *, headers: FieldsLike | None = None, body: Body = None
    ) -> ResponseResult:
        """Send a request to the gateway, and return what the client gets. A redirect is not followed.

        Args:
            method: for example ``GET``.
            target: path and query, percent-encoded as in a URL.
            headers: of the request; one of a name replaces what would be sent otherwise.
            body: bytes; text; anything else as JSON, with its Content-Type.
        """
        fields = Headers(pairs_of(headers or ()))
        raw, kind = encoded(body)
        if kind is not None:
            fields.setdefault("Content-Type", kind)
        if raw is not None and "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(raw)))
        host, port = self.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        try:
            connection.putrequest(method, target, skip_host="Host" in fields, skip_accept_encoding=True)
            for name, value in fields.pairs():
                connection.putheader(name, value.encode("utf-8", "surrogateescape"))
            connection.endheaders(raw)
            response = connection.getresponse()
            pairs = [(name, value.encode("latin-1").decode("utf-8", "surrogateescape"))
                     for name, value in response.getheaders()]  # fmt: skip
            return ResponseResult(response.status, Headers(pairs), response.read())
        finally:
            connection.close()

    # What is behind the gateway.

    def put_route(self, id: str | int, route: Route) -> None:
        """Create or replace a route, as the Admin API's PUT does.

        Raises:
            ValueError: the route cannot be used; the text says why.
        """
        gateway, loop = self._gateway, self._loop
        assert gateway is not None, "the gateway is not running"
        assert loop is not None

        async def put() -> None:
            gateway.put_route(id, route)

        asyncio.run_coroutine_threadsafe(put(), loop).result()

    @property
    def received(self) -> list[Upstream]:
        """The requests that arrived at the upstream, oldest first; the last 1000."""
        assert self._upstream is not None, "the gateway is not running"
        return [_upstream_request(received) for received in self._upstream.received]

    def answer(self, status: int = 200, headers: FieldsLike | None = None, body: Body = None) -> None:
        """What the upstream answers from now on, instead of what it received.

        Args:
            status: 200 to 599.
            headers: of the response.
            body: bytes; text; anything else as JSON, with its Content-Type.
        """
        from apisix.runner.gateway.echo import Answer

        assert self._upstream is not None, "the gateway is not running"
        fields = Headers(pairs_of(headers or ()))
        raw, kind = encoded(body)
        if kind is not None:
            fields.setdefault("Content-Type", kind)
        self._upstream.answer = Answer(status, fields.pairs(), raw or b"")

    # The runner's log.

    @property
    def log(self) -> str:
        """What the runner has logged, and its plugins printed, up to now."""
        with contextlib.suppress(OSError):
            if self._log_file is not None:
                self._keep_log()
        return self._log

    def wait_for_log(self, text: str, seconds: float = 10.0) -> None:
        """Wait until the runner has logged a text.

        Raises:
            TimeoutError: it has not; the message holds the log.
        """
        end = time.monotonic() + seconds
        while text not in self.log:
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} is not in the runner's log after {seconds:g} s:\n{self.log}")
            time.sleep(LOOK)

    def _keep_log(self) -> None:
        assert self._log_file is not None
        self._log = self._log_file.read_text(encoding="utf-8", errors="backslashreplace")


def _upstream_request(received: "Received") -> Upstream:
    path, _, query = received["target"].partition("?")
    return Upstream(
        received["method"],
        unquote_to_bytes(path).decode("utf-8", "surrogateescape"),
        Args(parse_query(query)),
        Headers(received["headers"]),
        received["body"].encode("utf-8", "surrogateescape") or None,
    )


def _remove_store(socket: Path) -> None:
    store = open_store(socket)
    if store is not None:
        shutil.rmtree(store.folder, ignore_errors=True)
