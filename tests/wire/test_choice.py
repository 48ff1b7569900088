"""Which codec runs: the compiled one if it fits the source beside it, else the pure one, and why."""

import os
import subprocess
import sys
from binascii import crc32
from pathlib import Path

import pytest

from apisix.runner.wire.codec import why_not_compiled
from tests.wire.codec import Codec

SHOW = "from apisix.runner.wire import codec, messages as m; print(codec.CODEC, m.CODEC, m.HTTPReqCallReq.__module__)"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module's source; modules beside it can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "source.pyx"
    path.write_bytes(b"what it is built from")
    return path


def pretend(source: Path, name: str, text: str) -> str:
    """A module that stands for a compiled one."""
    source.with_name(f"{name}.py").write_text(text)
    return name


def chosen(environ: dict[str, str]) -> list[str]:
    """The codec of a process with such an environment, twice, and where its HTTPReqCallReq is from."""
    clean = {name: value for name, value in os.environ.items() if name != "APISIX_RUNNER_PURE"}
    command = [sys.executable, "-c", SHOW]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=True).stdout.split()


def test_the_compiled_one_runs_where_it_was_built(compiled: Codec) -> None:
    assert chosen({}) == ["compiled", "compiled", "apisix.runner.wire._speedups"]


def test_the_pure_one_runs_where_it_is_asked_for() -> None:
    assert chosen({"APISIX_RUNNER_PURE": "1"}) == ["pure", "pure", "apisix.runner.wire.pure"]


def test_a_module_built_from_the_source_is_used(source: Path) -> None:
    name = pretend(source, "speedups_built", f"SOURCE_CRC = {crc32(source.read_bytes())}")
    assert why_not_compiled(name, source) == ""


def test_a_module_built_from_another_source_is_not(source: Path) -> None:
    name = pretend(source, "speedups_older", f"SOURCE_CRC = {crc32(b'what it was built from')}")
    assert why_not_compiled(name, source).startswith("the compiled one was built from another source")


def test_a_module_whose_source_is_gone_is_not(source: Path) -> None:
    name = pretend(source, "speedups_alone", f"SOURCE_CRC = {crc32(source.read_bytes())}")
    assert "No such file" in why_not_compiled(name, source.with_name("gone"))


def test_none_was_built(source: Path) -> None:
    assert why_not_compiled("speedups_never_built", source) == "the compiled one was not built"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("speedups_linked", "raise ImportError('libc.so.7: no such file')", "cannot be loaded: libc.so.7: no such"),
        ("speedups_hungry", "import speedups_lacking", "needs speedups_lacking"),
        ("speedups_silent", "", "cannot be loaded: module 'speedups_silent' has no attribute 'SOURCE_CRC'"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_not(source: Path, name: str, text: str, problem: str) -> None:
    assert problem in why_not_compiled(pretend(source, name, text), source)
