"""A request's way from its route to the client's response, plugin by plugin.

Rules that live here: the order of plugins is fixed by their priorities in APISIX (pre-req, proxy-rewrite, post-req, the
choice of a node, post-resp, the upstream); post-resp calls the upstream itself, and where there is no body to print,
nginx calls it once more; what nginx makes of a status without a body. Source: APISIX's init.lua, plugin.lua,
plugins/ext-plugin-post-resp.lua and core/response.lua, 3.18.
"""

import logging
from collections.abc import Sequence

from apisix.runner.gateway import proxy_rewrite, upstream
from apisix.runner.gateway.answers import Exit
from apisix.runner.gateway.client import ClientResponse
from apisix.runner.gateway.exchange import Exchange, UpstreamResponse
from apisix.runner.gateway.ext_plugin import RESPONSE_PLUGIN, Runner
from apisix.runner.gateway.headers import Header
from apisix.runner.gateway.pages import error_page
from apisix.runner.gateway.record import UpstreamCall
from apisix.runner.gateway.routes import Node, Upstream
from apisix.runner.gateway.schema import Timeout
from apisix.runner.gateway.upstream import UpstreamFailure

log = logging.getLogger(__name__)

NOT_PASSED_ON = frozenset("server connection keep-alive transfer-encoding content-length x-pad".split())
"""Headers of the upstream's response that nginx keeps to itself or writes anew."""

LUA_HTTP_AGENT = "lua-resty-http/0.16.1 (Lua) ngx_lua/10028"
"""What APISIX's own HTTP client calls itself in the response phase, where the client named no agent."""

UPSTREAM_STATUS = "X-APISIX-Upstream-Status"


async def run(exchange: Exchange, runner: Runner, target: Upstream | None, client: ClientResponse) -> None:
    """Run the plugins of the exchange's route, call its upstream `target`, and write the response to `client`.

    Raises:
        BrokenAnswer: the runner's answer cannot be read.
    """
    answer = await _request_phases(exchange, runner)
    if answer is not None:
        await finish(exchange, client, answer)
        return
    assert exchange.route is not None
    nodes = target.pick() if target is not None else []
    if target is None or not nodes:
        log.error("route %s: no valid upstream node", exchange.route.id)
        await finish(exchange, client, Exit(503, None))
        return
    exchange.node = nodes[0]
    _pass_host(exchange, target, nodes[0])
    timeout = exchange.route.conf.timeout or target.timeout
    answer = await _response_phase(exchange, runner, nodes, timeout)
    if answer is not None:
        await finish(exchange, client, answer)
    else:
        await _proxy(exchange, nodes, timeout, client)


async def _request_phases(exchange: Exchange, runner: Runner) -> Exit | None:
    assert exchange.route is not None
    for name in ("ext-plugin-pre-req", "proxy-rewrite", "ext-plugin-post-req"):
        conf = exchange.route.plugin(name)
        if conf is None:
            continue
        if name == "proxy-rewrite":
            proxy_rewrite.apply(exchange, conf)
        elif (answer := await runner.call(exchange, name, conf)) is not None:
            return answer
    return None


def _pass_host(exchange: Exchange, target: Upstream, node: Node) -> None:
    if target.pass_host == "rewrite":
        exchange.upstream_host = target.host
    elif target.pass_host == "node":
        exchange.upstream_host = node.host if node.port == 80 else node.address


async def _response_phase(exchange: Exchange, runner: Runner, nodes: Sequence[Node], timeout: Timeout) -> Exit | None:
    """Call the upstream on behalf of ext-plugin-post-resp; None where nginx has to call it (again)."""
    assert exchange.route is not None
    conf = exchange.route.plugin(RESPONSE_PLUGIN)
    if conf is None:
        return None
    path, mark, args = exchange.upstream_uri.partition("?")
    query = args if mark else exchange.query
    uri = (path or exchange.path) + ("?" + query if query else "")
    headers = _response_phase_headers(exchange)
    record = _recorded(exchange, nodes[0], uri, headers)
    try:
        async with upstream.call(nodes[:1], timeout, exchange.method, uri, headers, exchange.body) as response:
            _answered(record, response)
            pieces = await response.pieces()
            record.response_body.add(b"".join(pieces))
            record.end()
    except UpstreamFailure as error:
        record.end()
        record.failure = str(error)
        log.error("route %s: failed to request: %s", exchange.route.id, error)
        return Exit(502, None)
    exchange.upstream_response = UpstreamResponse(response.status, response.headers, pieces, response.bodyless)
    outcome = await runner.call(exchange, RESPONSE_PLUGIN, conf)
    if outcome is not None and outcome.body is not None:
        return outcome
    if not pieces:
        return None
    return Exit(outcome.status if outcome is not None else response.status, b"".join(pieces))


