"""From what plugins did to a request and a response to the answer that the gateway gets.

Rules that live here (APISIX ext-plugin/init.lua, `rpc_handlers`):
- Nothing changed is no action; a changed field is sent, an unchanged one is not.
- A rewritten request header has one value: of repeated names the gateway takes the last. So several are joined.
- Names of rewritten request headers go out in lower case: 3.17 and older cache them as written.
- Before 3.16 a path without arguments in the same answer loses the query. To remove an argument that is not there
  keeps them all as they are.
- In post-req, arguments without a path are lost once the path was rewritten. The path goes with them.
- A Stop always has a status: on 2.7 status 0 without a body does not stop.
- Headers that frame a message are never sent: they would be those of another message.
"""

from apisix.runner.http.fields import Args, Headers
from apisix.runner.http.request import UNSENDABLE, Request
from apisix.runner.http.response import Response
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import Rewrite, Stop

Version = tuple[int, int, int]
_new = tuple.__new__  # of a named tuple: without the detour through its own, which is Python
PATH_KEEPS_QUERY: Version = (3, 16, 0)


def stop_action(response: Response) -> Stop:
    """The answer to the client, of a plugin that said stop."""
    headers = response.touched_headers
    pairs = None if headers is None else headers.pairs_without(UNSENDABLE)
    return _new(Stop, (response.new_status or 200, pairs or None, response.raw_body))


def rewrite_action(request: Request, response: Response, version: Version | None) -> Rewrite | None:
    """What changes before the request goes on; None where nothing does.

    Args:
        request: as the plugins left it.
        response: its headers are added to the client's response.
        version: the gateway's, None where it is not known.
    """
    path = request.new_path
    args = _changed_args(request.touched_args) if request.touched_args is not None else None
    if path is not None and not args and (version is None or version < PATH_KEEPS_QUERY):
        args = _no_change_of_args(request)
    elif args and path is None and request.was_rewritten:
        path = request.path
    headers = _changed_headers(request.touched_headers) if request.touched_headers is not None else None
    added = response.touched_headers
    resp_headers = added.pairs() if added is not None else None
    body = request.new_body
    if path is None and not args and not headers and not resp_headers and body is None:
        return None
    return _new(Rewrite, (path, headers or None, args or None, resp_headers or None, body))


RESPONSE_UNSENDABLE = frozenset({"connection", "transfer-encoding"})
NO_BODY_STATUSES = frozenset({204, 304})
PLACEHOLDER = b"\n"
"""The least body that the gateway takes for one."""
PLACEHOLDER_HEADER = ("Server", "APISIX")
"""Sent where no header is left: without any the gateway takes the upstream's. This one it always sets itself."""


def has_no_body(response: Response) -> bool:
    """Whether the status says that there is no body: the upstream's, or the one that was set."""
    return response.status_code in NO_BODY_STATUSES or response.upstream_status in NO_BODY_STATUSES


def response_parts(response: Response, method: str | None) -> tuple[int, list[tuple[str, str]], bytes | None]:
    """Status, headers and body of the answer in the response phase.

    All headers are sent, changed or not: with none the gateway drops Content-Type and nine others, and one alone
    would replace them all. So where none is left there is a placeholder. Where the client gets no body anyway (204,
    304, HEAD) a placeholder keeps the gateway from calling the upstream a second time, whose answer would win over this
    one (ext-plugin-post-resp.lua). So it does where a plugin set the body to empty, or stopped without one: the gateway
    would send the upstream's, which the plugin took away.

    Args:
        response: as the plugins left it.
        method: the request's, None where it is not known.
    """
    body = response.raw_body
    if body is None and response.stopped:
        body = b""  # the plugin has answered: nothing of the upstream's body is shown
    left_out = RESPONSE_UNSENDABLE
    if response.headers.is_set("content-length"):
        left_out = left_out | {"content-length"}
    if body is not None:
        left_out = left_out | {"content-length", "content-encoding"}
        body = body or PLACEHOLDER
    elif has_no_body(response):
        left_out = left_out | {"content-length"}
        body = PLACEHOLDER
    elif method == "HEAD":
        body = PLACEHOLDER
    return response.new_status, response.headers.pairs_without(left_out) or [PLACEHOLDER_HEADER], body


def ignored_by(version: Version | None, rewrite: Rewrite) -> list[str]:
    """What the gateway does not look at, with the version that it needs (contract, "Versions").

    Args:
        version: the gateway's; None where it is not known: then, what no gateway looks at.
        rewrite: the answer.

    Example:
        >>> ignored_by((2, 15, 3), Rewrite(body=b"new"))
        ['request.body (APISIX 3.6)']
    """
    ignored = [
        f"response header {name} without self.stop() (no APISIX adds it)"
        for name, _ in rewrite.resp_headers or ()
        if name.lower() in NEVER_ADDED
    ]
    if version is None:
        return ignored
    if rewrite.resp_headers and version < (2, 13, 0):
        ignored.append("response.headers without self.stop() (APISIX 2.13)")
    if rewrite.body is not None and version < (3, 6, 0):
        ignored.append("request.body (APISIX 3.6)")
    return ignored


NEVER_ADDED = frozenset(
    {"connection", "content-length", "transfer-encoding", "location", "server", "www-authenticate"}
    | {"content-encoding", "content-type", "content-location", "content-language"}
)


def ignored_in_response(version: Version, response: Response) -> list[str]:
    """The same for the response phase, where those headers can be changed from 3.2 on."""
    headers = response.touched_headers
    if headers is None or version >= (3, 2, 0):
        return []
    changed = sorted(name for name, _ in headers.changes() if name.lower() in NEVER_ADDED)
    return [f"response header {name} (APISIX 3.2)" for name in changed]


def _changed_headers(headers: Headers) -> list[Pair]:
    changed: list[Pair] = []
    for name, values in headers.changes():
        if values is None:
            changed.append((name, None))
        else:
            changed.append((name, ("; " if name == "cookie" else ", ").join(values)))
    return changed


def _changed_args(args: Args) -> list[Pair]:
    changed: list[Pair] = []
    for name, values in args.changes():
        if values is None:
            changed.append((name, None))
        else:
            for value in values:
                changed.append((name, value))
    return changed


def _no_change_of_args(request: Request) -> list[Pair]:
    if not request.args:
        return []
    name = "_"
    while name in request.args:
        name += "_"
    return [(name, None)]
