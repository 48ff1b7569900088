"""The text format that Prometheus and others read, version 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from apisix.runner.metrics.region import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Samples = Mapping[tuple[str, ...], Sequence[float]]


def write(families: Iterable[tuple[Family, Samples]]) -> str:
    """The page of some metrics, in the order of their names.

    Args:
        families: each with its series, by labels' values. A histogram's cells are counts by range, then the sum.
    """
    lines: list[str] = []
    for family, samples in sorted(families, key=lambda pair: pair[0].name):
        lines.append(f"# HELP {family.name} {_escape_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for values, cells in sorted(samples.items()):
            labels = [f'{name}="{_escape(value)}"' for name, value in zip(family.labels, values, strict=True)]
            if family.kind == "histogram":
                lines += _histogram(family, labels, cells)
            else:
                lines.append(f"{family.name}{_braces(labels)} {number(cells[0])}")
    return "\n".join(lines) + "\n"


def _histogram(family: Family, labels: list[str], cells: Sequence[float]) -> list[str]:
    lines = []
    count = 0.0
    for bound, cell in zip([*family.bounds, math.inf], cells, strict=False):
        count += cell
        braces = _braces([*labels, f'le="{number(bound)}"'])
        lines.append(f"{family.name}_bucket{braces} {number(count)}")
    lines.append(f"{family.name}_sum{_braces(labels)} {number(cells[-1])}")
    lines.append(f"{family.name}_count{_braces(labels)} {number(count)}")
    return lines


def number(value: float) -> str:
    """A number as the format has it.

    Example:
        >>> number(3.0), number(0.25), number(math.inf)
        ('3', '0.25', '+Inf')
    """
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _braces(labels: list[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(help: str) -> str:
    return help.replace("\\", "\\\\").replace("\n", "\\n")
