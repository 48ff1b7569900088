"""An exchange as the page gets it: plain values, bounded, and what became of it in a few words.

Rules that live here: the fields of the JSON; what counts as a failure; which plugin of a conf a run belongs to, since
they run in the conf's order, but one that was dropped on the way was not told.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from apisix.runner.gateway.exchange import Exchange
from apisix.runner.gateway.record import Body as Kept
from apisix.runner.gateway.record import ClientAnswer, RunnerCall, UpstreamCall
from apisix.runner.inspection import MOST_BODY, Body, PluginRun, shown, shown_body
from apisix.runner.wire.messages import Rewrite, Stop

MOST_HEADERS = 200
Headers = list[tuple[str, str]]
Runs = Mapping[int, Sequence[PluginRun]]
"""Runs of plugins by the gateway's number of the call."""


class Summary(msgspec.Struct, frozen=True):
    """A row of the list.

    Attributes:
        status: what the client got; 0 while it waits.
        outcome: what became of it, in a few words.
        failed: whether something went wrong that the author of a plugin wants to see.
        open: whether it goes on.
    """

    number: int
    started: float
    seconds: float | None
    method: str
    target: str
    route: str | None
    status: int
    outcome: str
    failed: bool
    open: bool


class RequestView(msgspec.Struct, frozen=True):
    """The client's request. `raw` is the body in base64 where it is short and no text."""

    method: str
    target: str
    protocol: str
    remote: str
    headers: Headers
    body: Body
    raw: str | None


class PluginView(msgspec.Struct, frozen=True):
    """A plugin of a conf, with its run: None where it did not run, or did not tell."""

    name: str
    conf: str
    run: PluginRun | None


class AskedView(msgspec.Struct, frozen=True):
    """What the gateway was asked for."""

    what: str
    value: Body | None


class CallView(msgspec.Struct, frozen=True):
    """A call of the runner."""

    plugin: str
    id: int | None
    started: float
    seconds: float | None
    plugins: list[PluginView]
    asked: list[AskedView]
    answer: str
    failure: str


class UpstreamView(msgspec.Struct, frozen=True):
    """A call of the upstream."""

    node: str
    started: float
    seconds: float | None
    method: str
    target: str
    headers: Headers
    body: Body
    status: int
    response_headers: Headers
    response_body: Body
    failure: str


class AnswerView(msgspec.Struct, frozen=True):
    """What the client got."""

    status: int
    headers: Headers
    body: Body


class Detail(msgspec.Struct, frozen=True):
    """All there is to see of an exchange."""

    summary: Summary
    route_id: str | None
    request: RequestView
    calls: list[CallView]
    upstream: list[UpstreamView]
    client: AnswerView


def summary(number: int, exchange: Exchange, runs: Runs) -> Summary:
    """The exchange's row."""
    route = exchange.route
    record = exchange.record
    outcome, failed = _outcome(exchange, runs)
    return Summary(
        number=number,
        started=record.started,
        seconds=record.seconds,
        method=shown(exchange.arrival.method),
        target=shown(exchange.arrival.target.raw),
        route=None if route is None else shown(route.name or route.id),
        status=record.client.status,
        outcome=outcome,
        failed=failed,
        open=record.seconds is None,
    )


def detail(number: int, exchange: Exchange, runs: Runs) -> Detail:
    """The whole exchange."""
    record = exchange.record
    return Detail(
        summary(number, exchange, runs),
        None if exchange.route is None else exchange.route.id,
        _request(exchange),
        [_call(call, runs) for call in record.runner],
        [_upstream(call) for call in record.upstream],
        _answer(record.client),
    )


