"""The echo upstream: answers every request with what it received, as JSON.

Rules that live here: the JSON's fields; text that is not UTF-8 is shown with surrogate escapes; `/status/418` answers
with that status; who embeds it may see what arrived, and choose the answer.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from aiohttp import web
from multidict import CIMultiDict

from apisix.runner.gateway.app import http_log, listen
from apisix.runner.gateway.uri import parse_args, to_text

DEFAULT_PORT = 1980
REMEMBERED = 1000
"""Requests that an upstream remembers."""


class Received(TypedDict):
    """A request as it arrived."""

    method: str
    target: str
    path: str
    args: dict[str, list[str | None]]
    headers: list[tuple[str, str]]
    body: str


class Answer(NamedTuple):
    """What an upstream answers."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class Echo:
    """An upstream to look at what arrives there.

    Args:
        host: the address to listen on.
        port: 0 for any free one; then `port` tells which.

    Attributes:
        received: the last requests, oldest first.
        answer: what is answered instead of the echo, once it is set.

    Example:
        ``curl http://127.0.0.1:1980/a?b=1`` answers
        ``{"method": "GET", "target": "/a?b=1", "path": "/a", "args": {"b": ["1"]}, "headers": [...], "body": ""}``.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        self.host = host
        self.port = port
        self.received: deque[Received] = deque(maxlen=REMEMBERED)
        self.answer: Answer | None = None
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the port is taken.
        """
        self._http = web.Server(self._answer, access_log=None, logger=http_log, auto_decompress=False, max_headers=1000)
        self._listener = await listen(self._http, self.host, self.port, "upstream", "--upstream-port")
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._http is not None:
            await self._http.shutdown(timeout=0.5)
            self._http = None

    async def __aenter__(self) -> "Echo":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        received: Received = {
            "method": request.method,
            "target": request.raw_path,
            "path": path,
            "args": parse_args(query),
            "headers": [(to_text(name), to_text(value)) for name, value in request.raw_headers],
            "body": to_text(await request.content.read()),
        }
        self.received.append(received)
        if self.answer is not None:
            return web.Response(
                status=self.answer.status, headers=CIMultiDict(self.answer.headers), body=self.answer.body
            )
        status = re.fullmatch(r"/status/([2-5]\d\d)", path)
        return web.Response(
            status=int(status[1]) if status else 200,
            body=_one_line_a_field(received).encode(),
            content_type="application/json",
            headers={"X-Upstream": "echo", "Server": "echo"},
        )


def _one_line_a_field(fields: Mapping[str, object]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"
