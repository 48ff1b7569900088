from collections import Counter
from typing import Any

import pytest

from apisix.runner.gateway.routes import Node, Upstream, match, parse_node
from apisix.runner.gateway.schema import Invalid, check_upstream
from apisix.runner.gateway.store import Store
from apisix.runner.gateway.versions import Version

NODES = {"upstream": {"nodes": {"127.0.0.1:1980": 1}}}


def matched(
    routes: dict[str, dict[str, Any]],
    path: str,
    host: str = "example.test",
    method: str = "GET",
    remote: str = "127.0.0.1",
) -> str | None:
    store = Store(Version(), {})
    for id, route in routes.items():
        store.put("routes", id, {**NODES, **route})
    found = match(store.routes, host, path, method, remote)
    return None if found is None else found.id


def test_an_exact_uri_beats_a_prefix_and_a_longer_prefix_a_shorter_one() -> None:
    routes = {"all": {"uri": "/*"}, "a": {"uri": "/a/*"}, "ab": {"uri": "/a/b"}}
    assert [matched(routes, path) for path in ("/a/b", "/a/c", "/b")] == ["ab", "a", "all"]


def test_an_exact_uri_matches_nothing_longer() -> None:
    assert matched({"a": {"uri": "/a"}}, "/a/") is None


def test_each_of_several_uris_matches() -> None:
    routes = {"r": {"uris": ["/a", "/b/*"]}}
    assert [matched(routes, path) for path in ("/a", "/b/c", "/c")] == ["r", "r", None]


def test_the_higher_priority_wins_among_equals() -> None:
    routes: dict[str, dict[str, Any]] = {
        "low": {"uri": "/a", "priority": 1},
        "high": {"uri": "/a", "priority": 2},
        "none": {"uri": "/a"},
    }
    assert matched(routes, "/a") == "high"


def test_priority_does_not_beat_a_more_specific_uri() -> None:
    assert matched({"wide": {"uri": "/*", "priority": 9}, "exact": {"uri": "/a"}}, "/a") == "exact"


def test_the_route_changed_last_wins_among_equals() -> None:
    assert matched({"old": {"uri": "/a"}, "new": {"uri": "/a"}}, "/a") == "new"


def test_a_host_beats_a_wildcard_beats_none() -> None:
    routes: dict[str, dict[str, Any]] = {
        "any": {"uri": "/a"},
        "wild": {"uri": "/*", "host": "*.example.test"},
        "host": {"uri": "/*", "hosts": ["a.example.test", "b.example.test"]},
    }
    hosts = ("b.example.test", "c.example.test", "x.y.example.test", "example.test", "other.test")
    assert [matched(routes, "/a", host=host) for host in hosts] == ["host", "wild", "wild", "any", "any"]


def test_a_route_with_a_host_that_does_not_fit_falls_back() -> None:
    routes = {"any": {"uri": "/*"}, "host": {"uri": "/only", "host": "a.test"}}
    assert matched(routes, "/other", host="a.test") == "any"


def test_methods_limit_a_route() -> None:
    routes: dict[str, dict[str, Any]] = {"any": {"uri": "/*"}, "post": {"uri": "/a", "methods": ["POST", "PUT"]}}
    assert [matched(routes, "/a", method=method) for method in ("PUT", "GET")] == ["post", "any"]


def test_remote_addresses_limit_a_route() -> None:
    routes = {"r": {"uri": "/a", "remote_addrs": ["10.0.0.0/8", "192.0.2.1"]}}
    assert [matched(routes, "/a", remote=address) for address in ("10.1.1.1", "192.0.2.1", "192.0.2.2")] == [
        "r",
        "r",
        None,
    ]


def test_a_route_that_is_switched_off_does_not_match() -> None:
    assert matched({"r": {"uri": "/a", "status": 0}}, "/a") is None


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("127.0.0.1:1980", Node("127.0.0.1", 1980)),
        ("example.test", Node("example.test", 80)),
        ("[::1]:81", Node("::1", 81)),
        ("[::1]", Node("::1", 80)),
        ("::1", Node("::1", 80)),
    ],
)
def test_a_node_is_read_from_its_address(address: str, node: Node) -> None:
    assert parse_node(address) == node
    assert parse_node(node.address) == node


@pytest.mark.parametrize("address", ["a:0", "a:65536", "a:x", "[::1]:x"])
def test_a_port_that_is_none_is_told(address: str) -> None:
    with pytest.raises(ValueError, match=r"invalid port .* in node"):
        parse_node(address)


def upstream(nodes: object, **fields: Any) -> Upstream:
    return Upstream(check_upstream({"nodes": nodes, **fields}), {})


def test_nodes_take_turns_by_weight() -> None:
    several = upstream({"a:1": 3, "b:1": 1, "c:1": 0})
    firsts = [several.pick()[0].host for _ in range(8)]
    assert Counter(firsts) == {"a": 6, "b": 2}
    assert firsts[:4].count("b") == 1