def _outcome(exchange: Exchange, runs: Runs) -> tuple[str, bool]:
    record = exchange.record
    every = [run for call in record.runner if call.id is not None for run in runs.get(call.id, ())]
    errors = [run.name for run in every if run.error]
    stopped = [run.name for run in every if run.stopped and not run.error]
    failures = [
        each for each in [call.failure for call in record.runner] + [call.failure for call in record.upstream] if each
    ]
    if record.seconds is None:
        return "in the plugin chain" if record.runner and not record.upstream else "open", bool(errors)
    if exchange.route is None:
        return "no route" if record.client.status == 404 else "bad request", False
    if errors:
        ending = "" if failures else ", and the request went on"
        return f"{_names(errors)} failed{ending}", True
    if failures:
        return shown(failures[-1], 200), True
    if stopped:
        return f"stopped by {_names(stopped)}", False
    if any(isinstance(call.answer, Stop) for call in record.runner):
        return "stopped by a plugin", False
    if record.upstream:
        return f"upstream answered {record.upstream[-1].status}", False
    return "answered by the gateway", record.client.status >= 500


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _request(exchange: Exchange) -> RequestView:
    arrival = exchange.arrival
    raw = None
    if len(arrival.body) <= MOST_BODY:
        try:
            arrival.body.decode()
        except UnicodeDecodeError:
            raw = base64.b64encode(arrival.body).decode()
    return RequestView(
        shown(arrival.method),
        shown(arrival.target.raw, 8192),
        arrival.protocol,
        f"{arrival.remote[0]}:{arrival.remote[1]}",
        _headers(arrival.headers),
        shown_body(arrival.body),
        raw,
    )


def _headers(headers: Iterable[tuple[str, str]]) -> Headers:
    listed = list(headers)
    cut: Headers = [(shown(name), shown(value, 8192)) for name, value in listed[:MOST_HEADERS]]
    if len(listed) > MOST_HEADERS:
        cut.append(("…", f"{len(listed)} headers"))
    return cut


def _body(kept: Kept) -> Body:
    return Body(shown_body(kept.start).text, kept.length)


def _call(call: RunnerCall, runs: Runs) -> CallView:
    asked = [AskedView(one.what, None if one.value is None else shown_body(one.value)) for one in call.asked]
    plugins = [PluginView(shown(name), shown(value or "", 8192), None) for name, value in call.conf]
    for run in runs.get(call.id, ()) if call.id is not None else ():
        plugins = with_run(plugins, run)
    return CallView(call.plugin, call.id, call.started, call.seconds, plugins, asked, _told(call), shown(call.failure))


def with_run(plugins: Sequence[PluginView], run: PluginRun) -> list[PluginView]:
    """The plugins of a conf with one more run, which is that of the first of this name after those that have told."""
    last = max((index for index, plugin in enumerate(plugins) if plugin.run is not None), default=-1)
    found = next((index for index, plugin in enumerate(plugins) if index > last and plugin.name == run.name), None)
    replaced = list(plugins)
    if found is not None:
        replaced[found] = msgspec.structs.replace(replaced[found], run=run)
    return replaced


def _told(call: RunnerCall) -> str:
    """What the runner answered, in a few words."""
    match call.answer:
        case Stop(status=status):
            return f"stop, status {status or 200}"
        case Rewrite() as rewrite:
            fields = {name: value for name, value in rewrite._asdict().items() if value is not None}
            return "rewrite of " + ", ".join(_FIELDS.get(name, name) for name in fields)
        case None:
            return "nothing to change" if call.seconds is not None and not call.failure else ""
        case response:
            return f"response, status {response.status}" if response.status else "response, status as it was"


_FIELDS = {"resp_headers": "response headers"}


def _upstream(call: UpstreamCall) -> UpstreamView:
    return UpstreamView(
        call.node,
        call.started,
        call.seconds,
        shown(call.method),
        shown(call.target, 8192),
        _headers(call.headers),
        shown_body(call.body),
        call.status,
        _headers(call.response_headers),
        _body(call.response_body),
        shown(call.failure),
    )


def _answer(client: ClientAnswer) -> AnswerView:
    return AnswerView(client.status, _headers(client.headers), _body(client.body))
