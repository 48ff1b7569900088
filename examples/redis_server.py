"""A Redis of one's own, for the tests of the examples that need one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis


class RedisServer:
    """Listens on a socket in a folder, keeps nothing on the disk, and may go and come back.

    Attributes:
        url: where it listens.
        client: to look at what is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.client = Redis(unix_socket_path=str(self.socket))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        listening = ["--port", "0", "--unixsocket", str(self.socket)]
        keeping = ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        command = ["redis-server", *listening, *keeping]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        printed = []
        for line in self._process.stdout:
            printed.append(line)
            if "eady to accept connections" in line:
                return
        raise RuntimeError(f"redis-server did not start:\n{''.join(printed)}")

    def stop(self) -> None:
        """Stop it; harmless when it is stopped."""
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A Redis that runs. Where it is not installed the test is skipped, but not where everything must be tested."""
    if shutil.which("redis-server") is None:
        missing = "redis-server is not installed (on Debian and Ubuntu: apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
