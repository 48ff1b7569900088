"""response_hardening: which headers the client gets, what is masked in bodies, and what becomes of other bodies."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory
from examples.response_hardening.plugins.response_hardening import ResponseHardening, is_card

CARD = "4111111111111111"
TEXT = {"Content-Type": "text/plain"}


# Headers


def test_headers_are_set_and_removed(plugin_client: PluginClientFactory) -> None:
    conf = {"set": {"X-Frame-Options": "DENY"}, "set_if_missing": {"CSP": "none"}, "remove": ["server", "X-Powered-By"]}
    upstream = [
        ("Server", "a"),
        ("X-Powered-By", "b"),
        ("X-Powered-By", "c"),
        ("x-frame-options", "ALLOW"),
        ("CSP", "own"),
    ]
    result = plugin_client(ResponseHardening, conf).respond(200, upstream)
    assert sorted((name.lower(), value) for name, value in result.headers.pairs()) == [
        ("csp", "own"),
        ("x-frame-options", "DENY"),
    ]
    assert plugin_client(ResponseHardening, conf).respond(200).headers["CSP"] == "none"


def test_without_a_conf_it_does_what_hardly_ever_breaks(plugin_client: PluginClientFactory) -> None:
    result = plugin_client(ResponseHardening).respond(404, {**TEXT, "Server": "a"}, f"no order {CARD}")
    assert (result.status, result.text) == (404, "no order ************1111")
    assert dict(result.headers) == {**TEXT, "X-Content-Type-Options": "nosniff"}


def test_the_upstream_is_asked_for_what_can_be_masked(plugin_client: PluginClientFactory) -> None:
    headers = {"Accept-Encoding": "gzip, br", "Range": "bytes=0-7", "If-Range": '"a"'}
    result = plugin_client(ResponseHardening).get(headers=headers)
    assert result.upstream is not None
    assert dict(result.upstream.headers) == {"accept-encoding": "identity", "host": "test"}


# Masks


@pytest.fixture
def masks(plugin_client: PluginClientFactory) -> PluginClient:
    key = {"regex": "sk_[a-z]+", "replacement": "[key]"}
    return plugin_client(ResponseHardening, {"mask_emails": True, "mask": [key]})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (CARD, "************1111"),
        ("4111 1111 1111 1111", "**** **** **** 1111"),
        ("4111-1111-1111-1111.", "****-****-****-1111."),
        ("No.378282246310005,", "No.***********0005,"),
        ("order 12 4111 1111 1111 1111 12", "order 12 **** **** **** 1111 12"),
        (f"{CARD} 5555555555554444", "************1111 ************4444"),
        ("4111111111111112", "4111111111111112"),  # the check digit is wrong
        (f"9{CARD}", f"9{CARD}"),  # a longer number
        ("0.4111111111111111", "0.4111111111111111"),
        ("0000000000000000", "0000000000000000"),
        ("1763726056120", "1763726056120"),  # a time in milliseconds, whose check digit is right by chance
        ("mail <anna.b+c@shop.example.org>", "mail <***>"),
        ("jürgen@bücher.example", "***"),
        ("a@b and @c", "a@b and @c"),
        ("sk_abc sk_", "[key] sk_"),
    ],
)
def test_text_is_masked(masks: PluginClient, text: str, masked: str) -> None:
    assert masks.respond(200, TEXT, text).text == masked


@pytest.mark.parametrize(
    ("body", "masked"),
    [
        ('{"pan": 4111111111111111, "n": 1.10}', '{"pan": "************1111", "n": 1.10}'),
        ('{"mail": "anna\\u0040example.org", "say": "\\"hi\\""}', '{"mail": "***", "say": "\\"hi\\""}'),
        ('{"anna@example.org": ["sk_abc"]}', '{"***": ["[key]"]}'),
        ("anna@example.org is no JSON", "*** is no JSON"),
        ('{"a": 1}\n{"mail": "anna@example.org"}\n', '{"a": 1}\n{"mail": "***"}\n'),
    ],
)
def test_json_stays_json(masks: PluginClient, body: str, masked: str) -> None:
    assert masks.respond(200, {"Content-Type": "application/json"}, body).text == masked


@given(
    st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.just(CARD),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_whatever_is_masked_is_json_again(document: Any) -> None:
    plugin = ResponseHardening()
    plugin.config = ResponseHardening.Conf(mask_emails=True)
    plugin.setup()
    masked = json.loads(plugin.masked(json.dumps(document), True))
    assert CARD not in json.dumps(masked)
    assert type(masked) is type(document) or is_card(str(document))


@given(st.text("23456", min_size=1, max_size=1), st.text("0123456789", min_size=11, max_size=17), st.sampled_from(" -"))
def test_every_card_number_is_masked(scheme: str, rest: str, separator: str) -> None:
    number = next(scheme + rest + check for check in "0123456789" if is_card(scheme + rest + check))
    plugin = ResponseHardening()
    plugin.config = ResponseHardening.Conf()
    plugin.setup()
    for written in (number, separator.join(number[place : place + 4] for place in range(0, len(number), 4))):
        masked = plugin.masked(f"card {written}, thanks", False)
        assert sum(character.isdigit() for character in masked) == 4
        assert masked.endswith(f"{written[-4:]}, thanks")


@pytest.mark.parametrize("body", [b"\xff\xfe " + CARD.encode(), b"caf\xe9 " + CARD.encode()])
@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="ISO-8859-1"', ";charset=us-ascii"])
def test_other_bytes_stay_what_they_are(masks: PluginClient, body: bytes, charset: str) -> None:
    result = masks.respond(200, {"Content-Type": f"text/html{charset}"}, body)
    assert result.body == body.replace(b"411111111111", b"************")


@pytest.mark.parametrize(
    ("kind", "masked"),
    [
        ("text/html; charset=utf-8", True),
        ("application/problem+json", True),
        ("image/svg+xml", True),
        ("application/x-www-form-urlencoded", True),
        (None, True),  # it may be anything, and browsers guess
        ("application/octet-stream", False),
        ("image/png", False),
    ],
)
def test_textual_types_are_masked(masks: PluginClient, kind: str | None, masked: bool) -> None:
    result = masks.respond(200, {"Content-Type": kind} if kind else {}, CARD)
    assert (result.text != CARD) is masked


def test_what_was_true_of_the_old_body_goes(masks: PluginClient) -> None:
    headers = {**TEXT, "ETag": '"a"', "Digest": "sha-256=a", "Content-Length": "16"}
    assert set(masks.respond(200, headers, CARD).headers) == {"Content-Type", "X-Content-Type-Options"}
    assert "ETag" in masks.respond(200, headers, "nothing to mask").headers


# What cannot be masked

UNMASKABLE = [
    ({"Content-Encoding": "gzip"}, 200, b"\x1f\x8b", "it is compressed"),
    ({"Content-Range": "bytes 0-4/16"}, 206, b"41111", "it is a part of a body"),
    ({"Content-Length": "70000"}, 200, b"", "it has 70000 bytes"),
    ({}, 200, b"x" * 70_000, "it has 70000 bytes"),
    ({"Content-Type": "text/plain; charset=utf-16"}, 200, CARD.encode("utf-16"), "its charset is neither"),
    ({"Content-Type": "text/plain; charset=x"}, 200, b"x", "its charset is neither"),
    ({"Content-Type": "text/plain; charset=\udcff"}, 200, b"x", "its charset is neither"),
    ({}, 200, b"a" * 60 + b"!", "that takes more than 50 ms"),
]


@pytest.mark.parametrize(("headers", "status", "body", "problem"), UNMASKABLE)
@pytest.mark.parametrize("when_unmaskable", ["refuse", "leave"])
def test_a_body_that_cannot_be_masked_is_refused_or_left_and_logged(
    plugin_client: PluginClientFactory,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    status: int,
    body: bytes,
    problem: str,
    when_unmaskable: str,
) -> None:
    conf = {
        "mask": [{"regex": "(a|aa)+$"}],
        "max_bytes": 65_536,
        "max_ms": 50,
        "when_unmaskable": when_unmaskable,
    }
    answer = {**TEXT, "Set-Cookie": "a=1", **headers}
    result = plugin_client(ResponseHardening, conf).respond(status, answer, body, target="/shop/a?b")
    assert f"/shop/a cannot be masked: {problem}" in caplog.text
    if when_unmaskable == "leave":
        assert (result.status, result.body, result.headers["Set-Cookie"]) == (status, body, "a=1")
    else:
        assert (result.status, result.json()) == (502, {"error": "the response cannot be shown"})
        assert set(result.headers) == {"Content-Type", "X-Content-Type-Options"}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_without_a_body_only_headers_are_hardened(masks: PluginClient, method: str, status: int) -> None:
    headers = {**TEXT, "Content-Encoding": "gzip", "ETag": '"a"'}
    result = masks.respond(status, headers, method=method)
    assert result.status == status
    assert {**headers, "X-Content-Type-Options": "nosniff"}.items() <= dict(result.headers).items()


# Confs


@pytest.mark.parametrize(
    ("conf", "problem"),
    [
        ({"mask": [{"regex": "a"}, {"regex": "(card"}]}, r"mask\[1\]: expected a regular expression: missing \)"),
        ({"mask": [{"regex": "a*"}]}, "expected a regular expression that does not match empty text"),
        ({"mask": [{"regex": "a", "replacement": "…"}]}, r"mask\[0\].replacement"),
        ({"set": {"Content-Length": "0"}}, "expected other headers than Content-Length"),
        ({"remove": ["content-encoding"]}, "expected other headers than content-encoding"),
        ({"set": {"X-A": "a\r\nX-B: b"}}, "cannot hold CR, LF or NUL"),
        ({"set": {"X A": "a"}}, "cannot be a header's name"),
        ({"when_unmaskable": "ignore"}, "expected one of the values"),
        ({"max_bytes": 1 << 24}, "max_bytes"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, conf: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(ResponseHardening, conf)


# Behind a gateway


def test_behind_a_gateway(gateway: GatewayFactory) -> None:
    live = gateway()
    live.answer(201, {"Server": "a", "X-Powered-By": "b", "Content-Security-Policy": "own"}, {"pan": int(CARD)})
    answer = live.get("/shop/orders/7", headers={"Accept-Encoding": "gzip"})
    assert (answer.status, answer.json()) == (201, {"pan": "************1111"})
    assert live.received[0].headers["Accept-Encoding"] == "identity"
    assert answer.headers.getall("Content-Security-Policy") == ["own"]
    assert "X-Powered-By" not in answer.headers
    assert live.request("HEAD", "/shop/orders/7").headers["Referrer-Policy"] == "no-referrer"
    live.answer(200, {**TEXT, "Content-Encoding": "gzip"}, b"\x1f\x8b")
    assert live.get("/shop/orders/8").status == 502
    live.wait_for_log("/shop/orders/8 cannot be masked: it is compressed")


@pytest.mark.parametrize("status", [204, 304])
def test_the_upstream_is_called_once(gateway: GatewayFactory, status: int) -> None:
    live = gateway()
    live.answer(status, {"Server": "a"})
    assert live.get("/shop/orders/7").status == status
    assert len(live.received) == 1


def test_a_mistaken_conf_shows_nothing(gateway: GatewayFactory) -> None:
    live = gateway()
    live.answer(200, TEXT, CARD)
    answer = live.get("/mistaken")
    assert (answer.status, answer.text) == (503, "503 Service Unavailable\n")
