"""The response, in the request phase and in the response phase."""

import asyncio
from http import HTTPStatus
from typing import Any

import pytest

from apisix.runner.http.link import WrongColour
from apisix.runner.http.response import Response
from apisix.runner.wire.frame import MAX_BODY
from tests.http import given


@pytest.fixture(params=["request phase", "response phase"])
def response(request: pytest.FixtureRequest) -> Response:
    """One response of each phase."""
    return Response() if request.param == "request phase" else given.upstream_response()


# The status.


@pytest.mark.parametrize("status", [100, 200, 404, 599, HTTPStatus.FORBIDDEN])
def test_a_status_is_set(response: Response, status: int) -> None:
    response.status_code = status
    assert response.status_code == response.new_status == status
    assert type(response.new_status) is int


@pytest.mark.parametrize("status", [0, -1, 99, 600, 9999, 2**16])
def test_a_status_is_from_100_to_599(response: Response, status: int) -> None:
    with pytest.raises(ValueError, match=f"response.status_code must be from 100 to 599, got {status}"):
        response.status_code = status
    assert response.new_status == 0


@pytest.mark.parametrize("status", [None, "200", 200.0, True, b"200"])
def test_a_status_is_a_whole_number(response: Response, status: Any) -> None:
    with pytest.raises(TypeError, match=r"response\.status_code must be int, got") as error:
        response.status_code = status
    assert repr(status) in str(error.value)


# The body.


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (b"", b""),
        ("", b""),
        (bytearray(b"abc"), b"abc"),
        ("größer", "größer".encode()),
        ({"a": 1}, b'{"a":1}'),
        ([1, 2], b"[1,2]"),
    ],
)
def test_a_body_is_bytes_text_or_json(response: Response, body: Any, raw: bytes) -> None:
    response.body = body
    assert response.body == body
    assert response.raw_body == raw
    assert asyncio.run(response.read_body()) == raw


@pytest.mark.parametrize("body", [5, 1.5, True, object()])
def test_a_body_is_nothing_else(response: Response, body: Any) -> None:
    kind = type(body).__name__
    with pytest.raises(TypeError, match=f"response.body must be bytes, str, or a dict or list for JSON, got {kind}"):
        response.body = body
    assert response.raw_body is None


def test_a_body_is_no_larger_than_a_frame(response: Response) -> None:
    with pytest.raises(ValueError, match=f"response.body has {MAX_BODY + 1} bytes, more than the protocol can carry"):
        response.body = bytes(MAX_BODY + 1)
    assert response.raw_body is None


@pytest.mark.parametrize("body", [{"a": 1}, [1], ("a",)])
def test_json_has_its_content_type(response: Response, body: Any) -> None:
    response.body = body
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("body", [b"a", "a", bytearray(b"a"), memoryview(b"a")])
def test_bytes_and_text_have_no_content_type_of_ours(response: Response, body: Any) -> None:
    response.body = body
    assert "content-type" not in response.headers


def test_a_content_type_that_a_plugin_set_stays(response: Response) -> None:
    response.headers["content-type"] = "application/problem+json"
    response.body = {"a": 1}
    assert response.headers.pairs() == [("content-type", "application/problem+json")]


@pytest.mark.parametrize("looked_before", [True, False])
def test_json_in_place_of_the_upstreams_body_replaces_its_content_type(looked_before: bool) -> None:
    response = given.upstream_response(headers=[("Content-Type", "text/html")])
    if looked_before:
        assert response.headers.get("content-type") == "text/html"
    response.body = {"a": 1}
    assert response.headers.getall("content-type") == ["application/json"]


# In the request phase.


def test_a_response_begins_empty_in_the_request_phase() -> None:
    response = Response()
    assert (response.status_code, response.body, response.raw_body, response.new_status) == (0, None, None, 0)
    assert response.touched_headers is None
    assert len(response.headers) == 0
    assert asyncio.run(response.read_body()) is None
    assert not response.stopped
    assert repr(response) == "<Response 0>"


