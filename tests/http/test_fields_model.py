"""Any course of writes, beside the simplest thing that could be meant: a dict of lists."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.http.fields import Args, Fields, Headers
from apisix.runner.wire.flatbuf import Pair

names = st.sampled_from(["a", "A", "b", "x-tag", "X-Tag", "X-TAG"])
values = st.sampled_from(["", "1", "2", "é", "\udcff"])
pairs = st.lists(st.tuples(names, values), max_size=5)
bare_pairs = st.lists(st.tuples(names, values | st.none()), max_size=5)
writes = st.one_of(
    st.tuples(st.just("set"), names, values),
    st.tuples(st.just("add"), names, values),
    st.tuples(st.just("setall"), names, st.lists(values, max_size=3)),
    st.tuples(st.just("setdefault"), names, values),
    st.tuples(st.just("delete"), names, st.none()),
    st.tuples(st.just("pop"), names, st.none()),
    st.tuples(st.just("update"), st.none(), pairs),
    st.tuples(st.just("replace"), st.none(), pairs),
    st.tuples(st.just("clear"), st.none(), st.none()),
    st.tuples(st.just("read"), names, st.none()),
)
Write = tuple[str, Any, Any]


class Model:
    """What fields mean: names in the order in which they came, each as written last, with its values."""

    def __init__(self, pairs: list[Pair], fold: Callable[[str], str]) -> None:
        self.fold = fold
        self.fields: dict[str, tuple[str, list[str]]] = {}
        for name, value in pairs:
            self.fields.setdefault(fold(name), (name, []))[1].append(value or "")

    def values(self, name: str) -> list[str]:
        return self.fields.get(self.fold(name), ("", []))[1]

    def set(self, name: str, values: list[str]) -> None:
        if values:
            self.fields[self.fold(name)] = (name, values)
        else:
            self.fields.pop(self.fold(name), None)

    def set_all(self, pairs: list[tuple[str, str]]) -> None:
        for name, values in Model(list(pairs), self.fold).fields.values():
            self.set(name, values)

    def write(self, kind: str, name: Any, value: Any) -> None:
        match kind:
            case "set":
                self.set(name, [value])
            case "add":
                self.set(name, [*self.values(name), value])
            case "setall":
                self.set(name, value)
            case "setdefault":
                if not self.values(name):
                    self.set(name, [value])
            case "delete" | "pop":
                self.set(name, [])
            case "update":
                self.set_all(value)
            case "replace":
                kept = {self.fold(other) for other, _ in value}
                self.fields = {key: field for key, field in self.fields.items() if key in kept}
                self.set_all(value)
            case "clear":
                self.fields = {}


def write(fields: Fields, kind: str, name: Any, value: Any) -> None:
    match kind:
        case "set":
            fields[name] = value
        case "delete":
            if name in fields:
                del fields[name]
        case "pop":
            fields.pop(name, None)
        case "add":
            fields.add(name, value)
        case "setall":
            fields.setall(name, value)
        case "setdefault":
            fields.setdefault(name, value)
        case "update":
            fields.update(value)
        case "replace":
            fields.replace(value)
        case "clear":
            fields.clear()
        case "read":
            fields.get(name)


@pytest.fixture(params=[(Headers, str.lower), (Args, str)], ids=["headers", "args"], scope="module")
def kind(request: pytest.FixtureRequest) -> tuple[type[Fields], Callable[[str], str]]:
    pair: tuple[type[Fields], Callable[[str], str]] = request.param
    return pair


@given(before=bare_pairs, course=st.lists(writes, max_size=8), unread=st.booleans())
def test_fields_hold_what_was_written(
    kind: tuple[type[Fields], Callable[[str], str]], before: list[Pair], course: list[Write], unread: bool
) -> None:
    fields_type, fold = kind
    fields = fields_type((lambda: before) if unread else before)
    model = Model(before, fold)
    for step in course:
        write(fields, *step)
        model.write(*step)
    assert fields.pairs() == [(name, value) for name, values in model.fields.values() for value in values]
    assert list(fields.items()) == [(name, values[0]) for name, values in model.fields.values()]
    assert len(fields) == len(model.fields)
    for name in ("a", "A", "x-tag", "X-TAG", "missing"):
        assert fields.getall(name) == model.values(name)
        assert (name in fields) is bool(model.values(name))


@given(before=bare_pairs, course=st.lists(writes, max_size=8), unread=st.booleans())
def test_changes_are_exactly_what_differs_from_before(
    kind: tuple[type[Fields], Callable[[str], str]], before: list[Pair], course: list[Write], unread: bool
) -> None:
    fields_type, fold = kind
    fields = fields_type((lambda: before) if unread else before)
    model, start = Model(before, fold), Model(before, fold)
    for step in course:
        write(fields, *step)
        model.write(*step)
    assert dict(fields.changes()).items() >= dict(difference(start, model)).items(), "what differs is sent"
    fields.get("a")  # what was never read is not compared
    assert sorted(fields.changes(), key=str) == sorted(difference(start, model), key=str)
    assert fields.changed is bool(difference(start, model))


def difference(start: Model, end: Model) -> list[tuple[str, list[str] | None]]:
    names = [*start.fields, *(name for name in end.fields if name not in start.fields)]
    return [(name, end.values(name) or None) for name in names if start.values(name) != end.values(name)]
