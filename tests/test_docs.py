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

import importlib
import re
import runpy
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

from apisix.runner.gateway import standalone
from apisix.runner.gateway.schema import check_route
from apisix.runner.gateway.versions import Version
from apisix.runner.plugin.discovery import PACKAGED_FOLDER, load_plugins
from tests.doc_dev import Dev, runs_as_shown
from tests.doc_pages import (
    BLOCKS,
    EXAMPLE_PAGES,
    PAGES,
    PLUGIN_BLOCKS,
    PROJECT,
    WRITTEN_IN,
    Block,
    blocks,
    commands,
    name,
)

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


# What pages show


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


@pytest.fixture(scope="module")
def dev() -> Iterator[PagesDev]:
    with tempfile.TemporaryDirectory() as folder:
        running = PagesDev(Path(folder))
        yield running
        running.stop()


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
