"""Messages of every kind for property tests: any bytes as text, absent and empty, repeated names, many entries."""

from typing import Any

from hypothesis import strategies as st

from tests.wire.codec import NAMES
from tests.wire.oracle import SCHEMA, UNIONS, Style, Values

_TEXT = st.one_of(
    st.sampled_from([b"", b"host", b"x-a6", b"\xff\x00", "Grüße".encode(), b"a" * 63, b"a" * 64]),
    st.binary(max_size=80),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "ignore")),
)
_BODY = st.one_of(
    st.binary(max_size=64), st.sampled_from([0, 1, 2, 3, 65535, 65536, 70001]).map(lambda size: b"\xa5" * size)
)
_ENTRY = st.tuples(_TEXT, st.none() | _TEXT)


@st.composite
def _entries(draw: st.DrawFn) -> list[tuple[bytes, bytes | None]]:
    few = draw(st.lists(_ENTRY, max_size=5))
    if few and draw(st.integers(0, 9)) == 0:  # many, at the price of a few: names and values recur
        return (few * 200)[: draw(st.integers(6, 200))]
    return few


_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "u8": st.integers(0, 2**8 - 1),
    "u16": st.integers(0, 2**16 - 1),
    "u32": st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
    "string": st.none() | _TEXT,
    "bytes": st.none() | _BODY,
    "entries": st.none() | _entries(),
}
_REQUIRED = {  # where our codec asks more than the schema: src_ip has no None, a variable has a name, methods are few
    ("HTTPReqCall.Req", "src_ip"): st.sampled_from([b"", b"\x7f\0\0\x01", bytes(range(16))]),
    ("HTTPReqCall.Req", "method"): st.integers(0, 14),
    ("ExtraInfo.Var", "name"): _TEXT,
}


def table(name: str) -> st.SearchStrategy[Values]:
    """Values for one table of the schema."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field, kind in SCHEMA[name].items():
        if (name, field) in _REQUIRED:
            fields[field] = _REQUIRED[name, field]
        elif kind == "union":
            members = [st.tuples(st.just(member), table(member)) for member in UNIONS[name]]
            optional = [] if name == "ExtraInfo.Req" else [st.none()]
            fields[field] = st.one_of(*optional, *members)
        else:
            fields[field] = _KINDS[kind]
    return st.fixed_dictionaries(fields)


MESSAGES = st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), table(name)))
STYLES = st.builds(Style, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3))
