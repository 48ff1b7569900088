"""An author at work: a folder, and commands run in it.

Each command runs in a process of its own, which is forked from one that has imported what commands need: so that a
test takes milliseconds, and what a command imports or sets is gone with it.
"""

import io
import multiprocessing
import os
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

SECONDS = 30
HEAD = "from apisix.runner.plugin.base import Base\n"
PLUGIN = HEAD + "class {0}(Base):\n    def filter(self, request, response): self.stop(200, {0!r})\n"

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["pytest", "pydantic", "tests.commands.author", "apisix.runner.cli", "apisix.runner.commands.calls"]
)


class Ended:
    """What a command printed, and its exit code."""

    def __init__(self, code: int | None, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def lines(self) -> list[str]:
        """What it printed on stdout."""
        return self.out.splitlines()


def run(folder: Path, *arguments: str, stdin: bytes = b"", paths: Sequence[Path] = (), **environ: str) -> Ended:
    """Run `apisix-runner` in a folder.

    Args:
        folder: the current one.
        arguments: of the command line.
        stdin: what it reads there.
        paths: where modules are imported from besides.
        environ: its environment.
    """
    with tempfile.TemporaryDirectory() as made:
        streams = [Path(made) / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(stdin)
        environ = {"PATH": os.environ["PATH"], **environ}
        process = _processes.Process(target=_command, args=(folder, arguments, streams, paths, environ))
        process.start()
        process.join(SECONDS)
        assert process.exitcode is not None, streams[2].read_text()
        return Ended(process.exitcode, streams[1].read_text(), streams[2].read_text())


def _command(
    folder: Path, arguments: Sequence[str], streams: list[Path], paths: Sequence[Path], environ: dict[str, str]
) -> None:
    from apisix.runner import cli

    for number, file in enumerate(streams):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path[:0] = map(str, paths)
    cli.main(arguments)


def write(path: Path, text: str) -> Path:
    """Write a file, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path
