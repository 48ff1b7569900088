"""Many exchanges, large ones, and what comes and goes: the page stays as quick as it was, and bounded."""

import http.client
import json
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect

from apisix.runner.gateway.inspector.hub import MOST_EXCHANGES
from apisix.runner.inspection import MOST_BODY
from tests.inspector.browser import Dev, opened, request, running_dev


def flood(dev: Dev, count: int, path: str) -> None:
    """Send requests, one after the other, on one connection."""
    connection = http.client.HTTPConnection(urlsplit(dev.gateway).netloc, timeout=60)
    for number in range(count):
        connection.request("GET", f"{path}/{number}", headers={"X-Token": "t-1"})
        connection.getresponse().read()
    connection.close()


def test_a_thousand_exchanges_leave_the_page_responsive_and_the_list_bounded(page: Page, dev: Dev) -> None:
    page.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          const beat = () => {
            const now = performance.now();
            window.longest = Math.max(window.longest, now - last);
            last = now;
            setTimeout(beat, 0);
          };
          beat();
        }"""
    )
    senders = [threading.Thread(target=flood, args=(dev, 250, f"/plain/{name}")) for name in "abcd"]
    for sender in senders:
        sender.start()
    page.locator("#find").fill("b/24")  # while they come
    expect(page.locator("#find")).to_have_value("b/24")
    for sender in senders:
        sender.join()
    page.locator("#find").fill("")
    for name in "abcd":
        expect(page.locator(".row", has_text=f"/plain/{name}/249")).to_have_count(1)
    assert page.locator("#rows li").count() <= MOST_EXCHANGES
    assert page.evaluate("() => window.longest") < 2000
    page.locator(".row").first.click()
    expect(page.locator("#title")).to_be_visible()


def test_old_exchanges_are_forgotten_by_the_inspector_too(browser: Browser) -> None:
    with running_dev() as dev, opened(browser, dev, place="#/exchanges/1") as page:
        flood(dev, MOST_EXCHANGES + 5, "/plain")
        last = MOST_EXCHANGES + 5
        assert request(dev.inspector, f"/api/exchanges/{last}")[0] == 200
        assert request(dev.inspector, "/api/exchanges/5")[0] == 404
        expect(page.locator(f".row[href='#/exchanges/{last}']")).to_have_count(1)
        assert page.locator("#rows li").count() <= MOST_EXCHANGES

        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#rows li")).to_have_count(0)
        assert request(dev.inspector, f"/api/exchanges/{last}")[0] == 404


def test_bodies_and_headers_are_cut(page: Page, dev: Dev) -> None:
    dev.send("/plain/large", "POST", b"x" * 3_000_000, X_Large="v" * 20_000)
    page.locator(".row", has_text="/plain/large").first.click()
    expect(page.locator("article")).to_contain_text("body, 3,000,000 bytes, the first 16,384 bytes are shown")
    expect(page.locator("article")).to_contain_text("… (20000 characters)")
    number = page.url.rpartition("/")[2]
    assert len(request(dev.inspector, f"/api/exchanges/{number}")[2]) < 12 * MOST_BODY


def test_new_exchanges_wait_while_the_list_is_paused(page: Page, dev: Dev) -> None:
    dev.send("/plain/before")
    expect(page.locator(".row", has_text="/plain/before")).to_have_count(1)
    page.keyboard.press("p")
    dev.send("/plain/while")
    expect(page.get_by_role("button", name="Go on (1)")).to_be_visible()
    expect(page.locator(".row", has_text="/plain/while")).to_have_count(0)
    page.keyboard.press("p")
    expect(page.locator(".row", has_text="/plain/while")).to_have_count(1)


def test_an_exchange_is_shown_while_it_is_open(page: Page, dev: Dev) -> None:
    """Its upstream waits for a body that does not come."""
    connection = http.client.HTTPConnection(urlsplit(dev.gateway).netloc, timeout=30)
    route = {"uri": "/hangs", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "hangs", "value": ""}]}}}
    body = json.dumps(route).encode()
    put = request(dev.inspector, "/api/routes/hangs", "PUT", body, {"Content-Type": "application/json"})
    assert put[0] == 200
    began = time.monotonic()
    connection.request("GET", "/hangs")
    row = page.locator(".row", has_text="/hangs")
    expect(row.locator(".status")).to_have_text("…")
    row.click()
    expect(page.locator(".head .outcome")).to_contain_text("in the plugin chain")
    expect(page.locator(".plugin .badge")).to_have_text("running")
    assert connection.getresponse().status == 200
    expect(page.locator(".head .outcome strong")).to_have_text("200")
    assert time.monotonic() - began > 1
    connection.close()
    request(dev.inspector, "/api/routes/hangs", "DELETE")


def test_a_page_whose_inspector_ends_says_so(browser: Browser) -> None:
    with running_dev() as dev:
        context = browser.new_context()
        page = context.new_page()
        page.goto(dev.inspector)
        page.wait_for_selector("#state.live")
        assert dev.stop() == 0
        expect(page.locator("#state")).to_have_text("not connected")
        context.close()
    assert not [line for line in dev.log if "Traceback" in line], "".join(dev.log)


def test_a_runner_of_ones_own_tells_nothing_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    with running_dev("--socket", str(tmp_path / "nobody.sock")) as dev, opened(browser, dev) as page:
        assert dev.send("/shop/x")[0] == 503
        page.locator(".row").first.click()
        expect(page.locator(".plugin .badge")).to_have_text(["not told", "not told"])
        expect(page.locator("article")).to_contain_text("This runner was not started by apisix-runner dev")
        expect(page.locator(".step .problem")).to_contain_text("The gateway says: failed to connect")
