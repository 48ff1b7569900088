"""The table that a run ends with: what was done to the runner, and what its gateway saw of it."""

from typing import NamedTuple

from tests.chaos.load import Load

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
    """The rows so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, fault: str, done: str, load: Load) -> None:
        """Add what came of a load."""
        self.rows.append(Row.of(fault, done, load))

    def text(self) -> str:
        """As Markdown."""
        lines = [" | ".join(HEAD), " | ".join(["---", "---", *["---:"] * 4])]
        for row in self.rows:
            numbers = (f"{number:,.0f}" for number in (row.sent, row.failed, row.lost, row.worst))
            lines.append(" | ".join((row.fault, row.done, *numbers)))
        return "\n".join(f"| {line} |" for line in lines)
