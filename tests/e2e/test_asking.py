"""What a plugin asks of the gateway: variables and the request's body."""

import hashlib
from typing import Any

from tests.e2e.client import Client
from tests.e2e.site import before, plugin, post_req, pre_req, since
from tests.e2e.upstream import Upstream

VARIABLES = since("2.9", "variables")
BODIES = since("2.12", "the request's body")


def described(body: bytes) -> dict[str, Any]:
    """What the plugins of this suite say of a body."""
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}


class TestVariables:
    @VARIABLES
    @pre_req(plugin("asks_var", name="request_uri"))
    def test_a_plugin_asks_for_a_variable(self, client: Client) -> None:
        assert client.get("/path?a=1").json() == {"value": "/path?a=1"}

    @VARIABLES
    @post_req(plugin("asks_var", name="request_uri"))
    def test_a_plugin_asks_in_post_req_too(self, client: Client) -> None:
        assert client.get("/path?a=1").json() == {"value": "/path?a=1"}

    @VARIABLES
    @pre_req(plugin("asks_var_async", name="cookie_session"))
    def test_an_async_plugin_asks_for_a_variable(self, client: Client) -> None:
        assert client.get(headers=[("Cookie", "a=1; session=abc")]).json() == {"value": "abc"}

    @VARIABLES
    @pre_req(plugin("asks_var", name="http_x_missing"))
    def test_a_variable_that_is_not_set_is_none(self, client: Client) -> None:
        assert client.get().json() == {"value": None}

    @VARIABLES
    @pre_req(plugin("asks_var", name="arg_a"))
    def test_a_variable_that_is_set_and_empty_is_empty(self, client: Client) -> None:
        assert client.get("/?a=").json() == {"value": ""}

    @VARIABLES
    @pre_req(plugin("asks_vars", names=["request_method", "uri", "http_x_missing", "request_method"]))
    def test_a_plugin_asks_for_several_variables_at_once(self, client: Client) -> None:
        assert client.get("/path").json() == {"request_method": "GET", "uri": "/path", "http_x_missing": None}

    @VARIABLES
    @pre_req(plugin("declares_variables"))
    def test_declared_variables_are_there_when_the_plugin_runs(self, client: Client) -> None:
        assert client.get("/path").json() == {"request_method": "GET", "uri": "/path"}

    @VARIABLES
    @pre_req(plugin("asks_as_sync_in_async"))
    def test_waiting_in_an_async_plugin_fails_closed(self, client: Client, upstream: Upstream) -> None:
        assert (client.get().status, upstream.seen) == (503, [])

    @before("2.9", "variables")
    @pre_req(plugin("asks_var", name="uri"))
    def test_a_gateway_that_answers_no_variables_fails_closed(self, client: Client, upstream: Upstream) -> None:
        assert (client.get().status, upstream.seen) == (503, [])


class TestBodies:
    @BODIES
    @pre_req(plugin("asks_body"))
    def test_a_plugin_reads_a_body_byte_for_byte(self, client: Client) -> None:
        body = bytes(range(256))
        assert client.post(body=body).json() == described(body)

    @BODIES
    @pre_req(plugin("asks_body_async"))
    def test_an_async_plugin_reads_a_body(self, client: Client) -> None:
        assert client.post(body=b"text").json() == described(b"text")

    @BODIES
    @pre_req(plugin("asks_body"))
    def test_a_body_is_none_where_there_is_none(self, client: Client) -> None:
        assert client.get().json() == {"body": None}

    @BODIES
    @pre_req(plugin("asks_body"))
    def test_a_body_that_is_empty_is_none(self, client: Client) -> None:
        assert client.post(body=b"").json() == {"body": None}

    @BODIES
    @pre_req(plugin("asks_body"))
    def test_a_plugin_reads_70_kilobytes(self, client: Client) -> None:
        body = b"0123456789" * 7000
        assert client.post(body=body).json() == described(body)

    @BODIES
    @pre_req(plugin("asks_body"))
    def test_a_plugin_reads_a_megabyte(self, client: Client) -> None:
        body = bytes(range(256)) * 4096
        assert client.post(body=body).json() == described(body)

    @BODIES
    @pre_req(plugin("asks_body_async"))
    def test_an_async_plugin_reads_a_megabyte(self, client: Client) -> None:
        body = bytes(range(256)) * 4096
        assert client.post(body=body).json() == described(body)

    @BODIES
    @pre_req(plugin("asks_json"))
    def test_a_plugin_reads_json(self, client: Client) -> None:
        assert client.post(body='{"größe": [1, null]}'.encode()).json() == {"got": {"größe": [1, None]}}

    @BODIES
    @pre_req(plugin("asks_json_async"))
    def test_an_async_plugin_reads_json(self, client: Client) -> None:
        assert client.post(body=b"[1,2]").json() == {"got": [1, 2]}

    @BODIES
    @pre_req(plugin("asks_json"))
    def test_a_body_that_is_no_json_fails_closed_where_json_is_wanted(self, client: Client, upstream: Upstream) -> None:
        assert (client.post(body=b"{not json").status, upstream.seen) == (503, [])

    @BODIES
    @pre_req(plugin("rewrites", body="by an earlier plugin"), plugin("asks_body"))
    def test_a_plugin_reads_the_body_that_an_earlier_one_set(self, client: Client) -> None:
        assert client.post(body=b"by the client").json() == described(b"by an earlier plugin")

    @before("2.12", "the request's body")
    @pre_req(plugin("asks_body"))
    def test_a_gateway_that_gives_no_bodies_fails_closed(self, client: Client, upstream: Upstream) -> None:
        assert (client.post(body=b"text").status, upstream.seen) == (503, [])
