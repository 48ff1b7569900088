"""Plugins that see the upstream's response: `filter_response` in ext-plugin-post-resp."""

import gzip

import pytest

from tests.e2e.client import Client
from tests.e2e.site import plugin, post_resp, since
from tests.e2e.upstream import Upstream

PHASE = since("2.14.1", "ext-plugin-post-resp")
ASKING = since("3.0", "variables and bodies in the response phase")
ALL_HEADERS = since("3.2", "Content-Type and nine more headers in the response phase")


@PHASE
class TestStatusAndHeaders:
    @ALL_HEADERS
    @post_resp(plugin("looks_at_response"))
    def test_what_a_plugin_does_not_change_arrives_as_it_was_sent(self, client: Client, upstream: Upstream) -> None:
        headers = [("Content-Type", "text/x-own"), ("Location", "/there"), ("X-One", "1"), ("Content-Language", "de")]
        upstream.answers(201, headers, b"as it was")
        answer = client.get()
        assert (answer.status, answer.body) == (201, b"as it was")
        assert [(name, answer.header(name)) for name, _ in headers] == headers

    @post_resp(plugin("changes_response", status=418))
    def test_the_status_is_changed_and_the_rest_stays(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-One", "1")])
        answer = client.get()
        assert (answer.status, answer.header("X-One"), answer.text) == (418, "1", "from the upstream")

    @post_resp(plugin("changes_response", headers={"X-One": "changed", "X-New": "new"}))
    def test_a_changed_header_keeps_the_others(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-One", "1"), ("X-Two", "2")])
        answer = client.get()
        assert [answer.all(name) for name in ("X-One", "X-Two", "X-New")] == [["changed"], ["2"], ["new"]]
        assert answer.text == "from the upstream"

    @ALL_HEADERS
    @post_resp(plugin("changes_response", headers={"X-New": "new"}))
    def test_a_changed_header_keeps_the_content_type(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("Content-Type", "text/x-own")])
        assert client.get().header("Content-Type") == "text/x-own"

    @ALL_HEADERS
    @post_resp(plugin("changes_response", headers={"Content-Type": "text/x-new"}))
    def test_the_content_type_is_changed(self, client: Client, upstream: Upstream) -> None:
        assert client.get().all("Content-Type") == ["text/x-new"]

    @post_resp(plugin("changes_response", headers={"X-New": "new"}))
    def test_a_changed_header_keeps_repeated_ones(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        assert client.get().all("Set-Cookie") == ["a=1", "b=2"]

    @post_resp(plugin("changes_response", headers={"Set-Cookie": ["c=3", "d=4"]}))
    def test_a_repeated_header_is_set(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("Set-Cookie", "a=1")])
        assert client.get().all("Set-Cookie") == ["c=3", "d=4"]

    @post_resp(plugin("changes_response", headers={"X-Secret": None}))
    def test_a_header_is_removed(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-Secret", "1"), ("X-Secret", "2"), ("X-One", "1")])
        answer = client.get()
        assert (answer.all("X-Secret"), answer.all("X-One")) == ([], ["1"])

    @post_resp(plugin("removes_all_headers"))
    def test_all_headers_are_removed(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-Secret", "1"), ("X-Other", "2")])
        answer = client.get()
        assert (answer.all("X-Secret"), answer.all("X-Other")) == ([], [])
        assert answer.text

    @post_resp(plugin("changes_response", headers={"X-New": "new"}))
    def test_an_error_of_the_upstream_is_a_response_too(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(404, body=b"not here")
        answer = client.get()
        assert (answer.status, answer.header("X-New"), answer.text) == (404, "new", "not here")

    @post_resp(plugin("appends_to_response", mark="1"), plugin("appends_to_response", mark="2"))
    def test_plugins_run_in_their_order_and_see_what_earlier_ones_changed(
        self, client: Client, upstream: Upstream
    ) -> None:
        assert client.get().header("X-Trace") == "12"


@PHASE
class TestBodies:
    @post_resp(plugin("changes_response", body="a new body"))
    def test_the_body_is_replaced(self, client: Client, upstream: Upstream) -> None:
        answer = client.get()
        assert (answer.status, answer.text) == (200, "a new body")

    @ASKING
    @post_resp(plugin("doubles_the_body"))
    def test_the_body_is_read_and_changed(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=bytes(range(256)))
        assert client.get().body == bytes(range(256)) * 2

    @ASKING
    @post_resp(plugin("doubles_the_body"), plugin("doubles_the_body"))
    def test_a_later_plugin_reads_the_body_that_an_earlier_one_set(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"ab")
        assert client.get().text == "abababab"

    @ASKING
    @post_resp(plugin("changes_response_async"))
    def test_an_async_plugin_reads_the_body(self, client: Client, upstream: Upstream) -> None:
        assert client.get().text == "FROM THE UPSTREAM"

    @ASKING
    @post_resp(plugin("tells_the_bodys_length"))
    def test_a_body_that_is_only_read_still_arrives(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"x" * 2**20)
        answer = client.get()
        assert (answer.header("X-Length"), answer.body) == (str(2**20), b"x" * 2**20)

    @ASKING
    @post_resp(plugin("tells_the_bodys_length"), plugin("tells_the_bodys_length"))
    def test_two_plugins_read_the_body_that_can_be_asked_for_once(self, client: Client, upstream: Upstream) -> None:
        answer = client.get()
        assert (answer.header("X-Length"), answer.text) == ("17", "from the upstream")

    @ASKING
    @post_resp(plugin("tells_the_bodys_length"))
    def test_a_chunked_body_is_read_whole(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"0123456789", chunked=True)
        answer = client.get()
        assert (answer.header("X-Length"), answer.body) == ("10", b"0123456789")

    @ALL_HEADERS
    @post_resp(plugin("changes_response", headers={"X-New": "new"}))
    def test_a_compressed_body_stays_readable(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("Content-Encoding", "gzip")], body=gzip.compress(b"compressed"))
        answer = client.get()
        assert (answer.header("Content-Encoding"), gzip.decompress(answer.body)) == ("gzip", b"compressed")

    @post_resp(plugin("changes_response", body="plain"))
    def test_a_body_that_replaces_a_compressed_one_is_not_said_to_be(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("Content-Encoding", "gzip")], body=gzip.compress(b"compressed"))
        answer = client.get()
        assert (answer.header("Content-Encoding"), answer.text) == (None, "plain")


@PHASE
class TestResponsesWithoutABody:
    @pytest.mark.parametrize("status", [204, 304])
    @post_resp(plugin("changes_response", headers={"X-New": "new"}))
    def test_the_upstream_is_called_once(self, client: Client, upstream: Upstream, status: int) -> None:
        upstream.answers(status, [("X-One", "1")], b"")
        answer = client.get()
        assert (answer.status, answer.header("X-New"), answer.header("X-One")) == (status, "new", "1")
        assert len(upstream.seen) == 1

    @ASKING
    @post_resp(plugin("knows_the_method"))
    def test_head_arrives_as_it_was_sent_where_the_method_is_known(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-One", "1"), ("Set-Cookie", "a=1")])
        answer = client.send("HEAD", "/")
        assert (answer.status, answer.all("X-One"), answer.all("Set-Cookie")) == (200, ["1"], ["a=1"])
        assert answer.all("Content-Length") == ["17"]
        assert len(upstream.seen) == 1

    @ASKING
    @post_resp(plugin("changes_response", status=418, headers={"X-New": "new"}))
    def test_the_upstream_is_called_once_for_head(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(headers=[("X-One", "1")])
        answer = client.send("HEAD", "/")
        assert (answer.status, answer.header("X-New"), answer.header("X-One")) == (418, "new", "1")
        assert len(upstream.seen) == 1


@PHASE
@ASKING
class TestTheRequest:
    @post_resp(plugin("shows_the_request"))
    def test_a_plugin_sees_the_request_through_variables(self, client: Client, upstream: Upstream) -> None:
        shown = client.get("/caf%C3%A9?a=1&b=%26&a=2", [("X-From-Client", "yes")]).json()
        assert shown.pop("remote_addr")
        assert shown == {
            "method": "GET",
            "path": "/café",
            "args": [["a", "1"], ["a", "2"], ["b", "&"]],
            "header": "yes",
            "missing": None,
        }

    @post_resp(plugin("shows_the_request_async"))
    def test_an_async_plugin_sees_the_request(self, client: Client, upstream: Upstream) -> None:
        assert client.get("/path").header("X-Request") == "GET /path"


@PHASE
class TestFailures:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @post_resp(plugin("raises"))
    def test_a_plugin_that_raises_does_not_leak_the_upstreams_response(
        self, client: Client, upstream: Upstream, method: str
    ) -> None:
        upstream.answers(headers=[("X-Secret", "secret")], body=b"secret")
        answer = client.send(method, "/")
        assert (answer.status, answer.header("X-Secret")) == (503, None)
        assert b"secret" not in answer.body

    @post_resp(plugin("raises"), allow_degradation=True)
    def test_allow_degradation_does_not_leak_it_either(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"secret")
        answer = client.get()
        assert (answer.status, b"secret" in answer.body) == (503, False)

    @post_resp(plugin("raises"))
    def test_a_failure_at_a_response_without_a_body_shows(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(204, (), b"")
        assert client.get().status == 503

    @post_resp(plugin("no_such_plugin"))
    def test_an_unknown_plugin_does_not_leak_the_upstreams_response(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"secret")
        answer = client.get()
        assert (answer.status, b"secret" in answer.body) == (503, False)

    @post_resp(plugin("changes_response", status="two hundred"))
    def test_a_bad_conf_does_not_leak_the_upstreams_response(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"secret")
        answer = client.get()
        assert (answer.status, b"secret" in answer.body) == (503, False)

    @post_resp(plugin("stops", status=201))
    def test_a_plugin_without_filter_response_does_not_leak_it(self, client: Client, upstream: Upstream) -> None:
        upstream.answers(body=b"secret")
        answer = client.get()
        assert (answer.status, b"secret" in answer.body) == (503, False)

    @post_resp(plugin("raises_and_continues"), plugin("appends_to_response", mark="went on"))
    def test_a_plugin_that_says_continue_lets_the_response_go_on(self, client: Client, upstream: Upstream) -> None:
        answer = client.get()
        assert (answer.status, answer.header("X-Trace"), answer.text) == (200, "went on", "from the upstream")
