"""The board: a few numbers of every worker, in memory that supervisor and workers share.

Rules that live here: each worker writes its own row only, and everyone reads all; a row is free when its pid is 0. The
numbers tell how connections are spread, whether a worker still beats, and what `status` shows. A row may be read while
it is written: then some of its numbers are old and some new, but none is half a number, or none at all. So each has
8 bytes in their place, and a row is packed aside and copied: `pack_into` would write zeros there first.
"""

import mmap
import struct
import time
from typing import NamedTuple

MOST_ROWS = 256
_ROW = struct.Struct("=7QdQ")


class Row(NamedTuple):
    """One worker's numbers.

    Attributes:
        pid: its process, 0 where the row is free.
        accepting: 1 while it takes new connections.
        connections: open ones.
        open_calls: calls without an answer.
        confs: prepared ones.
        stuck: threads whose call was given up on.
        served: calls since it started.
        beat: time.monotonic() of its last sign of life.
        threads: that run calls now, beside the one that polls.
    """

    pid: int = 0
    accepting: int = 0
    connections: int = 0
    open_calls: int = 0
    confs: int = 0
    stuck: int = 0
    served: int = 0
    beat: float = 0.0
    threads: int = 0


class OwnRow:
    """A worker's own row.

    Args:
        board: shared.
        number: of the row.
    """

    def __init__(self, board: "Board", number: int) -> None:
        self._board = board
        self._number = number

    def write(self, row: Row) -> None:
        """Write it, which is a sign of life too."""
        self._board.write(self._number, row)

    def fewest_connections(self) -> int:
        """Connections of the accepting worker that has the fewest."""
        return self._board.fewest_connections()


class Board:
    """The rows of all workers."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROW.size * MOST_ROWS)

    def take_row(self) -> int:
        """The number of a free row, for a worker that is about to start. Only the supervisor calls this.

        Raises:
            RuntimeError: there are more workers than rows.
        """
        for number in range(MOST_ROWS):
            if not self.read(number).pid:
                self.write(number, Row(pid=0xFFFFFFFF, beat=time.monotonic()))
                return number
        raise RuntimeError(f"more than {MOST_ROWS} workers")

    def free(self, number: int) -> None:
        """Give a row back."""
        self.write(number, Row())

    def read(self, number: int) -> Row:
        """A worker's row."""
        return Row(*_ROW.unpack(self._memory[_bytes_of(number)]))

    def write(self, number: int, row: Row) -> None:
        """Write a worker's row."""
        self._memory[_bytes_of(number)] = _ROW.pack(*row)

    def rows(self) -> list[Row]:
        """The rows in use."""
        return [row for row in map(Row._make, _ROW.iter_unpack(self._memory[:])) if row.pid]

    def fewest_connections(self) -> int:
        """Connections of the accepting worker that has the fewest; 0 where none accepts."""
        return min((row.connections for row in self.rows() if row.accepting), default=0)


def _bytes_of(number: int) -> slice:
    return slice(number * _ROW.size, (number + 1) * _ROW.size)
