"""The documentation, used as its readers use it: links lead somewhere, and what a page shows is what happens.

How pages say what is to be checked:
- A ``python`` block whose first line is ``# apisix/plugins/NAME.py`` is that file; every plugin stands in such a block.
- On a page with a block whose first line is ``# test_NAME.py`` or ``# tests/test_NAME.py``, each block that begins with
  the path of a file is that file, and commands that are ``pytest`` are run in their folder (test_projects.py).
- The ``pdb`` blocks of the page on debugging are sessions, typed as they stand (test_debugging.py).
- A ``yaml`` block with ``routes:`` is a routes file of `apisix-runner dev`.
- A ``console`` block has commands after ``$`` and what they print. Those that are ``curl`` are sent to a gateway that
  `apisix-runner dev` runs, with the page's plugins and routes. Those of `apisix-runner` are run, too
  (test_shown_commands.py); the others were seen when the page was written.
- A ``log`` block has lines that the runner then logs, whatever the numbers in them.
- ``...`` stands for what a page leaves out.
- A page ``docs/examples/NAME.md`` has the plugin and the routes of ``examples/NAME``, and is run with them alone. Its
  ``python`` and ``yaml`` blocks are pieces of those files. Where an example needs a service, such as Redis,
  ``examples/NAME/services.py`` has a context manager ``running()``, which starts it, and gives what to put into the
  routes for its address: ``{"127.0.0.1:6379": "127.0.0.1:40123"}``.
"""

import http.client
import importlib
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from apisix.runner.gateway import standalone
from apisix.runner.gateway.schema import check_route
from apisix.runner.gateway.versions import Version
from apisix.runner.plugin.discovery import PACKAGED_FOLDER, load_plugins
from apisix.runner.server.store import open_store

PROJECT = Path(__file__).parent.parent
EXAMPLE_PAGES = [page for page in sorted((PROJECT / "docs" / "examples").glob("*.md")) if page.name != "index.md"]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
SECONDS = 20
WRITTEN_IN = "/opt/apisix-runner"
"""The project's folder when the pages were written; it stands in the log lines that they show."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, for the reader of a failure."""
        return f"{self.page.relative_to(PROJECT)}:{self.line}"

    @property
    def plugin_file(self) -> str | None:
        """The file of plugins that it is, if it is one."""
        match = re.match(r"# apisix/plugins/(\w+\.py)\n", self.text)
        return match[1] if match and self.language == "python" else None

    @property
    def file(self) -> str | None:
        """The file of a project that it is, if it is one: a plugin, a test, routes."""
        match = re.match(r"# ((?:[\w.-]+/)*[\w-]+\.(?:py|toml|yaml))\n", self.text)
        return match[1] if match else None


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's fenced blocks, of some languages or all, in order."""
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    every = [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]
    return [block for block in every if not languages or block.language in languages]


BLOCKS = [block for page in PAGES if page not in EXAMPLE_PAGES for block in blocks(page)]
PLUGIN_BLOCKS = [block for block in BLOCKS if block.plugin_file]


def name(value: object) -> str:
    """What pytest calls a page or a block."""
    return str(value.relative_to(PROJECT)) if isinstance(value, Path) else getattr(value, "place", "")


