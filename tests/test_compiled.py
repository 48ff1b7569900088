"""What runs compiled: all of it where it fits the source beside it, else nothing, and why."""

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from apisix.runner.compiled import MODULES, WRITTEN_FOR_IT, fingerprint, sources, why_not_compiled

SHOW = """
from importlib import import_module
from apisix.runner.compiled import CODEC, MODULES
from apisix.runner.wire.messages import HTTPReqCallReq
print(CODEC, HTTPReqCallReq.__module__)
print({import_module(f"apisix.runner.{name}").__file__.rpartition(".")[2] for name in MODULES})
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module's source; modules beside it can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "source.pyx"
    path.write_bytes(b"what it is built from")
    path.with_suffix(EXTENSION_SUFFIXES[0]).write_bytes(b"")
    return path


def pretend(source: Path, name: str, text: str) -> str:
    """A module that stands for a compiled one."""
    source.with_name(f"{name}.py").write_text(text)
    return name


def chosen(environ: dict[str, str]) -> list[str]:
    """The codec of a process with such an environment, where its HTTPReqCallReq is from, and the kinds of modules."""
    clean = {name: value for name, value in os.environ.items() if name != "APISIX_RUNNER_PURE"}
    command = [sys.executable, "-c", SHOW]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=True).stdout.split()


def test_all_of_it_runs_compiled_where_it_was_built() -> None:
    why = why_not_compiled()
    if why and os.environ.get("APISIX_RUNNER_PURE") != "0":
        pytest.skip(why)
    assert chosen({}) == ["compiled", "apisix.runner.wire._speedups", "{'so'}"]


def test_all_of_it_runs_from_source_where_that_is_asked_for() -> None:
    assert chosen({"APISIX_RUNNER_PURE": "1"}) == ["pure", "apisix.runner.wire.pure", "{'py'}"]


def test_a_module_built_from_the_source_is_used(source: Path) -> None:
    name = pretend(source, "speedups_built", f"SOURCE_CRC = {fingerprint([source])}")
    assert why_not_compiled(name, [source]) == ""


def test_a_module_built_from_another_source_is_not(source: Path) -> None:
    name = pretend(source, "speedups_older", f"SOURCE_CRC = {fingerprint([source]) ^ 1}")
    assert why_not_compiled(name, [source]).startswith("the compiled one was built from another source")


def test_a_module_whose_source_is_gone_is_not(source: Path) -> None:
    name = pretend(source, "speedups_alone", f"SOURCE_CRC = {fingerprint([source])}")
    assert "No such file" in why_not_compiled(name, [source.with_name("gone")])


def test_none_was_built(source: Path) -> None:
    assert why_not_compiled("speedups_never_built", [source]) == "the compiled one was not built"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("speedups_linked", "raise ImportError('libc.so.7: no such file')", "cannot be loaded: libc.so.7: no such"),
        ("speedups_hungry", "import speedups_lacking", "needs speedups_lacking"),
        ("speedups_silent", "", "cannot be loaded: module 'speedups_silent' has no attribute 'SOURCE_CRC'"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_not(source: Path, name: str, text: str, problem: str) -> None:
    assert problem in why_not_compiled(pretend(source, name, text), [source])


def test_one_of_the_modules_was_not_built(source: Path) -> None:
    module = source.with_name("module.py")
    module.write_bytes(b"")
    name = pretend(source, "speedups_without", f"SOURCE_CRC = {fingerprint([source, module])}")
    assert why_not_compiled(name, [source, module]) == "the compiled module is missing; install again"


def test_every_module_has_its_types_beside_it() -> None:
    assert len(sources()) == len(WRITTEN_FOR_IT) + 2 * len(MODULES)
    assert all(path.is_file() for path in sources())
