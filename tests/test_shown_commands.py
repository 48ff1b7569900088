"""Pages that show `apisix-runner` at work: its commands are run in order, and print what the pages show.

Rules that live here: a `start` that shows the line "listening on" goes on running, until the page has another one;
every other command ends. Numbers, widths of columns and times may be others than those shown.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from apisix.runner.server.store import open_store
from tests.doc_pages import PROJECT, SECONDS, WRITTEN_IN, blocks, commands, name, pattern

PAGES = [PROJECT / "README.md", PROJECT / "docs" / "operating.md", PROJECT / "docs" / "settings.md"]
SHOWN_SOCKET = "/tmp/runner.sock"
PROGRAMS = (["python3", "apisix/main.py"], [".venv/bin/apisix-runner"])


def normal(text: str, folder: Path) -> str:
    """Output without what is different each time."""
    text = text.replace(f"{folder}/runner.sock", SHOWN_SOCKET).replace(str(folder), WRITTEN_IN)
    text = re.sub(r"^\S+Z ", "", text.replace(str(PROJECT), WRITTEN_IN), flags=re.MULTILINE)
    text = re.sub(r'"time": "[^"]*"', '"time": ""', text)
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?", "0", text))


class Runner:
    """A runner that goes on running."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: list[str] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._came:
                    self._lines.append(line)
                    self._came.notify_all()

    def shows(self, shown: str, folder: Path) -> None:
        """Wait until it has printed what is shown."""
        expected = normal(shown, folder)
        with self._came:
            met = self._came.wait_for(
                lambda: re.match(pattern(expected), normal("".join(self._lines), folder)) is not None, SECONDS
            )
            assert met, normal("".join(self._lines), folder) + "is not\n" + expected

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[list[Runner]]:
    running: list[Runner] = []
    yield running
    for one in running:
        one.stop()
    store = open_store(tmp_path / "runner.sock")
    assert store is not None
    shutil.rmtree(store.folder)


def parsed(words: list[str], folder: Path) -> tuple[list[str] | None, dict[str, str]]:
    """A command of ours, with its environment; None for any other."""
    words = [word.replace(SHOWN_SOCKET, f"{folder}/runner.sock") for word in words]
    words = [f"{folder}/{word}" if word == "my.yaml" else word for word in words]
    environment = {"PATH": os.environ["PATH"]}
    while "=" in words[0]:
        variable, _, value = words.pop(0).partition("=")
        environment[variable] = value
    for program in PROGRAMS:
        if words[: len(program)] == program:
            return [sys.executable, "-m", "apisix.runner", *words[len(program) :]], environment
    return None, environment


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_they_print_what_the_page_shows(page: Path, tmp_path: Path, runners: list[Runner]) -> None:
    ran = 0
    for block in blocks(page):
        if block.file is not None:
            (tmp_path / Path(block.file).name).write_text(block.text)
        for words, shown in commands(block) if block.language == "console" else ():
            command, environment = parsed(list(words), tmp_path)
            if command is None:
                continue
            ran += 1
            if "listening on" in shown:
                for runner in runners:
                    runner.stop()
                runners.append(Runner(command, environment))
                runners[-1].shows(shown, tmp_path)
                continue
            run = subprocess.run(
                command, check=False, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=SECONDS
            )
            expected, printed = normal(shown, tmp_path), normal(run.stdout + run.stderr, tmp_path)
            as_shown = re.fullmatch(pattern(expected.rstrip("\n")), printed)
            assert as_shown, f"{block.place}: {shlex.join(words)}\n{printed}"
            assert (run.returncode == 3) is expected.startswith("apisix-runner:")
    assert ran
