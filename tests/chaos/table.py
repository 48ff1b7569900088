"""What a run ends with: a table of faults, what was done and what the gateway saw of it, and a table of bounds."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.chaos.load import Load

BOUNDS_HEAD = ("what", "bound", "seen")
HEAD = ("fault", "what was done, how often", "requests sent", "failed", "lost", "worst pause (ms)")


class Row(NamedTuple):
    """One fault.

    Attributes:
        fault: its name.
        done: what was done, and how often.
        sent: calls made meanwhile.
        failed: those that were answered with an error, or could not be made.
        lost: those that were open and never answered.
        worst: milliseconds of the longest pause.
    """

    fault: str
    done: str
    sent: int
    failed: int
    lost: int
    worst: float

    @classmethod
    def of(cls, fault: str, done: str, load: Load) -> "Row":
        """The row of a load."""
        return cls(fault, done, load.sent, load.failed, load.lost, load.worst)


class Table:
    """The rows so far, and the bounds."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.bounds: list[tuple[str, str, str]] = []

    def add(self, fault: str, done: str, load: Load) -> None:
        """Add what came of a load."""
        self.rows.append(Row.of(fault, done, load))

    def bound(self, what: str, wanted: str, seen: str) -> None:
        """Add something that was measured, and what it is to stay within."""
        self.bounds.append((what, wanted, seen))

    def text(self) -> str:
        """As Markdown."""
        rows = [(*row[:2], *(f"{number:,.0f}" for number in row[2:])) for row in self.rows]
        faults = _markdown(HEAD, ["---", "---", *["---:"] * 4], rows)
        bounds = _markdown(BOUNDS_HEAD, ["---"] * 3, self.bounds)
        return "\n\n".join(table for table, lines in ((faults, rows), (bounds, self.bounds)) if lines)


def _markdown(head: Sequence[str], rule: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))
