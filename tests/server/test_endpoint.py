"""The endpoint of metrics and health: what it answers to whom, and what it does without its address."""

import http.client
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apisix.runner.server.endpoint import Endpoint, Page
from tests.server.connections import SECONDS, Connection
from tests.server.processes import Runner, Start
from tests.server.scraped import METRICS, address, get, get_by_socket, scrape, wait_until_ready

PLUGINS = """
class Passes(Base):
    def filter(self, request, response):
        pass
"""
FLAGS = METRICS


@pytest.fixture
def client(runner: Runner) -> Iterator[socket.socket]:
    """A connection to the endpoint."""
    host, _, port = address(runner).rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS) as sock:
        yield sock


def answer(sock: socket.socket, *pieces: bytes) -> bytes:
    """What is answered to what is sent."""
    for piece in pieces:
        sock.sendall(piece)
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def test_a_request_may_come_in_pieces(client: socket.socket) -> None:
    request = b"GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert answer(client, *(request[at : at + 1] for at in range(len(request)))).endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /nowhere HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"GET /metrics", b"400"),
        (b"", b"400"),
        (b"\xff\0 / HTTP/1.1", b"405"),
        (b"x" * 9000, b"400"),
    ],
)
def test_what_is_wrong_is_told(client: socket.socket, request_line: bytes, status: bytes) -> None:
    assert answer(client, request_line + b"\r\n\r\n").startswith(b"HTTP/1.1 " + status)


def test_head_is_answered_without_the_page(client: socket.socket) -> None:
    received = answer(client, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in received
    assert received.endswith(b"\r\n\r\n")


def test_who_sends_nothing_does_not_keep_others_waiting_and_is_let_go(runner: Runner) -> None:
    host, _, port = address(runner).rpartition(":")
    silent = [socket.create_connection((host, int(port)), SECONDS) for _ in range(20)]
    assert get(runner, "/healthz") == (200, "ok\n")
    assert [sock.recv(1) for sock in silent] == [b""] * 20
    for sock in silent:
        sock.close()


def test_who_does_not_read_does_not_keep_the_supervisor(runner: Runner, gateway: Connection) -> None:
    host, _, port = address(runner).rpartition(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.connect((host, int(port)))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        started = time.monotonic()
        assert get(runner, "/healthz") == (200, "ok\n")
        assert time.monotonic() - started < 1


def test_an_address_that_is_taken_is_told_once_and_had_as_soon_as_it_is_free(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        runner = start(PLUGINS, "--metrics-listen", place)
        runner.log.wait_for(f"metrics.listen {place} cannot be had (Address already in use)")
        with runner.connect() as gateway:
            gateway.call(gateway.prepare(("passes", "")))
    runner.log.wait_for("metrics on http")
    assert scrape(runner)['apisix_runner_call_duration_seconds_count{outcome="passed",phase="request"}'] == 1
    assert len(runner.log.events("cannot be had")) == 1


def test_a_unix_socket_has_the_permissions_of_the_runners_own(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    runner = start(PLUGINS, "--metrics-listen", f"unix:{path}", "--socket-mode", "0660")
    runner.log.wait_for(f"metrics on unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert get_by_socket(path, "/healthz").endswith(b"\r\n\r\nok\n")
    runner.signal(signal.SIGINT)
    assert runner.wait() == 0
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "live"])
def test_what_another_one_has_at_the_path_is_left(start: Start, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as live:
        if kind == "live":
            live.bind(str(path))
            live.listen()
        else:
            path.write_text("mine")
        before = path.stat().st_ino
        runner = start(PLUGINS, "--metrics-listen", str(path))
        runner.log.wait_for("cannot be had")
        assert path.stat().st_ino == before


def test_the_next_runner_takes_the_address_over(start: Start) -> None:
    first = start(PLUGINS, *METRICS, managed=True)
    place = address(first)
    second = Runner(PLUGINS, "--metrics-listen", place, socket_path=first.path, managed=True)
    try:
        second.log.wait_for("cannot be had")
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        second.log.wait_for("metrics on http")
        wait_until_ready(second)
    finally:
        second.stop()


def test_processes_that_outlive_the_supervisor_do_not_hold_the_address(start: Start) -> None:
    runner = start(PLUGINS, *METRICS, managed=True)
    host, _, port = address(runner).rpartition(":")
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    with socket.create_server((host, int(port))):
        pass


def test_without_the_setting_nothing_listens_and_nothing_is_measured(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("passes", "")))
    assert not runner.log.events("metrics")


def test_a_browser_is_answered(runner: Runner) -> None:
    connection = http.client.HTTPConnection(address(runner), timeout=SECONDS)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip", "Connection": "keep-alive"})
    assert connection.getresponse().getheader("Connection") == "close"
    connection.close()


def test_a_page_that_cannot_be_made_costs_its_request_alone(tmp_path: Path) -> None:
    def fail() -> Page:
        raise KeyError("x")

    poll = select.poll()
    endpoint = Endpoint(tmp_path / "x.sock", 0o600, poll, {"/bad": fail, "/good": lambda: Page(200, "good")})
    for path, status in (("/bad", b"500"), ("/good", b"200")):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "x.sock"))
            client.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            while not select.select([client], [], [], 0)[0]:
                for fd, _ in poll.poll(1000):
                    assert endpoint.owns(fd)
                    endpoint.event(fd)
            assert client.recv(4096).startswith(b"HTTP/1.1 " + status)
    endpoint.remove()
