"""What a runner's answer does to the request and to the client's response.

Rules that live here: Stop, Rewrite and HTTPRespCall.Resp field by field, with the differences between versions; the
response headers that a runner cannot set. Source: the handlers of RPC_HTTP_REQ_CALL and RPC_HTTP_RESP_CALL in APISIX's
ext-plugin/init.lua, 2.7 to 3.18.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apisix.runner.gateway.errors import BrokenAnswer
from apisix.runner.gateway.exchange import Exchange
from apisix.runner.gateway.headers import Header
from apisix.runner.gateway.uri import Args, escape_path
from apisix.runner.gateway.versions import Feature
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import HTTPRespCallResp, Rewrite, Stop

RESERVED = frozenset(
    "connection content-length transfer-encoding location server www-authenticate "
    "content-encoding content-type content-location content-language".split()
)
"""Response headers that a rewrite, and on old versions a response-phase answer, cannot set."""


class Exit(NamedTuple):
    """Answer the client: with a body, or with what nginx has for the status."""

    status: int
    body: bytes | None


def apply_action(exchange: Exchange, action: Stop | Rewrite | None) -> Exit | None:
    """Do what an answer to HTTPReqCall says.

    Raises:
        BrokenAnswer: a header or an argument that APISIX cannot take.
    """
    if isinstance(action, Stop):
        return _stop(exchange, action)
    if isinstance(action, Rewrite):
        _rewrite(exchange, action)
    return None


def _stop(exchange: Exchange, stop: Stop) -> Exit | None:
    _set_response_headers(exchange, stop.headers or ())
    body = stop.body or None
    if stop.status == 0 and body is None and not exchange.version.has(Feature.STATUS_ZERO_STOPS):
        return None
    return Exit(stop.status or 200, body)


def _rewrite(exchange: Exchange, rewrite: Rewrite) -> None:
    version = exchange.version
    path = None if rewrite.path is None else escape_path(rewrite.path)
    if path is not None:
        exchange.upstream_uri = path
    for name, value in rewrite.headers or ():
        exchange.set_header(name, value)
        if name.lower() == "host":
            exchange.upstream_host = value or ""
    if rewrite.body and version.has(Feature.REWRITE_BODY):
        exchange.body = rewrite.body
    if version.has(Feature.RESP_HEADERS):
        allowed = [pair for pair in rewrite.resp_headers or () if pair[0].lower() not in RESERVED]
        _set_response_headers(exchange, allowed)
    if rewrite.args:
        exchange.set_args(_changed(exchange.args(), rewrite.args))
    if path is not None and version.has(Feature.PATH_KEEPS_QUERY):
        exchange.upstream_uri = f"{path}?{exchange.query}" if exchange.query else path
    elif path is not None and rewrite.args:
        exchange.upstream_uri = f"{path}?{exchange.query}"


def _changed(args: Args, changes: Sequence[Pair]) -> Args:
    changed: set[str] = set()
    for name, value in changes:
        if value is None:
            args.pop(name, None)
        elif name in changed:
            args.setdefault(name, []).append(value)
        else:
            args[name] = [value]
            changed.add(name)
    return args


def _set_response_headers(exchange: Exchange, headers: Iterable[Pair]) -> None:
    seen: set[str] = set()
    for name, value in headers:
        if not exchange.version.has(Feature.REPEATED_HEADERS):
            exchange.response.set(name, value)
        elif name.lower() not in seen:
            exchange.response.set(name.lower(), value)
            seen.add(name.lower())
        elif value is None:
            raise BrokenAnswer(f"the repeated response header {name} has no value")
        else:
            exchange.response.add(name.lower(), value)


def apply_response(exchange: Exchange, response: HTTPRespCallResp) -> Exit | None:
    """Do what an answer to HTTPRespCall says.

    Returns:
        status and body for the client, the body None for the upstream's; None where nothing changes.

    Raises:
        BrokenAnswer: a header that APISIX cannot take.
    """
    upstream = exchange.upstream_response
    assert upstream is not None
    keeps_all = exchange.version.has(Feature.RESPONSE_KEEPS_ALL)
    if response.headers:
        allowed = [pair for pair in response.headers if keeps_all or pair[0].lower() not in RESERVED]
        _set_response_headers(exchange, allowed)
    else:
        for name, values in grouped(upstream.headers).items():
            if name.lower() not in RESERVED:
                exchange.response.set(name, values)
    body = response.body or None
    status = response.status or (upstream.status if body is not None else 0)
    return Exit(status, body) if status else None


def grouped(headers: Iterable[Header]) -> dict[str, list[str]]:
    """Headers by name, repetitions together, each under the name that came first."""
    names: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(names.setdefault(name.lower(), name), []).append(value)
    return found
