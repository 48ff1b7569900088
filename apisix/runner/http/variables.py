"""The request as it is seen from the response phase: through the gateway's variables.

Rules that live here:
- HTTPRespCall carries no method, path, arguments or request headers; each is a variable, asked when first used
  (APISIX 3.0 and newer answer in this phase).
- The request was sent long ago: nothing of it can be changed.
- An ``async def`` plugin awaits `read_vars` with the variables' names first; then the attributes answer.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec

from apisix.runner.http.fields import Args, FieldsLike, Headers
from apisix.runner.http.link import Link
from apisix.runner.http.request import Request
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import HTTPReqCallReq, encode_http_req_call_req

_SENT = "the request was sent already: in the response phase it cannot be changed"


class ResponsePhaseRequest(Request):
    """One request, in the response phase.

    Args:
        id: the gateway's number of the call.
        link: the way to the gateway.
        conf_token: of the conf that the call runs.

    Example:
        >>> def filter_response(self, request, response):
        ...     if request.method == "GET" and request.headers.get("x-debug"):
        ...         response.headers["X-Path"] = request.path
    """

    __slots__ = ("_conf_token", "_id")

    def __init__(self, id: int, link: Link, conf_token: int = 0) -> None:
        super().__init__(_NO_CALL, link)
        self._id = id
        self._conf_token = conf_token

    @property
    def id(self) -> int:
        """The gateway's number of this call; not the one that the request had in the request phase."""
        return self._id

    @property
    def conf_token(self) -> int:
        """The token of the conf that this call runs."""
        return self._conf_token

    @property
    def remote_addr(self) -> IPv4Address | IPv6Address:
        """The client's address: variable ``remote_addr``."""
        return ip_address(self._variable("remote_addr"))

    @property
    def method(self) -> str:
        """The method: variable ``request_method``."""
        return self._variable("request_method")

    @property
    def path(self) -> str:
        """The path, decoded: variable ``uri``. It cannot be changed."""
        return self._variable("uri")

    @path.setter
    def path(self, path: str) -> NoReturn:
        raise RuntimeError(_SENT)

    @property
    def args(self) -> Args:
        """The arguments of the query: variable ``args``. They cannot be changed."""
        if self.touched_args is None:
            self.touched_args = _FixedArgs(parse_query(self._variable("args")))
        return self.touched_args

    @args.setter
    def args(self, args: FieldsLike) -> NoReturn:
        raise RuntimeError(_SENT)

    @property
    def headers(self) -> Headers:
        """The headers, each through its variable ``http_<name>``: they can be looked up, not listed or changed."""
        return _VariableHeaders(self)

    @headers.setter
    def headers(self, headers: FieldsLike) -> NoReturn:
        raise RuntimeError(_SENT)

    @property
    def body(self) -> bytes | None:
        """The whole body, as the gateway got it; None where the request has none. It cannot be changed."""
        return super().body

    @body.setter
    def body(self, body: object) -> NoReturn:
        raise RuntimeError(_SENT)

    async def read_body(self) -> bytes | None:
        """As `body`, for ``async def`` plugins."""
        if self._body is None:
            await self.read_var("http_content_length")  # by which its length is checked
        return await super().read_body()

    @property
    def context(self) -> dict[str, Any]:
        """What the request phase left (variable ``request_id`` finds it). Changes are seen by later plugins only."""
        if self.touched_context is None:
            kept = self.link.kept_context(self._variable("request_id"))
            self.touched_context = {} if kept is None else msgspec.json.decode(kept, type=dict[str, Any])
        return self.touched_context

    def known_method(self) -> str | None:
        """The method, where it was asked for already."""
        known = (self._vars or {}).get("request_method")
        return None if known is None else known.decode("ascii", "replace")

    def _variable(self, name: str) -> str:
        value = self._vars_asked((name,), f"await request.read_var({name!r})")[name]
        return "" if value is None else value

    def __repr__(self) -> str:
        return f"<Request {self._id} in the response phase>"


_NO_CALL = HTTPReqCallReq(encode_http_req_call_req(0, b"", 0, None, None, None, 0))


class _FixedArgs(Args):
    __slots__ = ()

    def _check(self, name: str, value: str) -> NoReturn:
        raise RuntimeError(_SENT)

    def __delitem__(self, name: str) -> None:
        raise RuntimeError(_SENT)


class _VariableHeaders(Headers):
    __slots__ = ("_request",)

    _copies_headers = False  # they cannot be listed

    def __init__(self, request: ResponsePhaseRequest) -> None:
        super().__init__()
        self._request = request

    def getall(self, name: str) -> list[str]:
        """The header's value as the variable has it: repeated ones are joined there."""
        variable = "http_" + name.lower().replace("-", "_")
        value = self._request._vars_asked((variable,), f"await request.read_var({variable!r})")[variable]
        return [] if value is None else [value]

    def _find(self, name: str) -> str | None:
        values = self.getall(name)
        return values[0] if values else None

    def __getitem__(self, name: str) -> str:
        value = self._find(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.getall(name))

    def __iter__(self) -> Iterator[str]:
        raise TypeError("in the response phase the request's headers can be looked up by name, not listed")

    def __len__(self) -> int:
        return len(list(iter(self)))

    def pairs(self) -> list[tuple[str, str]]:
        """Not to be had in this phase."""
        return [(name, self[name]) for name in self]

    def _check(self, name: str, value: str) -> NoReturn:
        raise RuntimeError(_SENT)

    def __delitem__(self, name: str) -> None:
        raise RuntimeError(_SENT)

    def replace(self, fields: FieldsLike) -> None:
        """Not to be had in this phase."""
        raise RuntimeError(_SENT)

    def __repr__(self) -> str:
        return "<Headers through variables>"


def parse_query(query: str) -> Iterable[Pair]:
    """Arguments of a raw query, decoded as the gateway does: ``+`` is a space, bad escapes stay.

    Example:
        >>> list(parse_query("a=1&b=%20&flag"))
        [('a', '1'), ('b', ' '), ('flag', None)]
    """
    for part in query.split("&"):
        if part:
            name, sign, value = part.partition("=")
            yield _decode(name), _decode(value) if sign else None


def _decode(text: str) -> str:
    raw = unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")
