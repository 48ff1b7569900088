"""From what plugins did to what the gateway gets: each rule of `answer`, judged by what the gateway would do."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st

from apisix.runner.http.answer import (
    PLACEHOLDER,
    PLACEHOLDER_HEADER,
    Version,
    ignored_by,
    ignored_in_response,
    response_parts,
    rewrite_action,
    stop_action,
)
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import (
    Rewrite,
    Stop,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    encode_http_req_call_resp,
    encode_http_resp_call_resp,
)
from tests.http import given

NEW: Version = (3, 18, 0)
OLD: Version = (2, 7, 0)
VERSIONS = [None, OLD, (3, 15, 9), (3, 16, 0), NEW]


def rewrite(request: Request, response: Response | None = None, version: Version | None = NEW) -> Rewrite | None:
    """The rewrite as the gateway decodes it."""
    action = rewrite_action(request, response or Response(), version)
    decoded = decode_http_req_call_resp(encode_http_req_call_resp(7, action))
    assert decoded.id == 7
    assert decoded.action is None or isinstance(decoded.action, Rewrite)
    return decoded.action


def stop(response: Response) -> Stop:
    """The stop as the gateway decodes it."""
    action = decode_http_req_call_resp(encode_http_req_call_resp(0, stop_action(response))).action
    assert isinstance(action, Stop)
    return action


def answer(response: Response, method: str | None = None) -> tuple[int, list[Pair], bytes | None]:
    """Status, headers and body of the response phase's answer as the gateway decodes them."""
    decoded = decode_http_resp_call_resp(encode_http_resp_call_resp(7, *response_parts(response, method)))
    return decoded.status, list(decoded.headers or ()), decoded.body


# Rewrite.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("post_req", [False, True])
def test_nothing_changed_is_no_action(version: Version | None, post_req: bool) -> None:
    request = given.request(
        path="/a%20b",
        args=[("a", "1"), ("flag", None)],
        headers=[("host", "a.test"), ("x", "1")],
        post_req=post_req,
    )
    assert rewrite(request, version=version) is None
    assert request.headers["x"] == "1"
    assert request.args["flag"] == ""
    request.path = request.path
    request.headers["x"] = "1"
    request.headers = dict(request.headers)
    request.args = request.args
    assert rewrite(request, version=version) is None


def test_only_what_changed_is_sent() -> None:
    request = given.request(args=[("a", "1"), ("b", "2")], headers=[("host", "a.test"), ("x-a", "1"), ("x-b", "2")])
    request.headers["X-A"] = "new"
    assert request.headers["x-b"] == "2"
    assert rewrite(request) == Rewrite(headers=[("x-a", "new")])


def test_names_of_request_headers_go_out_in_lower_case() -> None:
    request = given.request()
    request.headers["X-Resp-A6-Runner"] = "Python"
    assert rewrite(request) == Rewrite(headers=[("x-resp-a6-runner", "Python")])


def test_a_deleted_header_has_no_value_and_an_emptied_one_an_empty_value() -> None:
    request = given.request(headers=[("x-gone", "1"), ("x-empty", "1")])
    del request.headers["X-Gone"]
    request.headers["X-Empty"] = ""
    assert rewrite(request) == Rewrite(headers=[("x-gone", None), ("x-empty", "")])


def test_several_values_of_a_request_header_are_joined() -> None:
    request = given.request(headers=[("accept", "a")])
    request.headers.add("accept", "b")
    request.headers.setall("Cookie", ["a=1", "b=2"])
    assert rewrite(request) == Rewrite(headers=[("accept", "a, b"), ("cookie", "a=1; b=2")])


def test_repeated_arguments_are_repeated_and_deleted_ones_have_no_value() -> None:
    request = given.request(args=[("gone", "1"), ("flag", None), ("a", "1")])
    del request.args["gone"]
    request.args.setall("a", ["1", ""])
    assert rewrite(request) == Rewrite(args=[("gone", None), ("a", "1"), ("a", "")])


def test_an_added_value_repeats_the_others() -> None:
    request = given.request(args=[("a", "1"), ("a", "2")])
    request.args.add("a", "3")
    assert rewrite(request) == Rewrite(args=[("a", "1"), ("a", "2"), ("a", "3")])


def test_from_3_16_a_path_goes_alone() -> None:
    request = given.request(args=[("a", "1")])
    request.path = "/new"
    assert rewrite(request, version=(3, 16, 0)) == Rewrite(path="/new")


