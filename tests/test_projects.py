"""Pages that show a project: its files are written as the page shows them, and its `pytest` commands are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import PAGES, blocks, commands, name, pattern

PROJECT_PAGES = [page for page in PAGES if any((block.file or "").startswith("tests/") for block in blocks(page))]


@pytest.mark.parametrize("page", PROJECT_PAGES, ids=name)
def test_its_tests_pass_as_shown(page: Path, tmp_path: Path) -> None:
    ran = False
    for block in blocks(page):
        if block.file is not None:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        for words, shown in commands(block) if block.language == "console" else ():
            if words[0] == "pytest":
                ran = True
                printed = run_pytest(tmp_path, *words[1:])
                assert re.fullmatch(pattern(shown), printed), f"{block.place}\n{printed}"
    assert ran
    run_pytest(tmp_path, "-q")  # what stands below the last command, too
    layout = next(block.text.split() for block in blocks(page, "text"))
    assert [file for file in layout if not (tmp_path / file).is_file()] == []


def run_pytest(folder: Path, *arguments: str) -> str:
    """What pytest prints there; it must pass."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, check=False, cwd=folder, env=os.environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_there_is_one() -> None:
    assert "testing.md" in [page.name for page in PROJECT_PAGES]
