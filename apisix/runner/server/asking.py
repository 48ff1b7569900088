"""Extra information: asked and answered on the connection of the call that is open on it.

Rules that live here:
- Asks take turns: an answer does not tell which ask it belongs to. Several of one turn travel in one round trip.
- Whatever goes wrong leaves the connection broken: what may still come on it belongs to nobody. It costs that call.
- When the call's answer is made, asking is over; the connection may carry another call already.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from functools import lru_cache

from apisix.runner.http.link import KNOWN_SINCE, GatewayError
from apisix.runner.server.connection import Connection
from apisix.runner.wire.frame import FrameBuffer, FrameType, WireError
from apisix.runner.wire.messages import ExtraInfoReq, InfoKind, decode_extra_info_resp, encode_extra_info_req

CHUNK = 262144  # bytes of one read; bodies come this way
LEAST_SECONDS = 0.01
_WHAT = {InfoKind.REQ_BODY: "the request's body", InfoKind.RESP_BODY: "the response's body"}


class Asking:
    """The asks of one call.

    Args:
        connection: the call's.
        deadline: the call's, by time.monotonic().
    """

    __slots__ = ("_asker", "_connection", "_deadline", "_ended", "_loop_turn", "_turn")

    def __init__(self, connection: Connection, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._turn = threading.Lock()
        self._loop_turn = asyncio.Lock()
        self._asker: asyncio.Task[object] | None = None
        self._ended = False

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Ask and wait.

        Raises:
            GatewayError: the gateway closed the connection, did not answer in time or answered nonsense.
        """
        if not self._turn.acquire(timeout=self._seconds_left()):
            raise GatewayError("the gateway did not answer what was asked before, until the call's deadline")
        try:
            sock = self._begin()
            replies = Replies(asks)
            try:
                sock.settimeout(self._seconds_left())
                sock.sendall(replies.request)
                while not replies.complete:
                    replies.feed(sock.recv(CHUNK))
                sock.setblocking(False)
            except OSError as error:
                raise replies.lost(error) from None
            self._connection.broken = False
            return replies.results
        finally:
            self._turn.release()

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Ask and await. Raises as `ask`."""
        loop = asyncio.get_running_loop()
        async with self._loop_turn:
            sock = self._begin()
            replies = Replies(asks)
            self._asker = asyncio.current_task()
            try:
                async with asyncio.timeout(self._seconds_left()):
                    await loop.sock_sendall(sock, replies.request)
                    while not replies.complete:
                        replies.feed(await loop.sock_recv(sock, CHUNK))
            except OSError as error:
                raise replies.lost(error) from None
            finally:
                self._asker = None
            self._connection.broken = False
            return replies.results

    def end(self) -> None:
        """Let nobody ask any more, since the answer is made."""
        self._ended = True

    async def end_async(self) -> None:
        """The same on the loop, where a task that was left alone may be asking: it must not outlive the connection."""
        self._ended = True
        while self._asker is not None:
            self._asker.cancel()
            async with self._loop_turn:
                pass

    def _begin(self) -> socket.socket:
        """Take the connection, which is broken until all is answered."""
        if self._ended:
            raise answered()
        if self._connection.broken:
            raise GatewayError("nothing more can be asked in this call: an earlier ask failed or was given up")
        self._connection.broken = True
        return self._connection.sock

    def _seconds_left(self) -> float:
        return max(self._deadline - time.monotonic(), LEAST_SECONDS)


def answered() -> GatewayError:
    """The error of an ask that comes too late."""
    return GatewayError("the call is answered: what is needed later must be asked before filter returns")


class _Answered:
    """The link of a call that is answered."""

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        raise answered()

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        raise answered()

    def kept_context(self, request_id: str) -> bytes | None:
        raise answered()


ANSWERED = _Answered()


@lru_cache(256)
def _request(asks: tuple[ExtraInfoReq, ...]) -> bytes:
    """The frames that ask: the same for most calls of a chain."""
    return b"".join(encode_extra_info_req(*ask) for ask in asks)


class Replies:
    """What is asked in one turn, and what has come of it.

    Args:
        asks: at least one.

    Attributes:
        request: the frames that ask.
        results: the answers so far, in order.
    """

    def __init__(self, asks: Sequence[ExtraInfoReq]) -> None:
        self.asks = asks
        self._pieces = FrameBuffer()
        self.request = _request(tuple(asks))
        self.results: list[bytes | None] = []

    @property
    def held(self) -> int:
        """Bytes of answers that have come."""
        return len(self._pieces) + sum(len(result or b"") for result in self.results)

    @property
    def complete(self) -> bool:
        """Whether all is answered."""
        return len(self.results) == len(self.asks)

    def feed(self, data: bytes) -> None:
        """Take what was read.

        Raises:
            GatewayError: it is the end, or no answer to what was asked.
        """
        if not data:
            raise self._closed()
        self._pieces.feed(data)
        while not self.complete and (frame := self._pieces.take()) is not None:
            if frame[0] != FrameType.EXTRA_INFO:
                raise GatewayError(f"the gateway answered extra information with a frame of type {frame[0]}, not 3")
            try:
                self.results.append(decode_extra_info_resp(frame))
            except WireError as error:
                raise GatewayError(f"the gateway answered extra information with a malformed frame: {error}") from None
        if self.complete and len(self._pieces):
            raise GatewayError(f"the gateway sent {len(self._pieces)} bytes more than it was asked for")

    def lost(self, error: OSError) -> GatewayError:
        """What an error of the socket means."""
        if isinstance(error, TimeoutError):
            return GatewayError("the gateway did not answer extra information before the call's deadline")
        return self._closed()

    def _closed(self) -> GatewayError:
        ask = self.asks[len(self.results)]
        return GatewayError(
            f"the gateway closed the connection when asked for {_WHAT.get(ask.kind, f'variable {ask.name!r}')}: APISIX "
            f"answers that from {KNOWN_SINCE[ask.kind]} on, in the response phase from 3.0 on"
        )