@pytest.mark.parametrize("version", [None, OLD, (3, 15, 9)])
def test_before_3_16_a_path_keeps_the_query_by_removing_an_argument_that_is_not_there(version: Version | None) -> None:
    request = given.request(args=[("flag", None), ("_", "1")])
    request.path = "/new"
    assert rewrite(request, version=version) == Rewrite(path="/new", args=[("__", None)])


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_query_there_is_none_to_keep(version: Version | None) -> None:
    request = given.request()
    request.path = "/new"
    assert rewrite(request, version=version) == Rewrite(path="/new")


@pytest.mark.parametrize("version", VERSIONS)
def test_changed_arguments_keep_the_others_by_themselves(version: Version | None) -> None:
    request = given.request(args=[("a", "1"), ("b", "2")])
    request.path = "/new"
    request.args["a"] = "2"
    assert rewrite(request, version=version) == Rewrite(path="/new", args=[("a", "2")])


@pytest.mark.parametrize("version", VERSIONS)
def test_in_post_req_the_path_goes_with_changed_arguments_decoded(version: Version | None) -> None:
    request = given.request(path="/a%20b", post_req=True)
    request.args["a"] = "2"
    assert rewrite(request, version=version) == Rewrite(path="/a b", args=[("a", "2")])


@pytest.mark.parametrize("post_req", [False, True])
def test_where_no_path_was_rewritten_arguments_go_without_it(post_req: bool) -> None:
    request = given.request(given.Gateway({"upstream_uri": b""}), path="/a%20b", post_req=post_req)
    request.var("upstream_uri")
    request.args["a"] = "2"
    assert rewrite(request) == Rewrite(args=[("a", "2")])
    assert request.path == "/a%20b"


