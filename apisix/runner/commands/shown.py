"""What a call did, as lines to read and as JSON.

Rules that live here: a request or response is shown whole, as HTTP writes it; what was taken away begins with -, what
was added with +. A body that is no text is shown by its length, and in JSON as Base64.
"""

import base64
import difflib
import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from apisix.runner.commands.calls import Given, Outcome
from apisix.runner.testing.results import RequestResult, ResponseResult, Upstream
from apisix.runner.wire.flatbuf import Pair

MOST_SHOWN = 64 * 1024  # bytes of a body


def as_text(outcome: Outcome, given: Given) -> Iterator[str]:
    """Lines for the author."""
    if outcome.request is not None:
        yield from _request_text(outcome.plugin, outcome.request, given.sent())
    if outcome.response is not None:
        if outcome.request is not None:
            yield ""
        yield from _response_text(outcome.plugin, outcome.response, given)


def _request_text(plugin: str, result: RequestResult, sent: Upstream) -> Iterator[str]:
    if result.stopped:
        yield f"{plugin}, request phase: answers the client; the upstream is not called"
        yield ""
        yield from (f"+ {line}".rstrip() for line in _answer(result.status, result.headers.pairs(), result.body))
        return
    assert result.upstream is not None
    before, after = _message(sent), _message(result.upstream)
    changed = "unchanged" if before == after else "changed"
    yield f"{plugin}, request phase: the request goes on, {changed}"
    yield ""
    yield from _diff(before, after)
    if result.headers:
        yield ""
        yield "The client's response gets:"
        yield from (f"+ {name}: {value}" for name, value in result.headers.pairs())


def _response_text(plugin: str, result: ResponseResult, given: Given) -> Iterator[str]:
    before = _answer(given.status, given.upstream_headers, given.upstream_body)
    after = _answer(result.status, result.headers.pairs(), result.body)
    yield f"{plugin}, response phase: the response goes on, {'unchanged' if before == after else 'changed'}"
    yield ""
    yield from _diff(before, after)


def _diff(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """All lines: those in both with spaces before them, others with what became of them."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, first, last, new_first, new_last in matcher.get_opcodes():
        if kind == "equal":
            yield from (f"  {line}".rstrip() for line in before[first:last])
        else:
            yield from (f"- {line}".rstrip() for line in before[first:last])
            yield from (f"+ {line}".rstrip() for line in after[new_first:new_last])


def _message(request: Upstream) -> list[str]:
    return [
        f"{request.method} {_target(request)}",
        *(f"{name}: {value}" for name, value in request.headers.pairs()),
        *_body_lines(request.body),
    ]


def _answer(status: int, headers: Sequence[Pair], body: bytes | None) -> list[str]:
    return [_status_line(status), *(f"{name}: {value}" for name, value in headers), *_body_lines(body)]


def _status_line(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _target(request: Upstream) -> str:
    path = quote(request.path, errors="surrogateescape")
    query = urlencode(request.args.pairs(), errors="surrogateescape")
    return f"{path}?{query}" if query else path


def _body_lines(body: bytes | None) -> list[str]:
    """A body below an empty line; nothing where there is none."""
    if not body:
        return []
    try:
        text = body[:MOST_SHOWN].decode("utf-8")
    except UnicodeDecodeError:
        return ["", f"({len(body)} bytes that are no text)"]
    cut = [f"({len(body) - MOST_SHOWN} bytes more)"] if len(body) > MOST_SHOWN else []
    return ["", *text.splitlines(), *cut]


def as_json(outcome: Outcome, given: Given) -> str:
    """One object, for programs."""
    described: dict[str, Any] = {"plugin": outcome.plugin, "failure": outcome.failure or None}
    if outcome.request is not None:
        described["request"] = _request_json(outcome.request, given.sent())
    if outcome.response is not None:
        described["response"] = {
            "before": _answer_json(given.status, given.upstream_headers, given.upstream_body),
            "after": _answer_json(outcome.response.status, outcome.response.headers.pairs(), outcome.response.body),
        }
    return json.dumps(described, indent=2)


def _request_json(result: RequestResult, sent: Upstream) -> dict[str, Any]:
    described: dict[str, Any] = {"stopped": result.stopped, "before": _message_json(sent)}
    if result.upstream is not None:
        described["after"] = _message_json(result.upstream)
        described["response_headers"] = result.headers.pairs()
    else:
        described["answer"] = _answer_json(result.status, result.headers.pairs(), result.body)
    return described


def _message_json(request: Upstream) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "args": request.args.pairs(),
        "headers": request.headers.pairs(),
        **_body_json(request.body),
    }


def _answer_json(status: int, headers: Sequence[Pair], body: bytes | None) -> dict[str, Any]:
    return {"status": status, "headers": list(headers), **_body_json(body)}


def _body_json(body: bytes | None) -> dict[str, str | None]:
    if body is None:
        return {"body": None}
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body": None, "body_base64": base64.b64encode(body).decode("ascii")}
