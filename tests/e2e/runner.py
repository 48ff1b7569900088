"""The runner as a process of its own, started as its users start it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from apisix.runner.server.store import open_store

PATIENCE = 20
"""Seconds until what must happen must have happened."""

ACCEPTS = "accepting, pid"
"""What a worker logs once it accepts."""

RELOADED = "reloaded: generation"
"""What the supervisor logs once new workers have taken over."""

PLUGINS = Path(__file__).parent / "plugins"


class RunnerProcess:
    """A runner on a socket.

    Args:
        path: where it listens.
        log: the file that it logs to; what is there stays.
        plugins: the folder of its plugins.
        arguments: further flags of `start`.
    """

    def __init__(self, path: Path, log: Path, plugins: Path = PLUGINS, arguments: Sequence[str] = ()) -> None:
        self.path = path
        self.log = log
        self._command = [sys.executable, "-m", "apisix.runner", "start", "--workers", "1", "--socket", str(path)]
        self._command += ["--plugins", str(plugins), "--logging-level", "debug", *arguments]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "RunnerProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        store = open_store(self.path)
        if store is not None:
            shutil.rmtree(store.folder)

    def start(self) -> None:
        """Start it, and return when it accepts."""
        # Settings of whoever runs the tests are not the suite's.
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("APISIX_", "COVERAGE_"))}
        before = self.text().count(ACCEPTS)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        wait_until(
            lambda: self.text().count(ACCEPTS) > before or process.poll() is not None,
            lambda: f"the runner is not ready:\n{self.text()}",
        )
        assert process.poll() is None, f"the runner did not start:\n{self.text()}"

    def restart(self) -> None:
        """End it, with its idle connections, and start the next one."""
        self._processes[-1].send_signal(signal.SIGINT)
        assert self._processes[-1].wait(PATIENCE) == 0
        self.start()

    def reload(self) -> None:
        """Roll its workers onto new code, and return when the new ones serve."""
        before = self.text().count(RELOADED)
        self._processes[-1].send_signal(signal.SIGHUP)
        wait_until(lambda: self.text().count(RELOADED) > before, lambda: f"nothing is reloaded:\n{self.text()}")

    def kill(self) -> None:
        """Kill it with all its processes at once."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def connect(self) -> socket.socket:
        """A new connection to it, on which no read takes longer than a test may."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.path))
        return connection

    def text(self) -> str:
        """What it logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def wait_until(done: Callable[[], object], problem: Callable[[], str]) -> None:
    """Return when `done`; fail with `problem` where that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, problem()
        time.sleep(0.01)
