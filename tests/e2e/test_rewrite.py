"""A plugin changes what the upstream gets, and adds to what the client gets: the request phase without `stop`."""

from tests.e2e.client import Client
from tests.e2e.site import plugin, pre_req, since
from tests.e2e.upstream import Upstream

BODY = since("3.6", "a rewritten body")
RESPONSE_HEADERS = since("2.13", "headers for the client's response")


@pre_req(plugin("looks_only"))
def test_what_a_plugin_does_not_change_arrives_as_it_was_sent(client: Client, upstream: Upstream) -> None:
    target = "/a%2Fb/%7Euser?x=1&&y&x=%20+"
    client.post(target, [("X-Two", "1"), ("X-Two", "2")], b"body")
    request = upstream.request
    assert (request.method, request.target, request.body) == ("POST", target, b"body")
    assert request.all("X-Two") == ["1", "2"]


class TestPath:
    @pre_req(plugin("rewrites", path="/elsewhere"))
    def test_a_path_is_rewritten(self, client: Client, upstream: Upstream) -> None:
        client.get("/here")
        assert upstream.request.target == "/elsewhere"

    @pre_req(plugin("rewrites", path="/elsewhere"))
    def test_a_rewritten_path_keeps_the_query(self, client: Client, upstream: Upstream) -> None:
        client.get("/here?a=1&b=2&b=3")
        assert (upstream.request.path, upstream.request.args) == ("/elsewhere", ["a=1", "b=2", "b=3"])

    @pre_req(plugin("rewrites", path="/elsewhere"))
    def test_a_rewritten_path_keeps_arguments_without_a_value(self, client: Client, upstream: Upstream) -> None:
        client.get("/here?bare&a=1&other")
        assert upstream.request.args == ["a=1", "bare", "other"]

    @pre_req(plugin("prefixes", prefix="/prefix"))
    def test_bytes_of_a_path_that_are_no_utf_8_survive(self, client: Client, upstream: Upstream) -> None:
        client.get("/%FF%FE/caf%C3%A9")
        assert upstream.request.target == "/prefix/%FF%FE/caf%C3%A9"

    @pre_req(plugin("rewrites", path="/a b/größe"))
    def test_a_rewritten_path_is_encoded_on_its_way(self, client: Client, upstream: Upstream) -> None:
        client.get()
        assert upstream.request.path == "/a%20b/gr%C3%B6%C3%9Fe"

    @pre_req(plugin("rewrites", path="/a?b=c"))
    def test_a_question_mark_belongs_to_the_path(self, client: Client, upstream: Upstream) -> None:
        client.get()
        assert upstream.request.target == "/a%3Fb=c"

    @pre_req(plugin("rewrites", path="/elsewhere", args={"added": "1"}))
    def test_path_and_arguments_are_rewritten_together(self, client: Client, upstream: Upstream) -> None:
        client.get("/here?a=1")
        assert (upstream.request.path, upstream.request.args) == ("/elsewhere", ["a=1", "added=1"])


class TestArguments:
    @pre_req(plugin("rewrites", args={"a": "new"}))
    def test_an_argument_is_set_and_the_others_stay(self, client: Client, upstream: Upstream) -> None:
        client.get("/path?a=1&b=2&a=3")
        assert (upstream.request.path, upstream.request.args) == ("/path", ["a=new", "b=2"])

    @pre_req(plugin("rewrites", args={"a": ["1", "2"]}))
    def test_an_argument_gets_several_values(self, client: Client, upstream: Upstream) -> None:
        client.get("/path")
        assert upstream.request.args == ["a=1", "a=2"]

    @pre_req(plugin("rewrites", args={"a": None}))
    def test_an_argument_is_removed_with_all_its_values(self, client: Client, upstream: Upstream) -> None:
        client.get("/path?a=1&b=2&a=3")
        assert upstream.request.args == ["b=2"]

    @pre_req(plugin("rewrites", args={"a": "&= ü"}))
    def test_an_argument_is_encoded_on_its_way(self, client: Client, upstream: Upstream) -> None:
        client.get("/path")
        assert upstream.request.args == ["a=%26%3D%20%C3%BC"]

    @pre_req(plugin("rewrites", args={"a": "1"}))
    def test_arguments_without_a_value_stay_so(self, client: Client, upstream: Upstream) -> None:
        client.get("/path?bare&empty=")
        assert upstream.request.args == ["a=1", "bare", "empty="]

    @pre_req(plugin("rewrites", args={"a": ""}))
    def test_an_argument_is_set_to_nothing(self, client: Client, upstream: Upstream) -> None:
        client.get("/path?a=1")
        assert upstream.request.args == ["a="]


