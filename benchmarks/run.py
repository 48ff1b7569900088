"""Measures the runner: CPU a request, throughput, latency, memory, start. `make bench` runs it; see README.md.

A real runner process serves the plugins of ./plugins on a socket of its own; a6load.c plays the gateway, over and over
with the same frame on some connections at once. Each plugin is measured once a round, so that a slow spell of the
machine falls on all of them; what is shown are the medians of the rounds.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from apisix.runner.server.store import open_store
from apisix.runner.wire.messages import encode_extra_info_resp, encode_prepare_conf_req

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
RESULTS = HERE / "results"
FRAMES = HERE / "frames"
TOKEN = bytes.fromhex("1eab577e")  # stands in a call's frame where the conf token goes


class Failure(Exception):
    """The measurement cannot go on; the text is for the user."""


class Case(NamedTuple):
    """One row of the table: a plugin, the frame that calls it, and what the gateway answers when asked."""

    plugin: str
    call: str = "call"
    extra_info: bytes | None = None


FLOOR = "floor"  # no plugin: floor.c, the least that any runner can cost
CASES = {
    FLOOR: Case("stop"),
    "stop": Case("stop"),
    "rewrite": Case("rewrite"),
    "echo": Case("echo"),
    "example-stop": Case("example-stop"),
    "example-rewrite": Case("example-rewrite"),
    "var": Case("var", extra_info=b"127.0.0.1"),
    "body-4k": Case("body", extra_info=b"b" * 4096),
    "body-1m": Case("body", extra_info=b"b" * 2**20),
    "blocking": Case("blocking"),
    "async": Case("async"),
    "respond": Case("respond", call="respond_call", extra_info=b"GET"),
}
DEFAULT_CASES = "floor,stop,rewrite,echo"


class Sample(NamedTuple):
    """What a6load measured in one run. Times are in microseconds."""

    cpu: float
    rate: float
    p50: float
    p99: float
    p999: float


class Server:
    """A process that answers on a socket of its own, and how it came up.

    Args:
        name: what the user calls it.
        command: its arguments; "SOCKET" stands for the socket's path.
        folder: for the socket and the log.
    """

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        command = [str(self.socket) if word == "SOCKET" else word for word in command]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("APISIX_")}
        started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        self._wait_until_it_accepts()
        self.start_seconds = time.monotonic() - started

    def _wait_until_it_accepts(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with code {self.process.returncode}: {self.last_log_line()}")
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket))
                return
            except OSError:
                time.sleep(0.005)
        raise Failure(f"{self.name} did not listen within 20 s: {self.last_log_line()}")

    def last_log_line(self) -> str:
        """What it said last."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it logged nothing"

    def pids(self) -> list[int]:
        """The process and its descendants: the CPU of all of them counts."""
        parents = dict(_parents())
        family = [self.process.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def peak_megabytes(self) -> list[float]:
        """The most memory that each process has held."""
        peaks = []
        for pid in self.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
            peaks.append(int(kilobytes) / 1024)
        return peaks

    def end(self) -> None:
        """End it, at once if it does not by itself."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in reversed(self.pids()):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        store = open_store(self.socket)  # of a socket that nobody will listen on again
        if store:
            shutil.rmtree(store.folder)


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except OSError:  # it has just ended
            continue
        yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


def build(program: str) -> Path:
    """Compile one of the C programs, unless that was done before."""
    source, binary = HERE / f"{program}.c", BUILD / program
    if binary.exists() and binary.stat().st_mtime > source.stat().st_mtime:
        return binary
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise Failure(
            f"no C compiler (cc, gcc or clang) to build {source.name} with; install one, e.g. the package gcc"
        )
    BUILD.mkdir(exist_ok=True)
    done = subprocess.run([compiler, "-O2", "-o", binary, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(
            f"{compiler} cannot compile {source.name}: {(done.stderr.splitlines() or ['no reason given'])[0]}"
        )
    return binary


def prepare_frame(plugin: str) -> Path:
    """The frame that prepares a plugin: recorded where there is one, else written."""
    recorded = FRAMES / f"prepare_{plugin}.bin"
    if recorded.exists():
        return recorded
    written = BUILD / recorded.name
    written.write_bytes(encode_prepare_conf_req([(plugin, "{}")], f"route#{plugin}#ext-plugin-pre-req#1"))
    return written


def measure(load: Path, server: Server, name: str, connections: int, seconds: float) -> Sample:
    """One run of a6load."""
    case = CASES[name]
    call = FRAMES / f"{case.call}.bin"
    command = [str(load)]
    if case.extra_info is not None:
        answer = BUILD / f"info_{name}.bin"
        answer.write_bytes(encode_extra_info_resp(case.extra_info))
        command += ["-i", str(answer)]
    command += [str(server.socket), str(prepare_frame(case.plugin)), str(call), str(call.read_bytes().index(TOKEN))]
    command += [str(connections), str(seconds), *map(str, server.pids())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Failure(f"{name}: {said}; {server.name}'s last words: {server.last_log_line()}")
    words = done.stdout.split()
    value = {key: float(words[words.index(key) + 1]) for key in ("cpu_us/req", "rps", "p50", "p99", "p99.9")}
    return Sample(value["cpu_us/req"], value["rps"], value["p50"], value["p99"], value["p99.9"])


def machine(chosen: argparse.Namespace) -> dict[str, str | int]:
    """What was measured, and where."""

    def first_line(*command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": first_line(chosen.python, "--version").removeprefix("Python "),
        "commit": first_line("git", "rev-parse", "--short", "HEAD"),
        "workers": chosen.workers,
    }


def median(samples: list[Sample]) -> Sample:
    """The median of each number."""
    return Sample(*(statistics.median(values) for values in zip(*samples, strict=True)))


class Row(NamedTuple):
    """A line of the table: one plugin at a number of connections, over all rounds."""

    plugin: str
    connections: int
    median: Sample
    rounds: list[Sample]


def table(rows: list[Row]) -> str:
    """The medians; how far the rounds' CPU lay apart; how often the floor's CPU that is."""
    floors = {row.connections: row.median.cpu for row in rows if row.plugin == FLOOR}
    lines = [("plugin", "conns", "CPU us/req", "(from-to)", "x floor", "req/s", "p50 us", "p99 us", "p99.9 us")]
    for name, connections, middle, rounds in rows:
        spread = f"({min(s.cpu for s in rounds):.1f}-{max(s.cpu for s in rounds):.1f})"
        floor = floors.get(connections)
        ratio = f"{middle.cpu / floor:.1f}" if floor else "-"
        times = (f"{middle.p50:.0f}", f"{middle.p99:.0f}", f"{middle.p999:.0f}")
        lines.append((name, str(connections), f"{middle.cpu:.1f}", spread, ratio, f"{middle.rate:.0f}", *times))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


@contextmanager
def running(chosen: argparse.Namespace) -> Iterator[dict[str, Server]]:
    """The servers that the chosen rows need, by name."""
    main = str(ROOT / "apisix" / "main.py")
    runner = [chosen.python, main, "start", "--socket", "SOCKET", "--plugins", str(HERE / "plugins")]
    runner += ["--workers", str(chosen.workers), "--logging-level", "warn"]
    servers: dict[str, Server] = {}
    with tempfile.TemporaryDirectory(prefix="a6bench-") as folder:
        try:
            servers["runner"] = Server("runner", runner, Path(folder))
            if FLOOR in chosen.plugins:
                servers[FLOOR] = Server(FLOOR, [str(build(FLOOR)), "SOCKET"], Path(folder))
            yield servers
        finally:
            for server in servers.values():
                server.end()


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plugins", default=DEFAULT_CASES, help=f"of {','.join(CASES)}, or all (default: %(default)s)")
    parser.add_argument("--connections", default="16", help="how many at once, several with commas (default: 16)")
    parser.add_argument("--seconds", type=float, default=3, help="of one measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="that the medians are taken of (default: 5)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the runner (default: 1)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the runner")
    parser.add_argument("--output", type=Path, help="the JSON file (default: one by date in results/)")
    chosen = parser.parse_args(arguments)
    chosen.plugins = list(CASES) if chosen.plugins == "all" else chosen.plugins.split(",")
    unknown = [name for name in chosen.plugins if name not in CASES]
    if unknown:
        parser.error(f"no such plugin: {', '.join(unknown)}; there are {', '.join(CASES)}")
    chosen.connections = [int(count) for count in chosen.connections.split(",")]
    return chosen


def main() -> None:
    """Measure, print the table, write the JSON."""
    chosen = options()
    load = build("a6load")
    taken: dict[tuple[str, int], list[Sample]] = {}
    with running(chosen) as servers:
        runner = servers["runner"]
        for number in range(chosen.rounds):
            for connections in chosen.connections:
                for name in chosen.plugins:
                    progress(f"round {number + 1} of {chosen.rounds}: {name}")
                    sample = measure(load, servers.get(name, runner), name, connections, chosen.seconds)
                    taken.setdefault((name, connections), []).append(sample)
        progress("")
        peaks = runner.peak_megabytes()
    rows = [Row(name, connections, median(samples), samples) for (name, connections), samples in taken.items()]
    about = machine(chosen)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"medians of {chosen.rounds} rounds of {chosen.seconds:g} s")
    print(table(rows))
    print(f"accepting {runner.start_seconds:.2f} s after start; peak memory {sum(peaks):.0f} MB (", end="")
    print(" + ".join(f"{peak:.0f}" for peak in peaks), "supervisor first)")
    output = chosen.output or RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    described = [
        row._asdict() | {"median": row.median._asdict(), "rounds": [s._asdict() for s in row.rounds]} for row in rows
    ]
    report = {"machine": about, "start_seconds": runner.start_seconds, "peak_megabytes": peaks, "rows": described}
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {os.path.relpath(output)}")


def progress(text: str) -> None:
    """Say on a terminal what is going on; the next text takes the place of this one."""
    if sys.stderr.isatty():
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
