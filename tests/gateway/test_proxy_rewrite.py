import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.peers import stage


@pytest.mark.parametrize(
    ("conf", "target", "upstream_target"),
    [
        ({"uri": "/new"}, "/old?a=1", "/new?a=1"),
        ({"uri": "/new?b=2"}, "/old?a=1", "/new?b=2&a=1"),
        ({"uri": "/new?b=2"}, "/old", "/new?b=2"),
        ({"uri": "/new path"}, "/old", "/new%20path"),
        ({"uri": "/x$uri"}, "/a%3Fb%20c", "/x/a%253Fb%20c"),  # twice encoded, as APISIX has it
        ({"uri": "/x/$arg_a/${http_x_h}/$nope/${nope ?? dflt}"}, "/old?a=1", "/x/1/h//dflt?a=1"),
        ({"regex_uri": ["^/old/(.*)/(.*)", "/new/$2/$1"]}, "/old/a/b?q", "/new/b/a?q"),
        ({"regex_uri": ["^/nope", "/new", "/o(l)d", "/$1?x=1"]}, "/old", "/l?x=1"),
        ({"regex_uri": ["^/nope", "/new"]}, "/o%20ld?a", "/o%20ld?a"),
        ({"uri": "/wins", "regex_uri": [".*", "/loses"]}, "/old", "/wins"),
        ({"headers": {"X-A": "1"}}, "/a%3Fb", "/a%3Fb"),
    ],
)
def test_the_uri(tmp_path: Path, conf: dict[str, Any], target: str, upstream_target: str) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, plugins={"proxy-rewrite": conf}) as at:
            await at.get(target, "X-H: h")
            assert at.upstream.seen[0].start.split()[1] == upstream_target

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-A": "new", "X-N": 5}, {"x-a": ["new"], "x-n": ["5"]}),
        ({"set": {"x-a": ["1", "2"]}}, {"x-a": ["1", "2"]}),
        ({"add": {"X-A": "2"}}, {"x-a": ["1", "2"]}),
        ({"remove": ["X-A"]}, {"x-a": []}),
        ({"set": {"X-V": "$remote_addr-$1"}}, {"x-v": ["127.0.0.1-p"]}),
    ],
)
def test_headers(tmp_path: Path, headers: dict[str, Any], expected: dict[str, list[str]]) -> None:
    conf = {"regex_uri": ["/(.*)", "/$1"], "headers": headers}

    async def scenario() -> None:
        async with stage(tmp_path, plugins={"proxy-rewrite": conf}) as at:
            await at.get("/p", "X-A: 1")
            [seen] = at.upstream.seen
            assert {key: [value for name, value in seen.headers if name.lower() == key] for key in expected} == expected

    asyncio.run(scenario())


def test_host_and_method(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, plugins={"proxy-rewrite": {"host": "other.test", "method": "POST"}}) as at:
            await at.get()
            assert at.upstream.seen[0].start == "POST / HTTP/1.1"
            assert at.upstream.seen[0].get("Host") == "other.test"

    asyncio.run(scenario())


@pytest.mark.parametrize("switched_off", [{"disable": True}, {"_meta": {"disable": True}}])
def test_a_plugin_that_is_switched_off_does_nothing(tmp_path: Path, switched_off: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, plugins={"proxy-rewrite": {"uri": "/new", **switched_off}}) as at:
            await at.get("/old")
            assert at.upstream.seen[0].start.split()[1] == "/old"

    asyncio.run(scenario())
