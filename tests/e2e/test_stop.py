"""A plugin answers the client: `self.stop` in the request phase."""

import pytest

from tests.e2e.client import Client
from tests.e2e.site import plugin, post_req, pre_req, since
from tests.e2e.upstream import Upstream

REPEATED = since("2.14.1", "repeated headers of an answer")


@pre_req(plugin("stops", status=201, body="made here", headers=[("X-Made-By", "plugin")]))
def test_stop_answers_with_status_headers_and_body(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.header("X-Made-By"), answer.text) == (201, "plugin", "made here")


@pre_req(plugin("stops", status=403, body="no"))
def test_stop_keeps_the_request_from_the_upstream(client: Client, upstream: Upstream) -> None:
    client.get()
    assert upstream.seen == []


@post_req(plugin("stops", status=403, body="no"))
def test_stop_does_the_same_in_post_req(client: Client, upstream: Upstream) -> None:
    assert (client.get().status, upstream.seen) == (403, [])


@pre_req(plugin("stops_with_fields"))
def test_stop_sends_what_was_set_on_the_response(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.header("X-Made-By"), answer.text) == (201, "plugin", "made here")


@pre_req(plugin("stops", body="fine"))
def test_stop_without_a_status_is_a_200(client: Client) -> None:
    assert client.get().status == 200


@pre_req(plugin("stops"))
def test_stop_without_anything_stops_too(client: Client, upstream: Upstream) -> None:
    answer = client.get()
    assert (answer.status, answer.body, upstream.seen) == (200, b"", [])


@REPEATED
@pre_req(plugin("stops", body="two", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
def test_stop_sends_a_header_as_often_as_it_was_given(client: Client) -> None:
    assert client.get().all("Set-Cookie") == ["a=1", "b=2"]


@pre_req(plugin("stops_with_json"))
def test_stop_sends_a_dict_as_json(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.header("Content-Type")) == (403, "application/json")
    assert answer.json() == {"error": "no token", "hint": "größer"}


@pre_req(plugin("stops_with_bytes"))
def test_stop_sends_bytes_as_they_are(client: Client) -> None:
    answer = client.get()
    assert (answer.header("Content-Type"), answer.body) == ("application/octet-stream", bytes(range(256)))


@pre_req(plugin("stops_with_a_megabyte"))
def test_stop_sends_a_megabyte(client: Client) -> None:
    assert client.get().body == b"y" * 2**20


@pre_req(plugin("stops", status=302, headers=[("Location", "http://elsewhere.test/?a=1")]))
def test_stop_redirects(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.header("Location")) == (302, "http://elsewhere.test/?a=1")


@pre_req(plugin("stops", status=401, body="who?", headers=[("WWW-Authenticate", 'Basic realm="here"')]))
def test_stop_asks_for_credentials(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, 'Basic realm="here"')


@pre_req(plugin("stops", status=403))
def test_stop_without_a_body_keeps_its_status(client: Client, upstream: Upstream) -> None:
    assert (client.get().status, upstream.seen) == (403, [])


@pre_req(plugin("stops", status=204))
def test_stop_answers_204_without_a_body(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.body) == (204, b"")


@pre_req(plugin("stops", status=201, body="made here", headers=[("X-Made-By", "plugin")]))
def test_stop_answers_head_without_a_body(client: Client) -> None:
    answer = client.send("HEAD", "/")
    assert (answer.status, answer.header("X-Made-By"), answer.body) == (201, "plugin", b"")


@pre_req(plugin("takes_its_stop_back"))
def test_a_stop_that_is_taken_back_lets_the_request_go_on(client: Client, upstream: Upstream) -> None:
    assert client.get().text == "from the upstream"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pre_req(plugin("answers_with_what_it_sees"))
def test_a_plugin_sees_the_method(client: Client, method: str) -> None:
    assert client.send(method, "/").json()["method"] == method


@pre_req(plugin("answers_with_what_it_sees"))
def test_a_plugin_sees_the_path_decoded_and_without_the_query(client: Client) -> None:
    assert client.get("/caf%C3%A9/a%20b%3Fc?d=1").json()["path"] == "/café/a b?c"


@pre_req(plugin("answers_with_what_it_sees"))
def test_a_plugin_sees_arguments_decoded_with_every_value(client: Client) -> None:
    args = client.get("/?a=1&b=%26%20x&a=2&empty=&bare").json()["args"]
    assert sorted(args) == [["a", "1"], ["a", "2"], ["b", "& x"], ["bare", ""], ["empty", ""]]


@pre_req(plugin("answers_with_what_it_sees"))
def test_a_plugin_sees_every_value_of_a_header(client: Client) -> None:
    headers = client.get(headers=[("X-Two", "1"), ("X-One", "a"), ("X-Two", "2")]).json()["headers"]
    assert [value for name, value in headers if name == "x-two"] == ["1", "2"]


@pre_req(plugin("answers_with_what_it_sees"))
def test_a_plugin_sees_the_clients_address(client: Client) -> None:
    address = client.get().json()["remote_addr"]
    assert address.count(".") == 3 or ":" in address
