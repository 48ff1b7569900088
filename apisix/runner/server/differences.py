"""Differences: what a plugin has changed about a request and a response.

Rules that live here: what is compared in which phase; nothing is asked of the gateway for it; a field that cannot be
read is left out, and the call goes on as if nobody had looked.
"""

import contextlib

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.inspection import MOST_BODY, MOST_CHARACTERS, MOST_LINES, Change, shown, shown_body
from apisix.runner.plugin.registry import REQUEST

Seen = dict[tuple[str, str], list[str]]
"""What there is to change, as it was at one moment: values by part and name."""


def seen(phase: str, request: Request, response: Response) -> Seen:
    """What a plugin may change, as it is now. Nothing is asked of the gateway for it."""
    found: Seen = {}
    with contextlib.suppress(Exception):
        if phase == REQUEST:
            found["path", ""] = [request.path]
            for name in request.args:
                found["argument", name] = request.args.getall(name)
            for name in request.headers:
                found["request header", name.lower()] = request.headers.getall(name)
            if request.new_body is not None:
                found["request body", ""] = [shown_body(request.new_body).text]
    with contextlib.suppress(Exception):
        headers = response.touched_headers if phase == REQUEST else response.headers
        for name in headers or ():
            found["response header", name.lower()] = headers.getall(name) if headers is not None else []
    if response.status_code:
        found["status", ""] = [str(response.status_code)]
    if response.raw_body is not None:
        found["response body", ""] = [shown_body(response.raw_body).text]
    if phase == REQUEST:  # in the other one it is only looked at
        for key, value in (request.touched_context or {}).items():
            with contextlib.suppress(Exception):
                found["context", str(key)] = [msgspec.json.encode(value).decode()]
    return found


def changes(before: Seen, after: Seen) -> list[Change]:
    """The differences between before and after, at most `MOST_LINES`."""
    found: list[Change] = []
    for part, name in dict.fromkeys([*before, *after]):
        old, new = before.get((part, name)), after.get((part, name))
        if old != new:
            limit = MOST_BODY if part.endswith("body") else MOST_CHARACTERS
            found.append(Change(part, shown(name), _shown_all(old, limit), _shown_all(new, limit)))
    return found[:MOST_LINES]


def _shown_all(values: list[str] | None, most: int) -> list[str] | None:
    return None if values is None else [shown(value, most) for value in values[:MOST_LINES]]
