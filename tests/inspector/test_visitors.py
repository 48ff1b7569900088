"""Who may use the inspector: its own page, and programs on this machine."""

import re
import socket

import pytest
from playwright.sync_api import Browser

from tests.inspector.browser import Dev, request


def port(dev: Dev) -> str:
    return dev.inspector.rpartition(":")[2]


@pytest.mark.parametrize("path", ["/", "/main.js", "/api/updates", "/api/routes", "/api/exchanges/1"])
@pytest.mark.parametrize(
    "host", ["example.com", "example.com:{port}", "127.0.0.1.example.com", "0.0.0.0:{port}", "", "[::1]"]
)
def test_another_hosts_name_is_refused(dev: Dev, path: str, host: str) -> None:
    status, _, body = request(dev.inspector, path, headers={"Host": host.format(port=port(dev))})
    assert status == 403
    assert body.startswith(b"the inspector is called 127.0.0.1 or localhost, not ")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "localhost:8000"])
def test_this_machines_own_names_are_served(dev: Dev, host: str) -> None:
    """Another port is one that is forwarded here."""
    assert request(dev.inspector, "/api/routes", headers={"Host": host.format(port=port(dev))})[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/routes"),
        ("PUT", "/api/routes/plain"),
        ("DELETE", "/api/routes/plain"),
        ("POST", "/api/send"),
        ("DELETE", "/api/exchanges"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_another_sites_request_is_refused(dev: Dev, method: str, path: str, headers: dict[str, str]) -> None:
    headers = {name: value.format(port=port(dev)) for name, value in headers.items()}
    status, _, _ = request(dev.inspector, path, method, b"{}", headers | {"Content-Type": "application/json"})
    assert status == 403
    assert request(dev.inspector, "/api/routes")[2].count(b'"/plain*"') == 1


def test_a_link_of_another_site_leads_to_the_page(dev: Dev) -> None:
    navigates = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert request(dev.inspector, "/", headers=navigates)[0] == 200
    assert request(dev.inspector, "/", headers=navigates | {"Sec-Fetch-Dest": "iframe"})[0] == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_form_can_send_is_refused(dev: Dev, kind: str) -> None:
    body = b'{"method": "GET", "target": "/plain"}'
    status, _, answer = request(dev.inspector, "/api/send", "POST", body, {"Content-Type": kind})
    assert status == 400
    assert b"expected Content-Type application/json" in answer


def test_a_host_that_is_given_twice_is_refused(dev: Dev) -> None:
    with socket.create_connection(("127.0.0.1", int(port(dev))), 10) as client:
        client.sendall(b"GET /api/routes HTTP/1.1\r\nHost: localhost\r\nHost: example.com\r\n\r\n")
        assert re.match(rb"HTTP/1\.[01] 40[03] ", client.recv(1 << 16))


@pytest.mark.parametrize("path", ["/", "/main.js", "/inspector.css", "/api/routes", "/api/exchanges/0", "/nothing"])
def test_every_answer_says_what_the_browser_may_do_with_it(dev: Dev, path: str) -> None:
    _, headers, _ = request(dev.inspector, path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


def test_it_listens_on_one_address_of_loopback_alone(dev: Dev) -> None:
    """What listens on every address answers on 127.0.0.2, too."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port(dev))), 10)


def test_a_page_of_another_site_gets_nothing(browser: Browser, dev: Dev) -> None:
    """The gateway stands in for another site: it is another origin."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{dev.gateway}/plain")
    tried = page.evaluate(
        """async (url) => {
          const outcome = (promise) => promise.then(() => "got in", () => "refused");
          const json = {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"};
          const script = document.createElement("script");
          script.src = url + "/main.js";
          const loaded = new Promise((resolve, reject) => { script.onload = resolve; script.onerror = reject; });
          document.head.append(script);
          const events = new EventSource(url + "/api/updates");
          const opened = new Promise((resolve, reject) => { events.onopen = resolve; events.onerror = reject; });
          return Promise.all([outcome(fetch(url + "/api/routes")), outcome(fetch(url + "/api/send", json)),
                              outcome(loaded), outcome(opened)]);
        }""",
        dev.inspector,
    )
    context.close()
    assert tried == ["refused"] * 4
