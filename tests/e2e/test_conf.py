"""A plugin's conf in a route."""

from tests.e2e.client import Client
from tests.e2e.site import Site, plugin, pre_req, text_plugin


@pre_req(plugin("shows_conf", a=[1, {"b": None}]))
def test_json_is_decoded(client: Client) -> None:
    assert client.get().json() == {"config": {"a": [1, {"b": None}]}}


@pre_req(text_plugin("shows_conf", "any: text"))
def test_text_that_is_no_json_stays_text(client: Client) -> None:
    assert client.get().json() == {"config": "any: text"}


@pre_req(text_plugin("shows_conf", ""))
def test_an_empty_conf_is_empty_text(client: Client) -> None:
    assert client.get().json() == {"config": ""}


@pre_req(plugin("shows_typed_conf", limit=5))
def test_a_typed_conf_gets_its_defaults(client: Client) -> None:
    assert client.get().json() == {"limit": 5, "unit": "minute", "names": ["everyone"]}


@pre_req(plugin("shows_typed_conf", limit="5"))
def test_a_typed_conf_of_the_wrong_type_is_refused(client: Client) -> None:
    assert client.get().status == 503


@pre_req(plugin("shows_typed_conf"))
def test_a_typed_conf_that_lacks_something_is_refused(client: Client) -> None:
    assert client.get().status == 503


@pre_req(plugin("counts_its_setups"))
def test_a_plugin_is_set_up_once_for_many_requests(client: Client) -> None:
    answers = [client.get().json() for _ in range(12)]
    assert {answer["setups"] for answer in answers} == {1}
    assert len({answer["instance"] for answer in answers}) == 1


@pre_req(plugin("shows_conf", version="old"))
def test_a_changed_conf_is_what_runs_from_then_on(client: Client, site: Site) -> None:
    assert client.get().json() == {"config": {"version": "old"}}
    site.change(client, pre_req(plugin("shows_conf", version="new")))
    assert client.get().json() == {"config": {"version": "new"}}


@pre_req(plugin("stops", status="two hundred"))
def test_a_refused_conf_works_once_it_is_put_right(client: Client, site: Site) -> None:
    assert client.get().status == 503
    site.change(client, pre_req(plugin("stops", status=201, body="right")))
    assert client.get().status == 201
