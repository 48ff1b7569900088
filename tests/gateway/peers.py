"""The gateway's peers in tests, over real sockets and byte for byte: a runner, an upstream and a client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from apisix.runner.gateway import Gateway
from apisix.runner.wire import messages as m
from apisix.runner.wire.frame import FrameType, frame_length
from apisix.runner.wire.messages import encode_http_req_call_resp, encode_prepare_conf_resp

Answer = Callable[[int, bytes], Awaitable[bytes | None]]
"""From a connection's number (from 1) and a frame to the answer's bytes; None closes the connection."""


class Message(NamedTuple):
    """An HTTP message as it stood on the wire."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.start.split()[1])

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class FakeRunner:
    """A runner that answers frames as it is told.

    Attributes:
        received: connection number and frame, in order of arrival.
        opened: how many connections were made.
        open: how many of them are open.
    """

    def __init__(self, path: Path, answer: Answer | None = None) -> None:
        self.path = path
        self.received: list[tuple[int, bytes]] = []
        self.opened = 0
        self.open = 0
        self._answer = answer or passing
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "FakeRunner":
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await _cancel(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.opened += 1
        self.open += 1
        number = self.opened
        try:
            while True:
                header = await reader.readexactly(4)
                frame = header + await reader.readexactly(frame_length(header) - 4)
                self.received.append((number, frame))
                answer = await self._answer(number, frame)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()
            self._tasks.discard(task)

    def types(self) -> list[int]:
        """The types of the frames received, in order."""
        return [frame[0] for _, frame in self.received]


async def passing(connection: int, frame: bytes) -> bytes:
    """Prepare every conf with token 1, let every call pass."""
    if frame[0] == FrameType.PREPARE_CONF:
        return encode_prepare_conf_resp(1)
    return encode_http_req_call_resp(0, None)


def in_turn(*answers: bytes | None) -> Answer:
    """Give `answers` one after the other, whatever is asked; then close."""
    rest = iter(answers)

    async def answer(connection: int, frame: bytes) -> bytes | None:
        return next(rest, None)

    return answer


def calls_with(*answers: bytes | None) -> Answer:
    """Prepare every conf with token 1; give `answers` to the other frames one after the other, the last for ever."""
    rest = list(answers)

    async def answer(connection: int, frame: bytes) -> bytes | None:
        if frame[0] == FrameType.PREPARE_CONF:
            return encode_prepare_conf_resp(1)
        return rest.pop(0) if len(rest) > 1 else rest[0]

    return answer


class RawUpstream:
    """An upstream that keeps what it receives, and answers with the bytes that `respond` gives for a request."""

    def __init__(self, respond: Callable[[Message], bytes]) -> None:
        self.seen: list[Message] = []
        self.port = 0
        self._respond = respond
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "RawUpstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await _cancel(self._tasks)

    @property
    def node(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            message = await read_message(reader)
            self.seen.append(message)
            writer.write(self._respond(message))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def read_message(reader: asyncio.StreamReader, bodyless: bool = False) -> Message:
    """Read one request or response, its body included."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    message = Message(start, headers, b"")
    is_response = start.startswith("HTTP/")
    if bodyless or (is_response and message.status in (204, 304)):
        return message
    if (message.get("Transfer-Encoding") or "").lower() == "chunked":
        return message._replace(body=await _dechunked(reader))
    length = message.get("Content-Length")
    if length is None and is_response:
        return message._replace(body=await reader.read())
    return message._replace(body=await reader.readexactly(int(length or 0)))


async def _dechunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body


async def send_raw(port: int, request: bytes) -> Message:
    """Send `request` to a gateway as it stands and return the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(request)
        return await read_message(reader, bodyless=request.startswith(b"HEAD "))
    finally:
        writer.close()


async def get(port: int, target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> Message:
    """Send a plain request, closing the connection after it."""
    lines = [f"{method} {target} HTTP/1.1", "Host: example.test", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return await send_raw(port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def plain(message: Message) -> bytes:
    """A response for `RawUpstream`: 200, a body, nothing special."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/x-test\r\nX-Upstream: yes\r\nContent-Length: 2\r\n\r\nup"


@contextlib.asynccontextmanager
async def listening(handler: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """A TCP server that gives `handler` the first bytes of each connection, sends what it returns, and closes; it
    goes on listening without a word where that is None. Yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            answer = handler(await reader.read(1 << 16))
            if answer is None:
                await asyncio.Event().wait()
            else:
                writer.write(answer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await _cancel(tasks)


class Stage(NamedTuple):
    """A gateway between a runner, an upstream and the test's client."""

    runner: FakeRunner
    upstream: RawUpstream
    gateway: Gateway

    async def get(self, target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> Message:
        """Send the gateway a request."""
        return await get(self.gateway.port, target, *headers, method=method, body=body)

    def calls(self) -> list[m.HTTPReqCallReq]:
        """The HTTPReqCalls that the runner received."""
        frames = [frame for _, frame in self.runner.received]
        return [m.decode_http_req_call_req(frame) for frame in frames if frame[0] == FrameType.HTTP_REQ_CALL]


@contextlib.asynccontextmanager
async def stage(
    folder: Path,
    answer: Answer | None = None,
    plugins: dict[str, Any] | None = None,
    respond: Callable[[Message], bytes] = plain,
    route: dict[str, Any] | None = None,
    **gateway_options: Any,
) -> AsyncIterator[Stage]:
    """Everything up, with one route for every path: pre-req where `plugins` does not say otherwise."""
    async with (
        FakeRunner(folder / "runner.sock", answer) as runner,
        RawUpstream(respond) as upstream,
        Gateway(runner.path, port=0, **gateway_options) as gateway,
    ):
        fields = {"uri": "/*", "plugins": plugins if plugins is not None else {"ext-plugin-pre-req": {}}}
        gateway.put_route("r", {**fields, "upstream": {"nodes": {upstream.node: 1}}, **(route or {})})
        yield Stage(runner, upstream, gateway)
