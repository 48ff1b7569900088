"""The request: what is read of the frame, and what is set."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from apisix.runner.http.request import Request
from apisix.runner.wire.frame import MAX_BODY, WireError
from apisix.runner.wire.messages import METHODS, HTTPReqCallReq, encode_http_req_call_req
from tests.http import given


def test_a_request_is_what_the_gateway_sent() -> None:
    call = given.call(
        id=7,
        src_ip=bytes([192, 0, 2, 1]),
        method="PATCH",
        path="/a b/ü",
        args=[("q", "1"), ("q", "2"), ("flag", None)],
        headers=[("host", "a.test"), ("x-latin", "caf\udce9")],
        conf_token=9,
    )
    request = Request(call, given.Gateway())
    assert (request.id, request.conf_token) == (7, 9)
    assert request.remote_addr == ip_address("192.0.2.1")
    assert (request.method, request.path) == ("PATCH", "/a b/ü")
    assert request.args.getall("q") == ["1", "2"]
    assert request.args["flag"] == ""
    assert request.headers["X-Latin"].encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert repr(request) == "<Request 7 PATCH /a b/ü>"


def test_a_call_with_nothing_in_it_is_a_request_too() -> None:
    request = Request(given.call(id=0, path=None), given.Gateway())
    assert (request.id, request.method, request.path) == (0, "GET", "/")
    assert len(request.args) == len(request.headers) == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_schema_has_its_name(method: str) -> None:
    assert Request(given.call(method=method), given.Gateway()).method == method


def test_an_ipv6_client_has_an_ipv6_address() -> None:
    client = ip_address("2001:db8::1")
    assert Request(given.call(src_ip=client.packed), given.Gateway()).remote_addr == client


def test_only_what_is_touched_is_decoded() -> None:
    frame = bytearray(encode_http_req_call_req(7, b"", 0, "/get", [("a", "1")], [("x-a", "ab" * 9)], 1))
    at = frame.index(b"ab" * 9)
    frame[at - 4 : at] = (2**31).to_bytes(4, "little")  # the header's value says that it is longer than the frame
    request = Request(HTTPReqCallReq(bytes(frame)), given.Gateway())
    assert (request.path, request.args["a"]) == ("/get", "1")
    request.headers["x-new"] = "1"
    with pytest.raises(WireError, match="headers"):
        request.headers.get("x-a")
    with pytest.raises(WireError, match="headers"):
        len(request.headers)


def test_state_belongs_to_the_request() -> None:
    one, other = given.request(), given.request()
    one.state.user = "anna"
    assert one.state.user == "anna"
    assert not hasattr(other.state, "user")


def test_context_is_a_dict_that_begins_empty() -> None:
    one, other = given.request(), given.request()
    assert one.touched_context is None
    one.context["user"] = "anna"
    assert one.touched_context == {"user": "anna"}
    assert other.context == {}


def test_a_misspelled_attribute_is_an_error_and_not_a_new_one() -> None:
    with pytest.raises(AttributeError):
        given.request().header = {"x-a": "1"}  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        given.request().method = "POST"  # type: ignore[misc]


# The path.


def test_a_path_that_is_set_is_new_and_one_that_was_there_is_not() -> None:
    request = given.request(path="/get")
    assert request.new_path is None
    request.path = "/get"
    assert request.new_path is None
    request.path = "/other"
    assert request.path == request.new_path == "/other"
    request.path = "/get"
    assert request.new_path is None


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("/a%20b", "/a b"),
        ("/%E2%82%AC", "/€"),
        ("/%FF", "/\udcff"),
        ("/100%", "/100%"),
        ("/a+b", "/a+b"),
        ("/%2525", "/%25"),
        ("/é", "/é"),
    ],
)
def test_an_encoded_path_is_decoded_once(path: str, decoded: str) -> None:
    request = given.request(path=path, post_req=True)
    assert request.path == decoded
    assert request.new_path is None


def test_a_path_that_is_not_encoded_is_left_as_it_is() -> None:
    assert given.request(path="/%41").path == "/%41"


@pytest.mark.parametrize("path", ["", "get", "http://evil.test/", "?a=1", " /"])
def test_a_path_begins_with_a_slash(path: str) -> None:
    request = given.request()
    with pytest.raises(ValueError, match=r"request\.path must begin with '/', got") as error:
        request.path = path
    assert repr(path) in str(error.value)
    assert request.new_path is None


@pytest.mark.parametrize("path", [None, b"/get", 5])
def test_a_path_is_text(path: Any) -> None:
    with pytest.raises(TypeError, match=f"request.path must be str, got {type(path).__name__}"):
        given.request().path = path


def test_a_path_holds_no_half_of_a_character() -> None:
    with pytest.raises(ValueError, match=r"request\.path cannot hold U\+D83D"):
        given.request().path = "/\ud83d"


@pytest.mark.parametrize("path", ["/", "//double", "/a?b", "/\r\n", "/\0", "/€", "/\udcff", "/%41"])
def test_any_other_text_is_a_path_the_gateway_encodes_it(path: str) -> None:
    request = given.request()
    request.path = path
    assert request.new_path == path


# Headers and arguments as wholes.


def test_headers_and_args_can_be_set_as_wholes() -> None:
    request = given.request(headers=[("x-a", "1")], args=[("a", "1")])
    request.headers = [("x-b", "2"), ("x-b", "3")]
    request.args = {"b": "2"}
    assert request.headers.pairs() == [("x-b", "2"), ("x-b", "3")]
    assert request.args.pairs() == [("b", "2")]


def test_untouched_headers_and_args_are_not_there_to_be_sent() -> None:
    request = given.request(headers=[("x-a", "1")], args=[("a", "1")])
    assert request.touched_headers is None
    assert request.touched_args is None


# The body.


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc"), b"abc"),
        ("größer", "größer".encode()),
        ("caf\udce9", b"caf\xe9"),
        ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'.encode()),
        ([], b"[]"),
        (("a",), b'["a"]'),
    ],
)
def test_a_body_is_set_to_bytes_text_or_json(body: Any, raw: bytes) -> None:
    request = given.request()
    request.body = body
    assert request.body == request.new_body == raw


@pytest.mark.parametrize("body", [None, 5, 1.5, True, object()])
def test_a_body_is_nothing_else(body: Any) -> None:
    kind = type(body).__name__
    with pytest.raises(TypeError, match=f"request.body must be bytes, str, or a dict or list for JSON, got {kind}"):
        given.request().body = body


@pytest.mark.parametrize("body", [b"", "", bytearray()])
def test_a_body_cannot_be_set_to_empty_since_the_gateway_would_keep_the_old_one(body: Any) -> None:
    request = given.request()
    with pytest.raises(ValueError, match=r"request\.body cannot be set to empty: the gateway would keep the old body"):
        request.body = body
    assert request.new_body is None


def test_what_json_cannot_hold_is_refused_at_the_line_that_sets_it() -> None:
    with pytest.raises(TypeError, match="unsupported"):
        given.request().body = {"a": object()}


def test_half_a_character_is_refused_at_the_line_that_sets_it() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        given.request().body = "\ud83d"


def test_a_body_is_no_larger_than_a_frame() -> None:
    request = given.request()
    with pytest.raises(ValueError, match=f"request.body has {MAX_BODY + 1} bytes, more than the protocol can carry"):
        request.body = bytes(MAX_BODY + 1)
    assert request.new_body is None


@for_all(st.binary(min_size=1))
def test_any_bytes_are_a_body(body: bytes) -> None:
    request = given.request()
    request.body = body
    assert request.new_body == body
