"""Headers and arguments as mappings: what is read, what is written, what is refused."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from apisix.runner.http.fields import Args, Fields, Headers, pairs_of
from apisix.runner.wire.flatbuf import Pair
from tests.http import given

Make = Callable[[Iterable[Pair]], Fields]


def lazily(kind: type[Fields]) -> Make:
    return lambda pairs: kind(lambda: pairs)


@pytest.fixture(params=["read", "unread"])
def headers_of(request: pytest.FixtureRequest) -> Make:
    """Makes headers that were decoded already, or will be when they are first read."""
    return Headers if request.param == "read" else lazily(Headers)


# Reading.


def test_a_name_gives_its_first_value(headers_of: Make) -> None:
    headers = headers_of([("x-tag", "a"), ("x-other", "b"), ("x-tag", "c")])
    assert headers["x-tag"] == "a"


def test_getall_gives_every_value_in_order(headers_of: Make) -> None:
    headers = headers_of([("x-tag", "a"), ("x-other", "b"), ("x-tag", "c")])
    assert headers.getall("x-tag") == ["a", "c"]
    assert headers.getall("x-missing") == []


def test_header_names_have_no_case(headers_of: Make) -> None:
    headers = headers_of([("X-Tag", "a")])
    assert headers["x-TAG"] == "a"
    assert "x-tag" in headers
    assert headers.get("X-TAG") == "a"


def test_names_that_differ_in_case_are_one_header(headers_of: Make) -> None:
    headers = headers_of([("X-Tag", "a"), ("x-tag", "b")])
    assert headers.getall("x-tag") == ["a", "b"]
    assert len(headers) == 1


def test_argument_names_have_case() -> None:
    args = Args([("a", "1"), ("A", "2")])
    assert (args["a"], args["A"]) == ("1", "2")


def test_an_argument_without_a_value_is_there_and_reads_as_empty() -> None:
    args = Args([("flag", None)])
    assert "flag" in args
    assert args["flag"] == ""


def test_what_is_missing_is_a_key_error_and_get_gives_the_default(headers_of: Make) -> None:
    headers = headers_of([("a", "1")])
    with pytest.raises(KeyError, match="b"):
        headers["b"]
    assert headers.get("b") is None
    assert headers.get("b", "none") == "none"
    assert "b" not in headers


def test_iteration_gives_each_name_once_as_it_was_written_and_pairs_each_value(headers_of: Make) -> None:
    headers = headers_of([("X-Tag", "a"), ("b", "1"), ("x-tag", "c")])
    assert list(headers) == ["X-Tag", "b"]
    assert list(headers.items()) == [("X-Tag", "a"), ("b", "1")]
    assert headers.pairs() == [("X-Tag", "a"), ("X-Tag", "c"), ("b", "1")]


def test_names_can_be_removed_while_iterating(headers_of: Make) -> None:
    headers = headers_of([("x-a", "1"), ("b", "2"), ("x-c", "3")])
    for name in headers:
        if name.startswith("x-"):
            del headers[name]
    assert list(headers) == ["b"]


def test_a_list_of_values_is_a_copy(headers_of: Make) -> None:
    headers = headers_of([("a", "1")])
    headers.getall("a").append("2")
    assert headers.getall("a") == ["1"]


@pytest.mark.parametrize("name", [b"authorization", None, 1])
def test_looking_up_a_header_by_what_is_no_text_raises_instead_of_finding_nothing(name: Any) -> None:
    headers = Headers([("authorization", "x")])
    with pytest.raises(TypeError, match="'str' object"):
        headers.get(name)
    assert name not in headers


def test_fields_are_decoded_when_first_read_and_once() -> None:
    loads = []

    def load() -> list[Pair]:
        loads.append(1)
        return [("a", "1")]

    headers = Headers(load)
    headers["b"] = "2"
    assert loads == [], "what is only written needs not be decoded"
    assert (headers["a"], headers["b"], len(headers)) == ("1", "2", 2)
    assert loads == [1]


def test_fields_that_do_not_decode_raise_each_time_they_are_read() -> None:
    def load() -> list[Pair]:
        raise ValueError("malformed")

    headers = Headers(load)
    for _ in range(2):
        with pytest.raises(ValueError, match="malformed"):
            headers.get("a")


# Writing.


def test_assignment_replaces_every_value(headers_of: Make) -> None:
    headers = headers_of([("x-tag", "a"), ("x-tag", "b")])
    headers["X-Tag"] = "c"
    assert headers.getall("x-tag") == ["c"]


def test_the_name_written_last_is_kept_in_the_place_of_the_first(headers_of: Make) -> None:
    headers = headers_of([("x-tag", "a"), ("b", "1")])
    headers["X-Tag"] = "c"
    assert list(headers) == ["X-Tag", "b"]
    headers["x-tag"] = "d"
    assert list(headers) == ["x-tag", "b"]


def test_the_last_of_several_spellings_wins(headers_of: Make) -> None:
    headers = headers_of([])
    headers["a"] = "1"
    headers["A"] = "2"
    headers["a"] = "3"
    assert headers["a"] == "3"


def test_the_last_of_several_spellings_is_sent_even_where_nothing_was_read() -> None:
    headers = lazily(Headers)([])
    headers["a"] = "1"
    headers["A"] = "2"
    headers["a"] = "3"
    assert headers.changes() == [("a", ["3"])]


def test_add_appends(headers_of: Make) -> None:
    headers = headers_of([("set-cookie", "a=1")])
    headers.add("Set-Cookie", "b=2")
    headers.add("x-new", "1")
    assert headers.getall("set-cookie") == ["a=1", "b=2"]
    assert headers.getall("x-new") == ["1"]


def test_setall_sets_several_one_or_none(headers_of: Make) -> None:
    headers = headers_of([("a", "1"), ("b", "1")])
    headers.setall("a", ["2", "3"])
    headers.setall("c", "text is one value")
    headers.setall("b", [])
    headers.setall("missing", [])
    assert headers.pairs() == [("a", "2"), ("a", "3"), ("c", "text is one value")]


def test_deletion_removes_every_value_and_what_is_missing_is_a_key_error(headers_of: Make) -> None:
    headers = headers_of([("X-Tag", "a"), ("x-tag", "b")])
    del headers["x-TAG"]
    assert "x-tag" not in headers
    with pytest.raises(KeyError):
        del headers["x-tag"]


def test_pop_setdefault_and_popitem_are_those_of_a_dict(headers_of: Make) -> None:
    headers = headers_of([("a", "1"), ("a", "2"), ("b", "3")])
    assert headers.pop("A") == "1"
    assert headers.pop("a", None) is None
    assert headers.setdefault("b", "4") == "3"
    assert headers.setdefault("c", "5") == "5"
    assert headers.popitem() == ("b", "3")
    assert headers.pairs() == [("c", "5")]


def test_update_takes_every_value_and_leaves_other_names(headers_of: Make) -> None:
    headers = headers_of([("a", "1"), ("b", "1")])
    headers.update(Headers([("A", "2"), ("a", "3")]), c="4")
    headers.update({"d": "5"})
    headers.update([("e", "6"), ("e", "7")])
    headers.update()
    assert headers.pairs() == [("A", "2"), ("A", "3"), ("b", "1"), ("c", "4"), ("d", "5"), ("e", "6"), ("e", "7")]


def test_replace_removes_what_is_not_among_the_new(headers_of: Make) -> None:
    headers = headers_of([("a", "1"), ("b", "1")])
    headers.replace([("B", "2"), ("c", "3"), ("b", "4")])
    assert headers.pairs() == [("B", "2"), ("B", "4"), ("c", "3")]
    headers.clear()
    assert headers.pairs() == []


@pytest.mark.parametrize("method", ["update", "replace"])
def test_where_one_of_several_is_wrong_none_is_written(headers_of: Make, method: str) -> None:
    headers = headers_of([("a", "1")])
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        getattr(headers, method)({"b": "2", "c": "x\ny"})
    assert headers.pairs() == [("a", "1")]


@pytest.mark.parametrize("fields", ["a=1", 5, None])
def test_fields_come_from_a_mapping_or_pairs_only(fields: Any) -> None:
    kind = type(fields).__name__
    with pytest.raises(TypeError, match=f"expected a mapping or pairs of name and value, got {kind}"):
        pairs_of(fields)


def test_fields_can_be_copied_into_themselves(headers_of: Make) -> None:
    headers = headers_of([("a", "1"), ("a", "2")])
    headers.replace(headers)
    headers.update(headers)
    assert headers.pairs() == [("a", "1"), ("a", "2")]
    assert headers.changes() == []


# What is refused, at the line that sets it.


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\n", "x\r\ny", "x\0", "é", "x(y)", "x/y", '"x"', "x\udcff"])
def test_a_header_name_has_letters_digits_and_a_few_signs_only(headers_of: Make, name: str) -> None:
    headers = headers_of([])
    with pytest.raises(ValueError, match="cannot be a header's name: expected letters, digits and") as error:
        headers[name] = "1"
    assert repr(name) in str(error.value)
    with pytest.raises(ValueError, match="cannot be a header's name"):
        headers.add(name, "1")


def test_every_sign_of_a_token_is_a_header_name(headers_of: Make) -> None:
    headers = headers_of([])
    headers["!#$%&'*+-.^_`|~09azAZ"] = "1"
    assert headers.changes() == [("!#$%&'*+-.^_`|~09azaz", ["1"])]


@pytest.mark.parametrize("name", [None, b"x-a", 1, ["x-a"], object()])
def test_a_header_name_is_text(headers_of: Make, name: Any) -> None:
    with pytest.raises(TypeError, match="a header's name must be str, got"):
        headers_of([])[name] = "1"


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "a\r\nset-cookie: admin=1", "\n"])
@pytest.mark.parametrize("write", ["__setitem__", "add", "setdefault"])
def test_a_header_value_cannot_begin_another_header(headers_of: Make, write: str, value: str) -> None:
    headers = headers_of([])
    with pytest.raises(ValueError, match="header 'x-a' cannot hold CR, LF or NUL: that would begin another header"):
        getattr(headers, write)("x-a", value)
    with pytest.raises(ValueError, match="cannot hold CR, LF or NUL"):
        headers.setall("x-a", ["fine", value])
    assert headers.changes() == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "got NoneType; to remove it: del headers['x-a']"),
        (5, "got int; write str(value) if that is meant"),
        (True, "got bool; write str(value) if that is meant"),
        (b"secret", "got bytes; write value.decode()"),
        (["a"], "got list; write str(value) if that is meant"),
    ],
)
def test_a_header_value_is_text(headers_of: Make, value: Any, told: str) -> None:
    with pytest.raises(TypeError) as error:
        headers_of([])["x-a"] = value
    assert str(error.value) == f"header 'x-a' must be set to str, {told}"


@pytest.mark.parametrize("value", ["", " ", "é", "日本", "\t", "\x7f", "\udcff", "x" * 100_000])
def test_any_line_of_text_is_a_header_value_bytes_that_are_no_text_too(headers_of: Make, value: str) -> None:
    headers = headers_of([])
    headers["x-a"] = value
    assert headers["x-a"] == value


@pytest.mark.parametrize("half", [0xD800, 0xD83D, 0xDC7F, 0xDD00, 0xDFFF])
def test_half_a_character_is_no_text(half: int) -> None:
    value = f"ok{chr(half)}"
    told = f"cannot hold U\\+{half:04X}: that is half of a character, and no text"
    with pytest.raises(ValueError, match=f"header 'x-a' {told}"):
        Headers()["x-a"] = value
    with pytest.raises(ValueError, match=f"argument 'a' {told}"):
        Args()["a"] = value
    with pytest.raises(ValueError, match=f"an argument's name {told}"):
        Args()[value] = "1"


@pytest.mark.parametrize("name", [None, 1, b"a"])
def test_an_argument_name_is_text(name: Any) -> None:
    with pytest.raises(TypeError, match="an argument's name must be str, got"):
        Args()[name] = "1"


def test_an_argument_name_is_not_empty() -> None:
    with pytest.raises(ValueError, match="an argument's name cannot be empty"):
        Args()[""] = "1"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "got NoneType; to remove it: del args['a']"),
        (5, "got int; write str(value) if that is meant"),
        (b"1", "got bytes; write value.decode()"),
    ],
)
def test_an_argument_value_is_text(value: Any, told: str) -> None:
    with pytest.raises(TypeError) as error:
        Args()["a"] = value
    assert str(error.value) == f"argument 'a' must be set to str, {told}"


@pytest.mark.parametrize("text", ["", "a&b=c", "a b", "é\r\n\0", "%41", "\udcff"])
def test_arguments_are_any_text_the_gateway_encodes_them(text: str) -> None:
    args = Args()
    args["a"] = text
    if text:
        args[text] = "1"
    assert args["a"] == text


def test_a_name_that_is_refused_is_refused_again() -> None:
    headers = Headers()
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be a header's name"):
            headers["not a name"] = "1"


# What changed.


def test_nothing_has_changed_at_first(headers_of: Make) -> None:
    headers = headers_of([("a", "1")])
    assert not headers.changed
    assert headers.changes() == []
    assert headers["a"] == "1"
    assert not headers.changed
    assert headers.changes() == []


def test_changes_name_what_differs_with_the_new_values_or_none() -> None:
    headers = Headers([("X-Same", "1"), ("X-New", "1"), ("X-Gone", "1"), ("X-Back", "1")])
    headers["X-Same"] = "1"
    headers["X-New"] = "2"
    headers.add("X-New", "3")
    del headers["x-gone"]
    del headers["x-back"]
    headers["X-Back"] = "1"
    headers["x-brief"] = "1"
    del headers["x-brief"]
    assert headers.changed
    assert headers.changes() == [("x-new", ["2", "3"]), ("x-gone", None)]


def test_the_order_of_repeated_values_is_part_of_them() -> None:
    args = Args([("a", "1"), ("a", "2")])
    args.setall("a", ["2", "1"])
    assert args.changes() == [("a", ["2", "1"])]


def test_what_is_written_and_never_read_is_sent_uncompared() -> None:
    headers = lazily(Headers)([("a", "1")])
    headers["A"] = "1"
    assert headers.changed
    assert headers.changes() == [("a", ["1"])]


def test_what_is_written_and_then_read_is_compared() -> None:
    headers = lazily(Headers)([("a", "1")])
    headers["A"] = "1"
    assert headers["a"] == "1"
    assert not headers.changed
    assert headers.changes() == []


def test_is_set_tells_what_was_written_from_what_was_sent(headers_of: Make) -> None:
    headers = headers_of([("a", "1"), ("b", "1"), ("c", "1")])
    headers["A"] = "1"
    del headers["c"]
    assert [headers.is_set(name) for name in ("a", "b", "c", "d")] == [True, False, False, False]


def test_is_set_needs_no_decoding() -> None:
    def load() -> list[Pair]:
        raise AssertionError("decoded")

    headers = Headers(load)
    headers["A"] = "1"
    assert headers.is_set("a")
    assert not headers.is_set("b")


# Printing.


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "set-cookie", "X-API-KEY", "Proxy-Authorization"])
def test_printing_headers_prints_no_secrets(name: str) -> None:
    headers = Headers([(name, "s3cret"), ("Accept", "*/*")])
    assert repr(headers) == f"<Headers {name}: ***, Accept: */*>"
    assert "s3cret" not in f"{headers} {headers!r}"


def test_printing_arguments_prints_them() -> None:
    assert repr(Args([("a", "1"), ("a", "2"), ("flag", None)])) == "<Args a=1, a=2, flag=>"


# Headers of a request.


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "Connection"])
@pytest.mark.parametrize("before", [[], ["5"]])
def test_headers_that_frame_a_request_cannot_be_changed(name: str, before: list[str]) -> None:
    headers = given.request(headers=[(name.lower(), value) for value in before]).headers
    told = f"'{name}' cannot be changed: the gateway computes it from the message"
    writes: list[Callable[[], object]] = [
        lambda: headers.__setitem__(name, "6"),
        lambda: headers.add(name, "6"),
        lambda: headers.setall(name, ["5", "5"]),
        lambda: headers.update({name: "6"}),
        lambda: headers.replace({name: "6"}),
    ]
    for write in writes:
        with pytest.raises(ValueError, match=told):
            write()
    assert headers.getall(name) == before
    assert headers.changes() == []


def test_adding_what_is_there_to_a_header_that_frames_a_request_changes_it_too() -> None:
    headers = given.request(headers=[("content-length", "5")]).headers
    with pytest.raises(ValueError, match="cannot be changed"):
        headers.add("content-length", "5")


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Connection", "Host"])
def test_headers_that_a_request_needs_cannot_be_removed(name: str) -> None:
    headers = given.request(headers=[(name.lower(), "5")]).headers
    removals: list[Callable[[], object]] = [
        lambda: headers.__delitem__(name),
        lambda: headers.pop(name),
        lambda: headers.setall(name, []),
    ]
    for remove in removals:
        with pytest.raises(ValueError, match=f"'{name}' cannot be removed: the message needs it"):
            remove()
    assert headers.changes() == []


def test_to_remove_a_needed_header_that_is_not_there_is_as_with_any_other() -> None:
    headers = given.request().headers
    with pytest.raises(KeyError):
        del headers["host"]
    assert headers.pop("host", None) is None


def test_replacing_a_requests_headers_keeps_its_host_and_what_frames_it() -> None:
    request = given.request(headers=[("host", "a.test"), ("content-length", "5"), ("x-a", "1")])
    request.headers = {"x-b": "2"}
    assert request.headers.pairs() == [("host", "a.test"), ("content-length", "5"), ("x-b", "2")]
    request.headers.clear()
    assert request.headers.pairs() == [("host", "a.test"), ("content-length", "5")]
    assert request.headers.changes() == [("x-a", None)]


def test_setting_a_requests_headers_to_what_they_are_is_no_change() -> None:
    request = given.request(headers=[("host", "a.test"), ("content-length", "5")])
    request.headers = {**request.headers, "x-new": "1"}
    request.headers["Content-Length"] = "5"
    assert request.headers.changes() == [("x-new", ["1"])]


def test_a_requests_host_can_be_set() -> None:
    request = given.request(headers=[("host", "a.test")])
    request.headers["Host"] = "b.test"
    assert request.headers.changes() == [("host", ["b.test"])]


# Headers taken over from others.


def test_headers_taken_over_are_a_copy_and_count_as_set() -> None:
    request = given.request(headers=[("X-A", "1"), ("x-a", "2"), ("b", "3")])
    response = Headers()
    response.replace(request.headers)
    response.add("x-a", "4")
    assert response.getall("x-a") == ["1", "2", "4"]
    assert request.headers.pairs() == [("X-A", "1"), ("X-A", "2"), ("b", "3")]
    assert request.headers.changes() == []
    assert response.changes() == [("x-a", ["1", "2", "4"]), ("b", ["3"])]
    assert response.is_set("b")


def test_what_frames_another_message_is_not_taken_over_into_a_request() -> None:
    request = given.request()
    with pytest.raises(ValueError, match="'Content-Length' cannot be changed"):
        request.headers = Headers([("Content-Length", "5")])
    assert request.headers.changes() == []


def test_pairs_without_leaves_names_out(headers_of: Make) -> None:
    headers = headers_of([("X-A", "1"), ("b", "2"), ("b", "3")])
    assert headers.pairs_without(frozenset({"x-a"})) == [("b", "2"), ("b", "3")]
    assert headers.pairs_without(frozenset()) == headers.pairs()


def test_names_that_were_checked_are_kept_up_to_a_limit() -> None:
    headers = Headers()
    for number in range(1100):
        headers[f"x-limit-{number}"] = "1"
    with pytest.raises(ValueError, match="cannot be a header's name"):
        headers["x limit"] = "1"
    assert len(headers) == 1100
