"""`python3 apisix/main.py`: it finds a Python that can run the runner, or says what to do."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from apisix import main

BARE = [sys.executable, "-I", "-S"]
"""A Python without any installed package."""

OLD = [
    sys.executable,
    "-c",
    "import runpy, sys; sys.version_info = (3, 6, 15); del sys.argv[0]; runpy.run_path(sys.argv[0], None, '__main__')",
]
"""A Python that says to be of an old version."""

COMMAND_LINE = """
import json, os, sys

def main():
    print(json.dumps({"path": sys.path, "arguments": sys.argv[1:], "pid": os.getpid()}))
    sys.exit(5)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone whose command line prints what it finds, and ends with exit code 5."""
    (tmp_path / "apisix" / "runner").mkdir(parents=True)
    (tmp_path / "apisix" / "__init__.py").touch()
    (tmp_path / "apisix" / "runner" / "__init__.py").touch()
    shutil.copy(main.__file__, tmp_path / "apisix" / "main.py")
    (tmp_path / "apisix" / "runner" / "cli.py").write_text(COMMAND_LINE)
    return tmp_path


def add_venv(project: Path, script: str) -> None:
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(script)
    python.chmod(0o755)


def start(
    project: Path, python: list[str], *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*python, str(project / "apisix" / "main.py"), *(arguments or ("start",))],
        cwd="/",
        env=dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class TestAPythonThatHasAll:
    def test_runs_the_command_line(self, project: Path) -> None:
        ended = start(project, [sys.executable], "start", "--threads", "3")
        assert ended.returncode == 5
        assert json.loads(ended.stdout)["arguments"] == ["start", "--threads", "3"]

    def test_imports_from_the_project_and_not_from_its_own_folder(self, project: Path) -> None:
        path = json.loads(start(project, [sys.executable]).stdout)["path"]
        assert path[0] == str(project)
        assert str(project / "apisix") not in path

    def test_is_the_same_through_a_link(self, project: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere" / "apisix").mkdir(parents=True)
        (tmp_path / "elsewhere" / "apisix" / "main.py").symlink_to(project / "apisix" / "main.py")
        assert json.loads(start(tmp_path / "elsewhere", [sys.executable]).stdout)["path"][0] == str(project)

    def test_needs_neither_home_nor_locale(self) -> None:
        ended = start(Path(main.PROJECT), [sys.executable], "config", "--socket", "/run/a.sock")
        assert (ended.returncode, ended.stderr) == (0, "")


class TestAPythonThatLacksSomething:
    @pytest.mark.parametrize("python", [BARE, OLD], ids=["bare", "old"])
    def test_becomes_that_of_the_venv(self, project: Path, python: list[str]) -> None:
        add_venv(project, '#!/bin/sh\nshift 3\necho "$$ $PWD $#$*"\nenv\nexit 9\n')
        with subprocess.Popen(
            [*python, str(project / "apisix" / "main.py"), "start", "a b", ""],
            cwd="/",
            env={"APISIX_LISTEN_ADDRESS": "unix:/run/a.sock"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            first, *environ = process.stdout.read().splitlines()
        assert process.returncode == 9
        assert first == f"{process.pid} / 3start a b "
        shells_own = {"PWD", "OLDPWD", "_", "SHLVL", "LC_CTYPE"}
        assert {line for line in environ if line.partition("=")[0] not in shells_own} == {
            "APISIX_LISTEN_ADDRESS=unix:/run/a.sock"
        }

    def test_then_runs_the_command_line(self, project: Path) -> None:
        add_venv(project, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        ended = start(project, BARE, "start", "--threads", "3")
        assert ended.returncode == 5
        assert json.loads(ended.stdout)["arguments"] == ["start", "--threads", "3"]

    def test_without_a_venv_it_says_what_to_do(self, project: Path) -> None:
        ended = start(project, BARE)
        assert (ended.returncode, ended.stdout) == (3, "")
        assert ended.stderr == (
            f"apisix-runner: run `make install` in {project} first: {sys.executable} cannot import click\n"
        )

    def test_an_old_one_says_which_is_needed(self, project: Path) -> None:
        ended = start(project, OLD)
        assert ended.returncode == 3
        assert ended.stderr == (
            f"apisix-runner: run `make install` in {project} first:"
            f" needed is Python 3.11 or newer, and {sys.executable} is 3.6\n"
        )

    def test_tries_a_venv_that_lacks_something_too_only_once(self, project: Path) -> None:
        add_venv(project, f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        ended = start(project, BARE)
        assert ended.returncode == 3
        assert ended.stderr.count("run `make install`") == 1

    def test_a_venv_that_does_not_run(self, project: Path) -> None:
        add_venv(project, "#!/not/there\n")
        ended = start(project, BARE)
        assert ended.returncode == 3
        assert ended.stderr.endswith("/.venv/bin/python does not run: No such file or directory\n")


def test_any_python_3_can_read_it() -> None:
    tree = ast.parse(Path(main.__file__).read_text(), feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Await)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []
