import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.gateway.uri import (
    BadTarget,
    encode_args,
    escape_path,
    escape_unsendable,
    parse_args,
    parse_target,
    to_bytes,
    to_text,
)

texts = st.binary(max_size=30).map(to_text)
names = st.binary(min_size=1, max_size=10).map(to_text)


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", ""),
        ("/c%20d/%E4%BD%A0/e%2Ff", "/c d/你/e/f", ""),
        ("/a//b///c", "/a/b/c", ""),
        ("/a/./b/../c", "/a/c", ""),
        ("/a/%2e%2e/c", "/c", ""),
        ("/a/", "/a/", ""),
        ("/a/b/..", "/a/", ""),
        ("/a/..", "/", ""),
        ("/a?b=%20&c", "/a", "b=%20&c"),
        ("/a%3Fb?c?d", "/a?b", "c?d"),
        ("/a?", "/a", ""),
        ("/a?b#c", "/a", "b"),
        ("/%FF", to_text(b"/\xff"), ""),
        ("http://example.test/a?b", "/a", "b"),
        ("http://example.test", "/", ""),
    ],
)
def test_a_target_is_split_and_its_path_decoded(raw: str, path: str, query: str) -> None:
    target = parse_target(raw)
    assert (target.path, target.query) == (path, query)


@pytest.mark.parametrize("raw", ["*", "", "a", "/%", "/%4", "/%zz", "/a%00b", "/..", "/a/../../b"])
def test_a_target_that_nginx_refuses_is_bad(raw: str) -> None:
    with pytest.raises(BadTarget):
        parse_target(raw)


@given(st.binary(max_size=30).map(lambda raw: to_text(b"/" + raw.translate(None, b"/\0."))))
def test_an_escaped_path_is_sendable_and_decodes_to_itself(path: str) -> None:
    escaped = escape_path(path)
    assert escaped == escape_unsendable(escaped)
    assert parse_target(escaped).path == path


def test_a_path_keeps_what_need_not_be_escaped() -> None:
    assert escape_path("/a/b-c_d.e~f!$&'()*+,;=:@") == "/a/b-c_d.e~f!$&'()*+,;=:@"
    assert escape_path("/%?# ") == "/%25%3F%23%20"


@given(st.dictionaries(names, st.lists(texts | st.none(), min_size=1, max_size=3), max_size=4))
def test_arguments_survive_being_encoded(args: dict[str, list[str | None]]) -> None:
    assert parse_args(encode_args(args)) == args


@pytest.mark.parametrize(
    ("query", "args"),
    [
        ("", {}),
        ("xx=y&xx=z&&y=&&z", {"xx": ["y", "z"], "y": [""], "z": [None]}),
        ("plus=a+b&+=1", {"plus": ["a b"], " ": ["1"]}),
        ("q=%E4%BD%A0&bad=%FF&odd=%zz%", {"q": ["你"], "bad": [to_text(b"\xff")], "odd": ["%zz%"]}),
        ("=x&=", {}),
        ("a=b=c", {"a": ["b=c"]}),
    ],
)
def test_a_query_is_split_as_lua_does(query: str, args: dict[str, list[str | None]]) -> None:
    assert parse_args(query) == args


@given(st.binary())
def test_any_bytes_are_text_and_back(raw: bytes) -> None:
    assert to_bytes(to_text(raw)) == raw
