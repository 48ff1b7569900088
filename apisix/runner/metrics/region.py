"""A region: the metrics of one process, in memory that another one reads.

Rules that live here:
- A region is a row of records, each a description and its cells (numbers of 8 bytes). Records are only ever added, and
  what is added is there once the region's length, written last, covers it. So a reader needs no lock, and a process
  that is killed leaves what it has counted.
- A number that is read while it is written is the old one or the new one: it is stored at once, through a memoryview.
  `pack_into` would write zeros there first, and a reader would see all counters begin anew.
- `cells[at] += 1` needs no lock among threads: the interpreter switches them at calls and at the end of loops, and
  there is neither within it.
- A region that is full counts what still comes in spare cells that nobody reads, and how many series that concerns.
"""

import mmap
import struct
import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import msgspec

SIZE = 1 << 20
"""Bytes of a region. The kernel gives memory only to those that are used."""

MOST_CELLS = 64
"""Cells of one series at most: those of a histogram with many bounds."""

CELL = 8
_HEAD = struct.Struct("=QQ")  # bytes in use, series that found no room
_RECORD = struct.Struct("<II")  # bytes of the description, number of cells
_SPARE = SIZE - MOST_CELLS * CELL

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]
Cells: TypeAlias = "memoryview[float]"


class Family(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What the series of one metric have in common.

    Attributes:
        name: as it is scraped; a counter's ends with ``_total``.
        kind: of metric.
        help: one sentence.
        labels: names.
        bounds: a histogram's upper bounds, rising, without infinity.
        merge: what several processes' gauges amount to.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    merge: Merge = "sum"

    @property
    def cells(self) -> int:
        """Cells of each series: one; a histogram's are a count for each bound, one for what is beyond, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class _Series(msgspec.Struct, frozen=True, array_like=True, tag=True):
    family: int
    values: tuple[str, ...]


class Found(NamedTuple):
    """One series that was read: its metric, the labels' values, and its cells."""

    family: Family
    values: tuple[str, ...]
    cells: tuple[float, ...]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Family | _Series).decode


class Region:
    """The writer's end.

    Args:
        memory: of SIZE bytes, all zero; None where nobody else is to read it.

    Attributes:
        cells: all of the region, as numbers.
    """

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self._memory = new_memory() if memory is None else memory
        self.cells: Cells = memoryview(self._memory).cast("d")
        self._head = memoryview(self._memory)[: _HEAD.size].cast("Q")
        self._families: dict[Family, int] = {}
        self._series: dict[tuple[int, tuple[str, ...]], int] = {}
        self._lock = threading.RLock()  # a destructor that counts may run within
        if not self._used:
            self._used = _HEAD.size

    @property
    def _used(self) -> int:
        return self._head[0]

    @_used.setter
    def _used(self, used: int) -> None:
        self._head[0] = used

    def series(self, family: Family, values: tuple[str, ...] = ()) -> int:
        """Where the cells of a series begin, in `cells`; the series is added if it is new.

        Args:
            family: its metric.
            values: the labels', in the order of their names.
        """
        with self._lock:
            number = self._families.get(family)
            if number is None:
                number = self._families[family] = len(self._families) if self._add(family, 0) else -1
            at = self._series.get((number, values))
            if at is None:
                at = (number >= 0 and self._add(_Series(number, values), family.cells)) or self._overflow()
                self._series[number, values] = at
            return at

    def _add(self, description: Family | _Series, cells: int) -> int:
        """Add a record. Returns where its cells begin, 0 where there is no room."""
        text = _encode(description)
        text += b" " * (-len(text) % CELL)
        start = self._used
        at = start + _RECORD.size + len(text)
        if at + cells * CELL > _SPARE:
            return 0
        _RECORD.pack_into(self._memory, start, len(text), cells)
        self._memory[start + _RECORD.size : at] = text
        self._used = at + cells * CELL
        return at // CELL

    def _overflow(self) -> int:
        self._head[1] += 1
        return _SPARE // CELL


def new_memory() -> mmap.mmap:
    """Memory for a region, which processes forked from this one share."""
    return mmap.mmap(-1, SIZE)


def read(memory: mmap.mmap) -> Iterator[Found]:
    """The series of a region, in the order in which they were added.

    Raises:
        ValueError: its content is damaged.
    """
    families: list[Family] = []
    used, _ = _HEAD.unpack_from(memory)
    if used > SIZE:
        raise ValueError(f"a region of {SIZE} bytes says that {used} are in use")
    at = _HEAD.size
    while at < used:
        length, count = _RECORD.unpack_from(memory, at)
        at += _RECORD.size
        end = at + length + count * CELL
        if end > used:
            raise ValueError(f"a record that ends at byte {end} of {used}")
        description = _decode(memory[at : at + length])
        if isinstance(description, Family):
            families.append(description)
        else:
            cells = struct.unpack_from(f"={count}d", memory, at + length)
            yield Found(families[description.family], description.values, cells)
        at = end


def overflown(memory: mmap.mmap) -> int:
    """How many series found no room in a region."""
    return int(_HEAD.unpack_from(memory)[1])
