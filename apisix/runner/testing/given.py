"""What a test gives, in the form in which the gateway has it: bodies, requests, variables, confs.

Rules that live here: a body that is neither bytes nor text is JSON; names of headers come in lower case; the variables
that follow from a request are set as nginx sets them.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from apisix.runner.http.fields import Args, FieldsLike, Headers, pairs_of
from apisix.runner.http.variables import parse_query
from apisix.runner.testing.results import Upstream
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import METHODS

Body = bytes | str | Mapping[str, Any] | Sequence[Any] | None


def encoded(body: Body) -> tuple[bytes | None, str | None]:
    """A body as it is sent, with the type that it has if a test gives none."""
    if body is None or isinstance(body, bytes):
        return body, None
    if isinstance(body, str):
        return body.encode("utf-8", "surrogateescape"), None
    return msgspec.json.encode(body), "application/json"


def arriving(method: str, target: str, headers: FieldsLike | None, body: Body) -> tuple[Upstream, list[Pair]]:
    """A request as it comes to the plugins, and its arguments with those that have no value.

    Raises:
        ValueError: the method or the target is none.
    """
    if method not in METHODS:
        raise ValueError(f"expected a method of {', '.join(METHODS)}, got {method!r}")
    if not target.startswith("/"):
        raise ValueError(f"expected a target that begins with '/', got {target!r}")
    parts = urlsplit(target)
    sent_headers = Headers((name.lower(), value) for name, value in pairs_of(headers or ()))
    raw, kind = encoded(body)
    if kind is not None:
        sent_headers.setdefault("content-type", kind)
    if raw is not None:
        sent_headers.setdefault("content-length", str(len(raw)))
    sent_headers.setdefault("host", "test")
    path = unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape")
    raw_args = list(parse_query(parts.query))
    return Upstream(method, path, Args(raw_args), sent_headers, raw or None), raw_args


def variables_of(sent: Upstream, target: str, remote_addr: str) -> dict[str, str | None]:
    """The variables that a request makes, as nginx has them."""
    _, _, query = target.partition("?")
    variables: dict[str, str | None] = {
        "request_method": sent.method,
        "uri": sent.path,
        "request_uri": target,
        "args": query,
        "query_string": query,
        "host": sent.headers["host"],
        "remote_addr": remote_addr,
        "content_length": sent.headers.get("content-length", ""),
        "content_type": sent.headers.get("content-type", ""),
    }
    for name in sent.headers:
        joint = "; " if name == "cookie" else ", "
        variables["http_" + name.replace("-", "_")] = joint.join(sent.headers.getall(name))
    for part in ";".join(sent.headers.getall("cookie")).split(";"):
        name, equals, value = part.strip().partition("=")
        if equals:
            variables.setdefault(f"cookie_{name}", value)
    for name, argument in parse_query(query):
        variables.setdefault(f"arg_{name}", "true" if argument is None else argument)
    return variables


def conf_text(value: object) -> str:
    """A conf's value as it stands in a route: text as it is, anything else as JSON; None is no value."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
