"""The response to the client, written byte for byte.

Rules that live here: how nginx frames a response (length or chunks, keep-alive or not, what has no body) and which
headers it adds; the charset that it appends to text types. aiohttp reads requests and keeps connections; its own
response writer cannot carry header bytes that are not UTF-8, so this one stands in its place.
Source: nginx `ngx_http_header_filter`, `ngx_http_charset_filter_module`, APISIX's `http_header_filter_phase`.
"""

from collections.abc import Iterable
from email.utils import formatdate

from aiohttp import web

from apisix.runner.gateway.headers import Header
from apisix.runner.gateway.pages import reason
from apisix.runner.gateway.record import ClientAnswer
from apisix.runner.gateway.uri import to_bytes

CHARSET_TYPES = frozenset(
    "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml".split()
)


class ClientResponse(web.StreamResponse):
    """Writes one response.

    Args:
        request: whose response it is.
        server: the header `Server`.

    Attributes:
        record: what was sent.
    """

    def __init__(self, request: web.BaseRequest, server: str) -> None:
        super().__init__()
        self._request = request
        self._server = server
        self._framed = False
        self._remaining: int | None = None
        self._keeps_alive = bool(request.keep_alive)
        self.started = False
        self.record = ClientAnswer()

    async def begin(self, status: int, headers: Iterable[Header], length: int | None) -> None:
        """Write the head.

        Args:
            headers: without those that frame the body; `Server` and a missing `Date` are added here.
            length: bytes of the body (of HEAD: of the body that GET would have); None where nobody knows.
        """
        self.started = True
        self.set_status(status, reason(status))
        bodyless = self._request.method == "HEAD" or status in (204, 304)
        frame: list[Header] = []
        if length is not None and status != 204:
            frame.append(("Content-Length", str(length)))
        elif not bodyless and self._request.version >= (1, 1):
            frame.append(("Transfer-Encoding", "chunked"))
            self._framed = True
        elif not bodyless:
            self._keeps_alive = False
        self._remaining = 0 if bodyless else length
        frame.append(("Connection", "keep-alive" if self._keeps_alive else "close"))
        rest = [(name, value) for name, value in headers if name.lower() != "server"]
        kind = [("Content-Type", with_charset(value, status)) for name, value in rest if _is(name, "content-type")]
        others = [(name, value) for name, value in rest if not _is(name, "content-type")]
        date = [] if any(_is(name, "date") for name, _ in others) else [("Date", formatdate(usegmt=True))]
        every = [*date, *kind[-1:], *frame, *others, ("Server", self._server)]
        self.record.status, self.record.headers = status, every
        lines = [f"HTTP/1.1 {status} {reason(status)}", *(f"{name}: {value}" for name, value in every)]
        await self._request.writer.write(to_bytes("\r\n".join(lines) + "\r\n\r\n"))

    async def send(self, data: bytes) -> None:
        """Write a piece of the body; what is over the announced length is dropped."""
        if self._remaining is not None:
            data = data[: self._remaining]
            self._remaining -= len(data)
        if data:
            self.record.body.add(data)
            framed = b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data
            await self._request.writer.write(framed)

    async def end(self) -> None:
        """Write what ends the body; a body that fell short of its length ends the connection."""
        if self._framed:
            await self._request.writer.write(b"0\r\n\r\n")
        if self._remaining:
            self._keeps_alive = False

    def break_off(self) -> None:
        """Close the connection without an end, so that the client sees a broken response."""
        self._framed = False
        self._keeps_alive = False
        if self._request.transport is not None:
            self._request.transport.abort()

    @property
    def keep_alive(self) -> bool:
        """Whether the connection serves another request; aiohttp asks."""
        return self._keeps_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: `begin` has written the head. aiohttp calls it."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: `end` has written the end. aiohttp calls it."""


def _is(name: str, folded: str) -> bool:
    return name.lower() == folded


def with_charset(kind: str, status: int) -> str:
    """A content type as nginx with `charset utf-8` sends it.

    Example:
        >>> with_charset("text/html", 200)
        'text/html; charset=utf-8'
    """
    if status in (301, 302) or kind.strip().lower() not in CHARSET_TYPES:
        return kind
    return f"{kind}; charset=utf-8"
