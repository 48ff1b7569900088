"""The metrics of a runner, as who scrapes them sees them."""

import http.client
import re
import socket
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.server.connections import SECONDS
from tests.server.processes import Runner

METRICS = ("--metrics-listen", "127.0.0.1:0")
"""Flags that turn metrics on, on any free port."""

Samples = dict[str, float]
"""Numbers by name and labels, as `name{a="b"}`, labels in the order of their names."""


def address(runner: Runner) -> str:
    """Where a runner's endpoint is."""
    match = re.search(r"http://(\S+)/metrics", runner.log.wait_for("metrics on http"))
    assert match is not None
    return match[1]


def get(runner: Runner, path: str) -> tuple[int, str]:
    """The status and text of one of the endpoint's paths."""
    connection = http.client.HTTPConnection(address(runner), timeout=SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def wait_until(runner: Runner, path: str, status: int, text: str) -> None:
    """Ask again until a path answers so: the supervisor hears a little later what its workers log."""
    end = time.monotonic() + SECONDS
    while (found := get(runner, path)) != (status, text):
        assert time.monotonic() < end, found


def wait_until_ready(runner: Runner) -> None:
    """Wait until the runner says that it serves."""
    wait_until(runner, "/readyz", 200, "ready\n")


def get_by_socket(path: Path, page: str) -> bytes:
    """What a unix socket answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(str(path))
        client.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
        received = b""
        while data := client.recv(65536):
            received += data
        return received


def scrape(runner: Runner) -> Samples:
    """All samples."""
    status, page = get(runner, "/metrics")
    assert status == 200, page
    return parse(page)


def parse(page: str) -> Samples:
    """The samples of a page."""
    samples: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples
