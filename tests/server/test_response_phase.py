"""The response phase (ext-plugin-post-resp): what the upstream answered, as a plugin leaves it for the client."""

import pytest

from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import ErrorCode, InfoKind
from tests.server.connections import Connection, error_of, failed_closed, response_of
from tests.server.processes import Runner, Start

PLUGINS = """
class Looks(Base):
    def filter_response(self, request, response):
        response.status_code, list(response.headers.items())

class Sets(Base):
    def filter_response(self, request, response):
        response.headers[self.config] = "set"

class SetsAsync(Base):
    async def filter_response(self, request, response):
        response.headers[self.config] = "set"

class Cookie(Base):
    def filter_response(self, request, response):
        response.headers.add("Set-Cookie", self.config)

class Status(Base):
    def filter_response(self, request, response):
        response.status_code = self.config

class Shouts(Base):
    def filter_response(self, request, response):
        response.body = response.body.upper()

class ShoutsAsync(Base):
    async def filter_response(self, request, response):
        response.body = (await response.read_body()).upper()

class Shows(Base):
    def filter_response(self, request, response):
        response.body = f"{request.method} {request.path} {request.args!r} {request.headers.get('x-a')} {response.body}"

class Both(Base):
    def filter(self, request, response):
        self.stop(200, "request")

    def filter_response(self, request, response):
        response.body = "response"

class ChangesRequest(Base):
    def filter_response(self, request, response):
        request.headers["X-Late"] = "1"

class OnlyRequest(Base):
    def filter(self, request, response):
        pass

class Stops(Base):
    def filter_response(self, request, response):
        self.stop(418, "teapot")
"""
KEY = "route#1#ext-plugin-post-resp#1"
UPSTREAM: list[Pair] = [
    ("Content-Type", "text/html"),
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=2"),
    ("ETag", '"x"'),
    ("Location", "/l"),
]
GET: dict[str | InfoKind, bytes | None] = {"request_method": b"GET"}
HEAD: dict[str | InfoKind, bytes | None] = {"request_method": b"HEAD"}


def prepare(gateway: Connection, *conf: Pair) -> int:
    return gateway.prepare(*conf, key=KEY)


def test_a_response_that_no_plugin_changed_keeps_all_its_headers(gateway: Connection) -> None:
    answer = response_of(gateway.response_call(prepare(gateway, ("looks", "")), headers=UPSTREAM, id=0))
    assert (answer.id, answer.status, answer.headers, answer.body) == (0, 0, UPSTREAM, None)
    assert gateway.asked_names == ["request_method"], "whether it is a response to HEAD"


@pytest.mark.parametrize("name", ["sets", "sets_async"])
def test_a_changed_header_loses_no_other(gateway: Connection, name: str) -> None:
    token = prepare(gateway, (name, "X-New"))
    answer = response_of(gateway.response_call(token, GET, headers=UPSTREAM))
    assert answer.headers == [*UPSTREAM, ("X-New", "set")]
    assert answer.body is None


def test_repeated_cookies_stay_and_one_more_can_be_added(gateway: Connection) -> None:
    token = prepare(gateway, ("cookie", "c=3"))
    answer = response_of(gateway.response_call(token, GET, headers=UPSTREAM))
    cookies = [value for name, value in answer.headers or () if name.lower() == "set-cookie"]
    assert cookies == ["a=1", "b=2", "c=3"]


def test_a_chain_runs_in_order_and_sees_what_was_changed(gateway: Connection) -> None:
    token = prepare(gateway, ("sets", "X-A"), ("shouts", ""), ("shouts_async", ""), ("status", "202"))
    answer = response_of(gateway.response_call(token, {InfoKind.RESP_BODY: b"quiet"}, headers=UPSTREAM))
    assert (answer.status, answer.body) == (202, b"QUIET")
    assert [ask.kind for ask in gateway.asked] == [InfoKind.RESP_BODY], "the body is asked once"


@pytest.mark.parametrize("name", ["shouts", "shouts_async"])
def test_a_replaced_body_goes_without_what_described_the_old_one(gateway: Connection, name: str) -> None:
    headers = [("Content-Length", "5"), ("Content-Encoding", "br"), ("Transfer-Encoding", "chunked"), ("X", "1")]
    answer = response_of(
        gateway.response_call(prepare(gateway, (name, "")), {InfoKind.RESP_BODY: b"quiet"}, headers=headers)
    )
    assert (answer.headers, answer.body) == ([("X", "1")], b"QUIET")


def test_the_request_is_seen_through_variables(gateway: Connection) -> None:
    answers: dict[str | InfoKind, bytes | None] = {
        "request_method": b"PUT",
        "uri": b"/a b",
        "args": b"x=1&y",
        "http_x_a": b"yes",
        InfoKind.RESP_BODY: b"up",
    }
    answer = response_of(gateway.response_call(prepare(gateway, ("shows", "")), answers))
    assert answer.body == b"PUT /a b <Args x=1, y=> yes b'up'"
    assert gateway.asked_names == ["request_method", "uri", "args", "http_x_a"]


