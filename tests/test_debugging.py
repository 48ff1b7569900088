"""The page on debugging: its sessions in a terminal, and an editor that attaches."""

import contextlib
import http.client
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from apisix.runner.server.store import open_store
from tests.doc_pages import PROJECT, SECONDS, Block, blocks, commands, pattern

PAGE = PROJECT / "docs" / "debugging.md"
PROGRAMS = {"python": [sys.executable], "apisix-runner": [sys.executable, "-m", "apisix.runner"]}
TEST, START, DEV, EDITOR = [words for block in blocks(PAGE, "console") for words, _ in commands(block)]
SESSIONS = blocks(PAGE, "pdb")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The page's files."""
    for block in blocks(PAGE):
        if block.file is not None and block.file != "plugins/debug.py":
            (tmp_path / block.file).parent.mkdir(exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
    yield tmp_path
    store = open_store(tmp_path / "runner.sock")
    assert store is not None
    shutil.rmtree(store.folder)


def split(words: list[str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """A command of the page, and its environment; its socket and its ports are the test's own."""
    words = [word.replace("/tmp/runner.sock", f"{folder}/runner.sock") for word in words]
    environment = dict(os.environ)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    own_ports = ["--port", "0", "--upstream-port", "0"] if "dev" in words else []
    return [*PROGRAMS[words[0]], *words[1:], *own_ports], environment


class Terminal:
    """A program with a terminal."""

    def __init__(self, words: list[str], folder: Path) -> None:
        command, environment = split(words, folder)
        self._fd, end = pty.openpty()
        environment["TERM"] = "dumb"
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=end, stdout=end, stderr=end, start_new_session=True
        )
        os.close(end)
        self.shown = ""

    def read_until(self, wanted: str) -> None:
        """Read until a text has come, after those that were waited for before."""
        begin = len(self.shown)
        while wanted not in self.shown[begin:]:
            ready, _, _ = select.select([self._fd], [], [], SECONDS)
            assert ready, f"expected {wanted!r} after:\n{self.shown}"
            self.shown += os.read(self._fd, 4096).decode().replace("\r\n", "\n")

    def debug(self, session: Block) -> str:
        """Type what a session types; return what was shown until then."""
        for typed in re.findall(r"^\(Pdb\) (.*)$", session.text, re.MULTILINE):
            self.read_until("(Pdb) ")
            self.type(typed)
        return self.shown

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._fd, line.encode() + b"\n")

    def rest(self) -> str:
        """All that it shows until it ends."""
        with contextlib.suppress(OSError):  # the terminal's end
            while piece := os.read(self._fd, 4096):
                self.shown += piece.decode().replace("\r\n", "\n")
        return self.shown

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        os.close(self._fd)


@pytest.fixture
def terminal(folder: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    running = Terminal(request.param, folder)
    yield running
    running.close()


@contextlib.contextmanager
def gateway(words: list[str], folder: Path, ready: str) -> Iterator[str]:
    """`apisix-runner dev` as the page has it; gives the gateway's host and port once it has shown a text."""
    command, environment = split(words, folder)
    dev = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert dev.stdout is not None
    shown = ""
    while not ("Ctrl-C" in shown and ready in shown):
        line = dev.stdout.readline()
        assert line, shown
        shown += line
    drain = threading.Thread(target=dev.stdout.read)
    drain.start()
    address = re.search(r"http://(\S+),", shown)
    assert address is not None
    yield address[1]
    dev.terminate()
    drain.join(SECONDS)
    dev.wait(SECONDS)
    dev.stdout.close()


class Get(threading.Thread):
    """A request whose answer is waited for elsewhere."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.answer: tuple[int, str] | None = None
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=SECONDS)
        connection.request("GET", "/?name=Anna")
        response = connection.getresponse()
        self.answer = response.status, response.read().decode()
        connection.close()

    def result(self) -> tuple[int, str] | None:
        self.join(SECONDS)
        return self.answer


@pytest.mark.parametrize("terminal", [TEST], indirect=True, ids=shlex.join)
def test_breakpoints_stop_in_a_test(terminal: Terminal) -> None:
    terminal.debug(SESSIONS[0])
    assert re.fullmatch(pattern(SESSIONS[0].text), terminal.rest()), terminal.shown
    assert terminal.process.wait(SECONDS) == 0


@pytest.mark.parametrize("terminal", [START], indirect=True, ids=shlex.join)
def test_breakpoints_stop_in_a_terminal(terminal: Terminal, folder: Path) -> None:
    terminal.read_until("accepting")
    with gateway(DEV, folder, "") as address:
        get = Get(address)
        shown = terminal.debug(SESSIONS[1])
        assert get.result() == (200, "Hello, Anna!\n")
        assert re.match(pattern(SESSIONS[1].text.rpartition("(Pdb)")[0]), shown), shown


@pytest.mark.parametrize("terminal", [[*START, "--timeout", "0.3"]], indirect=True, ids=shlex.join)
def test_a_call_that_stands_at_a_breakpoint_is_given_up(terminal: Terminal, folder: Path) -> None:
    terminal.read_until("accepting")
    with gateway(DEV, folder, "") as address:
        get = Get(address)
        terminal.read_until("(Pdb) ")
        answer = get.result()
        assert answer is not None
        assert answer[0] == 503
        terminal.type("p name")
        terminal.read_until("'Anna'")


class Editor:
    """As much of an editor as attaches, stops and looks. Source: the Debug Adapter Protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self._file: BinaryIO = self._socket.makefile("rb")
        self._number = 0

    def send(self, command: str, **arguments: Any) -> int:
        self._number += 1
        message = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        raw = json.dumps(message).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        return self._number

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        """The next message with these fields."""
        while True:
            length = int(self._file.readline().partition(b":")[2])
            self._file.readline()
            message: dict[str, Any] = json.loads(self._file.read(length))
            if all(message.get(name) == value for name, value in wanted.items()):
                return message

    def ask(self, command: str, **arguments: Any) -> Any:
        return self.wait_for(request_seq=self.send(command, **arguments))["body"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_an_editor_attaches_and_stops_for_longer_than_any_timeout(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [debug] = [block.text for block in blocks(PAGE) if block.file == "plugins/debug.py"]
    (folder / "plugins" / "debug.py").write_text(debug.replace("5678", str(port)))
    plugin = folder / "plugins" / "greet.py"
    plugin.write_text(plugin.read_text().replace("        breakpoint()\n", ""))
    [settings] = [json.loads(block.text)["configurations"][0] for block in blocks(PAGE, "json")]
    assert settings["connect"] == {"host": "127.0.0.1", "port": 5678}
    line = plugin.read_text().splitlines().index('        self.stop(200, f"Hello, {name}!\\n")') + 1
    short = ["APISIX_RUNNER_TIMEOUT=0.3", "PYDEVD_DISABLE_FILE_VALIDATION=1"]
    with gateway([*short, *EDITOR], folder, "accepting") as address:
        editor = Editor(port)
        editor.send("initialize", adapterID="python", pathFormat="path", linesStartAt1=True)
        editor.send(settings["request"], justMyCode=settings["justMyCode"])
        editor.wait_for(event="initialized")
        editor.ask("setBreakpoints", source={"path": str(plugin)}, breakpoints=[{"line": line}])
        editor.send("configurationDone")
        get = Get(address)
        thread = editor.wait_for(event="stopped")["body"]["threadId"]
        frame = editor.ask("stackTrace", threadId=thread)["stackFrames"][0]
        assert (frame["name"], frame["line"]) == ("filter", line)
        assert editor.ask("evaluate", expression="name", frameId=frame["id"])["result"] == "'Anna'"
        get.join(1.0)  # more than the timeout
        editor.send("continue", threadId=thread)
        assert get.result() == (200, "Hello, Anna!\n")
        editor.close()
