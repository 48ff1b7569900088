"""Pages of the documentation, and what stands in them.

Rules that live here: what a block is, which file it stands for, which commands it has, and what output as it is shown
may differ in.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
