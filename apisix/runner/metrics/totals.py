"""Totals: what the regions of several processes amount to.

Rules that live here:
- Counters and histograms are added up. What a process has counted is kept when it ends, so no counter falls because a
  worker was replaced. Gauges end with their process, and are merged as their metric says.
- Where processes declare a metric differently, as before and after a change of plugins' code, the newest is right.
- What ended processes counted is kept of at most MOST_KEPT series a metric; the rest is added to the value `other`.
"""

from collections.abc import Iterable

from apisix.runner.metrics.metric import OTHER
from apisix.runner.metrics.region import Family, Found

MOST_KEPT = 500

Cells = list[float]
Samples = dict[tuple[str, ...], Cells]


class Totals:
    """A sum of regions.

    Attributes:
        families: each metric by name, with its series by labels' values.
    """

    def __init__(self) -> None:
        self.families: dict[str, tuple[Family, Samples]] = {}

    def add(self, found: Iterable[Found]) -> None:
        """Add one process: the newest first, since what contradicts what is there is left out."""
        for family, values, cells in found:
            known, samples = self.families.setdefault(family.name, (family, {}))
            if known != family:
                continue
            _merge(samples, family, values, cells)

    def keep(self, found: Iterable[Found]) -> None:
        """Add a process that has ended: what contradicts it is forgotten, and so are its gauges."""
        for family, values, cells in found:
            if family.kind == "gauge":
                continue
            known, samples = self.families.setdefault(family.name, (family, {}))
            if known != family:
                samples = {}
                self.families[family.name] = family, samples
            if values not in samples and len(samples) >= MOST_KEPT:
                values = (OTHER,) * len(values)
            _merge(samples, family, values, cells)

    def found(self) -> Iterable[Found]:
        """All of it, to be added to another one."""
        return [
            Found(family, values, tuple(cells))
            for family, samples in self.families.values()
            for values, cells in samples.items()
        ]


def _merge(samples: Samples, family: Family, values: tuple[str, ...], cells: Iterable[float]) -> None:
    there = samples.get(values)
    if there is None:
        samples[values] = list(cells)
    elif family.kind == "gauge" and family.merge != "sum":
        pick = max if family.merge == "max" else min
        samples[values] = [pick(pair) for pair in zip(there, cells, strict=True)]
    else:
        samples[values] = [mine + its for mine, its in zip(there, cells, strict=True)]
