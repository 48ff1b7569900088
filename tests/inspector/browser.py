"""A running `apisix-runner dev` and its page in a browser, for the tests of the inspector and for its images.

The images: `python -m tests.inspector.browser` writes them into docs/images.
"""

import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page

from tests.browser import opened_page, running_browser

HERE = Path(__file__).parent
PROJECT = str(HERE.parent.parent)
IMAGES = HERE.parent.parent / "docs" / "images"
ORDER = b'{"item": "cup", "count": 3}'


class Dev:
    """A running `dev`.

    Args:
        more: flags besides those for ports and routes.
        plugins: the folder of its plugins.
    """

    def __init__(self, *more: str, plugins: Path = HERE / "plugins") -> None:
        flags = ["--port", "0", "--upstream-port", "0", "--inspector-port", "0"]
        flags += ["--plugins", str(plugins), "--routes", str(HERE / "routes.yaml")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apisix.runner", "dev", *flags, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.log: list[str] = []
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        self.banner = ""
        for line in self.process.stdout:
            self.banner += line
            if line.startswith("Ctrl-C"):
                break
        self.gateway = self._told(r"^gateway   (\S+),")
        self.inspector = self._told(r"^inspector (\S+),")

    def _told(self, pattern: str) -> str:
        found = re.search(pattern, self.banner, re.MULTILINE)
        assert found is not None, self.banner + "".join(self.log)
        return found[1]

    def send(
        self, target: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request to the gateway; underscores in names of headers are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(self.gateway, target, method, body, named)

    def stop(self) -> int:
        """End it. Returns its exit code."""
        self.process.terminate()
        code = self.process.wait(30)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


def request(
    url: str, target: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of what a server answers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


@contextmanager
def running_dev(*more: str, plugins: Path = HERE / "plugins") -> Iterator[Dev]:
    """`dev`, stopped in the end."""
    dev = Dev(*more, plugins=plugins)
    try:
        yield dev
    finally:
        dev.stop()


@contextmanager
def opened(
    browser: Browser, dev: Dev, width: int = 1280, scheme: Literal["light", "dark"] = "light", place: str = ""
) -> Iterator[Page]:
    """The page; whatever it logs as an error, or throws, fails the test."""
    with opened_page(browser, f"{dev.inspector}/{place}", width, scheme=scheme) as page:
        page.wait_for_selector("#state.live")
        yield page


def exchanges_to_look_at(dev: Dev) -> None:
    """A few requests of all kinds."""
    dev.send("/plain/1")
    dev.send("/wobbly")
    dev.send("/nowhere")
    dev.send("/shop/orders?page=2", "POST", ORDER, Content_Type="application/json")
    dev.send("/shop/orders", "POST", b'{"item": "cup"}', X_Token="t-1", Content_Type="application/json")
    dev.send("/shop/orders?page=2", "POST", ORDER, X_Token="t-1", Content_Type="application/json")


def take_images(folder: Path) -> None:
    """The documentation's images."""
    folder.mkdir(exist_ok=True)
    with running_dev() as dev, running_browser() as browser:
        exchanges_to_look_at(dev)
        for name, width, scheme, place, shown in IMAGES_TO_TAKE:
            with opened(browser, dev, width, scheme, place) as page:
                page.wait_for_selector("#title")
                if shown:
                    page.locator(".glance button", has_text=shown).click()
                page.evaluate(REPLACE, {PROJECT: "/opt/apisix-runner", dev.gateway.rpartition(":")[2]: "9080"})
                page.wait_for_timeout(300)
                page.screenshot(path=folder / f"{name}.png")


REPLACE = """(texts) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    for (const [old, fresh] of Object.entries(texts)) {
      walker.currentNode.data = walker.currentNode.data.replaceAll(old, fresh);
    }
  }
}"""
"""What is different each time, and on each machine."""

IMAGES_TO_TAKE: list[tuple[str, int, Literal["light", "dark"], str, str]] = [
    ("inspector-light", 1280, "light", "#/exchanges/6", "token"),
    ("inspector-dark", 1280, "dark", "#/exchanges/5", "order"),
    ("inspector-narrow", 360, "light", "#/exchanges/6", "token"),
    ("inspector-route", 1280, "light", "#/routes/shop", ""),
]

if __name__ == "__main__":
    take_images(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
    print(*sorted(os.listdir(IMAGES)), sep="\n")
