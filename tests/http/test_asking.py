"""What a request asks of the gateway: once, when it is used, in the colour of the plugin."""

import asyncio
from typing import Any

import pytest

from apisix.runner.http.link import GatewayError, WrongColour
from apisix.runner.http.request import Request
from apisix.runner.wire.frame import MAX_BODY
from tests.http import given


def awaiting(request: Request) -> Request:
    """The request as an ``async def`` plugin sees it."""
    request.in_coroutine = True
    return request


@pytest.fixture
def gateway() -> given.Gateway:
    return given.Gateway({"uri": b"/get", "empty": b"", "latin": b"caf\xe9"}, b'{"a": 1}')


# Variables.


def test_a_variable_is_text_empty_or_not_there(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    assert request.var("uri") == "/get"
    assert request.var("empty") == ""
    assert request.var("unset") is None
    assert request.var("latin") == "caf\udce9"


def test_nothing_is_asked_before_it_is_used(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    assert (request.path, request.method, request.headers.get("a")) == ("/get", "GET", None)
    assert gateway.rounds == []


def test_a_variable_is_asked_once_set_or_not(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    for _ in range(2):
        request.var("uri")
        request.var("unset")
    assert gateway.rounds == [["uri"], ["unset"]]


def test_several_variables_are_asked_in_one_round_trip_and_none_twice(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    request.var("uri")
    assert request.vars("empty", "uri", "unset", "empty") == {"empty": "", "uri": "/get", "unset": None}
    assert request.vars() == {}
    assert gateway.rounds == [["uri"], ["empty", "unset"]]


def test_a_coroutine_awaits_variables(gateway: given.Gateway) -> None:
    async def plugin(request: Request) -> None:
        assert await request.read_var("uri") == "/get"
        assert await request.read_vars("uri", "empty", "unset") == {"uri": "/get", "empty": "", "unset": None}

    asyncio.run(plugin(awaiting(given.request(gateway))))
    assert gateway.rounds == [["uri"], ["empty", "unset"]]


def test_coroutines_of_one_call_that_want_the_same_ask_once(gateway: given.Gateway) -> None:
    async def plugin(request: Request) -> tuple[object, ...]:
        variables = request.read_var("uri"), request.read_vars("uri", "empty"), request.read_var("empty")
        return tuple(await asyncio.gather(*variables, request.read_body(), request.read_body()))

    answers = asyncio.run(plugin(awaiting(given.request(gateway))))
    assert answers == ("/get", {"uri": "/get", "empty": ""}, "", b'{"a": 1}', b'{"a": 1}')
    assert gateway.rounds == [["uri"], ["empty"], ["REQ_BODY"]]


@pytest.mark.parametrize("name", ["", None, b"uri", 5])
def test_a_variables_name_is_text_and_not_empty(gateway: given.Gateway, name: Any) -> None:
    with pytest.raises(TypeError, match="a variable's name must be str and not empty, got"):
        given.request(gateway).vars("uri", name)
    assert gateway.rounds == []


def test_a_variable_that_could_not_be_had_can_be_asked_again(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    gateway.fails = GatewayError("closed")
    with pytest.raises(GatewayError, match="closed"):
        request.var("uri")
    gateway.fails = None
    assert request.var("uri") == "/get"


# Bodies.


@pytest.mark.parametrize("body", [None, b"", b"\x00\xff"])
def test_a_body_is_bytes_empty_or_not_there_and_asked_once(body: bytes | None) -> None:
    gateway = given.Gateway(body=body)
    request = given.request(gateway)
    assert request.body == body
    assert request.body == body
    assert gateway.rounds == [["REQ_BODY"]]


@pytest.mark.parametrize("body", [None, b"", b"\x00\xff"])
def test_a_coroutine_awaits_the_body(body: bytes | None) -> None:
    async def plugin(request: Request) -> None:
        assert await request.read_body() == body
        assert await request.read_body() == body

    gateway = given.Gateway(body=body)
    asyncio.run(plugin(awaiting(given.request(gateway))))
    assert gateway.rounds == [["REQ_BODY"]]


def test_a_body_that_was_set_is_not_asked(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    request.body = "new"
    assert request.body == b"new"
    assert asyncio.run(request.read_body()) == b"new"
    assert gateway.rounds == []


@pytest.mark.parametrize("length", [str(MAX_BODY), "99999999999999999999"])
def test_a_body_that_no_frame_can_carry_is_not_asked_for(gateway: given.Gateway, length: str) -> None:
    told = f"the request's body has {length} bytes, more than the protocol can carry .*; look at the content-length"
    request = given.request(gateway, headers=[("content-length", length)])
    with pytest.raises(GatewayError, match=told):
        _ = request.body
    with pytest.raises(GatewayError, match=told):
        asyncio.run(awaiting(request).read_body())
    assert gateway.rounds == []


@pytest.mark.parametrize("length", ["0", "8", "", "nonsense", "-1", "²"])
def test_any_other_length_does_not_keep_a_body_from_being_asked(gateway: given.Gateway, length: str) -> None:
    assert given.request(gateway, headers=[("content-length", length)]).body == b'{"a": 1}'


def test_json_is_decoded(gateway: given.Gateway) -> None:
    assert given.request(gateway).json() == {"a": 1}
    assert asyncio.run(awaiting(given.request(gateway)).read_json()) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "there is no body to decode from JSON"),
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"tru3", "malformed"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_a_value_error_whatever_a_client_sends(body: bytes | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        given.request(given.Gateway(body=body)).json()
    with pytest.raises(ValueError, match=told):
        asyncio.run(awaiting(given.request(given.Gateway(body=body))).read_json())


# Colours.


@pytest.mark.parametrize(
    ("ask", "instead"),
    [
        (lambda request: request.var("uri"), "await request.read_var(name)"),
        (lambda request: request.vars("uri"), "await request.read_vars(...)"),
        (lambda request: request.body, "await request.read_body()"),
        (lambda request: request.json(), "await request.read_body()"),
    ],
)
def test_a_waiting_call_in_a_coroutine_names_the_one_to_await(gateway: given.Gateway, ask: Any, instead: str) -> None:
    with pytest.raises(WrongColour) as error:
        ask(awaiting(given.request(gateway)))
    assert str(error.value) == f"this plugin is an async def plugin: write {instead} here"
    assert gateway.rounds == []


@pytest.mark.parametrize(
    ("ask", "instead"),
    [
        (lambda request: request.read_var("uri"), "request.vars(...)"),
        (lambda request: request.read_vars("uri"), "request.vars(...)"),
        (lambda request: request.read_body(), "request.body"),
        (lambda request: request.read_json(), "request.body"),
    ],
)
def test_an_awaited_call_in_a_def_plugin_names_the_one_that_waits(
    gateway: given.Gateway, ask: Any, instead: str
) -> None:
    with pytest.raises(WrongColour) as error:
        asyncio.run(ask(given.request(gateway)))
    assert str(error.value) == f"this plugin is a def plugin: write {instead} here"
    assert gateway.rounds == []


def test_what_is_known_already_can_be_had_in_either_colour(gateway: given.Gateway) -> None:
    request = given.request(gateway)
    request.vars("uri")
    _ = request.body
    awaiting(request)
    assert request.var("uri") == "/get"
    assert request.body == b'{"a": 1}'
    request.in_coroutine = False
    assert asyncio.run(request.read_var("uri")) == "/get"
    assert asyncio.run(request.read_body()) == b'{"a": 1}'
