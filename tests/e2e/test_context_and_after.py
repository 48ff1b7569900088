"""What outlives the call: `request.context` up to the response phase, `self.after` beyond the answer."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.client import Client
from tests.e2e.site import Site, plugin, post_resp, pre_req, since
from tests.e2e.upstream import ASIDE, Upstream

CONTEXT = since("3.0", "variables in the response phase")


class TestContext:
    @CONTEXT
    @pre_req(plugin("keeps_user"))
    @post_resp(plugin("keeps_user"))
    def test_the_response_phase_finds_what_the_request_phase_kept(self, client: Client, upstream: Upstream) -> None:
        assert client.get(headers=[("X-User", "anna")]).header("X-Was") == "anna"

    @CONTEXT
    @pre_req(plugin("keeps_user_async"))
    @post_resp(plugin("keeps_user_async"))
    def test_async_plugins_keep_and_find_it_too(self, client: Client, upstream: Upstream) -> None:
        assert client.get(headers=[("X-User", "anna")]).header("X-Was") == "anna"

    @CONTEXT
    @pre_req(plugin("keeps_user"))
    @post_resp(plugin("keeps_user"))
    def test_a_request_finds_only_what_is_its_own(self, client: Client, upstream: Upstream) -> None:
        def ask(number: int) -> str | None:
            user = [("X-User", f"user-{number}")] if number % 2 else []
            return client.get(headers=user).header("X-Was")

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(40)))
        assert found == [f"user-{number}" if number % 2 else "nobody" for number in range(40)]

    @CONTEXT
    @pre_req(plugin("keeps_user"))
    @post_resp(plugin("looks_at_response"))
    def test_neither_client_nor_upstream_sees_it(self, client: Client, upstream: Upstream) -> None:
        answer = client.get(headers=[("X-User", "kept-secret")])
        request = upstream.request
        others = [pair for pair in request.headers if pair[0].lower() != "x-user"]
        assert "kept-secret" not in str((others, request.target, request.body, answer))

    @since("2.9", "variables")
    @pre_req(plugin("keeps_user"), plugin("shows_kept"))
    def test_later_plugins_of_the_request_phase_see_it(self, client: Client) -> None:
        assert client.get(headers=[("X-User", "anna")]).json() == {"user": "anna"}


@pytest.mark.parametrize("name", ["tells_afterwards", "tells_afterwards_async"])
@pre_req(plugin("looks_only"))
def test_a_function_runs_after_the_answer_and_does_not_hold_it(
    client: Client, site: Site, upstream: Upstream, name: str
) -> None:
    site.change(client, pre_req(plugin(name, url=f"http://127.0.0.1:{upstream.port}{ASIDE}")))
    with upstream.busy():
        assert client.get("/path").text == "answered"
        assert upstream.wait_aside().body == b"/path"
