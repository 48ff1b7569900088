"""Pages that show tests of plugins: their files are written as the page shows them, and their `pytest` commands run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doc_pages import PAGES, blocks, commands, name, pattern

PROJECT_PAGES = [
    page
    for page in PAGES
    if page.name != "debugging.md"  # test_debugging.py
    if any(re.match(r"(tests/)?test_\w+\.py$", block.file or "") for block in blocks(page))
]
SAVED_IN_THE_PROJECT = 'import apisix.plugins\n\napisix.plugins.__path__.append("apisix/plugins")\n'
"""What makes the page's `apisix/plugins` part of the installed one, as it is where a reader saves a plugin."""


@pytest.mark.parametrize("page", PROJECT_PAGES, ids=name)
def test_its_tests_pass_as_shown(page: Path, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SAVED_IN_THE_PROJECT)
    ran = False
    for block in blocks(page):
        if block.file is not None:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        for words, shown in commands(block) if block.language == "console" else ():
            if "pytest" in words:
                ran = True
                printed = run_pytest(tmp_path, *words[words.index("pytest") + 1 :])
                assert re.fullmatch(pattern(shown), printed), f"{block.place}\n{printed}"
    assert ran
    run_pytest(tmp_path, "-q")  # what stands below the last command, too


def run_pytest(folder: Path, *arguments: str) -> str:
    """What pytest prints there; it must pass."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_page_names_the_files_that_it_shows() -> None:
    [page] = [page for page in PROJECT_PAGES if page.name == "testing.md"]
    named = blocks(page, "text")[0].text.split()
    shown = [block.file for block in blocks(page) if block.file is not None]
    assert set(named) <= set(shown)
