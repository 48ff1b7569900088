"""A runner under a load of all kinds, and the Prometheus that scrapes it."""

import http.client
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from apisix.runner.server.control import ask
from apisix.runner.wire.messages import encode_prepare_conf_req
from benchmarks import cases
from benchmarks.cases import traffic
from benchmarks.measuring import load_command
from tests.deploy.conftest import DEPLOY
from tests.installed import needed
from tests.server.connections import SECONDS, error_of, failed_closed
from tests.server.processes import HEADER, Log, Runner
from tests.server.scraped import METRICS, address

RULES = DEPLOY / "prometheus" / "rules.yaml"
LOAD = {"stop": 1, "rewrite": 2, "var": 2, "async": 8, "blocking": 8, "respond": 1}
"""Cases of the benchmark, and over how many connections each is asked for."""

FAILING = """
class Fails(Base):
    def filter(self, request, response):
        raise ValueError("no")

    filter_response = filter

class Late(Base):
    timeout = 0.02
    async def filter(self, request, response):
        await asyncio.sleep(30)
"""


class Prometheus:
    """A Prometheus that scrapes one runner, with the alerts.

    Args:
        folder: for its configuration and data.
        target: the address of the runner's metrics.
        every: how often it scrapes and evaluates, as "1s".
    """

    def __init__(self, folder: Path, target: str, every: str) -> None:
        shutil.copy(RULES, folder)
        config: dict[str, Any] = yaml.safe_load((DEPLOY / "docker" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        config["rule_files"] = [RULES.name]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        flags = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command = [needed("prometheus"), *flags, "--web.listen-address=127.0.0.1:0"]
        self.every = every
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
        assert self.process.stdout is not None
        self.log = Log(self.process.stdout)

    @property
    def address(self) -> str:
        """Where it answers; waits until it does."""
        match = re.search(r"address=([\d.]+:\d+)", self.log.wait_for('msg="Listening on"'))
        assert match is not None
        self.log.wait_for("Server is ready to receive web requests")
        return match[1]

    def ask(self, path: str) -> Any:
        """What its API answers."""
        connection = http.client.HTTPConnection(self.address, timeout=SECONDS)
        try:
            connection.request("GET", f"/api/v1/{path}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def wait_for(self, query: str) -> None:
        """Wait until a query gives something."""
        end = time.monotonic() + SECONDS
        while not self.ask(f"query?query={quote(query)}")["result"]:
            assert time.monotonic() < end, f"{query} gives nothing"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)


@contextmanager
def watched(folder: Path, every: str) -> Iterator[tuple[Runner, Prometheus]]:
    """A runner that has the benchmark's plugins and failing ones, and the Prometheus that scrapes it."""
    plugins = folder / "plugins"
    shutil.copytree(cases.HERE / "plugins", plugins)
    (plugins / "failing.py").write_text(HEADER + FAILING)
    with Runner(plugins, "--workers", "2", *METRICS) as runner:
        runner.worker(2)
        prometheus = Prometheus(folder, address(runner), every)
        try:
            prometheus.wait_for("apisix_runner_ready")
            yield runner, prometheus
        finally:
            prometheus.stop()


@contextmanager
def under_load(runner: Runner, seconds: float) -> Iterator[None]:
    """Meanwhile the runner has calls of every phase and outcome, a worker that dies, and a reload.

    Args:
        runner: as `watched` starts it.
        seconds: that a round takes, after each of which the load may end.
    """
    needed("cc", "gcc", "clang")
    ended = threading.Event()

    def go_on() -> None:
        for number in itertools.count():
            _benchmark(runner, number, seconds)
            if ended.is_set():
                break
            if number == 1:
                ask(runner.path, "reload")
                os.kill(runner.worker(4), signal.SIGKILL)
                runner.worker(5)

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(go_on)
        try:
            yield
        finally:
            ended.set()
        loading.result()


def _benchmark(runner: Runner, number: int, seconds: float) -> None:
    """One round: the benchmark's calls, and meanwhile such as fail."""
    processes = {
        case: subprocess.Popen(
            load_command(runner.path, traffic(case), count + number % 3, seconds), stdout=subprocess.DEVNULL
        )
        for case, count in LOAD.items()
    }
    while any(process.poll() is None for process in processes.values()):
        _failures(runner)
        time.sleep(0.1)  # some, not as many as can be
    codes = {case: process.returncode for case, process in processes.items()}
    assert codes == dict.fromkeys(LOAD, 0), runner.log.end()


def _failures(runner: Runner) -> None:
    """Calls and frames that the runner has to refuse."""
    with runner.connect() as connection:
        error_of(connection.call(connection.prepare(("fails", ""))))
        error_of(connection.call(connection.prepare(("late", ""))))
        error_of(connection.call(12345))
        error_of(connection.exchange(encode_prepare_conf_req([("nobody", "")], None)))
        token = connection.prepare(("fails", ""), key="route#1#ext-plugin-post-resp#1")
        assert failed_closed(connection.response_call(token))
        connection.send(b"\x09\x00\x00\x00")
        connection.receive()
        assert connection.gets_closed()
