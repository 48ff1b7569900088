"""request_signature: what is signed, what is refused, and what a request can be used for a second time (nothing)."""

import gc
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, LiveGateway, PluginClient, PluginClientFactory, plugin_route
from apisix.runner.testing.results import RequestResult
from examples.redis_server import RedisServer, redis_server
from examples.request_signature.client import signed
from examples.request_signature.plugins.request_signature import RequestSignature, sign, signed_text

# The loop that all calls of `plugin_client` share ends with the process, and the connections on it with the loop.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "examples" / "request_signature.md"
SECRET = "only-for-trying-this-example-out"
URL = "http://shop.example.org/payments/7?b=2&a=1&b=1"
TARGET = "/payments/7?b=2&a=1&b=1"
BODY = b'{"amount":7}'


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    server.client.flushall()
    yield server
    gc.collect()  # while the warnings are ignored


def conf(redis: RedisServer, **more: object) -> dict[str, object]:
    keys = {"billing-1": {"consumer": "billing", "secret": SECRET}}
    common = {"headers": ["host", "content-type"], "max_body": 1000, "redis": redis.url, "timeout": 5}
    return {"keys": keys, **common, **more}


@pytest.fixture
def client(plugin_client: PluginClientFactory, redis: RedisServer) -> PluginClient:
    return plugin_client(RequestSignature, conf(redis))


def headers(method: str = "POST", url: str = URL, body: bytes = BODY) -> dict[str, str]:
    """As the client signs."""
    return signed("billing-1", SECRET, method, url, body)


def forged(name: str, value: str) -> dict[str, str]:
    """As the client signs, with a part of Authorization replaced."""
    fields = headers()
    before, _, after = fields["Authorization"].partition(f"{name}=")
    fields["Authorization"] = f"{before}{name}={value},{after.partition(',')[2]}".rstrip(",")
    return fields


def signed_at(seconds: float) -> dict[str, str]:
    """Signed correctly, so many seconds ago."""
    date, nonce, digest = str(int(time.time() - seconds)), "n" * 16, hashlib.sha256(BODY).hexdigest()
    lines = ["host:shop.example.org", "content-type:application/json"]
    signature = sign(SECRET, signed_text("billing-1", date, nonce, "POST", TARGET, digest, lines))
    credentials = f"key=billing-1,date={date},nonce={nonce},body={digest},signature={signature}"
    given = {"Authorization": f"HMAC-SHA256 {credentials}"}
    return {"Host": "shop.example.org", "Content-Type": "application/json", **given}


def refusal(result: RequestResult) -> tuple[int, str]:
    return result.status, result.json()["error"]


INVALID = (401, "the signature is not valid")
EXPECTED = (401, "expected Authorization: HMAC-SHA256 key=...,date=...,nonce=...,body=...,signature=...")


# Who is let in.


def test_a_signed_request_goes_on_and_the_upstream_is_told_who_signed_it(client: PluginClient) -> None:
    more = {"X-Consumer": "root", "X_Consumer": "root"}
    result = client.post(TARGET, BODY, headers={**headers(), **more})
    assert result.upstream is not None
    assert result.upstream.body == BODY
    told = {"host": "shop.example.org", "content-type": "application/json", "x-consumer": "billing"}
    assert {name: value for name, value in result.upstream.headers.items() if name != "content-length"} == told


@pytest.mark.parametrize("target", ["/", "/?", "/a%2Fb", "/%C3%A4?q=%20+", "/a?x&y=&=z&&x=2&x=1", "/a?b=1?c"])
def test_targets(client: PluginClient, target: str) -> None:
    fields = headers("GET", f"http://shop.example.org{target}", b"")
    assert client.get(target, headers=fields).stopped is False


def test_arguments_may_come_in_another_order_but_not_those_of_one_name(client: PluginClient) -> None:
    fields = headers()
    assert client.post("/payments/7?b=1&b=2&a=1", BODY, headers=fields).status == 401
    assert client.post("/payments/7?a=1&b=2&b=1", BODY, headers=fields).status == 0


def test_a_header_that_is_signed_may_be_absent(client: PluginClient) -> None:
    assert client.get("/a", headers=headers("GET", "http://shop.example.org/a", b"")).stopped is False


def test_the_text_that_is_signed() -> None:
    text = signed_text("k", "7", "n", "POST", "/a%20b?b=2&a=1&b=1", "d", ["host:h", "content-type:t"])
    assert text == b"HMAC-SHA256\nk\n7\nn\nPOST\n/a%20b\na=1&b=2&b=1\nd\nhost:h\ncontent-type:t"


# Who is not.


