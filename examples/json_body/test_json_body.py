"""json_body: what is let in, what the client is told about the rest, and what the upstream gets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory
from examples.json_body.plugins.json_body import JsonBody, comparable, deeper_than

JSON = {"Content-Type": "application/json"}
ORDER = {
    "schema": {
        "type": "object",
        "required": ["id"],
        "properties": {"id": {"type": "integer"}, "lines": {"items": {"properties": {"n/a": {"type": "string"}}}}},
    },
    "max_bytes": 100,
    "max_depth": 4,
}


@pytest.fixture
def orders(plugin_client: PluginClientFactory) -> PluginClient:
    return plugin_client(JsonBody, ORDER)


def test_a_body_that_fits_goes_on_byte_for_byte(orders: PluginClient) -> None:
    result = orders.post("/", b'{ "id" : 1.0 }', headers=JSON)
    assert result.upstream is not None
    assert result.upstream.body == b'{ "id" : 1.0 }'


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (None, 400, "not JSON: Expecting value at line 1, column 1"),
        (b"{", 400, "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"id": 1} {}', 400, "not JSON: Extra data at line 1, column 11"),
        (b'{"id": "\xff"}', 400, "not JSON: byte 8 is not UTF-8"),
        (b'\xef\xbb\xbf{"id": 1}', 400, "not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at line 1, column 1"),
        (b'{"id": 1, "id": 2}', 400, 'the name "id" stands twice in an object'),
        (b'{"id": 1, "a": {"b": 1, "\\u0062": 2}}', 400, 'the name "b" stands twice in an object'),
        (b'{"id": NaN}', 400, "NaN is no number"),
        (b'{"id": 1e999}', 400, "1e999 is no number"),
        (b'{"id": [[[[]]]]}', 400, "expected at most 4 levels of objects and arrays, got more"),
        (b'{"id": 1, "pad": "' + b"x" * 100 + b'"}', 413, "expected at most 100 bytes, got 120"),
    ],
)
def test_what_is_not_surely_json_is_refused(orders: PluginClient, body: bytes, status: int, detail: str) -> None:
    result = orders.post("/", body, headers=JSON)
    assert (result.status, result.json()["status"], result.json()["detail"]) == (status, status, detail)
    assert result.headers.getall("content-type") == ["application/problem+json"]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000])
def test_what_would_exhaust_a_parser_is_refused(plugin_client: PluginClientFactory, body: bytes) -> None:
    client = plugin_client(JsonBody, {"schema": {}, "max_bytes": 1_000_000})
    assert client.post("/", body, headers=JSON).status == 400


def test_a_body_without_a_length_is_measured_when_it_is_there(orders: PluginClient) -> None:
    headers = {**JSON, "Content-Length": ""}  # as in a chunked request
    assert orders.post("/", b'"' + b"x" * 200 + b'"', headers=headers).status == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Content-Type", "application/json")], 0),
        ([("Content-Type", "Application/JSON; charset=UTF-8")], 0),
        ([("Content-Type", 'application/vnd.shop+json; charset="utf-8"')], 0),
        ([], 415),
        ([("Content-Type", "text/plain")], 415),
        ([("Content-Type", "application/jsonp")], 415),
        ([("Content-Type", "application/json; charset=utf-7")], 415),
        ([("Content-Type", "application/json; charset=utf-8; charset=utf-7")], 415),
        ([("Content-Type", "application/json"), ("Content-Type", "text/plain")], 415),
        ([("Content-Type", "application/json"), ("Content-Encoding", "gzip")], 415),
    ],
)
def test_the_content_type_must_say_json(orders: PluginClient, headers: list[tuple[str, str]], status: int) -> None:
    assert orders.post("/", b'{"id": 1}', headers=headers).status == status


def test_the_answer_leads_to_the_fields(orders: PluginClient) -> None:
    result = orders.post("/", {"id": "7", "lines": [{}, {"n/a": 1}]})
    assert result.status == 422
    assert result.json()["errors"] == [
        {"pointer": "#/id", "detail": "'7' is not of type 'integer'"},
        {"pointer": "#/lines/1/n~1a", "detail": "1 is not of type 'string'"},
    ]
    assert orders.post("/", {}).json()["errors"] == [{"pointer": "#", "detail": "'id' is a required property"}]


def test_the_answer_is_bounded(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(JsonBody, {"schema": {"items": {"type": "integer"}}, "max_errors": 3})
    result = client.post("/", ["x" * 1000] * 50)
    assert [len(error["detail"]) for error in result.json()["errors"]] == [203, 203, 203]


def changed(plugin_client: PluginClientFactory, conf: dict[str, Any], body: object) -> Any:
    result = plugin_client(JsonBody, {"schema": {}, **conf}).post("/", json.dumps(body), headers=JSON)
    assert result.upstream is not None
    return json.loads(result.upstream.body or b"")


@pytest.mark.parametrize(
    ("conf", "before", "after"),
    [
        ({"drop": ["/a", "/b/c", "/x/y"]}, {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3}}),
        ({"rename": {"/b/c": "e"}}, {"b": {"c": None}}, {"b": {"e": None}}),
        ({"defaults": {"/a": 1, "/b/c": [2]}}, {"a": 0, "b": {}}, {"a": 0, "b": {"c": [2]}}),
        ({"defaults": {"/a": {}, "/a/b": 1}}, {}, {"a": {"b": 1}}),
        ({"drop": ["/a"], "defaults": {"/a": 1}}, {"a": 0}, {"a": 1}),
        ({"drop": ["/a~1b~0c"]}, {"a/b~c": 1}, {}),
        ({"drop": ["/0"], "rename": {"/0": "a"}, "defaults": {"/a": 1}}, [1], [1]),
        ({"rename": {"/a": "b"}}, {"a": "\ud800é"}, {"b": "\ud800é"}),
    ],
)
def test_the_upstream_gets_it_changed(
    plugin_client: PluginClientFactory, conf: dict[str, Any], before: object, after: object
) -> None:
    assert changed(plugin_client, conf, before) == after


def test_a_default_is_not_shared_by_calls(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(JsonBody, {"schema": {}, "defaults": {"/a": {}, "/a/b": 1}})
    assert [client.post("/", b"{}", headers=JSON).upstream for _ in range(2)][1] is not None
    assert client.post("/", b"{}", headers=JSON).upstream.body == b'{"a":{"b":1}}'  # type: ignore[union-attr]


def test_both_names_of_a_member_are_refused(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(JsonBody, {"schema": {}, "rename": {"/a": "b"}})
    assert client.post("/", {"a": 1, "b": 2}).json()["errors"] == [{"pointer": "#/b", "detail": "stands twice"}]


@pytest.mark.parametrize(
    ("items", "unique"),
    [("[1, 1.0]", False), ("[1, true]", True), ('[{"a": [1]}, {"a": [1]}]', False), ('[["bool", true], true]', True)],
)
def test_items_are_compared_as_json(plugin_client: PluginClientFactory, items: str, unique: bool) -> None:
    client = plugin_client(JsonBody, {"schema": {"uniqueItems": True}})
    assert client.post("/", items, headers=JSON).stopped is not unique


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(DOCUMENTS, DOCUMENTS)
def test_comparable_is_equal_where_json_is(one: Any, other: Any) -> None:
    assert (comparable(one) == comparable(other)) is (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


@given(DOCUMENTS)
def test_levels_are_counted(document: Any) -> None:
    def levels(part: Any) -> int:
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else None
        return 0 if inner is None else 1 + max(map(levels, inner), default=0)

    depth = levels(document)
    assert not deeper_than(document, depth)
    assert depth == 0 or deeper_than(document, depth - 1)


@pytest.mark.parametrize(
    ("conf", "problem"),
    [
        ({}, "missing required field schema"),
        (
            {"schema": {"properties": {"a": {"type": "integr"}}}},
            r"schema #/properties/a/type: expected what JSON Schema",
        ),
        ({"schema": {"$schema": "urn:mine"}}, r"schema: its \$schema names a dialect"),
        ({"schema": {"$ref": "https://schemas.test/order"}}, r"schema: \$ref must lead to a place in the schema"),
        ({"schema": {"$ref": "#/$defs/order"}}, r"schema: \$ref must lead to a place in the schema"),
        ({"schema": {"format": "iban"}}, "schema: format 'iban' cannot be checked"),
        ({"schema": {"properties": {"default": {"format": "iban"}}}}, "schema: format 'iban' cannot be checked"),
        ({"schema": {"pattern": "("}}, "schema #/pattern: expected what JSON Schema allows"),
        ({"schema": {}, "drop": ["a"]}, "drop: expected JSON pointers"),
        ({"schema": {}, "rename": {"": "b"}}, "rename: expected JSON pointers"),
        ({"schema": {}, "max_depth": 1000}, "max_depth"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, conf: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(JsonBody, conf)


def test_values_in_a_schema_are_no_keywords(plugin_client: PluginClientFactory) -> None:
    schema = {"properties": {"format": {"default": {"format": "pdf"}, "enum": [{"$ref": "a"}]}}}
    assert plugin_client(JsonBody, {"schema": schema}).post("/", {"format": "pdf"}).status == 422


def test_behind_a_gateway(gateway: GatewayFactory) -> None:
    live = gateway()
    order = {"customer": {"mail": "a@example.org"}, "items": [{"sku": "b1"}], "debug": True}
    assert live.post("/orders", {**order, "items": []}).status == 422
    assert live.post("/orders", json.dumps(order)).status == 415
    assert live.received == []
    assert live.post("/orders", order).status == 200
    assert json.loads(live.received[0].body or b"") == {
        "customer": {"email": "a@example.org"},
        "items": [{"sku": "b1"}],
        "channel": "web",
    }


def test_an_older_gateway_leaves_the_body_as_it_came(gateway: GatewayFactory) -> None:
    live = gateway(version="3.5.0")
    live.post("/orders", {"customer": {"mail": "a@example.org"}, "items": [{"sku": "b1"}]})
    assert "mail" in json.loads(live.received[0].body or b"")["customer"]