def test_none_takes_a_body_back() -> None:
    response = Response()
    response.body = "text"
    response.body = None
    assert (response.body, response.raw_body) == (None, None)


def test_headers_can_be_set_as_a_whole_with_every_value() -> None:
    response = Response()
    response.headers["x-old"] = "1"
    response.headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert response.headers.pairs() == [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]


def test_a_misspelled_attribute_is_an_error_and_not_a_new_one() -> None:
    with pytest.raises(AttributeError):
        Response().status = 403  # type: ignore[attr-defined]


# In the response phase.


def test_a_response_begins_as_the_upstreams_in_the_response_phase() -> None:
    headers = [("Content-Type", "text/html"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    response = given.upstream_response(status=404, headers=headers)
    assert (response.status_code, response.new_status) == (404, 0)
    assert response.headers.pairs() == headers
    assert not response.headers.changed
    assert repr(response) == "<Response 404>"


@pytest.mark.parametrize("body", [None, b"", b"\x00\xff"])
def test_the_upstreams_body_is_asked_when_read_and_once(body: bytes | None) -> None:
    gateway = given.Gateway(response_body=body)
    response = given.upstream_response(gateway)
    assert gateway.rounds == []
    assert response.body == body
    assert response.body == body
    assert gateway.rounds == [["RESP_BODY"]]
    assert response.raw_body is None, "read is not replaced"


@pytest.mark.parametrize("body", [None, b"", b"\x00\xff"])
def test_a_coroutine_awaits_the_upstreams_body(body: bytes | None) -> None:
    async def plugin(response: Response) -> None:
        assert await response.read_body() == body
        assert await response.read_body() == body

    gateway = given.Gateway(response_body=body)
    response = given.upstream_response(gateway)
    response.in_coroutine = True
    asyncio.run(plugin(response))
    assert gateway.rounds == [["RESP_BODY"]]


def test_coroutines_that_want_the_upstreams_body_at_the_same_time_all_get_it() -> None:
    async def plugin(response: Response) -> list[bytes | None]:
        return await asyncio.gather(*(response.read_body() for _ in range(3)))

    gateway = given.Gateway(response_body=b"upstream")
    response = given.upstream_response(gateway)
    response.in_coroutine = True
    assert asyncio.run(plugin(response)) == [b"upstream"] * 3
    assert gateway.rounds == [["RESP_BODY"]]


def test_a_body_that_was_set_stands_for_the_upstreams_until_it_is_taken_back() -> None:
    gateway = given.Gateway(response_body=b"upstream")
    response = given.upstream_response(gateway)
    response.body = "mine"
    assert response.body == "mine"
    assert gateway.rounds == []
    response.body = None
    assert response.body == b"upstream"


def test_the_wrong_colour_of_reading_names_the_right_one() -> None:
    response = given.upstream_response()
    with pytest.raises(WrongColour, match=r"this plugin is a def plugin: write response.body here"):
        asyncio.run(response.read_body())
    response.in_coroutine = True
    with pytest.raises(WrongColour, match=r"this plugin is an async def plugin: write await response.read_body\(\)"):
        _ = response.body


def test_a_response_without_a_gateway_says_so() -> None:
    call = given.upstream_response()._call
    with pytest.raises(RuntimeError, match="this response has no way to the gateway"):
        _ = Response(call).body


@pytest.mark.parametrize("wait", [False, True])
def test_the_upstreams_body_is_decoded_from_json(wait: bool) -> None:
    response = given.upstream_response(given.Gateway(response_body=b'{"a": [1]}'))
    response.in_coroutine = wait
    assert (asyncio.run(response.read_json()) if wait else response.json()) == {"a": [1]}


def test_a_body_that_is_no_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="malformed"):
        given.upstream_response(given.Gateway(response_body=b"<html>")).json()