def _response_phase_headers(exchange: Exchange) -> list[Header]:
    """The request headers as plugins see them, which is how APISIX's own HTTP client sends them."""
    cache = {name: values for name, values in exchange.header_cache().items() if name != "transfer-encoding"}
    if exchange.body or "content-length" in cache:
        cache["content-length"] = [str(len(exchange.body))]
    headers = [(name, value) for name, values in cache.items() for value in values]
    if "user-agent" not in cache:
        headers.append(("User-Agent", LUA_HTTP_AGENT))
    if "host" not in cache:
        headers.append(("Host", exchange.upstream_host))
    return headers


async def _proxy(exchange: Exchange, nodes: Sequence[Node], timeout: Timeout, client: ClientResponse) -> None:
    """Let nginx call the upstream and pass the response on as it comes."""
    headers = exchange.upstream_headers()
    record = _recorded(exchange, nodes[0], exchange.upstream_target(), headers)
    try:
        async with upstream.call(nodes, timeout, exchange.method, record.target, headers, exchange.body) as response:
            _answered(record, response)
            lengths = [value for name, value in response.headers if name.lower() == "content-length"]
            length = int(lengths[0]) if lengths and not response.chunked else None
            await client.begin(response.status, _passed_on(exchange, response), length)
            async for piece in response.chunks():
                record.response_body.add(piece)
                await client.send(piece)
            record.end()
            await client.end()
    except UpstreamFailure as error:
        record.end()
        record.failure = str(error)
        assert exchange.route is not None
        log.error("route %s: %s", exchange.route.id, error)
        if client.started:
            client.break_off()
            return
        exchange.response.set(UPSTREAM_STATUS, str(error.status))
        await finish(exchange, client, Exit(error.status, None))


def _recorded(exchange: Exchange, node: Node, target: str, headers: Sequence[Header]) -> UpstreamCall:
    record = UpstreamCall(node.address, exchange.method, target, headers, exchange.body)
    exchange.record.upstream.append(record)
    return record


def _answered(record: UpstreamCall, response: upstream.Response) -> None:
    record.node = response.node.address
    record.status, record.response_headers = response.status, response.headers


def _passed_on(exchange: Exchange, response: upstream.Response) -> list[Header]:
    """Headers of the client's response: what plugins set, then the upstream's. Of one name the client gets both."""
    if response.status >= 500:
        exchange.response.set(UPSTREAM_STATUS, str(response.status))
    passed = [
        item
        for item in response.headers
        if item[0].lower() not in NOT_PASSED_ON and not item[0].lower().startswith("x-accel-")
    ]
    return [item for item in exchange.response if item[0].lower() != "content-length"] + passed


async def finish(exchange: Exchange, client: ClientResponse, answer: Exit) -> None:
    """Answer the client without the upstream: with a body, or with nginx's page for the status."""
    status, body = answer
    if not 200 <= status <= 599:
        log.error("a plugin answered with status %d: expected 200 to 599", status)
        status, body = 500, None
    headers = [item for item in exchange.response if item[0].lower() != "content-length"]
    page = error_page(status) if body is None else None
    if page is not None:
        headers = [item for item in headers if item[0].lower() != "content-type"] + [("Content-Type", "text/html")]
        await client.begin(status, headers, len(page))
        await client.send(page)
    else:
        announced = exchange.response.get("Content-Length") or ""
        length = int(announced) if announced.isascii() and announced.isdigit() else None
        if "Content-Type" not in exchange.response:
            headers.append(("Content-Type", "text/plain"))
        await client.begin(status, headers, length)
        await client.send(body or b"")
    await client.end()
