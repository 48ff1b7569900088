"""docs/log-messages.md names what the code logs, all of it and nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGE = (PROJECT / "docs" / "log-messages.md").read_text()
RUNNER = PROJECT / "apisix" / "runner"
DEVELOPMENT = ("gateway", "testing", "inspector")
"""Rooms that are not there in operation."""

LOGS = ("warning", "error", "exception", "critical")


def logged() -> Iterator[tuple[str, str]]:
    """What is logged as a warning or an error: where, and the first line as the page writes it."""
    for file in sorted(RUNNER.rglob("*.py")):
        if file.relative_to(RUNNER).parts[0] in DEVELOPMENT:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=logger, attr=attr), args=[text, *_]) if attr in LOGS:
                    if not re.fullmatch(r"log|logging\.getLogger\(.*\)", ast.unparse(logger)):
                        continue
                    place = f"{file.relative_to(PROJECT)}:{node.lineno}"
                    assert isinstance(text, ast.Constant), f"{place}: the text is no constant, so nobody can look it up"
                    assert isinstance(text.value, str)
                    yield place, as_written(text.value)


def as_written(text: str) -> str:
    """A format's first line with `…` for what it fills in."""
    return re.sub(r"%[-+0#]*\d*(?:\.\d+)?[a-z]", "…", text.partition("\n")[0])


def rows(begin: str, end: str) -> list[list[str]]:
    """The cells of the tables of a part of the page, their heads apart."""
    part = PAGE.partition(begin)[2].partition(end)[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]


def lacking(texts: list[str]) -> list[str]:
    """The pieces of texts, cut at each `…`, that do not stand in the code."""
    source = "".join(file.read_text() for file in (PROJECT / "apisix").rglob("*.py"))
    pieces = [piece.strip(" ,:()") for text in texts for piece in text.split("…")]
    return [piece for piece in pieces if piece not in source]


EXPLAINED = rows("# Log messages", "## When the runner does not start")


def test_every_line_that_is_logged_is_explained() -> None:
    known = {line.strip("`") for line, *_ in EXPLAINED}
    assert [f"{place}: {text}" for place, text in logged() if text not in known] == []


def test_every_line_that_is_explained_is_logged() -> None:
    real = {text for _, text in logged()}
    assert len(real) > 40
    assert [line for line, *_ in EXPLAINED if line.strip("`") not in real] == []


def test_what_is_said_of_a_line_is_in_the_code() -> None:
    told = [text for _, *cells in EXPLAINED for text in re.findall(r"`([^`]*…[^`]*)`", " ".join(cells))]
    assert told
    assert lacking(told) == []


def test_what_a_failed_start_says_is_what_the_code_says() -> None:
    lines = [line for line, *_ in rows("## When the runner does not start", "## Not")]
    told = [text for line in lines for text in re.findall("`([^`]+)`", line)]
    assert len(told) > 8
    assert lacking(told) == []
