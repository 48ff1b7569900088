"""Frames to and from the runner: connections, their pool, and timeouts.

Rules that live here: one call at a time on a connection; after a failure the connection is closed, after a success it
idles in a pool of 32 for 180 s; connecting takes 1 s at most, sending and each read 60 s (5 s on old versions); an
error frame is a failure of the call. Source: `send`, `receive` and `rpc_call` in APISIX's ext-plugin/init.lua.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from apisix.runner.gateway.errors import BrokenAnswer, RunnerFailure, UnknownToken
from apisix.runner.gateway.versions import Feature, Version
from apisix.runner.wire.frame import FrameBuffer, FrameType, WireError
from apisix.runner.wire.messages import ErrorCode, decode_error

ERROR_TEXTS = {
    ErrorCode.BAD_REQUEST: "bad request",
    ErrorCode.SERVICE_UNAVAILABLE: "service unavailable",
    ErrorCode.CONF_TOKEN_NOT_FOUND: "conf token not found",
}


@dataclass(frozen=True)
class Limits:
    """Seconds to wait for the runner, and how many idle connections to keep for how many seconds."""

    connect: float = 1.0
    send: float = 60.0
    read: float = 60.0
    idle: float = 180.0
    pool: int = 32

    @classmethod
    def of(cls, version: Version) -> "Limits":
        """The limits of that version of APISIX."""
        return cls() if version.has(Feature.LONG_TIMEOUTS) else cls(send=5.0, read=5.0)


class Connection(asyncio.Protocol):
    """One connection to the runner: whole frames out, whole frames in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._frames = FrameBuffer()
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.idle:  # nobody asked for anything: nginx closes a pooled connection that becomes readable
            self.close()
        self._frames.feed(data)
        self._arrival.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        self._arrival.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def idle(self) -> bool:
        """Whether the connection waits in the pool."""
        return self._expiry is not None

    def park(self) -> None:
        """Begin to idle; the connection closes itself when it has idled for too long, or has bytes nobody asked for."""
        if self._frames:
            self.close()
            return
        self._expiry = asyncio.get_running_loop().call_later(self._limits.idle, self.close)

    def unpark(self) -> bool:
        """End idling; False where the connection has been closed meanwhile."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        return not self.closed

    def close(self) -> None:
        """Close at once; what was not sent is lost."""
        self.unpark()
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    async def send(self, frame: bytes, name: str) -> None:
        """Send a whole frame.

        Raises:
            RunnerFailure: the runner closed the connection, or did not take the frame in time.
        """
        assert self._transport is not None
        if not self.closed:
            self._transport.write(frame)
            try:
                async with asyncio.timeout(self._limits.send):
                    await self._writable.wait()
            except TimeoutError:
                raise RunnerFailure(f"failed to send {name}: timeout") from None
        if self.closed:
            raise RunnerFailure(f"failed to send {name}: closed")

    async def receive(self, name: str) -> bytes:
        """The next frame.

        Raises:
            RunnerFailure: an error frame, the connection's end, or nothing for as long as a read may take.
            UnknownToken: the runner does not know the conf token.
            BrokenAnswer: an error frame that cannot be read.
        """
        while (frame := self._frames.take()) is None:
            if self.closed:
                raise RunnerFailure(f"failed to receive {name}: closed")
            self._arrival.clear()
            try:
                async with asyncio.timeout(self._limits.read):
                    await self._arrival.wait()
            except TimeoutError:
                raise RunnerFailure(f"failed to receive {name}: timeout") from None
        if frame[0] == FrameType.ERROR:
            raise _failure(frame, name)
        return frame

    async def call(self, frame: bytes, type: FrameType) -> bytes:
        """Send `frame` and return the answer, which must have the same type."""
        name = f"RPC_{type.name}"
        await self.send(frame, name)
        answer = await self.receive(name)
        if answer[0] != type:
            raise RunnerFailure(f"failed to receive {name}: unexpected type {answer[0]}")
        return answer


def _failure(frame: bytes, name: str) -> RunnerFailure | BrokenAnswer:
    try:
        code = decode_error(frame)
    except WireError as error:
        return BrokenAnswer(f"failed to receive {name}: {error}")
    text = ERROR_TEXTS.get(ErrorCode(code), "") if code in set(ErrorCode) else f"unknown err {code}"
    kind = UnknownToken if code == ErrorCode.CONF_TOKEN_NOT_FOUND else RunnerFailure
    return kind(f"failed to receive {name}: {text}")


class Pool:
    """Connections to one runner.

    Args:
        path: the runner's socket.
        limits: timeouts, and how many connections idle for how long.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one call: an idle one, else a new one; kept when the call succeeds, else closed.

        Raises:
            RunnerFailure: nobody listens on the socket.
        """
        connection = await self._take()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._put(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.unpark():
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.connect):
                _, connection = await loop.create_unix_connection(lambda: Connection(self._limits), str(self.path))
        except (OSError, TimeoutError) as error:
            problem = str(error) or "timeout"
            raise RunnerFailure(f"failed to connect to the unix socket unix:{self.path}: {problem}") from None
        return connection

    def _put(self, connection: Connection) -> None:
        self._idle = [each for each in self._idle if not each.closed]
        if len(self._idle) >= self._limits.pool:  # nginx closes the one that was used longest ago
            self._idle.pop(0).close()
        connection.park()
        self._idle.append(connection)

    def close(self) -> None:
        """Close every idle connection."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
