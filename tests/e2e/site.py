"""The gateway that the suite tests through: a given one, or the embedded one, and the routes that it serves.

Rules that live here: tests declare their route with the marks below, and all of a run's routes are written into the
gateway's standalone `apisix.yaml` at once. Each test has a host name of its own, so that it may use any path.
"""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from apisix.runner.gateway import Gateway
from tests.e2e.client import Client
from tests.e2e.runner import wait_until
from tests.e2e.upstream import UNRECORDED, Upstream

LOOKS = 20
"""How often in a row new routes must be found: a gateway may have several workers, each of which reads the file."""

TOUCH_AFTER = 1.5
"""Seconds after which the file is touched: APISIX compares whole seconds, and may have overlooked the last change."""


# What tests declare.


def plugin(name: str, /, **conf: Any) -> dict[str, str]:
    """A plugin of the runner with its conf as JSON."""
    return {"name": name, "value": json.dumps(conf)}


def text_plugin(name: str, value: str) -> dict[str, str]:
    """A plugin of the runner with a conf that is any text."""
    return {"name": name, "value": value}


def pre_req(*plugins: Mapping[str, str], **options: Any) -> pytest.MarkDecorator:
    """The route has these in ext-plugin-pre-req."""
    return pytest.mark.route(**{"ext-plugin-pre-req": {"conf": list(plugins), **options}})


def post_req(*plugins: Mapping[str, str], **options: Any) -> pytest.MarkDecorator:
    """The route has these in ext-plugin-post-req."""
    return pytest.mark.route(**{"ext-plugin-post-req": {"conf": list(plugins), **options}})


def post_resp(*plugins: Mapping[str, str], **options: Any) -> pytest.MarkDecorator:
    """The route has these in ext-plugin-post-resp."""
    return pytest.mark.route(**{"ext-plugin-post-resp": {"conf": list(plugins), **options}})


def proxy_rewrite(**conf: Any) -> pytest.MarkDecorator:
    """The route has APISIX's own proxy-rewrite."""
    return pytest.mark.route(**{"proxy-rewrite": conf})


def since(version: str, what: str) -> pytest.MarkDecorator:
    """The test needs that version of APISIX, for `what`."""
    return pytest.mark.since(version, what)


def before(version: str, what: str) -> pytest.MarkDecorator:
    """The test is about APISIX older than that, which lacks `what`."""
    return pytest.mark.before(version, what)


def number(version: str) -> tuple[int, ...]:
    """A version to compare with others: 2.9 is less than 2.14.1."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def unfit(item: pytest.Item, version: str) -> str | None:
    """Why a test cannot run with a version of APISIX; None where it can."""
    for mark in item.iter_markers("since"):
        if number(version) < number(mark.args[0]):
            return f"needs APISIX {mark.args[0]}: {mark.args[1]}"
    for mark in item.iter_markers("before"):
        if number(version) >= number(mark.args[0]):
            return f"only before APISIX {mark.args[0]}, which brought {mark.args[1]}"
    return None


def plugins_of(marks: Iterable[pytest.Mark | pytest.MarkDecorator]) -> dict[str, Any]:
    """A route's plugins, from its marks."""
    plugins: dict[str, Any] = {}
    for mark in marks:
        plugins |= mark.kwargs
    return plugins


# The gateway.


class Site:
    """A gateway with its routes.

    Args:
        url: where it answers.
        file: its routes, in APISIX's standalone format.
        upstream: where all routes lead.
        upstream_host: under which name the gateway reaches it.
    """

    def __init__(self, url: str, file: Path, upstream: Upstream, upstream_host: str) -> None:
        self.url = url
        self._file = file
        self._upstream = {"type": "roundrobin", "nodes": {f"{upstream_host}:{upstream.port}": 1}}
        self._routes: dict[str, dict[str, Any]] = {}
        self._publications = 0

    def publish(self, plugins: Mapping[str, Mapping[str, Any]]) -> None:
        """Have the gateway serve these plugins by host, besides those that it serves."""
        for host, given in plugins.items():
            id = host.partition(".")[0]
            self._routes[host] = {"id": id, "uri": "/*", "host": host, "plugins": given, "upstream": self._upstream}
        self._publications += 1
        path = f"{UNRECORDED}{os.getpid()}-{self._publications}"
        marker = {"id": "published", "uri": path, "upstream": self._upstream}
        text = yaml.safe_dump({"routes": [*self._routes.values(), marker]})
        # In place: where the file is mounted into a container, another one of its name would not be seen.
        self._file.write_text(f"{text}#END\n", encoding="utf-8")
        client = Client(self.url, "published.test")
        found = 0
        touched = time.monotonic()

        def served() -> bool:
            nonlocal found, touched
            with contextlib.suppress(ConnectionError):
                found = found + 1 if client.get(path).status == 200 else 0
            if not found and time.monotonic() - touched > TOUCH_AFTER:
                os.utime(self._file)
                touched = time.monotonic()
            return found >= LOOKS

        wait_until(served, lambda: f"{self.url} does not serve the routes of {self._file}")

    def change(self, client: Client, *marks: pytest.MarkDecorator) -> None:
        """Replace the route that `client` asks."""
        self.publish({client.host: plugins_of(marks)})


@contextlib.contextmanager
def embedded(version: str, socket: Path, routes: Path) -> Iterator[str]:
    """The embedded gateway on a free port, in a thread of its own. Yields its address."""
    routes.write_text("#END\n")
    gateway = Gateway(socket, routes=routes, port=0, version=version)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(gateway.start(), loop).result(10)
        yield gateway.url
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