class TestHeaders:
    @pre_req(plugin("rewrites", headers={"X-New": "1", "X-Old": "changed"}))
    def test_a_header_is_set_and_the_others_stay(self, client: Client, upstream: Upstream) -> None:
        client.get(headers=[("X-Old", "old"), ("X-Other", "other")])
        request = upstream.request
        assert (request.all("X-New"), request.all("X-Old"), request.all("X-Other")) == (["1"], ["changed"], ["other"])

    @pre_req(plugin("rewrites", headers={"X-Old": None}))
    def test_a_header_is_removed_with_all_its_values(self, client: Client, upstream: Upstream) -> None:
        client.get(headers=[("X-Old", "1"), ("x-old", "2"), ("X-Other", "other")])
        assert (upstream.request.all("X-Old"), upstream.request.all("X-Other")) == ([], ["other"])

    @pre_req(plugin("rewrites", headers={"X-List": ["1", "2"]}))
    def test_several_values_of_a_header_arrive_in_one_line(self, client: Client, upstream: Upstream) -> None:
        client.get()
        assert upstream.request.all("X-List") == ["1, 2"]

    @pre_req(plugin("rewrites", headers={"Cookie": ["a=1", "b=2"]}))
    def test_several_cookies_arrive_as_cookies_do(self, client: Client, upstream: Upstream) -> None:
        client.get()
        assert upstream.request.all("Cookie") == ["a=1; b=2"]

    @pre_req(plugin("rewrites", headers={"Host": "elsewhere.test"}))
    def test_the_host_is_rewritten(self, client: Client, upstream: Upstream) -> None:
        client.get()
        assert upstream.request.all("Host") == ["elsewhere.test"]

    @pre_req(plugin("copies_a_header"))
    def test_bytes_of_a_header_that_are_no_utf_8_survive(self, client: Client, upstream: Upstream) -> None:
        client.get(headers=[("X-Original", b"caf\xe9 \xff\xfe")])
        assert upstream.request.header("X-Copy") == "caf\xe9 \xff\xfe"

    @pre_req(plugin("copies_a_header"))
    def test_utf_8_in_a_header_survives(self, client: Client, upstream: Upstream) -> None:
        client.get(headers=[("X-Original", "größer 日本".encode())])
        assert upstream.request.header("X-Copy") == "größer 日本".encode().decode("latin-1")


class TestBody:
    @BODY
    @pre_req(plugin("rewrites", body="a new body"))
    def test_a_body_is_replaced(self, client: Client, upstream: Upstream) -> None:
        client.post(body=b"old")
        assert (upstream.request.body, upstream.request.all("Content-Length")) == (b"a new body", ["10"])

    @BODY
    @pre_req(plugin("rewrites", body="a new body"))
    def test_a_request_without_a_body_gets_one(self, client: Client, upstream: Upstream) -> None:
        client.get()
        assert (upstream.request.method, upstream.request.body) == ("GET", b"a new body")

    @pre_req(plugin("rewrites", headers={"X-New": "1"}))
    def test_a_body_that_is_not_replaced_arrives_whole(self, client: Client, upstream: Upstream) -> None:
        body = bytes(range(256)) * 4096
        client.post(body=body)
        assert upstream.request.body == body


class TestTheClientsResponse:
    @RESPONSE_HEADERS
    @pre_req(plugin("rewrites", response_headers=[("X-Added", "1")]))
    def test_a_header_is_added_to_the_upstreams_response(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-Upstream", "yes")])
        answer = client.get()
        assert (answer.header("X-Added"), answer.header("X-Upstream")) == ("1", "yes")
        assert answer.text == "from the upstream"

    @since("2.14.1", "repeated headers of an answer")
    @pre_req(plugin("rewrites", response_headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
    def test_a_cookie_is_added_beside_the_upstreams(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("Set-Cookie", "up=1")])
        assert sorted(client.get().all("Set-Cookie")) == ["a=1", "b=2", "up=1"]
