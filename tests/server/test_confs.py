"""Confs and their tokens: prepared once, the same for ever, gone when nobody uses them."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.errors import ConfError
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server import confs as module
from apisix.runner.server.confs import Confs, RouteKey, canonical, first_token, from_canonical, next_token
from apisix.runner.server.store import Store
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import PrepareConfReq
from tests.server.connections import SECONDS

PRE_REQ = "route#1#ext-plugin-pre-req#17"
POST_RESP = "route#1#ext-plugin-post-resp#17"


class Counts(Base):
    """Counts its setups and teardowns, and fails in setup where its conf says so."""

    lives: ClassVar[list[str]] = []
    during: ClassVar[list[Callable[[], object]]] = []

    def setup(self) -> None:
        self.lives.append("setup")
        for one in self.during if self.config == "waits" else []:
            one()
        if self.config == "fails":
            raise OSError("no database")

    def teardown(self) -> None:
        self.lives.append("teardown")
        if self.config == "fails late":
            raise OSError("no database any more")

    def filter(self, request: Request, response: Response) -> None:
        pass


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plugins of this test went through."""
    fresh: list[str] = []
    monkeypatch.setattr(Counts, "lives", fresh)
    return fresh


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def make(store: Store | None = None, expire: float = 3600) -> Confs:
    """The confs of a worker that has just started."""
    registry = Registry()
    registry.add(Definition(Counts, __file__))
    return Confs(registry, expire, store)


def conf(value: str = "", key: str | None = PRE_REQ, name: str = "counts") -> PrepareConfReq:
    return PrepareConfReq([(name, value)], key)


# Tokens.


def test_the_same_conf_has_the_same_token_in_every_worker_and_after_every_start() -> None:
    assert make().prepare(conf("a")) == make().prepare(conf("a"))


def test_the_token_does_not_change_with_the_version_in_the_key() -> None:
    confs = make()
    assert confs.prepare(conf("a", "route#1#ext-plugin-pre-req#1")) == confs.prepare(
        conf("a", "route#1#ext-plugin-pre-req#2")
    )
    assert len(confs) == 1


def test_another_value_order_route_or_phase_is_another_token() -> None:
    confs = make()
    different = [
        conf("a"),
        conf("b"),
        conf("a", "route#2#ext-plugin-pre-req#17"),
        conf("a", "route#1#ext-plugin-post-req#17"),
        conf("a", None),
        PrepareConfReq([("counts", "a"), ("counts", "b")], PRE_REQ),
        PrepareConfReq([("counts", "b"), ("counts", "a")], PRE_REQ),
        PrepareConfReq([], PRE_REQ),
    ]
    assert len({confs.prepare(one) for one in different}) == len(different)


def test_no_conf_and_an_empty_one_are_the_same() -> None:
    confs = make()
    assert confs.prepare(PrepareConfReq(None, PRE_REQ)) == confs.prepare(PrepareConfReq([], PRE_REQ))


def test_a_token_is_never_0(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def digest(self) -> bytes:
            return bytes(4)

    monkeypatch.setattr(hashlib, "blake2b", Zero)
    assert first_token(b"any") == 1
    assert next_token(0xFFFFFFFF) == 1


texts = st.binary(max_size=9).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
pairs: st.SearchStrategy[list[Pair]] = st.lists(st.tuples(texts, texts), max_size=4)


@given(texts, pairs)
def test_a_conf_can_be_read_back_from_what_its_token_is_derived_from(identity: str, conf: list[Pair]) -> None:
    assert from_canonical(canonical(identity, conf)) == (identity, conf)


@given(texts, pairs, texts, pairs)
def test_where_one_part_ends_and_the_next_begins_makes_a_difference(
    identity: str, conf: list[Pair], other_identity: str, other_conf: list[Pair]
) -> None:
    same = canonical(identity, conf) == canonical(other_identity, other_conf)
    assert same == ((identity, conf) == (other_identity, other_conf))


@pytest.mark.parametrize("other", [[("a", "bc")], [("ab", "")], [("a", "b"), ("c", "")], [("", "abc")]])
def test_the_same_letters_cut_elsewhere_are_another_conf(other: list[Pair]) -> None:
    assert canonical("", [("ab", "c")]) != canonical("", other)


# Collisions: several contents that derive the same number.


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "first_token", lambda content: 0xFFFFFFFF)


@pytest.mark.usefixtures("colliding")
def test_a_conf_whose_number_is_taken_gets_the_next_one_for_ever(store: Store) -> None:
    confs = make(store)
    tokens = [confs.prepare(conf(value)) for value in "abc"]
    assert tokens == [0xFFFFFFFF, 1, 2]
    restarted = make(store)
    assert [restarted.prepare(conf(value)) for value in "cba"] == [2, 1, 0xFFFFFFFF]
    assert [confs.prepare(conf(value)) for value in "abc"] == tokens


@pytest.mark.usefixtures("colliding")
def test_without_a_store_a_conf_whose_number_is_taken_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    confs = make()
    token = confs.prepare(conf("a"))
    with pytest.raises(ConfError, match="taken by another conf"):
        confs.prepare(conf("b"))
    assert confs.prepare(conf("a")) == token
    assert "route#1" in caplog.text


# Once.


def test_a_conf_is_set_up_once_however_often_it_is_prepared(lives: list[str]) -> None:
    confs = make()
    for version in range(5):
        confs.prepare(conf("a", f"route#1#ext-plugin-pre-req#{version}"))
    assert lives == ["setup"]


