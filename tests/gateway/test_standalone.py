import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from apisix.runner.errors import StartError
from apisix.runner.gateway import Gateway, standalone
from apisix.runner.gateway.schema import Invalid
from apisix.runner.gateway.standalone import parse
from tests.gateway.peers import get

ROUTE = "routes:\n- {id: %s, uri: %s, upstream: {nodes: {'127.0.0.1:1': 1}}}\n#END\n"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, which the file's watcher brings about."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def ids(gateway: Gateway) -> list[str]:
    return [route.id for route in gateway.store.routes]


@pytest.fixture(autouse=True)
def _quick_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "POLL", 0.01)


def test_a_file_holds_routes_and_upstreams_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(
        "routes:\n- uri: /a\n  upstream_id: u\n- {id: 7, uri: /b, upstream_id: u}\n"
        "upstreams:\n- id: u\n  nodes: {'127.0.0.1:1': 1}\n#END"
    )

    async def scenario() -> None:
        async with Gateway(port=0, routes=file) as gateway:
            assert ids(gateway) == ["arr_1", "7"]
            assert (await get(gateway.port, "/b")).status == 502

    asyncio.run(scenario())


def test_a_changed_file_is_read_again_with_new_revisions(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(ROUTE % (1, "/a"))

    async def scenario() -> None:
        async with Gateway(port=0, routes=file) as gateway:
            before = next(iter(gateway.store.routes)).revision
            file.write_text(ROUTE % (1, "/a") + "#END")
            await until(lambda: next(iter(gateway.store.routes)).revision > before)
            file.write_text(ROUTE % (22, "/a"))
            await until(lambda: ids(gateway) == ["22"])

    asyncio.run(scenario())


def test_an_unusable_file_leaves_the_routes_and_is_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(ROUTE % (1, "/a"))

    async def scenario() -> None:
        async with Gateway(port=0, routes=file) as gateway:
            file.write_text(ROUTE % (2, "no-slash"))
            await until(lambda: bool(caplog.records))
            assert ids(gateway) == ["1"]
            file.unlink()
            file.write_text(ROUTE % (3, "/a"))
            await until(lambda: ids(gateway) == ["3"])

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    [record] = caplog.records
    assert record.getMessage() == (
        f"{file}: routes/2: invalid configuration: Expected `str` matching regex '^/' - at `$.uri`; "
        "the routes stay as they were"
    )


def test_a_route_put_by_hand_survives_and_wins(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(ROUTE % (1, "/a"))

    async def scenario() -> None:
        async with Gateway(port=0, routes=file) as gateway:
            gateway.put_route(1, {"uri": "/mine", "plugins": {"proxy-rewrite": {}}})
            gateway.put_route("hand", {"uri": "/hand", "plugins": {"proxy-rewrite": {}}})
            file.write_text(ROUTE % (1, "/a") + "#END")
            file.write_text("routes:\n- {id: 2, uri: /b, plugins: {proxy-rewrite: {}}}\n#END")
            await until(lambda: sorted(ids(gateway)) == ["1", "2", "hand"])
            assert {route.id: route.uris for route in gateway.store.routes}["1"] == ["/mine"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("routes: []\n", "the last line must be #END"),
        ("", "the last line must be #END"),
        ("routes: [\n#END", "not YAML: while parsing"),
        ("- a\n#END", "expected a mapping with `routes`, got list"),
        ("consumers: []\n#END", "knows `routes` and `upstreams`, not `consumers`"),
        ("routes: {a: 1}\n#END", "routes: expected a list, got dict"),
        ("routes: [1]\n#END", "routes/1: expected a mapping, got int"),
        ("routes: [{id: 1}, {id: 1}]\n#END", "routes/1: the id is used twice"),
    ],
)
def test_a_mistake_in_a_file_is_told(text: str, problem: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_with_its_end_mark_holds_nothing() -> None:
    assert parse("#END\n") == {"routes": {}, "upstreams": {}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"\xff\n#END", "not UTF-8"),
        (b"x: 1\n#END", "not `x`"),
        (b"routes: [{id: 1, uri: /a, plugins: {proxy-rewrite: {_meta: {x: 2026-01-01}}}}]\n#END", "not JSON"),
        (b"routes: &r [{id: 1, uri: /a, labels: {r: *r}}]\n#END", "not JSON"),
    ],
)
def test_a_gateway_does_not_start_with_an_unusable_file(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "apisix.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(StartError) as caught:
        asyncio.run(Gateway(port=0, routes=file).start())
    assert str(caught.value).startswith(f"{file}: ")
    assert problem in str(caught.value)
