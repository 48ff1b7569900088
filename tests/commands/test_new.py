"""`apisix-runner new`: what it writes works at once, and it overwrites nothing."""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.commands.author import SECONDS, run, write
from tests.commands.dev import running_dev

KINDS = [(), ("--async",), ("--response",), ("--async", "--response")]


def kind(flags: tuple[str, ...]) -> str:
    return " ".join(flags) or "plain"


def files_of_tests(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("test_*.py")]


def tool(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


def test_new_plugins_pass_their_tests_their_check_and_linters(tmp_path: Path) -> None:
    for number, flags in enumerate(KINDS):
        assert run(tmp_path, "new", f"greet_all_{number}", *flags).code == 0
    types = ("mypy", "--strict", "--explicit-package-bases", "--cache-dir", os.devnull)
    for command in (
        ("pytest", "-q", "-p", "no:cacheprovider"),
        (*types, "plugins", *files_of_tests(tmp_path)),
        ("ruff", "check", "--no-cache", "--isolated", "--select", "E,F,I,B", "--line-length", "120"),
        ("ruff", "format", "--no-cache", "--isolated", "--line-length", "120", "--check"),
    ):
        ended = tool(tmp_path, *command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert run(tmp_path, "check").lines == ["checked 4 plugins and 4 resources of apisix.yaml: no problems"]


@pytest.mark.parametrize("flags", KINDS, ids=kind)
def test_a_plugin_a_test_and_a_route_are_written(tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert run(tmp_path, "new", "GreetAll", *flags).code == 0
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert files == ["apisix.yaml", "plugins/greet_all.py", "test_greet_all.py"]
    plugin = (tmp_path / "plugins" / "greet_all.py").read_text()
    assert ("async def" in plugin, "filter_response" in plugin) == ("--async" in flags, "--response" in flags)


def test_the_next_steps_that_it_prints_work_as_they_stand(tmp_path: Path) -> None:
    printed = run(tmp_path, "new", "hello").out
    steps = [line.partition(" #")[0].strip() for line in printed.partition("Next:\n")[2].splitlines()]
    *tries, dev, curl = [shlex.split(step) for step in steps]
    assert len(tries) == 3
    for words in tries:
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert curl[:2] == ["curl", "-i"]
    with running_dev(dev, tmp_path) as port:
        url = curl[2].replace(":9080", f":{port}")
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            assert '["x-greeting", "hello"]' in response.read().decode()


def test_further_plugins_get_their_routes_in_the_same_file(tmp_path: Path) -> None:
    for flags in (["one"], ["Two", "--response"], ["three-four", "--async"]):
        assert run(tmp_path, "new", *flags).code == 0
    assert run(tmp_path, "check").lines == ["checked 3 plugins and 3 resources of apisix.yaml: no problems"]
    assert re.findall("uri: (.*)", (tmp_path / "apisix.yaml").read_text()) == ["/one", "/two", "/three_four"]


def test_a_routes_file_in_another_form_stays_as_it_is_and_the_route_is_printed(tmp_path: Path) -> None:
    text = "routes: [{id: 1, uri: /a}]\n#END\n"
    write(tmp_path / "apisix.yaml", text)
    ended = run(tmp_path, "new", "hello")
    assert (tmp_path / "apisix.yaml").read_text() == text
    assert "add this route yourself:\n\n  - id: hello\n    uri: /hello\n" in ended.out


@pytest.mark.parametrize("file", ["plugins/hello.py", "test_hello.py", "plugins/hello/__init__.py"])
def test_nothing_is_overwritten(tmp_path: Path, file: str) -> None:
    there = write(tmp_path / file, "mine")
    ended = run(tmp_path, "new", "hello")
    assert ended.code == 1
    assert "is there already; take another name, or remove it" in ended.err
    assert there.read_text() == "mine"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [there]


def test_a_route_of_that_id_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "new", "hello").code == 0
    (tmp_path / "plugins" / "hello.py").unlink()
    (tmp_path / "test_hello.py").unlink()
    ended = run(tmp_path, "new", "hello")
    assert (ended.code, "has a route with the id hello already" in ended.err) == (1, True)


@pytest.mark.parametrize("name", ["", "2fast", "a b", "../a", "a.b", "größe", "class", "test_it", "_x", "x_", "base"])
def test_a_name_that_is_none_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    ended = run(tmp_path, "new", "--", name)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (1, "", 1)
    assert list(tmp_path.iterdir()) == []
