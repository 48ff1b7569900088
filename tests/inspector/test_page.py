"""The inspector as its user meets it: a browser, a gateway, requests."""

import json
import uuid
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.inspector.browser import ORDER, Dev, opened, request

JSON = {"Content_Type": "application/json"}


def mark() -> str:
    """What one test's requests have in their path, and no other's."""
    return uuid.uuid4().hex[:12]


def choose(page: Page, path: str) -> Locator:
    """Choose the exchange with that path; its details."""
    page.locator(".row", has_text=path).first.click()
    expect(page.locator("#title")).to_contain_text(path)
    return page.locator("article.exchange")


def plugin(exchange: Locator, name: str) -> Locator:
    """What a plugin did."""
    return exchange.locator(".plugin", has=exchange.page.locator(".plugin-name", has_text=name))


# What is shown


def test_an_exchange_appears_while_one_looks(page: Page, dev: Dev) -> None:
    path = f"/plain/{mark()}"
    expect(page.locator(".row", has_text=path)).to_have_count(0)
    assert dev.send(path)[0] == 200
    row = page.locator(".row", has_text=path)
    expect(row.locator(".status")).to_have_text("200")
    expect(row.locator(".outcome")).to_have_text("upstream answered 200")


def test_each_plugin_is_shown_with_changes_time_logs_and_what_it_asked(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    status, _, _ = dev.send(path, "POST", ORDER, X_Token="t-1", **JSON)
    assert status == 202
    exchange = choose(page, path)
    expect(exchange.locator(".glance li")).to_have_count(3)

    token = plugin(exchange, "token")
    expect(token.locator(".line.del .text")).to_have_text(["x-token: t-1"])
    expect(token.locator(".line.add .text")).to_have_text(["x-user: anna", "seen: 1", "x-checked: yes"])
    expect(token.locator("h3 .time")).to_contain_text("ms")
    expect(token.locator(".asked dt")).to_have_text(["variable request_id"])
    expect(token.locator(".lines")).to_contain_text("is from anna")

    order = plugin(exchange, "order")
    expect(order.locator(".asked dt")).to_have_text(["request body"])
    expect(order.locator(".asked dd")).to_have_text([ORDER.decode()])
    expect(order.locator(".lines .level")).to_have_text(["warn"])
    expect(order.locator(".line.add .text")).to_have_text('  "price": 36')
    expect(order.locator(".line.del")).to_have_count(0)

    stamp = plugin(exchange, "stamp")
    expect(stamp.locator(".line.add .text", has_text="x-stamp")).to_have_text("x-stamp: seen")
    expect(stamp.locator(".line.del .text", has_text="200")).to_have_count(1)


def test_what_upstream_and_client_saw_is_compared_with_what_came(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    dev.send(path, "POST", ORDER, X_Token="t-1", **JSON)
    exchange = choose(page, path)
    upstream = exchange.locator(".step", has=page.locator("h2", has_text="Upstream"))
    expect(upstream.locator(".line.add .text", has_text="x-user")).to_have_text("x-user: anna")
    expect(upstream.locator(".line.del .text", has_text="X-Token")).to_have_text("X-Token: t-1")
    expect(upstream.locator(".line.add .text").first).to_contain_text("seen=1")
    client = exchange.locator(".step", has=page.locator("h2", has_text="Client"))
    expect(client).to_contain_text("It got 202")
    expect(client.locator(".line.add .text", has_text="x-stamp")).to_have_text("x-stamp: seen")


def test_a_plugin_that_stops_is_named_and_later_ones_are_not_run(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    assert dev.send(path)[0] == 401
    exchange = choose(page, path)
    expect(exchange.locator(".head .outcome")).to_contain_text("stopped by token")
    expect(plugin(exchange, "token").locator(".badge")).to_have_text("stopped")
    expect(plugin(exchange, "order").locator(".badge")).to_have_text("not run")


def test_an_error_is_shown_with_the_plugins_own_traceback(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    assert dev.send(path, "POST", b'{"item": "cup"}', X_Token="t-1", **JSON)[0] == 503
    exchange = choose(page, path)
    expect(exchange.locator(".head .outcome")).to_contain_text("order failed")
    order = plugin(exchange, "order")
    expect(order.locator(".problem")).to_have_text("KeyError: 'count'")
    traceback = order.locator(".traceback").text_content() or ""
    assert traceback.startswith("Traceback (most recent call last):")
    assert "order.py" in traceback.splitlines()[1]
    assert 'order["count"]' in traceback


def test_foreign_text_is_text(page: Page, dev: Dev) -> None:
    path = f"/wobbly?{mark()}=<img/src=x>"
    dev.send(path.replace("<", "%3C").replace(">", "%3E"), X_Html="<script>document.title='owned'</script>")
    exchange = choose(page, "%3Cimg/src=x%3E")
    expect(plugin(exchange, "wobbly").locator(".problem")).to_have_text("KeyError: '<b>no such key</b>'")
    expect(plugin(exchange, "wobbly").locator(".badge")).to_have_text("failed, goes on")
    assert exchange.locator("b, img, script").count() == 0
    assert "owned" not in page.title()


def test_a_conf_that_is_rejected_is_explained_by_the_runners_log(page: Page, dev: Dev) -> None:
    path = f"/rejected/{mark()}"
    route = {"uri": path, "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "token", "value": "{}"}]}}}
    key = {"X-API-KEY": "edd1c9f034335f136f87ad84b625c8f1"}
    assert request(dev.gateway, "/apisix/admin/routes/rejected", "PUT", json.dumps(route).encode(), key)[0] == 201
    assert dev.send(path)[0] == 503
    exchange = choose(page, path)
    expect(exchange.locator(".step", has_text="Also logged meanwhile")).to_contain_text("users")
    request(dev.gateway, "/apisix/admin/routes/rejected", "DELETE", None, key)


# What can be done


def test_a_request_is_edited_and_sent_again(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    assert dev.send(path, "POST", ORDER, **JSON)[0] == 401
    choose(page, path)
    page.get_by_role("link", name="Edit and send again").click()
    expect(page.get_by_label("Path and query")).to_have_value(path)
    expect(page.get_by_label("Body", exact=True)).to_have_value(ORDER.decode())
    headers = page.get_by_label("Headers, one a line")
    headers.fill(headers.input_value() + "\nX-Token: t-1")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".head .outcome strong")).to_have_text("202")
    expect(page.locator(".row", has_text=path)).to_have_count(2)


def test_a_body_that_is_no_text_is_sent_again_as_it_was(page: Page, dev: Dev) -> None:
    path = f"/plain/{mark()}"
    dev.send(path, "POST", b"\xff\x00binary")
    choose(page, path)
    page.get_by_role("link", name="Edit and send again").click()
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".row", has_text=path)).to_have_count(2)
    expect(page.locator(".code").first).to_contain_text("\\xff")
    expect(page.locator("article")).to_contain_text("body, 8 bytes")


def test_what_cannot_be_sent_is_told(page: Page) -> None:
    page.goto(page.url.partition("#")[0] + "#/send")
    page.get_by_label("Headers, one a line").fill("no colon")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_have_text('headers, line 1: expected "Name: value", got "no colon"')


@pytest.mark.parametrize(
    "wrong",
    [{"method": "NO SUCH"}, {"headers": [["X-A", "1\r\nX-B: 2"]]}, {"headers": [["", "1"]]}],
    ids=["method", "value", "name"],
)
def test_a_request_that_http_cannot_carry_is_told(dev: Dev, wrong: dict[str, object]) -> None:
    body = json.dumps({"method": "GET", "target": "/plain"} | wrong).encode()
    status, _, answer = request(dev.inspector, "/api/send", "POST", body, {"Content-Type": "application/json"})
    assert status == 502
    assert json.loads(answer)["error"].startswith("the request cannot be sent to the gateway: ")


def test_an_upstream_that_cannot_be_reached_is_told(page: Page, dev: Dev) -> None:
    path = f"/dead/{mark()}"
    route = {"uri": path, "upstream": {"nodes": {"127.0.0.1:9": 1}}}
    request(dev.inspector, "/api/routes/dead", "PUT", json.dumps(route).encode(), {"Content-Type": "application/json"})
    assert dev.send(path)[0] == 502
    exchange = choose(page, path)
    expect(exchange.locator(".step .problem")).to_contain_text("127.0.0.1:9")
    expect(exchange.locator(".step", has_text="Upstream").locator(".quiet").first).to_contain_text("took")
    request(dev.inspector, "/api/routes/dead", "DELETE")


def test_a_conf_is_edited_tried_and_taken_back(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    assert dev.send(path, "POST", ORDER, X_Token="t-2", **JSON)[0] == 401
    choose(page, path)
    page.get_by_role("link", name="Edit the conf").click()
    conf = page.locator("textarea.conf").first
    assert json.loads(conf.input_value()) == {"users": {"t-1": "anna"}}
    conf.fill('{"users": {"t-2": "ben"}}')
    page.get_by_role("button", name="Apply and send").click()
    expect(page.locator(".head .outcome strong")).to_have_text("202")
    expect(plugin(page.locator("article.exchange"), "token").locator(".line.add .text").first).to_have_text(
        "x-user: ben"
    )

    page.go_back()
    page.reload()
    page.get_by_role("button", name="Undo all changes").click()
    expect(page.locator("textarea.conf").first).to_have_value('{\n  "users": {\n    "t-1": "anna"\n  }\n}')
    assert dev.send(path, "POST", ORDER, X_Token="t-2", **JSON)[0] == 401


def test_a_route_that_cannot_be_used_is_told(page: Page, dev: Dev) -> None:
    page.goto(f"{dev.inspector}/#/routes/plain")
    page.get_by_text("the whole route").click()
    page.locator("#whole").fill('{"uri": "no-slash"}')
    page.get_by_role("button", name="Apply", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("uri")
    page.locator("#whole").fill("{")
    expect(page.get_by_role("alert")).to_contain_text("the route is not JSON")
    assert dev.send("/plain")[0] == 200


def test_plugins_are_listed_with_the_schemas_of_their_confs_and_tried(page: Page, dev: Dev) -> None:
    page.get_by_role("link", name="Plugins").click()
    expect(page.locator(".row .target")).to_have_text(["Hangs", "Order", "Stamp", "Token", "Wobbly"])
    page.locator(".row", has_text="Token").click()
    fields = page.locator(".fields dt")
    expect(fields).to_have_text(["users object required", "header string"])
    expect(page.locator(".fields dd").nth(1)).to_have_text('where the token stands; length ≥ 1; default "x-token"')
    expect(page.get_by_role("link", name="shop /shop/*")).to_be_visible()

    page.get_by_role("button", name="Try it in a route of its own").click()
    conf = page.locator("textarea.conf")
    assert json.loads(conf.input_value()) == {"users": {}}
    page.get_by_role("button", name="Apply and send").click()
    expect(page.locator(".head .outcome")).to_contain_text("stopped by Token")
    page.goto(f"{dev.inspector}/#/routes/try-token")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".row", has_text="try-token")).to_have_count(0)


# How it is used


def test_it_can_be_used_with_the_keyboard_alone(page: Page, dev: Dev) -> None:
    path = f"/shop/{mark()}"
    dev.send(path, "POST", ORDER, **JSON)
    expect(page.locator(".row", has_text=path)).to_have_count(1)
    press = page.keyboard.press
    press("/")
    page.keyboard.type(path)
    expect(page.locator(".row:visible")).to_have_count(1)
    press("Escape")
    expect(page.locator(".row:visible")).to_be_focused()
    press("j")
    expect(page.locator("#title")).to_contain_text(path)
    press("e")
    expect(page.get_by_label("Path and query")).to_be_focused()
    press("Tab")
    expect(page.get_by_label("Headers, one a line")).to_be_focused()
    press("Control+End")
    page.keyboard.type("\nX-Token: t-1")
    press("Control+Enter")
    expect(page.locator(".head .outcome strong")).to_have_text("202")
    for key, view in enumerate(["exchanges", "send", "plugins", "routes", "log"], 1):
        page.locator("body").evaluate("() => document.activeElement.blur()")
        press(str(key))
        expect(page.locator(f"nav a[data-view={view}]")).to_have_attribute("aria-current", "page")
    press("Escape")
    page.locator("body").evaluate("() => document.activeElement.blur()")
    press("?")
    expect(page.locator("#help")).to_be_visible()
    press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_everything_that_can_be_clicked_can_be_reached_with_tab(page: Page, dev: Dev) -> None:
    dev.send("/shop/x", "POST", ORDER, X_Token="t-1", **JSON)
    choose(page, "/shop/x")
    unreachable = page.evaluate(
        "() => [...document.querySelectorAll('a, button, input, textarea, summary')]"
        ".filter((each) => each.checkVisibility() && each.tabIndex < 0).map((each) => each.outerHTML)"
    )
    assert unreachable == []
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('a, button, input, textarea')].filter((each) => each.checkVisibility()"
        " && !(each.ariaLabel || each.textContent.trim() || each.labels?.length)).map((each) => each.outerHTML)"
    )
    assert nameless == []


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".skip")) continue;
    const text = parse(getComputedStyle(element).color).slice(0, 3);
    const [dark, bright] = [light(text), light(ground(element))].sort((x, y) => x - y);
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.className}: ${element.textContent.slice(0, 40)}`);
  }
  return poor;
}"""


PLACES = ["", "#/exchanges/{}", "#/send/{}", "#/routes/shop/{}", "#/plugins/Token", "#/log"]


def in_every_place(page: Page, dev: Dev, path: str, script: str) -> dict[str, object]:
    """What a script says in each view, with an exchange of that path."""
    href = page.locator(".row", has_text=path).get_attribute("href") or ""
    said = {}
    for place in PLACES:
        page.goto(f"{dev.inspector}/" + place.format(href.rpartition("/")[2]))
        page.wait_for_selector("#title" if place else ".row:visible")
        said[place] = page.evaluate(script)
    return said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(browser: Browser, dev: Dev, scheme: Literal["light", "dark"]) -> None:
    path = f"/shop/{mark()}"
    dev.send(path, "POST", b"{}", X_Token="t-1", **JSON)
    with opened(browser, dev, scheme=scheme) as page:
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
        assert in_every_place(page, dev, path, CONTRAST) == {place: [] for place in PLACES}


def test_a_narrow_window_needs_no_scrolling_sideways(browser: Browser, dev: Dev) -> None:
    path = f"/shop/{mark()}-{'long-' * 40}"
    dev.send(path, "POST", b"{}", X_Token="t-1", X_Long="y" * 300, **JSON)
    with opened(browser, dev, width=360) as page:
        wide = "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
        assert in_every_place(page, dev, path, wide) == dict.fromkeys(PLACES, 360)


def test_in_a_narrow_window_one_goes_to_the_details_and_back(browser: Browser, dev: Dev) -> None:
    path = f"/plain/{mark()}"
    dev.send(path)
    with opened(browser, dev, width=360) as page:
        page.locator(".row", has_text=path).click()
        expect(page.locator("#title")).to_be_visible()
        expect(page.locator("#list")).to_be_hidden()
        page.get_by_role("link", name="back to the list").click()
        expect(page.locator("#list")).to_be_visible()
        expect(page.locator("#detail")).to_be_hidden()
