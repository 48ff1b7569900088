"""What was measured, read back: the JSON that `run`, `peers` and `profile` write.

Rules that live here: what was published lies in `published/` beside this file; a part that was measured since, in
`results/`, takes its place in a draft.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import HERE
from benchmarks.http_load import HTTPSample
from benchmarks.measuring import FLOOR, RESULTS, Row, Sample, median
from benchmarks.starting import Start
from benchmarks.sweeps import SweepRow

PUBLISHED = HERE / "published"
PARTS = ("bench", "peers", "profile")
OURS = ("compiled", "pure")


class Results(NamedTuple):
    """All that the page on performance is made of; what was not measured is empty.

    Attributes:
        machines: of each part, by its name.
        plans: rounds and seconds of each part.
        peers: which version each peer is.
        missing: why a peer was not measured.
        beside: rows beside the peers.
        alone: rows of ours alone, with more plugins.
        starts: of all kinds of server.
        sweeps: by name.
        gateways: by gateway and route.
        stages: by codec and plugin.
    """

    machines: Mapping[str, Mapping[str, str | int]]
    plans: Mapping[str, Mapping[str, float]]
    peers: Mapping[str, str]
    missing: Mapping[str, str]
    beside: list[Row]
    alone: list[Row]
    starts: list[Start]
    sweeps: Mapping[str, list[SweepRow]]
    gateways: Mapping[str, Mapping[str, list[HTTPSample]]]
    stages: Mapping[str, Mapping[str, Mapping[str, float]]]

    def row(self, server: str, case: str, connections: int = 16) -> Sample | None:
        """The medians of a server in a case; None where it was not measured. What was measured beside peers wins."""
        for row in [*self.beside, *self.alone]:
            if (row.server, row.case, row.connections) == (server, case, connections) and row.rounds:
                return median(row.rounds)
        return None

    @property
    def servers(self) -> list[str]:
        """Those with any row, ours first, the floor last."""
        names = dict.fromkeys(row.server for row in [*self.beside, *self.alone] if row.rounds)
        return sorted(names, key=lambda name: (name not in OURS, name == FLOOR, name.startswith("Python")))


def find(folders: tuple[Path, ...] = (RESULTS, PUBLISHED)) -> dict[str, Path]:
    """The file of each part: from the first folder that has it."""
    found = {}
    for part in PARTS:
        for folder in reversed(folders):
            if (path := folder / f"{part}.json").exists():
                found[part] = path
    return found


def load(paths: Mapping[str, Path]) -> Results:
    """Read the parts that there are."""
    parts: dict[str, dict[str, Any]] = {part: json.loads(path.read_text()) for part, path in paths.items()}
    bench, peers, profile = (parts.get(part, {}) for part in PARTS)
    starts = [Start(**start) for start in peers.get("starts") or bench.get("starts") or []]
    return Results(
        machines={part: found["machine"] for part, found in parts.items()},
        plans={part: found["plan"] for part, found in parts.items() if "plan" in found},
        peers=peers.get("peers", {}),
        missing=peers.get("missing", {}),
        beside=_rows(peers),
        alone=_rows(bench),
        starts=starts,
        sweeps={
            name: [SweepRow(row["series"], row["x"], _samples(row)) for row in rows]
            for name, rows in bench.get("sweeps", {}).items()
        },
        gateways={
            gateway: {route: [HTTPSample(**sample) for sample in samples] for route, samples in routes.items()}
            for gateway, routes in bench.get("gateways", {}).items()
        },
        stages=profile.get("stages", {}),
    )


def _rows(part: Mapping[str, Any]) -> list[Row]:
    return [
        Row(row["server"], row["case"], row["connections"], _samples(row), row.get("failure"))
        for row in part.get("rows", [])
    ]


def _samples(row: Mapping[str, Any]) -> list[Sample]:
    return [Sample(**sample) for sample in row["rounds"]]
