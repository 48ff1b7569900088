"""A runner as users run it: a process tree with its socket, its plugins and its log."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from apisix.runner.server.store import open_store
from apisix.runner.wire.messages import encode_prepare_conf_req
from tests.server.connections import SECONDS, Connection, can_be_read

PROJECT = Path(__file__).parent.parent.parent
HEADER = """
import asyncio, os, re, signal, sys, threading, time
from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
"""
"""What every plugin file of these tests begins with."""
_numbers = itertools.count()


class Log:
    """What a process writes, line by line; its end can be waited for too."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self.ended = False
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._lines)

    def text(self, since: int = 0) -> str:
        """The lines so far, from one on."""
        return "\n".join(self._lines[since:])

    def end(self, since: int = 0) -> str:
        """The last lines, for messages about failures."""
        return "\n".join(self._lines[since:][-60:])

    def events(self, text: str) -> list[str]:
        """All events with a text in their first line, so far."""
        found: list[str] = []
        inside = False
        for line in self._lines:
            if not line.startswith("    "):
                inside = text in line
                if inside:
                    found.append(line)
            elif inside:
                found[-1] += f"\n{line}"
        return found

    def wait_for(self, text: str, since: int = 0, count: int = 1) -> str:
        """The first line with a text in it, from one on; of several, the last that is waited for."""

        def found() -> list[str]:
            return [line for line in self._lines[since:] if text in line]

        self._wait(lambda: len(found()) >= count or self.ended)
        assert len(found()) >= count, f"{text!r} does not stand {count} times in:\n{self.end(since)}"
        return found()[count - 1]

    def event(self, text: str, since: int = 0) -> str:
        """The first event with a text in its first line, with the indented lines that belong to it."""
        first = self.wait_for(text, since)
        start = self._lines.index(first, since)

        def end() -> int | None:
            rest = range(start + 1, len(self._lines))
            return next((at for at in rest if not self._lines[at].startswith("    ")), None)

        # An event is written whole: when the next one has come, or nothing for a moment, its last line was read.
        length = 0
        while end() is None and len(self) > length:
            length = len(self)
            self._wait(lambda: end() is not None or self.ended, 0.03)
        return "\n".join(self._lines[start : end()])

    def wait_for_end(self) -> None:
        """Wait until nobody can write any more."""
        self._wait(lambda: self.ended)
        assert self.ended, f"the output is still open, after:\n{self.end()}"

    def _wait(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        with self._changed:
            self._changed.wait_for(condition, seconds)


class Runner:
    """A running runner.

    Args:
        plugins: source of its one plugin file, `HEADER` apart; or the folder that has them.
        flags: for `apisix-runner start`; without any it has one worker.
        environ: variables besides PATH.
        socket_path: where it listens; by default a new one.
        prefix: what is put before its command line.
        managed: whether it is started as APISIX does it: address in the environment, stdin a pipe, umask 0.

    Attributes:
        path: the socket's.
        folder: where its plugins are.
        log: what it writes.
    """

    def __init__(
        self,
        plugins: str | Path = "",
        *flags: str,
        environ: Mapping[str, str] | None = None,
        socket_path: Path | None = None,
        prefix: Sequence[str] = (),
        managed: bool = False,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="runner-"))
        self.path = socket_path or self.home / "runner.sock"
        self.folder = plugins if isinstance(plugins, Path) else self.home / "plugins"
        if isinstance(plugins, str):
            self.folder.mkdir()
            self.write(plugins)
        variables = {"PATH": os.environ["PATH"], "APISIX_LISTEN_ADDRESS": f"unix:{self.path}"}
        if managed:
            variables["APISIX_CONF_EXPIRE_TIME"] = "3600"
        self.process = subprocess.Popen(
            [
                *prefix,
                sys.executable,
                "-m",
                "apisix.runner",
                "start",
                "--workers",
                "1",
                "--plugins",
                str(self.folder),
                *flags,
            ],
            cwd=PROJECT,
            env={**variables, **(environ or {})},
            stdin=subprocess.PIPE if managed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0 if managed else -1,
        )
        assert self.process.stdout is not None
        self.log = Log(self.process.stdout)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    def write(self, source: str, name: str = "plugins.py") -> Path:
        """Write a file of plugins as an editor does it: whole, under its name at once."""
        file = self.folder / name
        temporary = file.with_suffix(".new")
        temporary.write_text(HEADER + source)
        return temporary.rename(file)

    def wait_until_ready(self) -> "Runner":
        """Wait until a worker accepts."""
        self.worker()
        return self

    def worker(self, number: int = 1) -> int:
        """The process id of the worker that was the n-th to accept; waits for it."""
        match = re.search(r"accepting, pid (\d+)", self.log.wait_for("accepting, pid", count=number))
        assert match is not None
        return int(match[1])

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.path)

    def catch_up(self) -> None:
        """Wait until all that was logged before is read, so that a test does not find what an earlier one did."""
        name = f"nobody{next(_numbers)}"
        with self.connect() as connection:
            connection.exchange(encode_prepare_conf_req([(name, "")], None))
        self.log.wait_for(f"plugin '{name}': unknown plugin")

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send supervisor and workers a signal, as a terminal does."""
        os.killpg(self.pid, number)

    def wait(self) -> int:
        """Wait for the supervisor's end. Returns its exit code."""
        return self.process.wait(SECONDS)

    def stop(self) -> None:
        """End the whole process tree, however it is, and remove what it left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        if self.process.stdin is not None:
            self.process.stdin.close()
        store = open_store(self.path)
        assert store is not None
        shutil.rmtree(store.folder)
        shutil.rmtree(self.home)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


Start = Callable[..., Runner]
"""Starts a runner for one test: arguments as `Runner`."""


def wait_for_death(*pids: int) -> None:
    """Wait until processes have ended, which need not be our children."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert can_be_read(fd, SECONDS), f"process {pid} does not end"
        finally:
            os.close(fd)


def refused(flags: Sequence[str] = (), **environ: str) -> tuple[int, str]:
    """Start a runner that is expected to refuse. Returns its exit code and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "apisix.runner", "start", *flags],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
