"""What plugins count with: `Counter`, `Gauge` and `Histogram`.

Rules that live here:
- A metric is made once, when the plugin's file is loaded: a module's or class's own name for it, not a call's.
- Metrics of the same name are the same, and must be declared alike. Names beginning with ``apisix_runner_`` are the
  runner's.
- Labels are for a few known values. A metric has at most MOST_SERIES combinations of them in each worker; what comes
  beyond is counted under the value `other` for every label, and told in the log once.
- Counting never raises because of what is counted, but for a counter that is to fall or a label that is not there; and
  it works where nothing is scraped: in tests, and in a runner whose metrics are off.
"""

import logging
import math
import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, TypeVar

from apisix.runner.metrics.region import MOST_CELLS, Family, Kind, Merge, Region

log = logging.getLogger("apisix.runner.metrics")

MOST_SERIES = 100
MOST_VALUE = 128
"""Characters of a label's value; what is beyond is cut."""

OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of a histogram that gives none: good for seconds that something else took to answer."""

_RESERVED = "apisix_runner_"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

_region: Region | None = None
_families: dict[str, Family] = {}


def use(region: Region) -> None:
    """Count there from now on. For the runner: before plugins are loaded."""
    global _region
    _region = region
    _families.clear()


def current_region() -> Region:
    """Where this process counts: where nobody reads it, if `use` was not called."""
    global _region
    if _region is None:
        _region = Region()
    return _region


class Series:
    """One series of a metric: what its `labels` returns."""

    __slots__ = ("_at", "_cells")

    def __init__(self, family: Family, values: tuple[str, ...]) -> None:
        region = current_region()
        self._cells = region.cells
        self._at = region.series(family, values)


class CounterSeries(Series):
    """One series of a counter."""

    __slots__ = ()

    def inc(self, amount: float = 1.0) -> None:
        """Count.

        Args:
            amount: 0 or more.

        Raises:
            ValueError: the amount is negative.
        """
        if not amount >= 0:
            raise ValueError(f"a counter never falls: inc() takes 0 or more, got {amount!r}")
        self._cells[self._at] += amount

    @property
    def value(self) -> float:
        """What was counted in this process, for tests."""
        return self._cells[self._at]


class GaugeSeries(Series):
    """One series of a gauge."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Set it to a value."""
        self._cells[self._at] = value

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self._cells[self._at] += amount

    def dec(self, amount: float = 1.0) -> None:
        """Take from it."""
        self._cells[self._at] -= amount

    @property
    def value(self) -> float:
        """Its value in this process, for tests."""
        return self._cells[self._at]


class HistogramSeries(Series):
    """One series of a histogram."""

    __slots__ = ("_bounds", "_sum")

    def __init__(self, family: Family, values: tuple[str, ...]) -> None:
        super().__init__(family, values)
        self._bounds = family.bounds
        self._sum = self._at + len(family.bounds) + 1

    def observe(self, value: float) -> None:
        """Count a value: in seconds, bytes, or what the metric's name says."""
        self._cells[self._at + bisect_left(self._bounds, value)] += 1.0
        self._cells[self._sum] += value

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observe the seconds that a ``with`` block takes.

        Example:
            >>> with LOOKED_UP.time():
            ...     user = find(token)
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started)

    @property
    def count(self) -> float:
        """How many values were observed in this process, for tests."""
        return sum(self._cells[self._at : self._sum])

    @property
    def sum(self) -> float:
        """What they add up to, for tests."""
        return self._cells[self._sum]


S = TypeVar("S", bound=Series)


