"""The request as a plugin sees it, and what it changes about it.

Rules that live here:
- Everything is decoded when first touched, and asked of the gateway at most once a call.
- What is set is what the upstream gets; what is not touched is not sent.
- Text that is not UTF-8 survives: it is decoded with surrogateescape.
- A ``def`` plugin waits with `var`, `vars`, `body`, `json`; an ``async def`` plugin awaits `read_var`, `read_vars`,
  `read_body`, `read_json`. The wrong one raises and names the right one.
"""

import asyncio
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import SimpleNamespace
from typing import Any

import msgspec

from apisix.runner.http.fields import Args, FieldsLike, Headers, check_text
from apisix.runner.http.link import GatewayError, Link, WrongColour
from apisix.runner.wire.frame import MAX_BODY
from apisix.runner.wire.messages import METHODS, ExtraInfoReq, HTTPReqCallReq, InfoKind

UNSENDABLE = frozenset({"content-length", "transfer-encoding", "connection"})
"""Headers that frame a message. The gateway computes them; a plugin that set one would corrupt the message."""

UPSTREAM_URI = "upstream_uri"
_BODY = ExtraInfoReq(InfoKind.REQ_BODY)


class RequestHeaders(Headers):
    """Headers of a request: those that frame the message are read-only, and it always has a host."""

    __slots__ = ()

    _read_only = UNSENDABLE
    _kept = UNSENDABLE | {"host"}


