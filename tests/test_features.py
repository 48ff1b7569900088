"""The table of features: what it says of this runner is backed by a test that exists."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "features.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") == 4]
FEATURES = [row for row in ROWS if row[0] != "feature"]


def named_tests(cell: str) -> list[str]:
    """The tests that a cell of the table names."""
    return re.findall(r"`(\S+\.py::\S+)`", cell)


def is_there(named: str) -> bool:
    """Whether a test exists, in its class where it has one."""
    file, *classes, function = named.split("::")
    path = TESTS / file
    if not path.is_file():
        return False
    text = path.read_text()
    if classes:
        found = re.search(rf"^class {classes[0]}\b.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        text = found[0] if found else ""
    return re.search(rf"^\s*def {function}\(", text, re.MULTILINE) is not None


@pytest.mark.parametrize("row", FEATURES, ids=lambda row: row[0])
def test_a_feature_is_backed_by_tests_that_exist(row: list[str]) -> None:
    _, ours, *others = row
    assert named_tests(ours)
    assert [named for named in named_tests(ours) if not is_there(named)] == []
    assert all(others)


def test_every_row_is_looked_at() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "::" in line]
    assert len(FEATURES) == len(rows) > 50
