"""Requests through a gateway: the embedded one, and a real one where its address is given.

Rules that live here: a closed loop, so many requests at once as connections; an answer of another status than expected
ends the measurement.
"""

import re
import selectors
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.measuring import Failure, Server, cpu_seconds, run

ROUTES = """routes:
  - {id: 1, uri: /plain, upstream: {nodes: {"127.0.0.1:1980": 1}}}
  - {id: 2, uri: /stop, plugins: {ext-plugin-pre-req: {conf: [{name: stop, value: "{}"}]}},
     upstream: {nodes: {"127.0.0.1:1980": 1}}}
  - {id: 3, uri: /rewrite, plugins: {ext-plugin-pre-req: {conf: [{name: rewrite, value: "{}"}]}},
     upstream: {nodes: {"127.0.0.1:1980": 1}}}
  - {id: 4, uri: /respond, plugins: {ext-plugin-post-resp: {conf: [{name: respond, value: "{}"}]}},
     upstream: {nodes: {"127.0.0.1:1980": 1}}}
#END
"""
PATHS = ("plain", "stop", "rewrite", "respond")


class HTTPSample(NamedTuple):
    """One run through a gateway: requests a second, and microseconds until an answer; CPU of the runner a request."""

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


class Client:
    """One connection of the closed loop."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setblocking(False)
        self._request = request
        self._received = b""
        self._sent = 0.0

    def send(self) -> None:
        """Send a request."""
        self._received = b""
        self._sent = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> float | None:
        """Take what came. Returns the seconds since the request once the answer is complete.

        Raises:
            Failure: the connection was closed, or the status is no success.
        """
        data = self.socket.recv(65536)
        if not data:
            raise Failure("the gateway closed a connection")
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        if not re.match(rb"HTTP/1.1 2", head):
            raise Failure(f"the gateway answered {head.splitlines()[0].decode('latin-1')}")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
        complete = len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")
        return time.perf_counter() - self._sent if complete else None


def closed_loop(url: str, connections: int, seconds: float, pids: list[int]) -> HTTPSample:
    """Send requests for some seconds, of which the first tenth does not count.

    Args:
        url: of a GET.
        connections: as many requests are open at any time.
        seconds: to go on.
        pids: whose CPU is counted.

    Raises:
        Failure: a request failed.
    """
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: bench\r\n\r\n".encode()
    address = parts.hostname or "127.0.0.1", parts.port or 80
    took: list[float] = []
    with selectors.DefaultSelector() as selector:
        clients = [Client(address, request) for _ in range(connections)]
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send()
        begin = time.perf_counter() + seconds / 10
        cpu = 0.0
        counting = False
        while (now := time.perf_counter()) < begin + seconds * 0.9:
            if not counting and now > begin:
                counting, cpu, begin = True, cpu_seconds(pids), now
                took.clear()
            for key, _ in selector.select(1):
                elapsed = key.data.receive()
                if elapsed is not None:
                    took.append(elapsed)
                    key.data.send()
        wall = time.perf_counter() - begin
        cpu = cpu_seconds(pids) - cpu
        for client in clients:
            client.socket.close()
    if not took:
        raise Failure(f"{url} was not answered within {seconds:g} s")
    took.sort()
    p50, p99 = took[len(took) // 2] * 1e6, took[min(len(took) - 1, int(len(took) * 0.99))] * 1e6
    return HTTPSample(len(took) / wall, p50, p99, cpu * 1e6 / len(took))


@contextmanager
def embedded(server: Server, python: str = sys.executable) -> Iterator[str]:
    """The embedded gateway in front of a runner. Yields its address.

    Raises:
        Failure: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="a6bench-") as name:
        routes = Path(name) / "routes.yaml"
        routes.write_text(ROUTES)
        port, upstream = _free_ports()
        command = [python, "-m", "apisix.runner", "dev", "--socket", str(server.socket), "--routes", str(routes)]
        command += ["--port", str(port), "--upstream-port", str(upstream)]
        gateway = _Listening(command, Path(name), port)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            gateway.end()


class _Listening(Server):
    """A server on a port instead of a socket file."""

    def __init__(self, command: list[str], folder: Path, port: int) -> None:
        self._port = port
        super().__init__("gateway", command, folder)

    def accepts(self) -> bool:
        """Whether it accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def wrk(url: str, connections: int, seconds: float) -> HTTPSample:
    """Let wrk send requests to a gateway.

    Raises:
        Failure: there is no wrk, or requests failed.
    """
    if shutil.which("wrk") is None:
        raise Failure("wrk is not installed (on Debian and Ubuntu: apt-get install wrk)")
    said = run(["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", url])
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    quantiles = {
        share: _microseconds(time) for share, time in re.findall(r"^ +(50|99)% +([\d.]+\w+)", said, re.MULTILINE)
    }
    if rate is None or len(quantiles) != 2 or re.search(r"Non-2xx|Socket errors", said):
        raise Failure(f"wrk {url}: {said.splitlines()[-1]}")
    return HTTPSample(float(rate[1]), quantiles["50"], quantiles["99"])


def _microseconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    return float(match[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[match[2]] if match else 0.0