@pytest.mark.parametrize(
    ("method", "target", "body", "change"),
    [
        ("PUT", TARGET, BODY, {}),
        ("POST", "/payments/8?b=2&a=1&b=1", BODY, {}),
        ("POST", "/payments/%37?b=2&a=1&b=1", BODY, {}),
        ("POST", TARGET + "&c=3", BODY, {}),
        ("POST", TARGET, BODY, {"Host": "bank.example.org"}),
        ("POST", TARGET, BODY, {"Content-Type": "text/plain"}),
    ],
    ids=["method", "path", "encoding", "query", "host", "content-type"],
)
def test_nothing_that_is_signed_can_be_changed(
    client: PluginClient, method: str, target: str, body: bytes, change: dict[str, str]
) -> None:
    assert refusal(client.request(method, target, body=body, headers={**headers(), **change})) == INVALID


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("key", "billing-2"),
        ("nonce", "a" * 32),
        ("body", "0" * 64),
        ("signature", "0" * 64),
    ],
)
def test_nor_can_what_it_is_signed_with(client: PluginClient, part: str, value: str) -> None:
    assert refusal(client.post(TARGET, BODY, headers=forged(part, value))) == INVALID


def test_nor_can_the_date(client: PluginClient) -> None:
    another = forged("date", str(int(time.time()) - 200))
    assert refusal(client.post(TARGET, BODY, headers=another)) == INVALID


@pytest.mark.parametrize("body", [b"", b'{"amount":70}', BODY + b" "])
def test_nor_can_the_body(client: PluginClient, body: bytes) -> None:
    assert refusal(client.post(TARGET, body, headers=headers())) == (401, "the body is not the one that was signed")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("key", "billing-1" * 10),
        ("key", ""),
        ("date", "soon"),
        ("date", "-1"),
        ("date", "9" * 5000),
        ("date", "١٢"),
        ("nonce", "short"),
        ("nonce", "n" * 65),
        ("nonce", "n" * 15 + "\udcff"),
        ("body", "0" * 63),
        ("signature", "G" * 64),
        ("signature", "0" * 64 + ",more=1"),
    ],
    ids=range(12),
)
def test_credentials_that_are_none(client: PluginClient, part: str, value: str) -> None:
    assert refusal(client.post(TARGET, BODY, headers=forged(part, value))) == EXPECTED


@pytest.mark.parametrize("credentials", [[], [""], ["Basic YTpi"], [headers()["Authorization"]] * 2])
def test_credentials_are_there_once(client: PluginClient, credentials: list[str]) -> None:
    result = client.get("/", headers=[("Authorization", one) for one in credentials])
    assert refusal(result) == EXPECTED
    assert result.headers["WWW-Authenticate"] == "HMAC-SHA256"


@given(st.text())
def test_whatever_comes_it_is_refused_and_nothing_fails(text: str) -> None:
    text = "".join(text.split()).encode("utf-8", "replace").decode().replace("\0", "")
    keys = {"a": {"consumer": "a", "secret": SECRET}}
    with PluginClient(RequestSignature, {"keys": keys}) as client:
        assert refusal(client.get("/", headers={"Authorization": f"HMAC-SHA256 {text}"})) == EXPECTED


def test_a_signed_header_that_comes_twice(client: PluginClient) -> None:
    twice = [*headers().items(), ("Content-Type", "text/plain")]
    assert refusal(client.post(TARGET, BODY, headers=twice)) == (401, "expected the header content-type once")


@pytest.mark.parametrize("seconds", [310, -310])
def test_the_date_may_be_off_by_the_skew_only(client: PluginClient, seconds: float) -> None:
    result = client.post(TARGET, BODY, headers=signed_at(seconds))
    assert refusal(result) == (401, "the date is off by more than 300 seconds")
    assert client.post(TARGET, BODY, headers=signed_at(seconds * 0.9)).stopped is False


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"Content-Length": "1001"}, 413), ({"Content-Length": "9" * 5000}, 413), ({"Content-Length": "²"}, 413),
     ({"Transfer-Encoding": "chunked"}, 411)],
)  # fmt: skip
def test_large_bodies_are_refused_before_they_are_read(
    client: PluginClient, fields: dict[str, str], status: int
) -> None:
    assert client.request("POST", TARGET, headers={**headers(), **fields}).status == status


def test_a_large_body_without_a_length(client: PluginClient) -> None:
    """As HTTP/2 allows it."""
    body = b"x" * 1001
    fields = [*headers(body=body).items(), ("Content-Length", "0")]
    assert client.request("POST", TARGET, body=body, headers=fields).status == 413


# Once.


def test_a_request_counts_once(client: PluginClient) -> None:
    fields = headers()
    assert client.post(TARGET, BODY, headers=fields).stopped is False
    assert refusal(client.post(TARGET, BODY, headers=fields)) == (401, "the nonce was used before")
    assert client.post(TARGET, BODY, headers=headers()).stopped is False


