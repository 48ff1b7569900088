"""The request as it is seen from the response phase: through variables, and not to be changed."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from apisix.runner.http.link import GatewayError, WrongColour
from apisix.runner.http.variables import ResponsePhaseRequest, parse_query
from apisix.runner.wire.frame import MAX_BODY
from tests.http import given

VARIABLES = {
    "request_method": b"POST",
    "uri": b"/caf\xc3\xa9",
    "args": b"q=1&q=a+b&flag",
    "remote_addr": b"2001:db8::1",
    "http_x_token": b"secret",
    "http_empty": b"",
    "request_id": b"5f2c",
}


@pytest.fixture
def gateway() -> given.Gateway:
    return given.Gateway(VARIABLES, b'{"a": 1}', contexts={"5f2c": b'{"user":"anna"}'})


def test_a_request_answers_through_variables(gateway: given.Gateway) -> None:
    request = given.sent_request(gateway)
    assert request.id == 7
    assert request.method == "POST"
    assert request.path == "/café"
    assert request.args.pairs() == [("q", "1"), ("q", "a b"), ("flag", "")]
    assert request.remote_addr == ip_address("2001:db8::1")
    assert request.headers["X-Token"] == "secret"
    assert request.headers.getall("x-token") == ["secret"]
    assert repr(request) == "<Request 7 in the response phase>"


def test_a_variable_is_asked_when_used_and_once(gateway: given.Gateway) -> None:
    request = given.sent_request(gateway)
    assert gateway.rounds == []
    for _ in range(2):
        assert request.method == "POST"
        assert "x-token" in request.headers
        assert request.args["q"] == "1"
    assert gateway.rounds == [["request_method"], ["http_x_token"], ["args"]]


def test_a_header_is_there_empty_or_missing(gateway: given.Gateway) -> None:
    headers = given.sent_request(gateway).headers
    assert headers["Empty"] == ""
    assert headers.get("missing") is None
    assert "missing" not in headers
    assert headers.getall("missing") == []
    with pytest.raises(KeyError, match="missing"):
        headers["missing"]


def test_what_is_not_set_is_empty() -> None:
    request = given.sent_request()
    assert (request.method, request.path, len(request.args)) == ("", "", 0)


def test_the_method_is_known_once_it_was_asked(gateway: given.Gateway) -> None:
    request = given.sent_request(gateway)
    assert request.known_method() is None
    request.vars("request_method", "uri")
    assert request.known_method() == "POST"


@pytest.mark.parametrize(
    "change",
    [
        lambda request: setattr(request, "path", "/other"),
        lambda request: setattr(request, "args", {"a": "1"}),
        lambda request: setattr(request, "headers", {"a": "1"}),
        lambda request: setattr(request, "body", b"new"),
        lambda request: request.args.__setitem__("q", "2"),
        lambda request: request.args.add("q", "2"),
        lambda request: request.args.__delitem__("q"),
        lambda request: request.args.setall("q", []),
        lambda request: request.args.update({"q": "2"}),
        lambda request: request.args.replace({}),
        lambda request: request.args.clear(),
        lambda request: request.args.pop("q"),
        lambda request: request.headers.__setitem__("x-token", "2"),
        lambda request: request.headers.add("x-token", "2"),
        lambda request: request.headers.__delitem__("x-token"),
        lambda request: request.headers.setall("x-token", []),
        lambda request: request.headers.setdefault("missing", "2"),
        lambda request: request.headers.update({"x-token": "2"}),
        lambda request: request.headers.replace({}),
        lambda request: request.headers.clear(),
        lambda request: request.headers.pop("x-token"),
    ],
)
def test_a_request_that_was_sent_cannot_be_changed(
    gateway: given.Gateway, change: Callable[[ResponsePhaseRequest], object]
) -> None:
    request = given.sent_request(gateway)
    with pytest.raises(RuntimeError, match="the request was sent already: in the response phase it cannot be changed"):
        change(request)
    assert request.args.pairs() == [("q", "1"), ("q", "a b"), ("flag", "")]
    assert request.body == b'{"a": 1}'


@pytest.mark.parametrize(
    "look", [list, len, bool, dict, lambda headers: headers.pairs(), lambda headers: headers == {}]
)
def test_headers_cannot_be_listed(gateway: given.Gateway, look: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="the request's headers can be looked up by name, not listed"):
        look(given.sent_request(gateway).headers)


def test_printing_headers_asks_nothing(gateway: given.Gateway) -> None:
    assert repr(given.sent_request(gateway).headers) == "<Headers through variables>"
    assert gateway.rounds == []


# Coroutines.


@pytest.mark.parametrize(
    ("look", "variable"),
    [
        (lambda request: request.method, "request_method"),
        (lambda request: request.path, "uri"),
        (lambda request: request.args, "args"),
        (lambda request: request.remote_addr, "remote_addr"),
        (lambda request: request.headers["X-Token"], "http_x_token"),
        (lambda request: request.context, "request_id"),
    ],
)
def test_a_coroutine_awaits_the_variable_first_and_is_told_which(
    gateway: given.Gateway, look: Callable[[ResponsePhaseRequest], object], variable: str
) -> None:
    request = given.sent_request(gateway)
    request.in_coroutine = True
    with pytest.raises(WrongColour) as error:
        look(request)
    assert str(error.value) == f"this plugin is an async def plugin: write await request.read_var({variable!r}) here"
    asyncio.run(request.read_var(variable))
    assert look(request)


# The body.


@pytest.mark.parametrize("in_coroutine", [False, True])
def test_the_requests_body_can_still_be_read(gateway: given.Gateway, in_coroutine: bool) -> None:
    request = given.sent_request(gateway)
    request.in_coroutine = in_coroutine
    for _ in range(2):
        assert (asyncio.run(request.read_body()) if in_coroutine else request.body) == b'{"a": 1}'
    assert gateway.rounds == [["http_content_length"], ["REQ_BODY"]]
    assert (asyncio.run(request.read_json()) if in_coroutine else request.json()) == {"a": 1}


@pytest.mark.parametrize("in_coroutine", [False, True])
def test_a_body_that_no_frame_can_carry_is_not_asked_for(in_coroutine: bool) -> None:
    gateway = given.Gateway({"http_content_length": str(MAX_BODY).encode()})
    request = given.sent_request(gateway)
    request.in_coroutine = in_coroutine
    with pytest.raises(GatewayError, match="more than the protocol can carry"):
        _ = asyncio.run(request.read_body()) if in_coroutine else request.body
    assert gateway.rounds == [["http_content_length"]]


# Context.


def test_context_is_what_the_request_phase_left(gateway: given.Gateway) -> None:
    request = given.sent_request(gateway)
    assert request.context == {"user": "anna"}
    request.context["seen"] = True
    assert request.context == {"user": "anna", "seen": True}


def test_without_anything_left_context_is_empty() -> None:
    assert given.sent_request(given.Gateway({"request_id": b"other"})).context == {}
    assert given.sent_request().context == {}


# The query.


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        ("", []),
        ("&&", []),
        ("a", [("a", None)]),
        ("a=", [("a", "")]),
        ("a=b=c", [("a", "b=c")]),
        ("=x", [("", "x")]),
        ("a=%zz%2", [("a", "%zz%2")]),
        ("%26=%3D", [("&", "=")]),
        ("a+b=c+%2B", [("a b", "c +")]),
        ("a=%FF", [("a", "\udcff")]),
        ("a=\udcff", [("a", "\udcff")]),
    ],
)
def test_a_query_is_decoded_as_the_gateway_does(query: str, pairs: list[tuple[str, str | None]]) -> None:
    assert list(parse_query(query)) == pairs


@for_all(st.binary())
def test_any_query_decodes(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    for name, value in parse_query(text):
        (name + (value or "")).encode("utf-8", "surrogateescape")