class _Metric(Generic[S]):
    """What metrics have in common."""

    _kind: Kind
    _series_type: type[S]

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] = (),
        merge: Merge = "sum",
    ) -> None:
        if isinstance(labels, str):
            raise ValueError(f"metric {name!r}: labels are a sequence of names, got the text {labels!r}")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"a metric's name has letters, digits and underscores, as orders_sold; got {name!r}")
        if name.startswith(_RESERVED):
            raise ValueError(f"metric {name!r}: names that begin with {_RESERVED} are the runner's")
        for label in labels:
            if not _LABEL.fullmatch(label) or label == "le":
                raise ValueError(f"metric {name!r}: a label has letters, digits and underscores, got {label!r}")
        if self._kind == "counter":
            name = name.removesuffix("_total") + "_total"
        family = Family(name, self._kind, help, tuple(labels), tuple(map(float, bounds)), merge)
        if _families.setdefault(name, family) != family:
            raise ValueError(f"metric {name!r} is declared twice, and not alike")
        self._family = family
        self._known: dict[tuple[str, ...], S] = {}
        self._told = False
        if not labels:
            self.labels()

    def labels(self, **values: object) -> S:
        """The series of some labels' values. Texts, or what `str` makes one.

        Args:
            values: one for each label.

        Returns:
            The series: it counts as the metric itself does where there are no labels.

        Raises:
            ValueError: labels are missing, or there are others.
        """
        names = self._family.labels
        try:
            key = tuple([str(values[name]) for name in names])
        except KeyError:
            raise self._wrong_labels(values) from None
        known = self._known.get(key)
        if known is not None and len(values) == len(names):
            return known
        if len(values) != len(names):
            raise self._wrong_labels(values)
        return self._new_series(key)

    def _wrong_labels(self, values: dict[str, object]) -> ValueError:
        expected, got = ", ".join(self._family.labels) or "none", ", ".join(values) or "none"
        return ValueError(f"metric {self._family.name!r} has the labels {expected}; got {got}")

    def _new_series(self, key: tuple[str, ...]) -> S:
        shown = tuple(value[:MOST_VALUE].encode("utf-8", "backslashreplace").decode() for value in key)
        if key and len(self._known) >= MOST_SERIES:
            key = shown = (OTHER,) * len(key)
            if not self._told:
                self._told = True
                log.warning(
                    "metric %s has more than %d combinations of labels: further ones are counted as %r; give labels "
                    "that have few values",
                    self._family.name,
                    MOST_SERIES,
                    OTHER,
                )
        series = self._known.get(key)
        if series is None:
            series = self._known[key] = self._series_type(self._family, shown)
        return series


class Counter(_Metric[CounterSeries]):
    """A number that only rises, such as how often something happened.

    Args:
        name: as it is scraped; ``_total`` is put at its end.
        help: one sentence for who reads the metric.
        labels: names of what the number is told apart by. Each combination of their values is a series of its own.

    Raises:
        ValueError: a name is none, or is taken.

    Example:
        >>> CHECKED = Counter("tokens_checked", "Tokens that were checked, by result.", labels=("result",))
        >>> CHECKED.labels(result="good").inc()
    """

    _kind = "counter"
    _series_type = CounterSeries

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)

    def inc(self, amount: float = 1.0) -> None:
        """Count, where there are no labels.

        Args:
            amount: 0 or more.

        Raises:
            ValueError: the amount is negative.
        """
        self.labels().inc(amount)

    @property
    def value(self) -> float:
        """What was counted in this process, for tests."""
        return self.labels().value


class Gauge(_Metric[GaugeSeries]):
    """A number that rises and falls, such as how much there is of something.

    Args:
        name: as it is scraped.
        help: one sentence for who reads the metric.
        labels: names of what the number is told apart by.
        merge: what the workers' values amount to: their sum, the largest, or the smallest.

    Raises:
        ValueError: a name is none, or is taken.
    """

    _kind = "gauge"
    _series_type = GaugeSeries

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), merge: Merge = "sum") -> None:
        if merge not in ("sum", "max", "min"):
            raise ValueError(f"metric {name!r}: merge is sum, max or min, got {merge!r}")
        super().__init__(name, help, labels, merge=merge)

    def set(self, value: float) -> None:
        """Set it, where there are no labels."""
        self.labels().set(value)

    def inc(self, amount: float = 1.0) -> None:
        """Add to it, where there are no labels."""
        self.labels().inc(amount)

    def dec(self, amount: float = 1.0) -> None:
        """Take from it, where there are no labels."""
        self.labels().dec(amount)

    @property
    def value(self) -> float:
        """Its value in this process, for tests."""
        return self.labels().value


class Histogram(_Metric[HistogramSeries]):
    """How values are distributed, such as the seconds that something takes.

    Args:
        name: as it is scraped; with the unit at its end, as ``lookup_seconds``.
        help: one sentence for who reads the metric.
        labels: names of what the values are told apart by.
        bounds: upper bounds of the ranges that are counted, rising.

    Raises:
        ValueError: a name is none or is taken, or the bounds do not rise.
    """

    _kind = "histogram"
    _series_type = HistogramSeries

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS) -> None:
        if not 0 < len(bounds) <= MOST_CELLS - 2 or not all(map(math.isfinite, bounds)):
            raise ValueError(f"metric {name!r}: bounds are 1 to {MOST_CELLS - 2} numbers, got {bounds!r}")
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"metric {name!r}: bounds must rise, got {bounds!r}")
        super().__init__(name, help, labels, bounds)

    def observe(self, value: float) -> None:
        """Count a value, where there are no labels."""
        self.labels().observe(value)

    def time(self) -> AbstractContextManager[None]:
        """Observe the seconds that a ``with`` block takes, where there are no labels."""
        return self.labels().time()

    @property
    def count(self) -> float:
        """How many values were observed in this process, for tests."""
        return self.labels().count

    @property
    def sum(self) -> float:
        """What they add up to, for tests."""
        return self.labels().sum
