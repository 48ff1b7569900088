"""Writes the table in settings.md from the settings' declarations: `python docs/settings_table.py`."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "settings.md"
sys.path.insert(0, str(PAGE.parent.parent))

from apisix.runner.config import ROWS, Row  # noqa: E402

BEGIN = "<!-- begin: written by settings_table.py -->\n"
END = "<!-- end -->\n"


def updated(text: str) -> str:
    """The page's text with the table as it should be."""
    return re.sub(f"{BEGIN}.*{END}", lambda match: BEGIN + table() + END, text, flags=re.DOTALL)


def table() -> str:
    """The table: a line for each setting, in the order of their declaration."""
    lines = ["| setting | what it is | value | default | flag |", "|---|---|---|---|---|"]
    lines += [_line(row) for row in ROWS.values()]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    return f"| `{row.name}` | {_cell(row.help)} | {_cell(row.kind.expected)} | `{row.default_text}` | `{row.flag}` |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