def test_headers_of_the_response_are_added_with_every_value() -> None:
    response = Response()
    response.headers["X-A"] = "1"
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    action = rewrite(given.request(), response)
    assert action == Rewrite(resp_headers=[("X-A", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])


def test_headers_of_the_response_that_were_only_looked_at_are_not_sent() -> None:
    response = Response()
    assert response.headers.get("x-a") is None
    assert rewrite(given.request(), response) is None


def test_a_status_and_a_body_without_stop_are_not_sent() -> None:
    response = Response()
    response.status_code = 403
    response.body = "no"
    assert rewrite(given.request(), response) is None


def test_a_replaced_body_is_sent_and_one_that_was_read_is_not() -> None:
    request = given.request(given.Gateway(body=b"old"))
    assert request.body == b"old"
    assert rewrite(request) is None
    request.body = b"\x00new"
    assert rewrite(request) == Rewrite(body=b"\x00new")


def test_what_frames_a_request_is_never_sent() -> None:
    framing = [("content-length", "5"), ("transfer-encoding", "chunked"), ("connection", "close")]
    request = given.request(headers=framing)
    request.headers = {"x-new": "1"}
    assert rewrite(request) == Rewrite(headers=[("x-new", "1")])


# What the gateway makes of a rewrite (ext-plugin/init.lua), so that any course of changes can be judged.

names = st.sampled_from(["a", "b", "_", "x-tag"])
values = st.sampled_from(["", "1", "2", "é", "\udcff"])
start = st.lists(st.tuples(names, st.none() | values), max_size=4)
new = st.dictionaries(names, st.lists(values, max_size=3), max_size=3)

Args = dict[str, list[str | None]]


def gateway_args(args: Sequence[Pair], action: Rewrite | None, version: Version, path_was_rewritten: bool) -> Args:
    """The upstream's arguments after a rewrite."""
    result: Args = {}
    for name, value in args:
        result.setdefault(name, []).append(value)
    if action is None:
        return result
    if action.args:
        if path_was_rewritten and action.path is None:
            return result  # lost
        changed = set()
        for name, value in action.args:
            if value is None:
                result.pop(name, None)
            elif name in changed:
                result[name].append(value)
            else:
                result[name] = [value]
                changed.add(name)
    elif action.path is not None and version < (3, 16, 0):
        return {}
    return result


@for_all(
    before=start,
    changes=new,
    path=st.sampled_from([None, "/get", "/new"]),
    version=st.sampled_from([OLD, (3, 15, 9), (3, 16, 0), NEW]),
    told=st.booleans(),
    post_req=st.booleans(),
)
@example(before=[("a", None)], changes={}, path="/new", version=OLD, told=True, post_req=False)
def test_the_upstream_gets_the_path_and_the_arguments_that_plugins_left(
    before: list[Pair],
    changes: dict[str, list[str]],
    path: str | None,
    version: Version,
    told: bool,
    post_req: bool,
) -> None:
    request = given.request(path="/get", args=before, post_req=post_req)
    for name, some in changes.items():
        request.args.setall(name, some)
    if path is not None:
        request.path = path
    action = rewrite(request, version=version if told else None)
    meant: Args = {name: list(request.args.getall(name)) for name in request.args}
    for name in meant:
        as_it_was = [value for other, value in before if other == name]
        if [value or "" for value in as_it_was] == meant[name]:
            meant[name] = as_it_was  # an argument without = stays one
    assert gateway_args(before, action, version, path_was_rewritten=post_req) == meant
    assert ((action and action.path) or "/get") == request.path


@for_all(
    before=st.lists(st.tuples(names, values), max_size=4, unique_by=lambda pair: pair[0]),
    changes=st.lists(st.tuples(names.map(str.title), st.lists(values, max_size=3)), max_size=3),
    unread=st.booleans(),
)
def test_the_upstream_gets_the_headers_that_plugins_left(
    before: list[tuple[str, str]], changes: list[tuple[str, list[str]]], unread: bool
) -> None:
    request = given.request(headers=before)
    for name, some in changes:
        if unread and len(some) == 1:
            request.headers[name] = some[0]
        else:
            request.headers.setall(name, some)
    action = rewrite(request)
    upstream = dict(before)
    for name, value in (action.headers if action else None) or ():
        assert name == name.lower()
        if value is None:
            del upstream[name]  # only what is there is deleted
        else:
            upstream[name] = value
    assert upstream == {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}


# Stop.


@pytest.mark.parametrize("body", [None, b"no"])
def test_a_stop_always_has_a_status(body: bytes | None) -> None:
    response = Response()
    response.body = body
    assert stop(response) == Stop(200, None, body)


def test_a_stop_is_status_headers_and_body() -> None:
    response = Response()
    response.status_code = 401
    response.headers["WWW-Authenticate"] = "Bearer"
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    response.body = {"error": "größer"}
    assert stop(response) == Stop(
        401,
        [
            ("WWW-Authenticate", "Bearer"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Type", "application/json"),
        ],
        '{"error":"größer"}'.encode(),
    )


def test_what_frames_another_message_is_not_sent() -> None:
    response = Response()
    response.headers = {"Content-Length": "5", "transfer-encoding": "chunked", "CONNECTION": "close"}
    assert stop(response) == Stop(200, None, None)


@for_all(st.integers(100, 599), st.lists(st.tuples(names, values)), st.binary())
def test_any_stop_arrives_as_it_was_meant(status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    response = Response()
    response.status_code = status
    for name, value in headers:
        response.headers.add(name, value)
    response.body = body
    action = stop(response)
    assert (action.status, action.body) == (status, body)
    assert sorted(action.headers or ()) == sorted(headers)
    for name in response.headers:
        assert [value for other, value in action.headers or () if other == name] == response.headers.getall(name)


# The response phase.

UPSTREAM = [("Content-Type", "text/html"), ("Content-Length", "5"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]


@pytest.mark.parametrize("method", [None, "GET", "POST"])
def test_all_headers_are_sent_changed_or_not(method: str | None) -> None:
    assert answer(given.upstream_response(headers=UPSTREAM), method) == (0, UPSTREAM, None)


def test_a_changed_header_loses_no_others() -> None:
    response = given.upstream_response(headers=UPSTREAM)
    response.headers["x-new"] = "1"
    response.headers["content-type"] = "text/plain"
    del response.headers["set-cookie"]
    response.headers.add("Set-Cookie", "c=3")
    assert sorted(answer(response)[1]) == [
        ("Content-Length", "5"),
        ("Set-Cookie", "c=3"),
        ("content-type", "text/plain"),
        ("x-new", "1"),
    ]


def test_a_status_is_sent_where_it_was_set() -> None:
    response = given.upstream_response(status=200)
    assert answer(response)[0] == 0
    response.status_code = 404
    assert answer(response)[0] == 404


@pytest.mark.parametrize("name", ["Connection", "transfer-encoding"])
def test_what_frames_the_upstreams_message_is_not_sent(name: str) -> None:
    assert answer(given.upstream_response(headers=[(name, "x"), ("a", "1")]))[1] == [("a", "1")]


def test_a_replaced_body_has_its_own_length_and_is_not_encoded() -> None:
    response = given.upstream_response(headers=[*UPSTREAM, ("Content-Encoding", "gzip")])
    response.body = "mine"
    assert answer(response) == (0, [UPSTREAM[0], *UPSTREAM[2:]], b"mine")


def test_a_body_that_was_only_read_is_not_replaced() -> None:
    response = given.upstream_response(given.Gateway(response_body=b"old"), headers=UPSTREAM)
    assert response.body == b"old"
    assert answer(response) == (0, UPSTREAM, None)


@pytest.mark.parametrize("body", [b"", ""])
def test_a_body_that_a_plugin_emptied_is_not_the_upstreams(body: Any) -> None:
    response = given.upstream_response(headers=UPSTREAM)
    response.body = body
    sent = answer(response)
    assert sent[2] == PLACEHOLDER != b"", "the gateway sends the upstream's body in place of an empty one"
    assert ("Content-Length", "5") not in sent[1]


def test_a_length_that_a_plugin_set_is_not_sent() -> None:
    response = given.upstream_response(headers=UPSTREAM)
    response.headers["Content-Length"] = "99999"
    assert answer(response) == (0, [UPSTREAM[0], *UPSTREAM[2:]], None)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("set_by_plugin", [True, False])
def test_where_there_is_no_body_a_placeholder_avoids_a_second_upstream_call(status: int, set_by_plugin: bool) -> None:
    response = given.upstream_response(status=200 if set_by_plugin else status, headers=UPSTREAM)
    if set_by_plugin:
        response.status_code = status
    assert answer(response) == (status if set_by_plugin else 0, [UPSTREAM[0], *UPSTREAM[2:]], PLACEHOLDER)


def test_an_answer_to_head_keeps_the_length_that_get_would_have() -> None:
    assert answer(given.upstream_response(headers=UPSTREAM), "HEAD") == (0, UPSTREAM, PLACEHOLDER)


def test_a_response_without_a_body_that_gets_another_status_is_not_fetched_a_second_time() -> None:
    response = given.upstream_response(status=204)
    response.status_code = 403
    assert answer(response) == (403, [PLACEHOLDER_HEADER], PLACEHOLDER)


# What old gateways ignore.


def test_an_old_gateway_ignores_what_it_does_not_know_and_a_new_one_nothing() -> None:
    everything = Rewrite("/new", [("a", "1")], [("a", "1")], [("a", "1")], b"new")
    body = "request.body (APISIX 3.6)"
    headers = "response.headers without self.stop() (APISIX 2.13)"
    assert ignored_by((2, 12, 9), everything) == [headers, body]
    assert ignored_by((2, 13, 0), everything) == ignored_by((3, 5, 9), everything) == [body]
    assert ignored_by((3, 6, 0), everything) == []
    assert ignored_by(OLD, Rewrite(path="/new", headers=[("a", "1")], args=[("a", "1")])) == []


def test_before_3_2_some_headers_of_a_response_cannot_be_changed() -> None:
    response = given.upstream_response(headers=UPSTREAM)
    assert ignored_in_response(OLD, response) == []
    response.headers["X-A"] = "1"
    response.headers["Content-Type"] = "text/html"
    assert ignored_in_response(OLD, response) == []
    response.headers["Content-Type"] = "text/plain"
    response.headers["Location"] = "/"
    told = ["response header content-type (APISIX 3.2)", "response header location (APISIX 3.2)"]
    assert ignored_in_response((3, 1, 9), response) == told
    assert ignored_in_response((3, 2, 0), response) == []


def test_a_stop_without_a_body_in_the_response_phase_does_not_show_the_upstreams_body() -> None:
    response = given.upstream_response(status=200)
    response.status_code = 403
    response.stopped = True
    assert answer(response) == (403, [PLACEHOLDER_HEADER], b"\n")


def test_where_a_plugin_has_removed_every_header_the_upstreams_do_not_come_back() -> None:
    response = given.upstream_response(headers=UPSTREAM)
    response.headers.clear()
    assert answer(response)[1] == [PLACEHOLDER_HEADER]
