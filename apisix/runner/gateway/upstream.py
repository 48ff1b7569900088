"""The call to the upstream: HTTP/1.1 over its own connection, bytes in and bytes out.

Rules that live here: names, values and the request target go out and come back byte for byte; a node that cannot be
reached or does not speak HTTP is a 502, one that is too slow a 504; only a failed connection makes the next node be
tried. The protocol itself is h11's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import h11

from apisix.runner.gateway.headers import Header
from apisix.runner.gateway.routes import Node
from apisix.runner.gateway.schema import Timeout
from apisix.runner.gateway.uri import escape_unsendable, to_bytes, to_text

log = logging.getLogger(__name__)

CHUNK = 1 << 16
HEAD_LIMIT = 1 << 17
"""Bytes of a response's head at most."""


class UpstreamFailure(Exception):
    """No usable response from the upstream.

    Args:
        status: what the client gets, 502 or 504.
        problem: for the log.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Response:
    """An upstream's response whose body is still to come.

    Attributes:
        status: the status code.
        headers: as they came, repetitions and letter case kept.
        bodyless: whether no body can follow.
        chunked: whether the body comes in chunks.
        node: the one that answers.
        local_port: of this side of the connection.
    """

    def __init__(self, connection: "_Connection", head: h11.Response, method: str) -> None:
        self._connection = connection
        self.node = connection.node
        self.local_port: int = connection.writer.get_extra_info("sockname")[1]
        self.status = head.status_code
        self.headers: list[Header] = [
            (to_text(bytes(name)), to_text(bytes(value))) for name, value in head.headers.raw_items()
        ]
        self.bodyless = method == "HEAD" or head.status_code in (204, 304)
        self.chunked = any(name.lower() == "transfer-encoding" for name, _ in self.headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece.

        Raises:
            UpstreamFailure: the connection broke, or nothing came for as long as a read may take.
        """
        while not isinstance(event := await self._connection.event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def pieces(self) -> list[bytes]:
        """The whole body as lua-resty-http hands it out: nothing at all where none can come, and at least one piece
        (be it empty) unless the body comes in chunks."""
        pieces = [piece async for piece in self.chunks()]
        return pieces if pieces or self.bodyless or self.chunked else [b""]


class _Connection:
    def __init__(
        self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: Timeout
    ) -> None:
        self.node = node
        self._reader = reader
        self.writer = writer
        self._timeout = timeout
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)

    async def send(self, method: str, target: str, headers: Sequence[Header], body: bytes) -> None:
        raw = [(to_bytes(name), to_bytes(value)) for name, value in headers]
        request = h11.Request(method=method.encode(), target=escape_unsendable(target).encode(), headers=raw)
        data = self._http.send(request) or b""
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        self.writer.write(data)
        async with asyncio.timeout(self._timeout.send):
            await self.writer.drain()

    async def event(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(self._timeout.read):
                    self._http.receive_data(await self._reader.read(CHUNK))
        except TimeoutError:
            raise UpstreamFailure(504, "upstream timed out while reading its response") from None
        except (OSError, h11.RemoteProtocolError) as error:
            raise UpstreamFailure(502, f"upstream sent an invalid response: {error}") from None
        if not isinstance(event, h11.Event):
            raise UpstreamFailure(502, "upstream closed the connection before its response was complete")
        return event


@asynccontextmanager
async def call(
    nodes: Sequence[Node], timeout: Timeout, method: str, target: str, headers: Sequence[Header], body: bytes
) -> AsyncIterator[Response]:
    """Call the first of `nodes` that takes the connection, and close it in the end.

    Args:
        headers: all of them; with a `Content-Length` where there is a body.

    Raises:
        UpstreamFailure: also where the request cannot be written in HTTP/1.1.
    """
    connection = await _connect(nodes, timeout)
    try:
        try:
            await connection.send(method, target, headers, body)
        except h11.LocalProtocolError as error:
            raise UpstreamFailure(502, f"the request cannot be sent to the upstream: {error}") from None
        except TimeoutError:
            raise UpstreamFailure(504, "upstream timed out while taking the request") from None
        except OSError:
            pass  # it may have answered before it closed
        while isinstance(head := await connection.event(), h11.InformationalResponse):
            pass
        if not isinstance(head, h11.Response):
            raise UpstreamFailure(502, f"upstream sent no response but {type(head).__name__}")
        yield Response(connection, head, method)
    finally:
        connection.writer.transport.abort()  # close() would wait for what an upstream does not take


async def _connect(nodes: Sequence[Node], timeout: Timeout) -> _Connection:
    failure = UpstreamFailure(503, "no valid upstream node")
    for node in nodes:
        try:
            async with asyncio.timeout(timeout.connect):
                reader, writer = await asyncio.open_connection(node.host, node.port)
            return _Connection(node, reader, writer, timeout)
        except TimeoutError:
            failure = UpstreamFailure(504, f"upstream {node.address} timed out while connecting")
        except OSError as error:
            failure = UpstreamFailure(502, f"upstream {node.address}: {error.strerror or error}")
        log.error("%s", failure)
    raise failure
