"""A stand-in for APISIX's privileged agent, which starts and ends runners the way APISIX does.

What it does (APISIX ext-plugin/init.lua and lua-resty-pipe-process, 2.7 to 3.18):
- A runner gets APISIX_LISTEN_ADDRESS, APISIX_CONF_EXPIRE_TIME and PATH, umask 0, a pipe as stdin, and one pipe as
  stdout and stderr, which is read in pieces of at most 3,800 bytes.
- To end one it sends SIGTERM to that process alone, reads no more of its pipe, and a second later sends SIGKILL, to
  that process alone, and closes the pipes.
- A runner whose stdout ends without that has died: it is waited for, and the next is started three seconds later.
- When the agent itself is killed, its ends of the pipes are gone, and nothing else happens.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.server.connections import SECONDS
from tests.server.processes import HEADER, PROJECT, wait_for_death

PIECE = 3800
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
RESPAWN_AFTER = 3.0
"""Seconds between a runner's death and the start of the next."""


class Spawned:
    """A runner that the agent has started.

    Args:
        environ: all of its environment.

    Attributes:
        pieces: what it has written, as it was read.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROJECT / "apisix" / "main.py"), "start"],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            umask=0,
        )
        self.pieces: list[bytes] = []
        self.ended = threading.Event()
        self._let_go = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while not self._let_go.is_set():
            if select.select([fd], [], [], 0.01)[0]:
                piece = os.read(fd, PIECE)
                if not piece:
                    self.ended.set()
                    return
                self.pieces.append(piece)

    @property
    def text(self) -> str:
        """All that it has written and that was read."""
        return b"".join(self.pieces).decode(errors="replace")

    def term(self) -> None:
        """Send SIGTERM, and read no more."""
        self.process.terminate()
        self._stop_reading()

    def kill(self) -> None:
        """Send SIGKILL, to this process alone, and close its pipes."""
        self.process.kill()
        self.close()
        self.process.wait(SECONDS)

    def close(self) -> None:
        """Close the pipes, as the kernel does when the agent is killed."""
        self._stop_reading()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _stop_reading(self) -> None:
        self._let_go.set()
        self._reader.join()


class Agent:
    """Starts, restarts and respawns a runner on one path.

    Args:
        folder: for the socket and the plugins.
        plugins: source of the plugins, `HEADER` apart.
        environ: further variables, as `nginx_config.envs` passes them.

    Attributes:
        path: the socket's.
        spawned: all runners, the last one last.
    """

    def __init__(self, folder: Path, plugins: str, **environ: str) -> None:
        self.path = folder / "runner-1.sock"
        plugin_folder = folder / "plugins"
        plugin_folder.mkdir()
        (plugin_folder / "plugins.py").write_text(HEADER + plugins)
        self._environ = {
            "APISIX_LISTEN_ADDRESS": f"unix:{self.path}",
            "APISIX_CONF_EXPIRE_TIME": "3600",
            "PATH": os.environ["PATH"],
            "APISIX_RUNNER_WORKERS": "1",
            "APISIX_RUNNER_PLUGINS_PATHS": str(plugin_folder),
            **environ,
        }
        self.spawned: list[Spawned] = []
        self._ends: list[threading.Timer] = []

    @property
    def last(self) -> Spawned:
        """The runner that was started last."""
        return self.spawned[-1]

    def spawn(self) -> None:
        """Start a runner."""
        self.spawned.append(Spawned(self._environ))

    def wait_until_it_listens(self) -> None:
        """Wait until the first runner has put its socket there."""
        end = time.monotonic() + SECONDS
        while not self.path.exists():
            assert self.last.process.poll() is None, self.last.text
            assert time.monotonic() < end, f"nothing listens; the runner said: {self.last.text}"
            time.sleep(0.005)

    def restart(self, lead: float) -> None:
        """End the runner and start its successor; returns when the old one has had its SIGTERM and the new one runs.

        Args:
            lead: seconds from SIGTERM to the start of the successor; below 0 it starts before.
        """
        old = self.last
        if lead < 0:
            self.spawn()
            time.sleep(-lead)
        old.term()
        timer = threading.Timer(GRACE, old.kill)
        timer.start()
        self._ends.append(timer)
        if lead >= 0:
            time.sleep(lead)
            self.spawn()

    def respawn_after_death(self) -> float:
        """Wait until the runner has died, and start the next. Returns the seconds from its death to the end of its
        output: as long as that is open, APISIX does not know."""
        last = self.last
        last.process.wait(SECONDS)
        died = time.monotonic()
        assert last.ended.wait(SECONDS), "the dead runner's output is still open"
        seconds = time.monotonic() - died
        last.close()
        time.sleep(RESPAWN_AFTER)
        self.spawn()
        return seconds

    def die(self) -> None:
        """Be killed: the pipes end, and the runner is on its own."""
        self.last.close()

    def wait_for_death_of(self, *pids: int) -> None:
        """Wait until runners and workers have ended."""
        for one in self.spawned:
            if one.process.pid in pids:
                one.process.wait(SECONDS)
        wait_for_death(*pids)

    def end(self) -> None:
        """End all that was started, and wait for it."""
        for timer in self._ends:
            timer.join()
        for one in self.spawned:
            if one.process.returncode is None:
                with contextlib.suppress(ValueError):
                    one.process.send_signal(signal.SIGINT)
                one.process.wait(SECONDS)
            one.close()
            print(one.text[-PIECE:])  # shown where the test has failed

    def __enter__(self) -> "Agent":
        self.spawn()
        self.wait_until_it_listens()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
