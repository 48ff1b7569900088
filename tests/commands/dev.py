"""`apisix-runner dev`, for commands that are tried behind a gateway."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apisix.runner.server.store import open_store
from tests.commands.author import SECONDS


@contextmanager
def running_dev(words: Sequence[str], folder: Path) -> Iterator[int]:
    """Run a command line of `dev` in a folder, on free ports; gives the gateway's."""
    process = subprocess.Popen(
        [*words, "--port", "0", "--upstream-port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as printed:
        socket, port = Path(), 0
        for line in printed:
            if found := re.match(r"gateway +http://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if found := re.match(r"runner +(\S+)", line):
                socket = Path(found[1])
            if "Ctrl-C" in line:
                break
        try:
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
            store = open_store(socket)
            if store is not None:
                shutil.rmtree(store.folder)
