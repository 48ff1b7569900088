"""The Grafana dashboard in a browser, drawn by the preview beside this file: Grafana itself is in no package manager.

The documentation's image: `python -m tests.deploy.dashboard` writes it, after a minute and a half of load.
"""

import base64
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

from tests.browser import opened_page, running_browser
from tests.deploy.conftest import DEPLOY, PROJECT
from tests.deploy.watched import Prometheus, under_load, watched

DASHBOARD = DEPLOY / "grafana" / "apisix-runner.json"
IMAGE = PROJECT / "docs" / "images" / "dashboard.webp"
SHOWN = 90
"""Seconds that the image shows."""

PANELS: list[str] = [one["title"] for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def preview(prometheus: Prometheus) -> Iterator[str]:
    """The address of the page, without what may follow: from, to, refresh and variables, as in Grafana's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(PROJECT))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = {
            "dashboard": f"/{DASHBOARD.relative_to(PROJECT)}",
            "prometheus": f"http://{prometheus.address}",
            "scraped": prometheus.every,
        }
        try:
            yield f"http://127.0.0.1:{server.server_port}/tests/deploy/preview/index.html?{urlencode(asked)}"
        finally:
            server.shutdown()


def panel(page: Page, title: str) -> Locator:
    """A panel of the page."""
    return page.get_by_role("region", name=title, exact=True)


def expect_drawn(one: Locator) -> None:
    """Wait until each query of a panel has given something, and not zeros alone, and it is shown."""
    expect(one).to_have_attribute("data-state", "drawn")
    expect(one).not_to_have_attribute("data-highest", "0")
    shapes = one.locator("path, b")
    assert shapes.evaluate_all(
        "shapes => shapes.length && shapes.every((one) => one.textContent || one.getTotalLength() > 1)"
    )


def take_image(file: Path) -> None:
    """The documentation's image."""
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder), every="1s") as (runner, prometheus):
        with under_load(runner, seconds=5):
            time.sleep(SHOWN)
        with (
            preview(prometheus) as address,
            running_browser() as browser,
            opened_page(browser, f"{address}&from=now-{SHOWN}s&refresh=1h", width=1000) as page,
        ):
            for title in PANELS:
                expect_drawn(panel(page, title))
            shot = base64.b64encode(page.screenshot(full_page=True)).decode()
            file.write_bytes(base64.b64decode(page.evaluate(TO_WEBP, shot)))


TO_WEBP = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").drawImage(image, 0, 0);
  const blob = await canvas.convertToBlob({type: "image/webp", quality: 0.8});
  return btoa(Array.from(new Uint8Array(await blob.arrayBuffer()), (byte) => String.fromCharCode(byte)).join(""));
}"""
"""A third of the size of the PNG."""


if __name__ == "__main__":
    take_image(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGE)