def test_a_plugin_of_both_phases_runs_in_each(gateway: Connection) -> None:
    token = gateway.prepare(("both", ""), key=None)
    assert response_of(gateway.response_call(token)).body == b"response"
    assert b"request" in gateway.call(token)


# Where a client gets no body.


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_is_not_fetched_a_second_time(gateway: Connection, status: int) -> None:
    token = prepare(gateway, ("sets", "X-New"))
    answer = response_of(gateway.response_call(token, status=status, headers=UPSTREAM))
    assert answer.body
    assert ("X-New", "set") in (answer.headers or ())
    assert gateway.asked == []


def test_a_changed_response_to_head_is_not_fetched_a_second_time(gateway: Connection) -> None:
    token = prepare(gateway, ("sets", "X-New"))
    headers = [("Content-Length", "17"), *UPSTREAM]
    answer = response_of(gateway.response_call(token, HEAD, headers=headers))
    assert answer.body
    assert ("Content-Length", "17") in (answer.headers or ()), "HEAD tells what GET would have"


def test_a_response_to_head_that_no_plugin_changes_is_not_fetched_a_second_time(gateway: Connection) -> None:
    answer = response_of(gateway.response_call(prepare(gateway, ("looks", "")), HEAD, headers=UPSTREAM))
    assert (answer.status, answer.headers, bool(answer.body)) == (0, UPSTREAM, True)


def test_a_gateway_too_old_for_variables_in_this_phase_is_asked_once(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as old:
        token = prepare(old, ("sets", "X-New"))
        old.start_response_call(token)
        old.receive()
    assert "did not answer in the response phase" in runner.log.wait_for("gateway.version")
    with runner.connect() as old:
        assert ("X-New", "set") in (response_of(old.response_call(token)).headers or ())
        assert old.asked == []


def test_a_gateway_known_to_be_too_old_is_not_asked(start: Start) -> None:
    with start(PLUGINS, "--gateway-version", "2.15.3").connect() as old:
        token = prepare(old, ("sets", "X-New"))
        assert ("X-New", "set") in (response_of(old.response_call(token)).headers or ())
        assert old.asked == []


def test_what_a_plugin_asks_of_a_gateway_known_to_be_too_old_fails_closed(start: Start) -> None:
    with start(PLUGINS, "--gateway-version", "2.15.3").connect() as old:
        assert failed_closed(old.response_call(prepare(old, ("shows", ""))))
        assert old.asked == []


def test_what_a_plugin_asks_fails_closed_once_the_gateway_has_shown_that_it_is_too_old(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as old:
        token = prepare(old, ("shows", ""))
        old.start_response_call(token)
        old.receive()
    runner.log.wait_for("gateway.version")
    with runner.connect() as old:
        assert failed_closed(old.response_call(token))
        assert old.asked == []


def test_a_gateway_that_has_answered_once_is_asked_again_whatever_happens(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as gateway:
        token = prepare(gateway, ("sets", "X-New"))
        gateway.response_call(token, HEAD)
        gateway.start_response_call(token)
        gateway.receive()
    with runner.connect() as gateway:
        gateway.response_call(token, HEAD)
        assert gateway.asked_names == ["request_method"]


# What fails, fails closed.


def test_a_plugin_without_this_phase_cannot_be_used_in_it(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    assert failed_closed(gateway.response_call(prepare(gateway, ("only_request", ""))))
    assert "plugin 'only_request': has no filter_response" in runner.log.wait_for("only_request", since)


def test_a_plugin_without_this_phase_fails_its_first_call_where_the_key_tells_no_phase(gateway: Connection) -> None:
    token = gateway.prepare(("only_request", ""), key=None)
    assert failed_closed(gateway.response_call(token))
    token = gateway.prepare(("sets", "X-New"), key=None)
    assert error_of(gateway.call(token)) is ErrorCode.SERVICE_UNAVAILABLE


def test_a_change_of_the_request_is_an_error_for_it_was_sent(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    assert failed_closed(gateway.response_call(prepare(gateway, ("changes_request", ""))))
    assert "the request was sent already" in runner.log.event("(response phase)", since)


def test_stop_answers_in_this_phase_too(gateway: Connection) -> None:
    token = prepare(gateway, ("stops", ""), ("shouts", ""))
    answer = response_of(gateway.response_call(token, headers=UPSTREAM))
    assert (answer.status, answer.body) == (418, b"teapot")
    assert gateway.asked == [], "later plugins do not run"


@pytest.mark.parametrize("name", ["shouts", "shouts_async"])
def test_a_gateway_that_does_not_give_the_body_gets_a_failure(runner: Runner, gateway: Connection, name: str) -> None:
    since = len(runner.log)
    gateway.start_response_call(prepare(gateway, (name, "")), id=215)
    gateway.receive()
    gateway.close()
    assert "asked for the response's body: APISIX answers that from 3.0 on" in runner.log.event("request 215", since)


@pytest.mark.parametrize("name", ["shouts", "shouts_async"])
def test_a_body_that_is_not_there_fails_the_plugin_that_needs_it(gateway: Connection, name: str) -> None:
    assert failed_closed(gateway.response_call(prepare(gateway, (name, "")), {InfoKind.RESP_BODY: None}))