class Request:
    """One request, in the request phase.

    Args:
        call: the decoded frame.
        link: the way to the gateway for variables and bodies.
        post_req: the call comes from ext-plugin-post-req, where the path may be percent-encoded (see `was_rewritten`).

    Example:
        >>> def filter(self, request, response):
        ...     if "authorization" not in request.headers:
        ...         self.stop(401, {"error": "no token"})
        ...     request.headers["X-User"] = "anna"
        ...     request.args["page"] = "1"
    """

    __slots__ = (
        "_asking",
        "_body",
        "_call",
        "_path",
        "_path_was",
        "_post_req",
        "_state",
        "_vars",
        "in_coroutine",
        "link",
        "new_body",
        "touched_args",
        "touched_context",
        "touched_headers",
        "unread",
    )

    def __init__(self, call: HTTPReqCallReq, link: Link, post_req: bool = False) -> None:
        self._call = call
        self.link = link  # for the runner, as what was set or touched
        self._post_req = post_req
        self.touched_headers: RequestHeaders | None = None
        self.touched_args: Args | None = None
        self._path: str | None = None
        self._path_was: str | None = None
        self._body: tuple[bytes | None] | None = None
        self.new_body: bytes | None = None
        self._vars: dict[str, bytes | None] | None = None
        self._state: SimpleNamespace | None = None
        self.touched_context: dict[str, Any] | None = None
        self._asking: asyncio.Lock | None = None
        self.unread: set[str | InfoKind] | None = None  # what was asked before the call ran, and was not read
        self.in_coroutine = False

    @property
    def id(self) -> int:
        """The gateway's number of this call; 0 is one too. The two phases of a request have different ones."""
        return self._call.id

    @property
    def conf_token(self) -> int:
        """The token of the conf that this call runs."""
        return self._call.conf_token

    @property
    def remote_addr(self) -> IPv4Address | IPv6Address:
        """The client's address, after the gateway's real-ip handling."""
        return ip_address(self._call.src_ip)

    @property
    def method(self) -> str:
        """The method, for example ``GET``."""
        return METHODS[self._call.method]

    @property
    def path(self) -> str:
        """The path, decoded and without the query.

        Set it to send the request elsewhere: it begins with ``/`` and is not percent-encoded, the gateway does that
        (so a ``?`` in it becomes ``%3F``; the query belongs to `args`). The query is kept.

        Raises:
            TypeError: set to something else than str.
            ValueError: set to a path that does not begin with ``/``, or to what is no Unicode.
        """
        if self._path is None:
            path = self._call.path or "/"
            if "%" in path and self.was_rewritten:
                path = _unquote(path)
            self._path = self._path_was = path
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        if not isinstance(path, str):
            raise TypeError(f"request.path must be str, got {type(path).__name__}")
        if not path.startswith("/"):
            raise ValueError(f"request.path must begin with '/', got {path!r}")
        check_text(path, "request.path")
        if self._path is None:
            _ = self.path  # what it was, to tell a change from none
        self._path = path

    @property
    def args(self) -> Args:
        """The arguments of the query, a mapping with several values a name."""
        if self.touched_args is None:
            call = self._call  # of the call alone: with the request it would be a circle
            self.touched_args = Args(lambda: call.args_by_name or call.args or ())
        return self.touched_args

    @args.setter
    def args(self, args: FieldsLike) -> None:
        self.args.replace(args)

    @property
    def headers(self) -> Headers:
        """The headers, a mapping without case. Setting ``host`` changes the upstream's host too.

        The gateway takes one value a name here: several are joined with a comma (cookies with a semicolon).
        """
        if self.touched_headers is None:
            call = self._call
            self.touched_headers = RequestHeaders(lambda: call.headers_by_name or call.headers or ())
        return self.touched_headers

    @headers.setter
    def headers(self, headers: FieldsLike) -> None:
        self.headers.replace(headers)

    @property
    def state(self) -> SimpleNamespace:
        """Room for what belongs to this call; later plugins of the conf see it. A plugin itself is shared by calls."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    @property
    def context(self) -> dict[str, Any]:
        """A small dict of what JSON can hold, for later plugins of the conf and for the response phase of this request.

        It stays in the runner: neither the client nor the upstream sees it or can forge it. To keep it for the
        response phase costs one round trip to the gateway, where anything is in it.
        """
        if self.touched_context is None:
            self.touched_context = {}
        return self.touched_context

    # Asked of the gateway.

    def var(self, name: str) -> str | None:
        """A variable of nginx or APISIX, for example ``request_uri``; None where it is not set. APISIX 2.9.

        Raises:
            GatewayError: the gateway does not answer; before 2.9 it closes the connection.
            WrongColour: in an ``async def`` plugin.
        """
        return self._vars_asked((name,), "await request.read_var(name)")[name]

    def vars(self, *names: str) -> dict[str, str | None]:
        """Several variables in one round trip.

        Raises:
            GatewayError: the gateway does not answer; before 2.9 it closes the connection.
            WrongColour: in an ``async def`` plugin.
        """
        return self._vars_asked(names, "await request.read_vars(...)")

    async def read_var(self, name: str) -> str | None:
        """As `var`, for ``async def`` plugins."""
        return (await self.read_vars(name))[name]

    async def read_vars(self, *names: str) -> dict[str, str | None]:
        """As `vars`, for ``async def`` plugins."""
        if self._unknown(names):
            self._check_colour(True, "request.vars(...)")
            async with self._one_at_a_time():
                asks = self._unknown(names)
                if asks:
                    self._remember(asks, await self.link.ask_async(asks))
        return self._known(names)

    @property
    def body(self) -> bytes | None:
        """The whole body; None where the request has none. APISIX 2.12.

        Set it (bytes, str, or a dict or list, sent as JSON) to replace it: APISIX 3.6. It cannot be set to empty.

        Raises:
            GatewayError: the gateway does not answer, or the body is larger than the protocol can carry.
            WrongColour: in an ``async def`` plugin.
            ValueError: set to nothing.
        """
        if self.new_body is not None:
            return self.new_body
        if self.unread:
            self.unread.discard(InfoKind.REQ_BODY)
        if self._body is None:
            self._check_colour(False, "await request.read_body()")
            self.check_body_length()
            self._body = (self.link.ask((_BODY,))[0],)
        return self._body[0]

    @body.setter
    def body(self, body: "bytes | str | Mapping[str, Any] | list[Any]") -> None:
        raw = to_bytes(body, "request.body")
        if not raw:
            raise ValueError("request.body cannot be set to empty: the gateway would keep the old body")
        self.new_body = raw

    async def read_body(self) -> bytes | None:
        """As `body`, for ``async def`` plugins."""
        if self.new_body is not None:
            return self.new_body
        if self.unread:
            self.unread.discard(InfoKind.REQ_BODY)
        if self._body is None:
            self._check_colour(True, "request.body")
            self.check_body_length()
            async with self._one_at_a_time():
                if self._body is None:
                    self._body = ((await self.link.ask_async((_BODY,)))[0],)
        return self._body[0]

    def json(self) -> Any:
        """The body, decoded from JSON.

        Raises:
            ValueError: there is no body, or it is not JSON (`msgspec.DecodeError`).
            GatewayError, WrongColour: as `body`.
        """
        return from_json(self.body)

    async def read_json(self) -> Any:
        """As `json`, for ``async def`` plugins."""
        return from_json(await self.read_body())

    def _vars_asked(self, names: tuple[str, ...], instead: str) -> dict[str, str | None]:
        asks = self._unknown(names)
        if asks:
            self._check_colour(False, instead)
            self._remember(asks, self.link.ask(asks))
        return self._known(names)

    def _one_at_a_time(self) -> asyncio.Lock:
        """Held while asking: other coroutines of the call may want the same, and it is asked once."""
        if self._asking is None:
            self._asking = asyncio.Lock()
        return self._asking

    def _unknown(self, names: tuple[str, ...]) -> list[ExtraInfoReq]:
        if self._vars is None:
            self._vars = {}
        known = self._vars
        if self.unread:
            self.unread.difference_update(names)
        for name in names:
            if not isinstance(name, str) or not name:
                raise TypeError(f"a variable's name must be str and not empty, got {name!r}")
        return [ExtraInfoReq(InfoKind.VAR, name) for name in dict.fromkeys(names) if name not in known]

    def _remember(self, asks: list[ExtraInfoReq], results: list[bytes | None]) -> None:
        known = self._vars
        assert known is not None  # _unknown made it
        for ask, result in zip(asks, results, strict=True):
            known[ask.name or ""] = result

    def _known(self, names: tuple[str, ...]) -> dict[str, str | None]:
        known = self._vars
        assert known is not None
        return {name: to_text(known[name]) for name in names}

    def _check_colour(self, coroutine: bool, instead: str) -> None:
        if self.in_coroutine is not coroutine:
            kind = "an async def" if self.in_coroutine else "a def"
            raise WrongColour(f"this plugin is {kind} plugin: write {instead} here")

    def was_told(self, ask: ExtraInfoReq, result: bytes | None) -> None:
        """Take what was asked before the call ran. For the runner."""
        if ask.name is None:
            self._body = (result,)
        else:
            if self._vars is None:
                self._vars = {}
            self._vars[ask.name] = result

    def check_body_length(self) -> None:
        """Raise GatewayError where the body is larger than the protocol can carry."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY - 64:
            raise GatewayError(
                f"the request's body has {length} bytes, more than the protocol can carry ({MAX_BODY}); "
                "look at the content-length header before you ask for a body"
            )

    # What is sent back.

    @property
    def was_rewritten(self) -> bool:
        """Whether a path for the upstream was set before this call, by proxy-rewrite or in pre-req.

        Then the path came percent-encoded, and arguments cannot be changed without it. The gateway's variable
        ``upstream_uri`` tells; where it was not asked, post-req says yes.
        """
        return self._post_req and bool((self._vars or {}).get(UPSTREAM_URI, b"?"))

    @property
    def new_path(self) -> str | None:
        """The path, where it was changed."""
        return self._path if self._path != self._path_was else None

    @property
    def has_percent_sign(self) -> bool:
        """Whether the path, as it came, has what may be percent-encoding."""
        return "%" in (self._call.path or "")

    @property
    def has_new_args(self) -> bool:
        """Whether arguments were changed, and the path was not."""
        return self.touched_args is not None and self.touched_args.changed and self.new_path is None

    def __repr__(self) -> str:
        return f"<Request {self.id} {self.method} {self.path}>"