def test_the_other_nodes_are_tried_after_the_first_as_often_as_retries_allow() -> None:
    nodes = [{"host": "a", "port": 1, "weight": 1}, {"host": "b", "port": 1, "weight": 1}]
    assert [node.host for node in upstream(nodes).pick()] == ["a", "b"]
    assert [node.host for node in upstream(nodes, retries=0).pick()] == ["a"]


def test_no_node_with_a_weight_is_no_node() -> None:
    assert upstream({"a:1": 0}).pick() == []


def test_a_node_can_be_elsewhere() -> None:
    moved = Upstream(check_upstream({"nodes": {"web": 1}}), {"web:80": "127.0.0.1:9"})
    assert moved.pick() == [Node("127.0.0.1", 9)]


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ({}, "expected either `uri` or `uris`"),
        ({"uri": "/a", "uris": ["/b"]}, "expected either `uri` or `uris`"),
        ({"uri": "a"}, r"Expected `str` matching regex '\^/' - at `\$\.uri`"),
        ({"uri": "/a*b"}, "uri /a\\*b: a \\* stands only at the end"),
        ({"uri": "/a", "host": "a", "hosts": ["b"]}, "only one of host or hosts is allowed"),
        ({"uri": "/a", "host": "a b"}, r"matching regex .* - at `\$\.host`"),
        ({"uri": "/a", "methods": ["get"]}, r"Invalid enum value 'get' - at `\$\.methods\[0\]`"),
        ({"uri": "/a", "priority": "1"}, r"Expected `int`, got `str` - at `\$\.priority`"),
        ({"uri": "/a", "remote_addr": "x"}, "remote_addr: 'x' does not appear to be"),
        ({"uri": "/a", "vars": []}, "unknown field `vars`"),
        ({"uri": "/a", "plugins": {"key-auth": {}}}, r"unknown plugin \[key-auth\]"),
        ({"uri": "/a", "plugins": {"ext-plugin-pre-req": []}}, r"Expected `object`, got `array`"),
        (
            {"uri": "/a", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "x"}]}}},
            r"failed to check the configuration of plugin ext-plugin-pre-req err: .*`value` - at `\$\.conf\[0\]`",
        ),
        (
            {"uri": "/a", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "", "value": ""}]}}},
            r"length >= 1 - at `\$\.conf\[0\]\.name`",
        ),
        ({"uri": "/a", "plugins": {"proxy-rewrite": {"uris": "/"}}}, "does not know `uris`"),
        ({"uri": "/a", "plugins": {"proxy-rewrite": {"regex_uri": ["a", "b", "c"]}}}, "should be an even number"),
        ({"uri": "/a", "plugins": {"proxy-rewrite": {"regex_uri": ["(", "b"]}}}, r"invalid regex_uri\(\(\)"),
        ({"uri": "/a", "plugins": {"proxy-rewrite": {"headers": {"a": [1]}}}}, "headers: Expected"),
        ({"uri": "/a", "upstream": {"nodes": {"a:99999": 1}}}, "invalid port 99999 in node a:99999"),
        ({"uri": "/a", "upstream": {"nodes": {"a": -1}}}, "Expected `int` >= 0"),
        ({"uri": "/a", "upstream": {"nodes": [{"host": "a"}]}}, "missing required field `weight`"),
        ({"uri": "/a", "upstream": {"nodes": {}, "scheme": "grpc"}}, "Invalid enum value 'grpc'"),
        ({"uri": "/a", "upstream": {"nodes": {}, "pass_host": "rewrite"}}, "`upstream_host` can't be empty"),
        ({"uri": "/a", "upstream": None, "upstream_id": 7}, r"upstream id \[7\], response code: 404"),
    ],
)
def test_a_mistake_in_a_route_is_told_and_nothing_changes(route: dict[str, Any], problem: str) -> None:
    store = Store(Version(), {})
    with pytest.raises(Invalid, match=problem):
        store.put("routes", "r", {**NODES, **route})
    assert list(store.routes) == []


def test_a_plugin_of_a_newer_version_is_unknown() -> None:
    store = Store(Version("2.13"), {})
    with pytest.raises(Invalid, match=r"unknown plugin \[ext-plugin-post-resp\]"):
        store.put("routes", "r", {"uri": "/a", "plugins": {"ext-plugin-post-resp": {}}})


@pytest.mark.parametrize("id", ["", "a b", "a/b", "x" * 65, True, 1.5])
def test_an_id_that_is_none_is_told(id: Any) -> None:
    with pytest.raises(Invalid, match="id: expected 1 to 64 of"):
        Store(Version(), {}).put("routes", id, {"uri": "/a", **NODES})


def test_a_route_changes_its_revision_with_every_change() -> None:
    store = Store(Version(), {})
    revisions = [store.put("routes", 1, {"uri": "/a", **NODES}).modified for _ in range(3)]
    assert revisions == sorted(set(revisions))