def test_a_nonce_is_remembered_longer_than_its_date_counts(client: PluginClient, redis: RedisServer) -> None:
    client.post(TARGET, BODY, headers=headers())
    [key] = redis.client.keys()
    assert 600 < redis.client.ttl(key) <= 660


def test_without_a_signature_nothing_is_remembered(client: PluginClient, redis: RedisServer) -> None:
    client.post(TARGET, BODY, headers=forged("signature", "0" * 64))
    assert redis.client.keys() == []


def test_without_redis_nobody_is_let_in(plugin_client: PluginClientFactory, tmp_path: Path) -> None:
    keys = {"billing-1": {"consumer": "billing", "secret": SECRET}}
    without = {"keys": keys, "headers": ["host", "content-type"], "redis": f"unix://{tmp_path}/none"}
    result = plugin_client(RequestSignature, without).post(TARGET, BODY, headers=headers())
    assert refusal(result) == (503, "signatures cannot be checked now")


GOOD = {"keys": {"a": {"consumer": "a", "secret": SECRET}}}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"keys": {}}, "keys"),
        ({"keys": {"a b": {"consumer": "a", "secret": SECRET}}}, "keys"),
        ({"keys": {"a": {"consumer": "a", "secret": "hello"}}}, "keys.*length >= 32"),
        ({"keys": {"a": {"consumer": "a b", "secret": SECRET}}}, "keys"),
        ({**GOOD, "headers": ["Host"]}, "headers"),
        ({**GOOD, "headers": ["host", "host"]}, "headers: expected each once"),
        ({**GOOD, "headers": ["authorization"]}, "headers: expected each once, and not authorization"),
        ({**GOOD, "skew": 0}, "skew"),
        ({**GOOD, "max_body": 2**24}, "max_body"),
        ({**GOOD, "redis": "localhost"}, "redis: expected redis://HOST:PORT"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, wrong: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(RequestSignature, wrong)


# Behind a gateway, with the clients of the page.


@pytest.fixture
def live(gateway: GatewayFactory, redis: RedisServer) -> LiveGateway:
    return gateway([plugin_route("request_signature", conf(redis))], flags=("--workers", "2"))


def run_client(live: LiveGateway, command: list[str], target: str, *body: str, secret: str = SECRET) -> str:
    """What a client prints, whether it was let in or not."""
    method = "POST" if body else "GET"
    environment = {"PATH": os.environ["PATH"], "KEY": "billing-1", "SECRET": secret}
    run = subprocess.run(
        [*command, method, live.url + target, *body], check=False, env=environment, capture_output=True, text=True
    )
    return run.stdout + run.stderr


PYTHON_CLIENT = [sys.executable, str(HERE / "client.py")]
SHELL_CLIENT = [str(HERE / "signed_curl.sh")]


@pytest.mark.parametrize("command", [PYTHON_CLIENT, SHELL_CLIENT], ids=["python", "curl"])
def test_the_clients_of_the_page(live: LiveGateway, command: list[str]) -> None:
    if command is SHELL_CLIENT and not (shutil.which("curl") and shutil.which("openssl")):
        assert not os.environ.get("CI"), "curl and openssl are not installed"
        pytest.skip("curl and openssl are not installed")
    targets = ["/payments/7?b=2&a=1&b=1&a-b=3", "/payments/a%2Fb%20c?q=%26", "/payments/"]
    for target in targets:
        run_client(live, command, target)
        run_client(live, command, target, '{"amount": "7 €"}')
    assert [request.headers["X-Consumer"] for request in live.received] == ["billing"] * 6
    assert "the signature is not valid" in run_client(live, command, "/payments/7", secret=SECRET[::-1])
    assert len(live.received) == 6


def test_a_request_counts_once_for_all_workers(live: LiveGateway) -> None:
    fields = signed("billing-1", SECRET, "POST", f"{live.url}/payments/7", BODY)
    statuses = [live.post("/payments/7", BODY, headers=fields).status for _ in range(10)]
    assert statuses == [200] + [401] * 9
    assert len(live.received) == 1
    assert "HMAC-SHA256 key" not in live.log


def test_a_redis_that_has_come_back(gateway: GatewayFactory) -> None:
    with redis_server() as redis:
        live = gateway([plugin_route("request_signature", conf(redis))])

        def send() -> int:
            return live.get("/payments/7", headers=signed("billing-1", SECRET, "GET", f"{live.url}/payments/7")).status

        assert send() == 200
        redis.stop()
        assert send() == 503
        redis.start()
        assert [send(), send()] == [200, 200]


def test_the_page_shows_the_script_as_it_is() -> None:
    assert (HERE / "signed_curl.sh").read_text() in PAGE.read_text()