def to_text(raw: bytes | None) -> str | None:
    """Bytes as text that survives a round trip."""
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def from_json(body: bytes | None) -> Any:
    """A body, decoded from JSON.

    Raises:
        ValueError: there is none, or it is not JSON.
    """
    if body is None:
        raise ValueError("there is no body to decode from JSON")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise ValueError("the body's JSON is nested too deeply") from None


def to_bytes(body: "bytes | str | Mapping[str, Any] | list[Any]", what: str) -> bytes:
    """A body as bytes: text as UTF-8, a mapping or list as JSON.

    Raises:
        TypeError: it is something else, or holds what JSON cannot.
        ValueError: it is larger than a frame can carry.
    """
    if isinstance(body, bytes):
        raw = body
    elif isinstance(body, str):
        raw = body.encode("utf-8", "surrogateescape")
    elif isinstance(body, bytearray | memoryview):
        raw = bytes(body)
    elif isinstance(body, Mapping | list | tuple):
        raw = msgspec.json.encode(body)
    else:
        raise TypeError(f"{what} must be bytes, str, or a dict or list for JSON, got {type(body).__name__}")
    if len(raw) > MAX_BODY:
        raise ValueError(f"{what} has {len(raw)} bytes, more than the protocol can carry ({MAX_BODY})")
    return raw


def _unquote(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path, "utf-8", "surrogateescape")
