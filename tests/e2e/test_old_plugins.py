"""Plugins of the older runner 0.2, unchanged."""

from tests.e2e.client import Client
from tests.e2e.site import pre_req, since, text_plugin
from tests.e2e.upstream import Upstream


@since("2.12", "the request's body")
@pre_req(text_plugin("old_stop", "any text"))
def test_a_response_that_it_sets_answers_the_client(client: Client, upstream: Upstream) -> None:
    answer = client.post(body="größe".encode())
    assert (answer.status, answer.text) == (201, "conf is any text")
    assert answer.header("X-Host") == client.host
    assert answer.header("X-Body") == "größe".encode().decode("latin-1")
    assert upstream.seen == []


@pre_req(text_plugin("old_rewrite", ""))
def test_a_request_that_it_changes_reaches_the_upstream(client: Client, upstream: Upstream) -> None:
    assert client.get("/get?a=1").text == "from the upstream"
    request = upstream.request
    assert (request.path, request.args) == ("/a6/python/runner", ["a6_runner=Python", "a=1"])
    assert request.header("X-Resp-A6-Runner") == "Python"


@pre_req(text_plugin("old_guard", ""), text_plugin("old_rewrite", ""))
def test_the_first_that_sets_a_response_ends_the_chain(client: Client, upstream: Upstream) -> None:
    assert client.get().status == 401
    assert client.get(headers=[("X-Token", "t")]).status == 200
    assert upstream.request.path == "/a6/python/runner"
