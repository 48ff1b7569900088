from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.gateway.headers import HeaderList, ResponseHeaders, clean_name, clean_value
from apisix.runner.gateway.uri import to_bytes, to_text


def test_setting_replaces_in_place_and_drops_repetitions() -> None:
    headers = HeaderList([("X-A", "1"), ("X-B", "2"), ("x-a", "3")])
    headers.set("x-A", "4")
    assert list(headers) == [("X-A", "4"), ("X-B", "2")]


def test_setting_several_values_keeps_them_together() -> None:
    headers = HeaderList([("X-A", "1"), ("X-B", "2")])
    headers.set("x-a", ["3", "4"])
    assert list(headers) == [("X-A", "3"), ("X-A", "4"), ("X-B", "2")]


def test_setting_what_is_not_there_appends() -> None:
    headers = HeaderList([("X-A", "1")])
    headers.set("x-new", "2")
    assert list(headers) == [("X-A", "1"), ("x-new", "2")]


def test_setting_none_removes() -> None:
    headers = HeaderList([("X-A", "1"), ("x-a", "2")])
    headers.set("X-a", None)
    assert list(headers) == []
    assert "X-A" not in headers


def test_adding_to_the_response_repeats_but_not_where_nginx_has_one_slot() -> None:
    headers = ResponseHeaders()
    for value in ("1", "2"):
        headers.add("set-cookie", value)
        headers.add("location", value)
    assert list(headers) == [("set-cookie", "1"), ("location", "2"), ("set-cookie", "2")]


def test_underscores_in_response_headers_become_hyphens() -> None:
    headers = ResponseHeaders()
    headers.set("x_request_id", "1")
    assert list(headers) == [("x-request-id", "1")]


@given(st.binary().map(to_text))
def test_no_value_can_break_a_line(value: str) -> None:
    cleaned = to_bytes(clean_value(value))
    assert not set(cleaned) & (set(range(32)) - {9} | {127})
    assert cleaned == cleaned.strip(b" \t")


@given(st.binary().map(to_text))
def test_a_cleaned_name_is_a_token(name: str) -> None:
    assert all(33 <= byte < 127 and byte not in b'"(),/:;<=>?@[\\]{}' for byte in to_bytes(clean_name(name)))


def test_what_is_allowed_stays() -> None:
    assert clean_name("X-Case!#$%&'*+.^_`|~") == "X-Case!#$%&'*+.^_`|~"
    assert clean_value("caf\u00e9\t\udcff; q=1") == "caf\u00e9\t\udcff; q=1"