def test_a_failure_is_remembered_for_a_moment_only(lives: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    confs = make()
    for _ in range(5):
        with pytest.raises(ConfError, match="setup failed: OSError: no database"):
            confs.prepare(conf("fails"))
    assert lives.count("setup") == 1
    monkeypatch.setattr(module, "REMEMBER_FAILURE", -1)
    with pytest.raises(ConfError):
        confs.prepare(conf("fails"))
    assert lives.count("setup") == 2


def test_in_the_response_phase_a_failure_is_a_conf_that_is_prepared_again_soon(
    lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    confs = make()
    token = confs.prepare(conf("fails", POST_RESP))
    assert confs.prepare(conf("fails", POST_RESP)) == token
    found = confs.get(token)
    assert found is not None
    assert found.failure is not None
    assert not found.outdated
    monkeypatch.setattr(module, "REMEMBER_FAILURE", -1)
    assert found.outdated


def test_a_setup_that_hangs_keeps_no_other_conf_and_is_not_begun_twice(
    lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    confs = make()
    began, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        go_on.wait(SECONDS)

    monkeypatch.setattr(Counts, "during", [wait])
    thread = threading.Thread(target=confs.prepare, args=(conf("waits"),))
    thread.start()
    try:
        assert began.wait(SECONDS)
        confs.prepare(conf("other"))
        with pytest.raises(ConfError, match="an earlier setup of the same conf has not ended"):
            confs.prepare(conf("waits"))
    finally:
        go_on.set()
        thread.join(SECONDS)
    confs.prepare(conf("waits"))
    assert lives.count("setup") == 2


# Shared, and forgotten.


def test_what_one_worker_prepares_every_other_can_restore(store: Store, lives: list[str]) -> None:
    token = make(store).prepare(conf("a"))
    other = make(store)
    assert other.get(token) is None
    assert other.is_stored(token)
    assert other.restore(token)
    found = other.get(token)
    assert found is not None
    assert (found.key.route, found.key.plugin, found.failure) == ("route#1", "ext-plugin-pre-req", None)
    assert other.prepare(conf("a")) == token
    assert len(lives) == 2


def test_a_conf_is_stored_before_its_token_is_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[bool] = []
    confs = make(store)
    token = first_token(canonical("route#1#ext-plugin-pre-req", [("counts", "waits")]))
    monkeypatch.setattr(Counts, "during", [lambda: stored.append(store.has(token))])
    assert confs.prepare(conf("waits")) == token
    assert stored == [True]


def test_what_nobody_stored_is_not_restored(store: Store) -> None:
    assert not make(store).is_stored(5)
    assert not make(store).restore(5)
    assert not make().restore(5)


def test_what_new_code_rejects_is_not_restored(store: Store) -> None:
    token = make(store).prepare(conf("a"))
    without_plugins = Confs(Registry(), 3600, store)
    with pytest.raises(ConfError, match="unknown plugin"):
        without_plugins.restore(token)


def test_a_conf_that_nobody_uses_goes_and_is_torn_down(lives: list[str]) -> None:
    confs = make(expire=-1)
    token = confs.prepare(conf("a"))
    for gone in confs.expire():
        gone.teardown()
    assert confs.get(token) is None
    assert lives == ["setup", "teardown"]
    assert confs.prepare(conf("a")) == token


def test_a_conf_that_is_used_stays(lives: list[str]) -> None:
    confs = make(expire=3600)
    token = confs.prepare(conf("a"))
    found = confs.get(token)
    assert found is not None
    found.used -= 7190
    assert confs.expire() == []
    found.used -= 20
    assert confs.expire() == [found]


def test_a_conf_that_went_is_restored_when_it_is_used_after_all(store: Store) -> None:
    confs = make(store)
    token = confs.prepare(conf("a"))
    found = confs.get(token)
    assert found is not None
    found.used -= 10_000
    assert confs.expire() == [found]
    assert confs.restore(token)


def test_a_teardown_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    confs = make(expire=-1)
    confs.prepare(conf("fails late"))
    for gone in confs.expire():
        gone.teardown()
    assert "no database any more" in caplog.text


# Keys.


@pytest.mark.parametrize(
    ("key", "route", "plugin", "identity"),
    [
        ("route#1#ext-plugin-pre-req#17", "route#1", "ext-plugin-pre-req", "route#1#ext-plugin-pre-req"),
        ("route&service#1&2#ext-plugin-post-req#1&3", "route&service#1&2", "ext-plugin-post-req", None),
        ("route#a#b#ext-plugin-post-resp#1", "route#a#b", "ext-plugin-post-resp", None),
        ("nonsense", "nonsense", "", "nonsense"),
        ("", "(no key)", "", ""),
        (None, "(no key)", "", ""),
    ],
)
def test_a_key_names_route_and_plugin(key: str | None, route: str, plugin: str, identity: str | None) -> None:
    parsed = RouteKey(key)
    assert (parsed.route, parsed.plugin) == (route, plugin)
    if identity is not None:
        assert parsed.identity == identity


@pytest.mark.parametrize(
    ("plugin", "phase"),
    [
        ("ext-plugin-pre-req", "request"),
        ("ext-plugin-post-req", "request"),
        ("ext-plugin-post-resp", "response"),
        ("ext-plugin-of-the-future", None),
    ],
)
def test_a_key_tells_the_phase(plugin: str, phase: str | None) -> None:
    assert RouteKey(f"route#1#{plugin}#1").phase == phase
