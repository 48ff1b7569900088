"""`apisix-runner dev`, as readers of a page run it, and the `curl` commands that they send."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from apisix.runner.server.store import open_store
from tests.doc_pages import PROJECT, SECONDS, WRITTEN_IN, Block, commands, pattern, without_what_changes


class Dev:
    """`apisix-runner dev`, as readers of a page run it."""

    def __init__(self, routes: Path, plugins: list[Path]) -> None:
        self.port = _free_port()
        command = [sys.executable, "-m", "apisix.runner", "dev", "--port", str(self.port), "--upstream-port", "0"]
        self.process = subprocess.Popen(
            [*command, "--routes", str(routes), *(word for folder in plugins for word in ("--plugins", str(folder)))],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.socket = Path()
        self._log: list[str] = []
        self._logged = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for("Ctrl-C stops everything")

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if line.startswith("runner "):
                    self.socket = Path(line.split()[1])
                with self._logged:
                    self._log.append(self.normal(line))
                    self._logged.notify_all()

    def normal(self, line: str) -> str:
        """A line of the log without what is different each time, and without module and call that it comes from."""
        line = line.replace(str(PROJECT), WRITTEN_IN)
        line = re.sub(r"^\S+Z (\w+ +apisix\.runner)\S*", r"\1", line.rstrip("\n"))
        line = re.sub(r"( route=\S+)?( request=\d+)?( (\.\.\.)?plugin=\S+)?( worker=\d+)?$", "", line)
        return re.sub(r"\d+(\.\d+)?", "0", line)

    def count(self, text: str) -> int:
        """How many lines were logged with a text in them."""
        with self._logged:
            return sum(text in line for line in self._log)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until lines with a text in them were logged."""
        with self._logged:
            met = self._logged.wait_for(lambda: sum(text in line for line in self._log) >= count, SECONDS)
            assert met, f"{text!r} does not stand {count} times in:\n" + "\n".join(self._log[-60:])

    def lacks(self, event: str) -> str:
        """What is wrong with the log, if it does not hold an event as a page shows it; waits for it."""
        shown = "\n".join(map(self.normal, event.splitlines()))
        with self._logged:
            met = self._logged.wait_for(lambda: re.search(pattern(shown), "\n".join(self._log) + "\n") is not None, 3)
            return "" if met else f"{shown}\nis not in the log:\n" + "\n".join(self._log)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(SECONDS) == 0
        self._reader.join(SECONDS)
        store = open_store(self.socket)
        assert store is not None
        shutil.rmtree(store.folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def curl(words: list[str], port: int) -> str:
    """What `curl` prints for a command line, as far as the pages use it."""
    method, url, body, show_head = "", "", None, False
    headers = {"Host": "127.0.0.1:9080", "User-Agent": "curl/7.88.1", "Accept": "*/*"}
    rest = iter(words[1:])
    for word in rest:
        match word:
            case "-i" | "-s" | "-si" | "-I":
                show_head = show_head or word != "-s"
                method = "HEAD" if word == "-I" else method
            case "-X":
                method = next(rest)
            case "-H":
                field, _, value = next(rest).partition(": ")
                headers[field] = value
            case "-d":
                body = next(rest).encode()
                headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
            case _:
                assert word.startswith("http://127.0.0.1:9080/"), word
                url = word.removeprefix("http://127.0.0.1:9080")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    method = method or ("GET" if body is None else "POST")
    connection.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
    for field, value in (headers | ({} if body is None else {"Content-Length": str(len(body))})).items():
        connection.putheader(field, value)
    connection.endheaders(body)
    response = connection.getresponse()
    fields = "".join(f"{field}: {value}\n" for field, value in response.getheaders())
    head = f"HTTP/1.1 {response.status} {response.reason}\n{fields}\n" if show_head else ""
    printed = head + response.read().decode().replace("\r\n", "\n")
    connection.close()
    return printed


def runs_as_shown(block: Block, dev: Dev, stand_ins: Mapping[str, str]) -> None:
    """Run the `curl` commands of a console block, or wait for the lines of a log block; compare with what is shown."""
    if block.language == "console":
        for words, shown in commands(block):
            if words[0] == "curl":
                printed = curl(words, dev.port).replace(str(dev.port), "9080")
                for written, real in stand_ins.items():
                    printed = printed.replace(real, written)
                expected = pattern(without_what_changes(shown))
                assert re.fullmatch(expected, without_what_changes(printed)), f"{block.place}: {words}\n{printed}"
    elif block.language == "log":
        for event in re.split(r"^(?=\d{4}-)", block.text, flags=re.MULTILINE)[1:]:
            lack = dev.lacks(event)
            assert not lack, f"{block.place}: {lack}"
