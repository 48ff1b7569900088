"""llm_guard: who may ask what, what it is charged, and what the upstream is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory, RequestResult
from examples.llm_guard.plugins.llm_guard import Budgets, LlmGuard

CONF = {"models": ["small"], "budget": 10_000, "max_tokens": 100, "media": {"image_url": 500}}
ANNA = {"consumer_name": "anna"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,anna@example.org"}}


class ByWords(LlmGuard):
    def tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def client(plugin_client: PluginClientFactory) -> PluginClient:
    return plugin_client(LlmGuard, CONF)


def chat(content: object = "Hi", **fields: object) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": content}], **fields}


def upstream(result: RequestResult) -> Any:
    assert result.upstream is not None, result.text
    return json.loads(result.upstream.body or b"")


def error(result: RequestResult) -> tuple[int, Any, Any]:
    told = result.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert told["type"] == ("tokens" if result.status == 429 else "invalid_request_error")
    return result.status, told["param"], told["code"]


# Who may ask what


def test_a_request_goes_on_with_what_it_may_cost(client: PluginClient) -> None:
    result = client.post("/", chat(temperature=0.5, user="u"), vars=ANNA)
    assert upstream(result) == chat(temperature=0.5, user="u", max_completion_tokens=100)
    assert dict(result.headers).keys() == {"X-RateLimit-Limit-Tokens", "X-RateLimit-Remaining-Tokens"}


@pytest.mark.parametrize("stream", [True, False, None])
def test_the_streaming_flag_is_kept(client: PluginClient, stream: bool | None) -> None:
    assert upstream(client.post("/", chat(stream=stream), vars=ANNA))["stream"] is stream


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_completion_tokens": 100}),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 100}),
        ({"max_tokens": 99}, {"max_tokens": 99}),
        ({"max_tokens": 101}, {"max_tokens": 100}),
        ({"max_completion_tokens": 10**30}, {"max_completion_tokens": 100}),
        ({"max_tokens": 7, "max_completion_tokens": 1000}, {"max_tokens": 7, "max_completion_tokens": 100}),
    ],
)
def test_the_answer_is_limited(client: PluginClient, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    assert upstream(client.post("/", chat(**asked), vars=ANNA)) == chat(**sent)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (chat(model="large"), (404, "model", "model_not_found")),
        (chat(model=["small"]), (404, "model", "model_not_found")),
        ({"messages": []}, (404, "model", "model_not_found")),
        ({"model": "small"}, (400, "messages", None)),
        ({"model": "small", "messages": []}, (400, "messages", None)),
        ({"model": "small", "messages": ["Hi"]}, (400, "messages.[0]", None)),
        (chat(7), (400, "messages.[0].content", None)),
        (chat(["Hi"]), (400, "messages.[0].content", None)),
        (chat([{"type": "text"}]), (400, "messages.[0].content", None)),
        (chat([{"type": "input_audio", "input_audio": {}}]), (400, "messages.[0].content", None)),
        (chat([{"type": ["text"]}]), (400, "messages.[0].content", None)),
        (chat(stream="yes"), (400, "stream", None)),
        (chat(max_tokens=0), (400, "max_tokens", None)),
        (chat(max_tokens=1.5), (400, "max_tokens", None)),
        (chat(max_completion_tokens=True), (400, "max_completion_tokens", None)),
        (chat(n=2), (400, "n", None)),
        (chat(n=-1), (400, "n", None)),
        ([chat()], (400, None, None)),
        (b"", (400, None, None)),
        (b"{", (400, None, None)),
        (b'{"model": "\xff"}', (400, None, None)),
        (b'{"model": "\\ud800"}', (400, None, None)),
        (b"[" * 100_000, (400, None, None)),
        (chat("x" * 2_000_000), (413, None, None)),
    ],
)
def test_what_cannot_be_guarded_is_refused(client: PluginClient, body: Any, expected: tuple[int, Any, Any]) -> None:
    result = client.post("/", body, headers={"Content-Type": "application/json"}, vars=ANNA)
    assert error(result) == expected


@pytest.mark.parametrize("levels", [10, 100, 300, 400, 500, 700, 900, 1000, 10_000])
def test_what_is_nested_too_deeply_to_be_read_is_refused(client: PluginClient, levels: int) -> None:
    body = json.dumps(chat(tools="?")).replace('"?"', "[" * levels + "]" * levels)
    result = client.post("/", body, headers={"Content-Type": "application/json"}, vars=ANNA)
    assert result.status == 400 or (levels < 1000 and result.status == 0)  # in between, as deep as the interpreter can


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/json"), ("Content-Type", "text/plain")],
        [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
    ],
)
def test_the_body_must_be_told_to_be_json(client: PluginClient, headers: list[tuple[str, str]]) -> None:
    assert error(client.post("/", json.dumps(chat()), headers=headers, vars=ANNA)) == (415, None, None)


def test_a_body_without_a_length_is_measured_when_it_is_there(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(LlmGuard, {**CONF, "max_bytes": 100})
    headers = {"Content-Type": "application/json", "Content-Length": ""}  # as in a chunked request
    assert client.post("/", json.dumps(chat("x" * 100)), headers=headers, vars=ANNA).status == 413


@pytest.mark.parametrize("consumer", [None, ""])
def test_somebody_must_ask(client: PluginClient, consumer: str | None) -> None:
    assert error(client.post("/", chat(), vars={"consumer_name": consumer})) == (401, None, "invalid_api_key")


def test_names_that_stand_twice_are_read_by_the_upstream_as_here(client: PluginClient) -> None:
    body = json.dumps(chat())[:-1] + ', "model": "small", "max_tokens": 5, "max_tokens": 6}'
    result = client.post("/", '{"model": "large", ' + body[1:], headers={"Content-Type": "application/json"}, vars=ANNA)
    assert upstream(result) == chat(max_tokens=6)


# Redaction

CARD = "4111 1111 1111 1111"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("mail anna@shop.example.org.", "mail [email]."),
        (f"pay with {CARD} or 378282246310005 or 3782-822463-10005", "pay with [card] or [card] or [card]"),
        ("not 4111 1111 1111 1112, not 1763726056120", "not 4111 1111 1111 1112, not 1763726056120"),
        (f"the key\n{KEY}\nend", "the key\n[private_key]\nend"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "[private_key]"),
        ("token eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln!", "token [jwt]!"),
        ("sk-proj-0123456789abcdef and AKIAIOSFODNN7EXAMPLE", "[api_key] and [api_key]"),
        ("order C-123456, and C-1234567", "order [customer], and C-1234567"),
        ("task-based risk-free", "task-based risk-free"),
    ],
)
def test_secrets_do_not_reach_the_upstream(plugin_client: PluginClientFactory, said: str, told: str) -> None:
    client = plugin_client(LlmGuard, {**CONF, "redact_more": {"customer": r"\bC-[0-9]{6}\b"}})
    result = client.post("/", chat(said), vars=ANNA)
    assert upstream(result)["messages"][0]["content"] == told
    assert ("X-Redacted" in result.headers) is (said != told)


def test_every_text_is_looked_at(client: PluginClient) -> None:
    mail = "anna@example.org"
    calls = [{"id": "c1", "function": {"name": "send", "arguments": json.dumps({"to": mail})}}]
    messages = [
        {"role": "system", "content": mail},
        {"role": "user", "content": [{"type": "text", "text": mail}, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "type": "image_url", "content": mail},
    ]
    tools = [{"type": "image_url", "image_url": mail}]
    sent = upstream(client.post("/", {"model": "small", "messages": messages, "tools": tools, "user": mail}, vars=ANNA))
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "[email]"}, IMAGE]
    assert json.dumps(sent).replace(json.dumps(IMAGE), "").count(mail) == 0
    assert json.dumps(sent).count("[email]") == 6


def test_no_text_goes_along_with_an_image(client: PluginClient) -> None:
    result = client.post("/", chat([{**IMAGE, "text": "anna@example.org"}]), vars=ANNA)
    assert upstream(result)["messages"][0]["content"] == [IMAGE]


def test_a_pattern_that_takes_too_long_lets_nothing_through(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(LlmGuard, {**CONF, "redact_more": {"slow": "(a|aa)+$"}, "redact_ms": 50})
    result = client.post("/", chat("a" * 60 + "!"), vars=ANNA)
    assert (result.status, result.json()["error"]["type"]) == (503, "server_error")


# Budgets


def test_a_request_is_charged_what_it_may_cost(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(ByWords, {**CONF, "max_choices": 3})
    body = chat([{"type": "text", "text": "one two three"}, IMAGE], max_tokens=50, n=3)
    # model small messages role user content type text text one two three max_tokens n: 14; a message 4, an image 500
    result = client.post("/", body, vars=ANNA)
    assert result.headers["X-RateLimit-Remaining-Tokens"] == str(10_000 - 14 - 4 - 500 - 3 * 50)


def test_the_estimate_is_a_token_for_three_bytes() -> None:
    assert [LlmGuard().tokens(text) for text in ("", "a", "abc", "abcd", "日本")] == [0, 1, 1, 2, 2]


def test_a_key_without_tokens_left_waits(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(LlmGuard, {**CONF, "budget": 250})
    left = [client.post("/", chat(), vars=ANNA).headers["X-RateLimit-Remaining-Tokens"] for _ in range(3)]
    refused = client.post("/", chat(), vars=ANNA)
    assert error(refused) == (429, None, "rate_limit_exceeded")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert left == [left[0], left[1], left[1]]
    assert client.post("/", chat(), vars={"consumer_name": "bob"}).headers["X-RateLimit-Remaining-Tokens"] == left[0]


def test_a_request_above_the_budget_need_not_come_again(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(LlmGuard, {**CONF, "budget": 50})
    result = client.post("/", chat(), vars=ANNA)
    assert error(result) == (429, None, None)
    assert "Retry-After" not in result.headers


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_window_begins_with_the_first_request_and_ends() -> None:
    clock = Clock()
    budgets = Budgets(10, 60, 5, clock)
    assert budgets.spend(b"a", 4) == (True, 6, 60)
    clock.now += 50
    assert budgets.spend(b"a", 7) == (False, 6, 10)
    assert budgets.spend(b"a", 6) == (True, 0, 10)
    clock.now += 10
    assert budgets.spend(b"a", 10) == (True, 0, 60)


def test_too_many_keys_make_new_ones_wait_and_forget_nobody() -> None:
    clock = Clock()
    budgets = Budgets(10, 60, 2, clock)
    budgets.spend(b"a", 10)
    clock.now += 1
    budgets.spend(b"b", 1)
    assert budgets.spend(b"c", 1) == (False, 0, 59)
    assert budgets.spend(b"a", 1) == (False, 0, 59)
    clock.now += 59
    assert budgets.spend(b"c", 1) == (True, 9, 60)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 12), st.integers(0, 30))))
def test_no_window_has_more_than_its_budget(steps: list[tuple[bytes, int, int]]) -> None:
    clock = Clock()
    budgets = Budgets(10, 60, 2, clock)
    windows: dict[bytes, tuple[float, int]] = {}
    for key, tokens, seconds in steps:
        clock.now += seconds
        windows = {known: window for known, window in windows.items() if window[0] > clock.now}
        ends, spent = windows.get(key, (clock.now + 60, 0))
        fits = spent + tokens <= 10 and (key in windows or len(windows) < 2)
        assert budgets.spend(key, tokens).allowed is fits
        if fits:
            windows[key] = ends, spent + tokens


# Confs


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"models": []}, "models"),
        ({"budget": 0}, "budget"),
        ({"media": {"image_url": -1}}, "media"),
        ({"media": {"text": 1}}, "media: expected kinds besides text"),
        ({"redact": ["names"]}, "redact"),
        ({"redact_more": {"a": "("}}, "redact_more.a: expected a regular expression: missing"),
        ({"redact_more": {"a": "a?"}}, "redact_more.a: expected one that does not match empty text"),
        ({"redact_more": {"a b": "a"}}, "redact_more"),
        ({"limit_field": "n"}, "limit_field"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(LlmGuard, {**CONF, **changes})


def test_behind_a_gateway(gateway: GatewayFactory) -> None:
    live = gateway(flags=("--workers", "1"))
    headers = {"Authorization": "Bearer anna"}
    body = chat("I am C-123456", stream=True, max_tokens=1_000)
    live.answer(200, {"Content-Type": "text/event-stream"}, "data: [DONE]\n\n")
    answer = live.request("POST", "/v1/chat/completions", headers=headers, body=body)
    assert (answer.status, answer.text, answer.headers["X-Redacted"]) == (200, "data: [DONE]\n\n", "customer")
    assert json.loads(live.received[0].body or b"") == chat("I am [customer]", stream=True, max_tokens=200)
    for _ in range(10):
        answer = live.request("POST", "/v1/chat/completions", headers=headers, body=body)
    assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert live.request("POST", "/v1/chat/completions", body=body).status == 401