# Links


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`: headings as GitHub names them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """The page's relative links that lead nowhere."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize("folder", [PROJECT / "docs", PROJECT / "docs" / "examples"], ids=name)
def test_the_index_names_every_page(folder: Path) -> None:
    index = (folder / "index.md").read_text()
    missing = [page.name for page in folder.glob("*.md") if f"({page.name})" not in index]
    assert [page for page in missing if page != "index.md"] == [], "name them in index.md"


# Blocks


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=name)
def test_python_is_python_and_plugins_have_a_file(block: Block) -> None:
    compile(block.text, block.place, "exec")
    assert block.file or not re.search(r"^class .*Base\):", block.text, re.MULTILINE)


@pytest.mark.parametrize("block", PLUGIN_BLOCKS, ids=name)
def test_plugins_load(block: Block, tmp_path: Path) -> None:
    assert block.plugin_file
    (tmp_path / block.plugin_file).write_text(block.text)
    registry = load_plugins([tmp_path])
    assert [str(problem) for problem in registry.problems] == []
    assert registry.definitions()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=name)
def test_yaml_is_yaml_and_routes_are_routes(block: Block) -> None:
    assert yaml.safe_load(block.text)
    if block.text.startswith("routes:"):
        for route in standalone.parse(block.text)["routes"].values():
            check_route(route, Version())


# The table of settings


def test_the_table_of_settings_is_what_the_code_declares() -> None:
    script = PROJECT / "docs" / "settings_table.py"
    table = runpy.run_path(str(script))["table"]()
    assert table in (PROJECT / "docs" / "settings.md").read_text(), f"run: python {script.relative_to(PROJECT)}"


# The table of log lines


def test_the_lines_that_operators_are_told_about_are_those_that_the_code_logs() -> None:
    page = (PROJECT / "docs" / "operating.md").read_text()
    table = page.partition("| line | what to do |")[2]
    lines = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    parts = [part.strip(" ,:") for line in lines for part in line.split("…")]
    source = "".join(file.read_text() for file in (PROJECT / "apisix" / "runner").rglob("*.py"))
    assert lines
    assert [part for part in parts if part not in source] == []


# What pages show


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
        """A line of the log without what is different each time, without the module that logs it, and its worker."""
        line = line.replace(str(PROJECT), WRITTEN_IN)
        line = re.sub(r"^\S+Z (\w+ +apisix\.runner)\S*", r"\1", line.rstrip("\n"))
        line = line.partition(" worker=")[0]
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


class PagesDev(Dev):
    """With the plugins and routes of all pages but the examples'."""

    def __init__(self, folder: Path) -> None:
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.written: dict[str, str] = {}
        files = [block.plugin_file for block in PLUGIN_BLOCKS]
        for block in PLUGIN_BLOCKS:
            if files.count(block.plugin_file) == 1:  # one of several versions is saved where its page has it
                self._write(block)
        routes = folder / "routes.yaml"
        routes.write_text(_merged_routes())
        super().__init__(routes, [PACKAGED_FOLDER, self.plugins])

    def normal(self, line: str) -> str:
        """As `Dev`; the plugins stand where readers have saved them."""
        return super().normal(line.replace(str(self.plugins), f"{WRITTEN_IN}/apisix/plugins"))

    def _write(self, block: Block) -> bool:
        assert block.plugin_file
        if self.written.get(block.plugin_file) == block.text:
            return False
        self.written[block.plugin_file] = block.text
        whole = self.plugins / "whole"
        whole.write_text(block.text)
        whole.rename(self.plugins / block.plugin_file)  # one change, and so one reload
        return True

    def save(self, block: Block) -> None:
        """Save a page's plugin, and wait until it is live."""
        before = self.count("reloaded: generation")
        if self._write(block):
            self.wait_for("reloaded: generation", before + 1)


def _merged_routes() -> str:
    """The packaged routes and those of all pages. That no id stands twice, the gateway checks."""
    texts = [(Path(standalone.__file__).parent / "apisix.yaml").read_text()]
    texts += [block.text for block in BLOCKS if block.language == "yaml" and block.text.startswith("routes:")]
    return yaml.safe_dump({"routes": [route for text in texts for route in yaml.safe_load(text)["routes"]]}) + "#END\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def dev() -> Iterator[PagesDev]:
    with tempfile.TemporaryDirectory() as folder:
        running = PagesDev(Path(folder))
        yield running
        running.stop()


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


def commands(block: Block) -> Iterator[tuple[list[str], str]]:
    """A console block's commands, as words, with the output that stands below each."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        for count in range(1, len(lines) + 1):
            try:
                yield shlex.split("".join(lines[:count]), comments=True), "".join(lines[count:])
                break
            except ValueError:  # a quotation that ends on a later line
                continue
        else:
            raise AssertionError(f"{block.place}: no command: {part}")


def pattern(shown: str) -> str:
    """A regular expression for output as a page shows it."""
    lines = []
    for line in shown.splitlines():
        if line.strip() == "...":
            lines.append("(?:.*\n)*?")
        else:
            lines.append(".*".join(map(re.escape, line.split("..."))) + "\n")
    return "".join(lines)


def without_what_changes(printed: str) -> str:
    """Output without dates and lengths, and with one end of line at its end."""
    lines = re.sub(r"^(date: .*|content-length: .*)\n", "", printed, flags=re.MULTILINE | re.IGNORECASE)
    return re.sub(r'"(create_time|update_time|createdIndex|modifiedIndex)":\d+', r'"\1":0', lines).rstrip("\n") + "\n"


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


RUN_PAGES = [
    page
    for page in PAGES
    if page not in EXAMPLE_PAGES and any("$ curl" in block.text for block in blocks(page, "console"))
]


@pytest.mark.parametrize("page", RUN_PAGES, ids=name)
def test_commands_print_what_the_page_shows(page: Path, dev: PagesDev) -> None:
    for block in blocks(page):
        if block.plugin_file:
            dev.save(block)
        runs_as_shown(block, dev, {})


def test_the_first_plugin_is_among_what_is_run() -> None:
    readme = PROJECT / "README.md"
    assert [block.plugin_file for block in blocks(readme) if block.plugin_file] == ["hello.py"]
    run = [words for block in blocks(readme, "console") for words, _ in commands(block) if words[0] == "curl"]
    assert any("/hello" in word for words in run for word in words)


# Examples

EXAMPLES = [folder for folder in sorted((PROJECT / "examples").iterdir()) if (folder / "plugins").is_dir()]


@pytest.mark.parametrize("folder", EXAMPLES, ids=name)
def test_an_example_is_complete(folder: Path) -> None:
    page = PROJECT / "docs" / "examples" / f"{folder.name}.md"
    needed = [folder / "plugins" / f"{folder.name}.py", folder / "apisix.yaml", folder / f"test_{folder.name}.py", page]
    assert [file for file in needed if not file.is_file()] == []


def _services(folder: Path) -> AbstractContextManager[Mapping[str, str]]:
    """Starts what an example needs; gives what stands for the addresses in its routes."""
    if not (folder / "services.py").exists():
        return nullcontext({})
    running: AbstractContextManager[Mapping[str, str]]
    running = importlib.import_module(f"examples.{folder.name}.services").running()
    return running


@contextmanager
def example_dev(folder: Path, stand_ins: Mapping[str, str]) -> Iterator[Dev]:
    """An example, run as its page says."""
    with tempfile.TemporaryDirectory() as made:
        text = (folder / "apisix.yaml").read_text()
        for written, real in stand_ins.items():
            assert written in text, f"{folder.name}/services.py names {written}, which is not in apisix.yaml"
            text = text.replace(written, real)
        routes = Path(made) / "apisix.yaml"
        routes.write_text(text)
        running = Dev(routes, [folder / "plugins"])
        try:
            yield running
        finally:
            running.stop()


@pytest.mark.parametrize("page", EXAMPLE_PAGES, ids=name)
def test_an_examples_page_shows_what_its_files_say(page: Path) -> None:
    folder = PROJECT / "examples" / page.stem
    files = [file.read_text() for file in folder.rglob("*") if file.suffix in (".py", ".yaml")]
    for block in blocks(page, "python", "yaml"):
        lines = block.text.splitlines()
        assert any(_stand_in(lines, file) for file in files), f"{block.place}: not in a file of {folder}"
    started = [words for block in blocks(page, "console") for words, _ in commands(block) if words[0] != "curl"]
    folder_name = f"examples/{page.stem}"
    dev = f".venv/bin/apisix-runner dev --routes {folder_name}/apisix.yaml --plugins {folder_name}/plugins"
    assert shlex.split(dev) in started


def _stand_in(lines: list[str], text: str) -> bool:
    """Whether lines stand in a text one below the other, wherever they are indented to."""
    shown = "".join(f" *{re.escape(line.strip())} *\n" for line in lines)
    return re.search(f"^{shown}", text, re.MULTILINE) is not None


@pytest.mark.parametrize("page", EXAMPLE_PAGES, ids=name)
def test_an_examples_commands_print_what_its_page_shows(page: Path) -> None:
    folder = PROJECT / "examples" / page.stem
    with _services(folder) as stand_ins, example_dev(folder, stand_ins) as dev:
        for block in blocks(page):
            runs_as_shown(block, dev, stand_ins)
