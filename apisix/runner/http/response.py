"""The response as a plugin sees it, and what it sets.

Rules that live here:
- In the request phase it begins empty. What it holds is the client's answer once a plugin has said `stop`; without,
  only its headers are sent, added to the upstream's response.
- In the response phase it begins as the upstream's, and what is changed is changed. The body is asked of the gateway
  when first read, and can be asked once only.
- A wrong status, header or body raises at the line that sets it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from apisix.runner.http.fields import FieldsLike, Headers
from apisix.runner.http.link import Link, WrongColour
from apisix.runner.http.request import from_json, to_bytes
from apisix.runner.wire.messages import ExtraInfoReq, HTTPRespCallReq, InfoKind

Body = bytes | str | Mapping[str, Any] | list[Any] | None

_BODY = ExtraInfoReq(InfoKind.RESP_BODY)


class Response:
    """One response.

    Args:
        call: the decoded frame in the response phase, None in the request phase.
        link: the way to the gateway, for the upstream's body.

    Example:
        >>> response = Response()
        >>> response.status_code = 403
        >>> response.headers["X-Reason"] = "no token"
        >>> response.body = {"error": "no token"}
        >>> response.raw_body
        b'{"error":"no token"}'
    """

    __slots__ = (
        "_asking",
        "_body",
        "_call",
        "_upstream_body",
        "after",
        "coroutine",
        "in_coroutine",
        "link",
        "new_status",
        "plugin",
        "raw_body",
        "running",
        "stopped",
        "touched_headers",
        "unread",
    )

    def __init__(self, call: HTTPRespCallReq | None = None, link: Link | None = None) -> None:
        self._call = call
        self.link = link
        # For the runner: what was set or touched, else nothing.
        self.new_status = 0
        self.touched_headers: Headers | None = None
        self._body: Body = None
        self.raw_body: bytes | None = None
        self._upstream_body: tuple[bytes | None] | None = None
        self._asking: asyncio.Lock | None = None
        self.unread: set[str | InfoKind] | None = None  # as in the request
        self.in_coroutine = False
        self.plugin = ""
        self.coroutine: Awaitable[Any] | None = None  # the plugin's, while it is awaited
        self.stopped = False
        self.after: list[tuple[Callable[..., Any], tuple[Any, ...]]] | None = None
        self.running: tuple[str, float | None, float] | None = None

    @property
    def status_code(self) -> int:
        """The status: 0 in the request phase until it is set, the upstream's in the response phase.

        Raises:
            TypeError: set to something else than int.
            ValueError: set to a number outside 100 to 599.
        """
        if self.new_status or self._call is None:
            return self.new_status
        return self._call.status

    @status_code.setter
    def status_code(self, status: int) -> None:
        self.set_status(status)

    def set_status(self, status: int) -> None:
        """As ``status_code = status``; a call of this is quicker."""
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"response.status_code must be int, got {status!r}")
        if not 100 <= status <= 599:
            raise ValueError(f"response.status_code must be from 100 to 599, got {status}")
        self.new_status = int(status)

    @property
    def headers(self) -> Headers:
        """The headers, a mapping without case with several values a name (``add`` a second Set-Cookie)."""
        if self.touched_headers is None:
            self.touched_headers = Headers((self._call.headers or ()) if self._call is not None else ())
        return self.touched_headers

    @headers.setter
    def headers(self, headers: FieldsLike) -> None:
        self.headers.replace(headers)

    @property
    def body(self) -> Body:
        """The body: what was set, else the upstream's in the response phase (bytes), else None.

        Set it to bytes, str (sent as UTF-8), or a dict or list (sent as JSON, with its Content-Type); it is encoded
        then, and a later change of the dict or list is not seen. None takes back what was set. The gateway cannot send
        an empty body in place of one: in the request phase it shows its own page on some statuses, see the
        documentation; in the response phase a newline is sent.

        Raises:
            TypeError: set to something else.
            ValueError: set to more than the protocol can carry.
            GatewayError, WrongColour: read in the response phase, as `Request.body`.
        """
        if self.raw_body is not None or self._call is None:
            return self._body
        if self.unread:
            self.unread.discard(InfoKind.RESP_BODY)
        if self._upstream_body is None:
            self._check_colour(False, "await response.read_body()")
            self._upstream_body = (self._asked().ask((_BODY,))[0],)
        return self._upstream_body[0]

    @body.setter
    def body(self, body: Body) -> None:
        if body is None:
            self._body = self.raw_body = None
        else:
            self.set_body(body)

    def set_body(self, body: bytes | str | Mapping[str, Any] | list[Any]) -> None:
        """As ``body = body``; a call of this is quicker."""
        self.raw_body = to_bytes(body, "response.body")
        self._body = body
        if (
            not isinstance(body, str | bytes)
            and isinstance(body, Mapping | list | tuple)
            and not self.headers.is_set("content-type")
        ):
            self.headers["Content-Type"] = "application/json"

    async def read_body(self) -> bytes | None:
        """The upstream's body in the response phase, for ``async def`` plugins."""
        if self.raw_body is not None or self._call is None:
            return self.raw_body
        if self.unread:
            self.unread.discard(InfoKind.RESP_BODY)
        if self._upstream_body is None:
            self._check_colour(True, "response.body")
            if self._asking is None:
                self._asking = asyncio.Lock()
            async with self._asking:  # a second ask would be answered with nothing
                if self._upstream_body is None:
                    self._upstream_body = ((await self._asked().ask_async((_BODY,)))[0],)
        return self._upstream_body[0]

    def json(self) -> Any:
        """The upstream's body, decoded from JSON, in the response phase.

        Raises:
            ValueError: there is no body, or it is not JSON (`msgspec.DecodeError`).
            GatewayError, WrongColour: as `body`.
        """
        return from_json(self._raw_of(self.body))

    async def read_json(self) -> Any:
        """As `json`, for ``async def`` plugins."""
        return from_json(await self.read_body())

    def _raw_of(self, body: Body) -> bytes | None:
        return self.raw_body if self.raw_body is not None else body if isinstance(body, bytes) else None

    def was_told(self, body: bytes | None) -> None:
        """Take the upstream's body, which was asked before the call ran. For the runner."""
        self._upstream_body = (body,)

    @property
    def upstream_status(self) -> int:
        """The upstream's status in the response phase, 0 in the request phase."""
        return 0 if self._call is None else self._call.status

    def _asked(self) -> Link:
        if self.link is None:
            raise RuntimeError("this response has no way to the gateway")
        return self.link

    def _check_colour(self, coroutine: bool, instead: str) -> None:
        if self.in_coroutine is not coroutine:
            kind = "an async def" if self.in_coroutine else "a def"
            raise WrongColour(f"this plugin is {kind} plugin: write {instead} here")

    def __repr__(self) -> str:
        return f"<Response {self.status_code}>"
