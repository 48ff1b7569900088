"""Help: each command has one that teaches, and asking for it imports nothing that runs plugins."""

import subprocess
import sys
from pathlib import Path

import pytest

from apisix.runner.commands.lazy import AUTHORS, NAMES
from tests.commands.author import run

ROOM = Path(__file__).parent.parent.parent / "apisix" / "runner" / "commands"


def test_the_commands_are_listed_with_what_they_do(tmp_path: Path) -> None:
    ended = run(tmp_path, "--help")
    listed = ended.out.partition("Commands for plugin authors:\n")[2]
    assert [line.split()[0] for line in listed.splitlines()] == [*AUTHORS, "dev"]
    assert "..." not in listed, "a first sentence that is cut off"


@pytest.mark.parametrize("name", NAMES)
def test_each_says_how_it_is_used_with_examples(tmp_path: Path, name: str) -> None:
    ended = run(tmp_path, name, "--help")
    assert ended.code == 0
    assert f"\n    apisix-runner {name} " in ended.out


def test_help_imports_neither_plugins_nor_server_nor_gateway() -> None:
    code = """
import sys
from apisix.runner import cli
try: cli.main(["--help"])
except SystemExit: pass
loaded = [name for name in sys.modules if name.startswith("apisix.runner.")]
rooms = {name.split(".")[2] for name in loaded}
assert rooms.isdisjoint({"plugin", "http", "wire", "server", "gateway", "testing"}), sorted(loaded)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
