"""Several plugins in one conf."""

from tests.e2e.client import Client
from tests.e2e.site import before, plugin, post_req, pre_req, proxy_rewrite, since
from tests.e2e.upstream import Upstream

PHASE_KNOWN = since("2.9", "a key that tells the runner the phase")


@pre_req(plugin("appends", mark="1"), plugin("appends", mark="2"), plugin("appends", mark="3"))
def test_plugins_run_in_their_order_and_see_what_earlier_ones_changed(client: Client, upstream: Upstream) -> None:
    client.get()
    assert upstream.request.header("X-Trace") == "123"


@pre_req(plugin("appends", mark="1"), plugin("appends_async", mark="2"), plugin("appends", mark="3"))
def test_def_and_async_def_plugins_mix(client: Client, upstream: Upstream) -> None:
    client.get()
    assert upstream.request.header("X-Trace") == "123"


@pre_req(plugin("stops", status=201, body="first"), plugin("stops", status=202, body="second"))
def test_the_first_stop_ends_the_chain(client: Client) -> None:
    answer = client.get()
    assert (answer.status, answer.text) == (201, "first")


@pre_req(plugin("stops", status=403, body="no"), plugin("raises"))
def test_plugins_after_a_stop_do_not_run(client: Client) -> None:
    assert client.get().status == 403


@pre_req(plugin("rewrites", path="/seen"), plugin("answers_with_what_it_sees"))
def test_a_later_plugin_sees_the_path_that_an_earlier_one_set(client: Client) -> None:
    assert client.get("/sent").json()["path"] == "/seen"


@pre_req(plugin("tells_the_next"), plugin("was_told"))
def test_plugins_of_a_conf_share_the_state_of_a_request(client: Client, upstream: Upstream) -> None:
    client.get()
    assert upstream.request.header("X-Told") == "by an earlier plugin"


@pre_req(plugin("Appends", mark="1"), plugin("APPENDS_ASYNC", mark="2"))
def test_case_and_underscores_of_a_plugins_name_do_not_count(client: Client, upstream: Upstream) -> None:
    client.get()
    assert upstream.request.header("X-Trace") == "12"


@since("2.8", "a conf token for each phase")
@pre_req(plugin("appends", mark="pre"))
@post_req(plugin("appends", mark="post"))
def test_pre_req_and_post_req_run_one_after_the_other(client: Client, upstream: Upstream) -> None:
    client.get()
    assert upstream.request.header("X-Trace") == "prepost"


class TestAfterAnotherRewrite:
    @PHASE_KNOWN
    @post_req(plugin("answers_with_what_it_sees"))
    @proxy_rewrite(uri="/re written")
    def test_post_req_sees_the_path_of_proxy_rewrite_decoded(self, client: Client) -> None:
        assert client.get("/sent").json()["path"] == "/re written"

    @before("2.9", "a key that tells the runner the phase")
    @post_req(plugin("answers_with_what_it_sees"))
    @proxy_rewrite(uri="/re written")
    def test_on_old_gateways_post_req_sees_it_encoded(self, client: Client) -> None:
        assert client.get("/sent").json()["path"] == "/re%20written"

    @PHASE_KNOWN
    @pre_req(plugin("rewrites", path="/100% sure"))
    @post_req(plugin("answers_with_what_it_sees"))
    def test_post_req_sees_the_path_of_pre_req_decoded(self, client: Client) -> None:
        seen = client.get("/sent?a=1").json()
        assert (seen["path"], seen["args"]) == ("/100% sure", [["a", "1"]])

    @post_req(plugin("rewrites", path="/by plugin"))
    @proxy_rewrite(uri="/by-proxy-rewrite")
    def test_a_path_of_post_req_wins(self, client: Client, upstream: Upstream) -> None:
        client.get("/sent?a=1")
        assert (upstream.request.path, upstream.request.args) == ("/by%20plugin", ["a=1"])

    @PHASE_KNOWN
    @post_req(plugin("rewrites", args={"b": "2"}))
    @proxy_rewrite(uri="/re written")
    def test_arguments_of_post_req_arrive_with_the_rewritten_path(self, client: Client, upstream: Upstream) -> None:
        client.get("/sent?a=1")
        assert (upstream.request.path, upstream.request.args) == ("/re%20written", ["a=1", "b=2"])

    @pre_req(plugin("rewrites", path="/by-plugin", headers={"X-New": "1"}))
    @proxy_rewrite(uri="/by-proxy-rewrite")
    def test_a_path_of_pre_req_gives_way_and_its_headers_stay(self, client: Client, upstream: Upstream) -> None:
        client.get("/sent")
        assert (upstream.request.path, upstream.request.header("X-New")) == ("/by-proxy-rewrite", "1")
