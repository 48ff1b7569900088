"""The pages on commands and discovery: their files are written, their commands run, in order, in one empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.author import Ended, run
from tests.doc_pages import PROJECT, blocks, commands, pattern

PAGES = ["commands.md", "discovery.md"]
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


def python(folder: Path, *words: str) -> Ended:
    """Run Python in a folder. What pip installs goes into a folder there, from what is on this machine."""
    if words[:3] == ("-m", "pip", "install"):
        words = (*words, "--no-deps", "--no-build-isolation", "--no-index", "--target", "site", "-q")
    command = [sys.executable, "-B", *words]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_shows(page: str, tmp_path: Path) -> None:
    ran = 0
    for block in blocks(PROJECT / "docs" / page):
        if block.file is not None:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        for words, shown in commands(block) if block.language == "console" else ():
            ran += 1
            if words[0] == "apisix-runner":
                ended = run(tmp_path, *words[1:], paths=[tmp_path / "site"], PATH=PATH)
            else:
                assert words[0] == "python", block.place
                ended = python(tmp_path, *words[1:])
            expected = pattern(shown.rstrip("\n") + "\n") if shown.strip() else ""
            assert re.fullmatch(expected, ended.out), f"{block.place}: {words}\n{ended.out}{ended.err}"
    assert ran
