"""Fails when a call takes over a tenth more instructions than it did. `make guard` runs it; see ../README.md.

Rules that live here: the baseline is one for each interpreter, machine architecture and codec, since each counts
differently; without one, or without valgrind, there is nothing to compare with, which is said and is no failure unless
--require is given. A call with metrics on is compared with the same one without them too, and has as much room.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import HERE
from benchmarks.guard.calls import MARK, TIMES, WITH_METRICS
from benchmarks.measuring import ROOT, Failure, codec

BASELINE = HERE / "guard-baseline.json"
MOST_GROWTH = 0.10
MOST_FOR_METRICS = 0.10
DUMPS_PER_CALL = 3  # what came before, once, twice

Counts = dict[str, int]


def count(pure: bool) -> Counts:
    """Instructions of each call.

    Args:
        pure: with the pure codec.

    Raises:
        Failure: valgrind or the calls failed.
    """
    with tempfile.TemporaryDirectory(prefix="a6guard-") as folder:
        out = Path(folder) / "counts"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={MARK}"]
        command += [sys.executable, "-m", "benchmarks.guard.calls"]
        environ = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "APISIX_RUNNER_PURE": str(int(pure))}
        environ |= {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"valgrind failed: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
        names = done.stdout.splitlines()
        totals = [_total(Path(f"{out}.{number}")) for number in range(1, DUMPS_PER_CALL * len(names) + 1)]
    counts = {}
    for number, name in enumerate(names):
        _, once, twice = totals[DUMPS_PER_CALL * number : DUMPS_PER_CALL * (number + 1)]
        counts[name] = round((twice - once) / TIMES)
    return counts


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise Failure(f"valgrind's {dump.name} has no totals")
    return int(found[1])


class Change(NamedTuple):
    """One call, then and now; None where it was not counted then."""

    name: str
    then: int | None
    now: int

    @property
    def growth(self) -> float:
        """As a share of what it was."""
        return self.now / self.then - 1 if self.then else 0.0


def compare(then: Counts, now: Counts) -> list[Change]:
    """What became of each call."""
    return [Change(name, then.get(name), value) for name, value in now.items()]


def table(changes: Sequence[Change]) -> str:
    """For people."""
    lines = []
    for change in changes:
        if change.then is None:
            remark = "new: renew the baseline"
        elif change.growth > MOST_GROWTH:
            remark = f"{change.growth:+.1%}  TOO MUCH, was {change.then}"
        elif change.growth < -MOST_GROWTH:
            remark = f"{change.growth:+.1%}  a gain: renew the baseline to keep it"
        else:
            remark = f"{change.growth:+.1%}"
        lines.append(f"{change.name:40} {change.now:8}  {remark}")
    return "\n".join(lines)


def dear_metrics(counts: Counts) -> list[str]:
    """The calls that metrics make too dear, a line each."""
    lines = []
    for name, measured in counts.items():
        plain = counts.get(name.removesuffix(WITH_METRICS), measured)
        if measured > plain * (1 + MOST_FOR_METRICS):
            lines.append(f"{name}: {measured / plain - 1:+.1%}  TOO MUCH, {plain} without")
    return lines


def key(codec_name: str) -> str:
    """Which baseline holds."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()} {codec_name}"


def main() -> int:
    """Count, compare, say. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__.splitlines()[0])
    parser.add_argument("--renew", action="store_true", help="make what is counted now the baseline")
    parser.add_argument("--require", action="store_true", help="fail where nothing can be compared")
    chosen = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("guard: valgrind is not installed, nothing is counted (on Debian and Ubuntu: apt-get install valgrind)")
        return int(chosen.require)
    baselines: dict[str, Counts] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    failed = False
    for name in ("compiled", "pure"):
        if name == "compiled" and codec(sys.executable) != "compiled":
            print("guard: the compiled codec was not built, only the pure one is counted")
            continue
        now = count(pure=name == "pure")
        too_dear = dear_metrics(now)
        failed = failed or bool(too_dear)
        print("\n".join(too_dear), end="\n" if too_dear else "")
        if chosen.renew:
            baselines[key(name)] = now
        elif key(name) not in baselines:
            print(f"guard: no baseline for {key(name)}; python -m benchmarks.guard --renew makes one")
            failed = failed or chosen.require
            continue
        changes = compare(baselines[key(name)], now)
        print(f"{key(name)}: instructions of one call\n{table(changes)}")
        failed = failed or any(change.growth > MOST_GROWTH for change in changes)
    if chosen.renew:
        BASELINE.write_text(json.dumps(dict(sorted(baselines.items())), indent=1) + "\n")
    if failed:
        print("guard: failed; if the growth is meant, renew the baseline and say why in the commit")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"guard: {failure}")
