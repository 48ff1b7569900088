"""What goes wrong protects: the request does not pass, unless somebody said that it may."""

from tests.e2e.client import Client
from tests.e2e.site import plugin, post_req, pre_req, since, text_plugin
from tests.e2e.upstream import Upstream

DEGRADATION = since("2.12", "allow_degradation")


def refused(client: Client, upstream: Upstream) -> bool:
    """Whether a request gets 503, and the upstream nothing."""
    return (client.get().status, upstream.seen) == (503, [])


@pre_req(plugin("raises"))
def test_a_plugin_that_raises_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@post_req(plugin("raises"))
def test_a_plugin_that_raises_in_post_req_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("raises_async"))
def test_an_async_plugin_that_raises_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("ends_the_process"))
def test_a_plugin_that_wants_to_end_the_process_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)
    assert refused(client, upstream)


@pre_req(plugin("returns_something"))
def test_a_plugin_that_returns_something_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("smuggles_a_header"))
def test_a_header_that_would_begin_another_one_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("rewrites", path="no/leading/slash"))
def test_a_path_without_a_leading_slash_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("stops", status=9999))
def test_a_status_that_is_none_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("hangs"))
def test_a_plugin_that_passes_its_timeout_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("appends", mark="1"), plugin("raises"))
def test_one_plugin_of_several_fails_the_request(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("no_such_plugin"))
def test_an_unknown_plugin_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("does_not_import"))
def test_a_plugin_whose_file_does_not_import_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("setup_fails"))
def test_a_plugin_whose_setup_fails_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("stops", status="two hundred"))
def test_a_conf_that_does_not_fit_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(text_plugin("stops", "{not json"))
def test_a_typed_conf_that_is_no_json_fails_closed(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("for_the_response_phase"))
def test_a_plugin_without_filter_fails_closed_in_the_request_phase(client: Client, upstream: Upstream) -> None:
    assert refused(client, upstream)


@pre_req(plugin("raises"))
def test_a_failure_costs_its_own_request_only(client: Client, upstream: Upstream) -> None:
    assert [client.get().status for _ in range(3)] == [503, 503, 503]


@pre_req(plugin("raises_and_continues"), plugin("appends", mark="went on"))
def test_a_plugin_that_says_continue_lets_the_request_go_on(client: Client, upstream: Upstream) -> None:
    assert client.get().status == 200
    assert upstream.request.header("X-Trace") == "went on"


@DEGRADATION
@pre_req(plugin("raises"), allow_degradation=True)
def test_allow_degradation_lets_a_raising_plugin_pass(client: Client, upstream: Upstream) -> None:
    assert client.get().text == "from the upstream"


@DEGRADATION
@pre_req(plugin("no_such_plugin"), allow_degradation=True)
def test_allow_degradation_lets_an_unknown_plugin_pass(client: Client, upstream: Upstream) -> None:
    assert client.get().text == "from the upstream"


@DEGRADATION
@pre_req(plugin("stops", status="two hundred"), allow_degradation=True)
def test_allow_degradation_lets_a_bad_conf_pass(client: Client, upstream: Upstream) -> None:
    assert client.get().text == "from the upstream"
