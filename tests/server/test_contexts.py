"""Contexts: what a request's plugins keep for its response phase."""

import os
import time
from pathlib import Path

import pytest

from apisix.runner.server.contexts import KEEP, MOST_BYTES, Contexts

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    return Contexts(tmp_path / "contexts")


def test_what_is_kept_is_there_for_every_worker(contexts: Contexts, tmp_path: Path) -> None:
    contexts.keep(ID, {"user": "anna", "roles": ["a"]})
    assert Contexts(tmp_path / "contexts").read(ID) == b'{"user":"anna","roles":["a"]}'


def test_another_request_has_another_context(contexts: Contexts) -> None:
    contexts.keep(ID, {"user": "anna"})
    assert contexts.read(ID[::-1]) is None


def test_what_is_kept_later_wins(contexts: Contexts) -> None:
    contexts.keep(ID, {"user": "anna"})
    contexts.keep(ID, {"user": "ben"})
    assert contexts.read(ID) == b'{"user":"ben"}'


def test_it_is_private_and_leaves_nothing_else(contexts: Contexts, tmp_path: Path) -> None:
    contexts.keep(ID, {"user": "anna"})
    (file,) = (tmp_path / "contexts").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "contexts").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("id", ["", "../../etc/passwd", "short", "a" * 65, "with/slash0", "nul\0nulnul"])
def test_an_id_that_is_none_is_refused(contexts: Contexts, id: str) -> None:
    with pytest.raises(RuntimeError, match="request_id"):
        contexts.keep(id, {"user": "anna"})
    with pytest.raises(RuntimeError, match="request_id"):
        contexts.read(id)


def test_it_is_small(contexts: Contexts) -> None:
    with pytest.raises(ValueError, match=f"at most {MOST_BYTES}"):
        contexts.keep(ID, {"x": "x" * MOST_BYTES})
    assert contexts.read(ID) is None


def test_it_holds_what_json_can(contexts: Contexts) -> None:
    with pytest.raises(TypeError):
        contexts.keep(ID, {"x": object()})


def test_without_a_store_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for contexts in (Contexts(None), Contexts(tmp_path / "file" / "contexts")):
        with pytest.raises(RuntimeError, match="no store on disk"):
            contexts.keep(ID, {"user": "anna"})


def test_what_is_older_than_any_request_goes(contexts: Contexts, tmp_path: Path) -> None:
    contexts.keep(ID, {"user": "anna"})
    contexts.keep(ID[::-1], {"user": "ben"})
    long_ago = time.time() - KEEP - 10
    os.utime(tmp_path / "contexts" / ID, (long_ago, long_ago))
    contexts.sweep()
    assert contexts.read(ID) is None
    assert contexts.read(ID[::-1]) is not None
    Contexts(None).sweep()
