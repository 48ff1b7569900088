import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.gateway import Gateway
from apisix.runner.gateway.admin import DEFAULT_KEY
from tests.gateway.peers import RawUpstream, get, plain

ROUTES = "/apisix/admin/routes"
UPSTREAMS = "/apisix/admin/upstreams"
ROUTE = {"uri": "/a", "upstream": {"nodes": {"127.0.0.1:1980": 1}}}


class Admin:
    """Talks to the Admin API of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(
        self, method: str, path: str, value: Any = None, *, key: str | None = DEFAULT_KEY, raw: bytes = b""
    ) -> tuple[int, Any]:
        headers = [] if key is None else [f"X-API-KEY: {key}"]
        body = raw or (b"" if value is None else json.dumps(value).encode())
        answer = await get(self._gateway.port, path, *headers, method=method, body=body)
        assert answer.get("Content-Type") == "application/json"
        return answer.status, json.loads(answer.body)


def test_the_published_route_is_created_then_replaced_then_shown() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            admin = Admin(gateway)
            status, created = await admin("PUT", f"{ROUTES}/1", ROUTE)
            assert status == 201
            assert created["key"] == "/apisix/routes/1"
            assert created["value"]["uri"] == "/a"
            assert created["value"]["id"] == "1"
            status, replaced = await admin("PUT", f"{ROUTES}/1", {**ROUTE, "uri": "/b"})
            assert status == 200
            assert replaced["createdIndex"] == created["createdIndex"]
            assert replaced["modifiedIndex"] > created["modifiedIndex"]
            assert await admin("GET", f"{ROUTES}/1") == (200, replaced)

    asyncio.run(scenario())


def test_all_routes_are_listed_the_oldest_first() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            admin = Admin(gateway)
            assert await admin("GET", ROUTES) == (200, {"list": [], "total": 0})
            for id in ("b", "a"):
                await admin("PUT", f"{ROUTES}/{id}", ROUTE)
            status, listed = await admin("GET", f"{ROUTES}/")
            assert status == 200
            assert [item["value"]["id"] for item in listed["list"]] == ["b", "a"]
            assert listed["total"] == 2

    asyncio.run(scenario())


def test_a_put_may_have_its_id_in_the_body() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            status, created = await Admin(gateway)("PUT", ROUTES, {**ROUTE, "id": "x"})
            assert (status, created["key"]) == (201, "/apisix/routes/x")

    asyncio.run(scenario())


def test_a_post_gets_an_id() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            admin = Admin(gateway)
            status, created = await admin("POST", ROUTES, ROUTE)
            assert status == 201
            assert (await admin("GET", f"{ROUTES}/{created['value']['id']}"))[0] == 200

    asyncio.run(scenario())


def test_a_deleted_route_is_gone() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            admin = Admin(gateway)
            await admin("PUT", f"{ROUTES}/1", ROUTE)
            assert await admin("DELETE", f"{ROUTES}/1") == (200, {"key": "/apisix/routes/1", "deleted": "1"})
            assert await admin("GET", f"{ROUTES}/1") == (404, {"message": "Key not found"})
            assert await admin("DELETE", f"{ROUTES}/1") == (404, {"message": "Key not found"})
            assert (await get(gateway.port, "/a")).status == 404

    asyncio.run(scenario())


def test_a_patch_merges_removes_and_replaces() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            admin = Admin(gateway)
            await admin("PUT", f"{ROUTES}/1", {**ROUTE, "desc": "d", "plugins": {"proxy-rewrite": {"uri": "/x"}}})
            change = {"desc": None, "methods": ["GET"], "plugins": {"proxy-rewrite": {"host": "h"}}}
            status, patched = await admin("PATCH", f"{ROUTES}/1", change)
            assert status == 200
            assert "desc" not in patched["value"]
            assert patched["value"]["methods"] == ["GET"]
            assert patched["value"]["plugins"] == {"proxy-rewrite": {"uri": "/x", "host": "h"}}
            _, replaced = await admin("PATCH", f"{ROUTES}/1/upstream/nodes", {"127.0.0.1:1": 1})
            assert replaced["value"]["upstream"] == {"nodes": {"127.0.0.1:1": 1}}
            assert (await admin("PATCH", f"{ROUTES}/2", change))[0] == 404

    asyncio.run(scenario())


def test_a_route_uses_an_upstream_by_its_id() -> None:
    async def scenario() -> None:
        async with RawUpstream(plain) as upstream, Gateway(port=0) as gateway:
            admin = Admin(gateway)
            route = {"uri": "/a", "upstream_id": 5}
            status, refused = await admin("PUT", f"{ROUTES}/1", route)
            assert (status, refused["error_msg"]) == (
                400,
                "failed to fetch upstream info by upstream id [5], response code: 404",
            )
            assert (await admin("PUT", f"{UPSTREAMS}/5", {"nodes": {"127.0.0.1:1": 1}}))[0] == 201
            assert (await admin("PUT", f"{ROUTES}/1", route))[0] == 201
            assert (await admin("PUT", f"{UPSTREAMS}/5", {"nodes": {upstream.node: 1}}))[0] == 200
            assert (await get(gateway.port, "/a")).body == b"up"
            status, refused = await admin("DELETE", f"{UPSTREAMS}/5")
            assert (status, refused["error_msg"]) == (
                400,
                "can not delete this upstream, route [1] is still using it now",
            )

    asyncio.run(scenario())


@pytest.mark.parametrize(("key", "description"), [(None, "missing apikey"), ("nope", "wrong apikey")])
def test_without_the_key_nothing_is_told(key: str | None, description: str) -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            answer = await Admin(gateway)("GET", ROUTES, key=key)
            assert answer == (401, {"error_msg": "failed to check token", "description": description})

    asyncio.run(scenario())


def test_the_key_can_be_another_one_and_come_as_an_argument() -> None:
    async def scenario() -> None:
        async with Gateway(port=0, admin_key="other") as gateway:
            admin = Admin(gateway)
            assert (await admin("GET", ROUTES))[0] == 401
            assert (await admin("GET", ROUTES, key="other"))[0] == 200
            assert (await admin("GET", f"{ROUTES}?api_key=other", key=None))[0] == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("PUT", f"{ROUTES}/1", b"{", 400, "invalid request body: Expecting property name"),
        ("PUT", f"{ROUTES}/1", b"\xff", 400, "invalid request body: "),
        ("PUT", f"{ROUTES}/1", b"[]", 400, "invalid configuration: expected an object, got list"),
        ("PUT", f"{ROUTES}/1", b"", 400, "missing configurations"),
        ("PUT", f"{ROUTES}/1", b'{"uri": "/a", "desc": "\\ud800"}', 400, "not JSON: 'utf-8' codec can't encode"),
        ("PUT", f"{ROUTES}/1", b'{"uri": "/a", "desc": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400, "invalid"),
        ("PUT", ROUTES, b'{"uri": "/a"}', 400, "missing route id"),
        ("PUT", f"{ROUTES}/1", b'{"id": 2, "uri": "/a", "plugins": {"proxy-rewrite": {}}}', 400, "wrong route id"),
        ("PUT", f"{ROUTES}/1", b'{"plugins": {}}', 400, "expected either `uri` or `uris`"),
        ("PUT", f"{ROUTES}/1", b'{"uri": "/a", "plugins": {"nope": {}}}', 400, "unknown plugin [nope]"),
        ("PUT", f"{ROUTES}/1", b'{"create_time": 1}', 400, "the property is forbidden:  create_time"),
        ("POST", f"{ROUTES}/1", b'{"uri": "/a"}', 400, "wrong route id, do not need it"),
        ("POST", ROUTES, b'{"id": 1}', 400, "wrong route id, do not need it"),
        ("DELETE", ROUTES, b"", 400, "missing route id"),
        ("GET", "/apisix/admin/consumers", b"", 404, "Unsupported resource type: consumers"),
        ("GET", "/apisix/admin", b"", 404, "Unsupported resource type: "),
        ("OPTIONS", ROUTES, b"", 404, "not found"),
        ("PUT", f"{UPSTREAMS}/1", b"{}", 400, "missing required field `nodes`"),
        ("PUT", f"{UPSTREAMS}/1", b'{"nodes": {"a:0": 1}}', 400, "invalid port 0 in node a:0: expected 1 to 65535"),
    ],
)
def test_bad_input_is_told(method: str, path: str, body: bytes, status: int, problem: str) -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            answered, told = await Admin(gateway)(method, path, raw=body)
            assert answered == status
            assert problem in told["error_msg"]

    asyncio.run(scenario())


def test_a_patch_that_makes_a_route_unusable_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            admin = Admin(gateway)
            _, before = await admin("PUT", f"{ROUTES}/1", ROUTE)
            status, told = await admin("PATCH", f"{ROUTES}/1", {"uri": None})
            assert (status, told["error_msg"]) == (400, "invalid configuration: expected either `uri` or `uris`")
            assert await admin("GET", f"{ROUTES}/1") == (200, before)
            assert (await admin("PATCH", f"{ROUTES}/1", [1]))[0] == 400
            assert (await admin("PATCH", f"{ROUTES}/1/uri/x", 1))[0] == 400

    asyncio.run(scenario())
