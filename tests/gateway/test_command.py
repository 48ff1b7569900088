"""`apisix-runner dev` as its user meets it: a process, its output, its signals."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apisix.runner.gateway import command
from apisix.runner.gateway.admin import DEFAULT_KEY
from apisix.runner.gateway.store import Store
from apisix.runner.gateway.versions import Version

DEV = [sys.executable, "-m", "apisix.runner", "dev"]
PATIENCE = 30


class Dev:
    """A running `dev`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*DEV, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()
        assert self.process.stdout is not None
        self.banner = ""
        for line in self.process.stdout:
            self.banner += line
            if line.startswith("Ctrl-C"):
                break

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def told(self, pattern: str) -> str:
        """What the banner says there."""
        found = re.search(pattern, self.banner, re.MULTILINE)
        assert found is not None, self.banner + "".join(self.errors)
        return found[1]

    @property
    def url(self) -> str:
        return self.told(r"^gateway   (\S+),")

    @property
    def runner_pid(self) -> int:
        return int(self.told(r"^runner .*\(pid (\d+)\)"))

    @property
    def runner_socket(self) -> Path:
        return Path(self.told(r"^runner    (\S+)"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Dev]:
    dev = Dev("--port", "0", "--upstream-port", "0", "--inspector-port", "0", *arguments)
    try:
        yield dev
    finally:
        dev.close()


def fetch(url: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another process brings about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_command_runs_plugins_survives_their_runner_and_stops_cleanly() -> None:
    with running() as dev:
        for command_line in re.findall(r"^  curl (.*)$", dev.banner, re.MULTILINE):
            words = shlex.split(command_line, comments=True)
            headers = dict(words[i + 1].split(": ") for i, word in enumerate(words) if word == "-H")
            [url] = [word for word in words if word.startswith("http")]
            assert fetch(url, **headers)[0] in (200, 201), command_line

        status, body = fetch(f"{dev.url}/rewrite/x?a=1")
        assert (status, json.loads(body)["target"]) == (200, "/a6/python/runner?a=1&a6_runner=Python")

        published = {
            "uri": "/get",
            "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "stop", "value": '{"body":"hello"}'}]}},
            "upstream": {"type": "roundrobin", "nodes": {"127.0.0.1:1980": 1}},
        }
        status, _ = fetch(f"{dev.url}/apisix/admin/routes/1", "PUT", published, **{"X-API-KEY": DEFAULT_KEY})
        assert status == 200
        assert fetch(f"{dev.url}/get") == (201, "Hello, Python Runner of APISIX")

        os.kill(dev.runner_pid, signal.SIGKILL)
        eventually(lambda: any("the runner died (signal 9); starting it again" in line for line in dev.errors))
        eventually(lambda: any("the runner is there again" in line for line in dev.errors))
        assert fetch(f"{dev.url}/get")[0] == 201
        second = re.search(r"there again, pid (\d+)", "".join(dev.errors))
        assert second is not None

        folder = dev.runner_socket.parent
        assert dev.stop(signal.SIGINT) == 0
        assert not folder.exists()
        assert is_gone(dev.runner_pid)
        assert is_gone(int(second[1]))
        log = "".join(dev.errors)
        assert "Traceback" not in log, log


def test_ctrl_c_while_the_runner_starts_is_no_traceback() -> None:
    process = subprocess.Popen([*DEV, "--port", "0", "--upstream-port", "0"], stderr=subprocess.PIPE, text=True)
    with process:
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: child.read_text() != "")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in errors) == (0, False), errors


def test_a_changed_plugin_is_used_without_a_restart(tmp_path: Path) -> None:
    routes = tmp_path / "my.yaml"
    conf = '{ext-plugin-pre-req: {conf: [{name: hello, value: "{}"}]}}'
    routes.write_text(f"routes:\n- {{id: 1, uri: /hello, plugins: {conf}}}\n#END\n")
    plugin = tmp_path / "plugins" / "hello.py"
    plugin.parent.mkdir()
    code = (
        "from apisix.runner.plugin.base import Base\n\n\nclass Hello(Base):\n"
        "    def filter(self, request, response):\n        self.stop(200, %r)\n"
    )
    plugin.write_text(code % "first")
    with running("--plugins", str(plugin.parent), "--routes", str(routes), "--apisix-version", "2.15") as dev:
        assert fetch(f"{dev.url}/hello") == (200, "first")
        plugin.write_text(code % "and second")
        eventually(lambda: fetch(f"{dev.url}/hello") == (200, "and second"))
        assert dev.stop() == 0


def test_a_runner_of_ones_own_and_routes_of_ones_own(tmp_path: Path) -> None:
    routes = tmp_path / "my.yaml"
    routes.write_text("routes:\n- {id: 1, uri: /mine, plugins: {ext-plugin-pre-req: {}}}\n#END\n")
    arguments = ("--socket", f"unix:{tmp_path / 'own.sock'}", "--routes", str(routes), "--apisix-version", "2.15")
    with running(*arguments, "--no-upstream", "--admin-key", "k") as dev:
        assert dev.told(r"^gateway   \S+, as APISIX (\S+)") == "2.15"
        assert "upstream" not in dev.banner
        assert fetch(f"{dev.url}/mine")[0] == 503
        assert fetch(f"{dev.url}/get")[0] == 404
        assert fetch(f"{dev.url}/apisix/admin/routes", **{"X-API-KEY": "k"})[0] == 200
        assert dev.stop() == 0
        assert any(f"nobody listens on {tmp_path / 'own.sock'} yet" in line for line in dev.errors)


@pytest.mark.parametrize("option", ["--port", "--upstream-port", "--inspector-port"])
def test_a_taken_port_is_one_line_and_exit_code_3(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--port": "0", "--upstream-port": "0", "--inspector-port": "0", option: str(port)}
        arguments = [word for pair in ports.items() for word in pair]
        ended = subprocess.run([*DEV, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    what = {"--port": "gateway", "--upstream-port": "upstream", "--inspector-port": "inspector"}[option]
    assert ended.returncode == 3
    assert ended.stderr == (
        f"apisix-runner: port {port} for the {what} is taken by another process; "
        f"stop that one or choose another with {option}\n"
    )


def test_the_inspector_takes_another_port_where_its_own_is_taken_and_none_was_chosen() -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else has it, which does as well
            stack.enter_context(socket.create_server(("127.0.0.1", 9081)))
        dev = stack.enter_context(contextlib.closing(Dev("--port", "0", "--upstream-port", "0")))
        url = dev.told(r"^inspector (\S+),")
        assert url != "http://127.0.0.1:9081"
        assert "<title>Inspector</title>" in fetch(url)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--routes", "/nowhere.yaml"], 3, "apisix-runner: /nowhere.yaml: No such file or directory\n"),
        (["--apisix-version", "1.5"], 2, "Invalid value for '--apisix-version': APISIX 1.5 has no plugin runners"),
        (["--port", "70000"], 2, "Invalid value for '--port': 70000 is not in the range"),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], code: int, problem: str) -> None:
    ended = subprocess.run(
        [*DEV, "--port", "0", "--upstream-port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == code
    assert problem in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_curl_command_takes_its_route() -> None:
    store = Store(Version(), {})
    store.put("routes", 1, {"uri": "/a/*", "hosts": ["*.x.test"], "methods": ["PUT"], "plugins": {"proxy-rewrite": {}}})
    [route] = store.routes
    assert command.curl(route, "http://h:1") == "curl -i http://h:1/a/hello -X PUT -H 'Host: www.x.test'"
