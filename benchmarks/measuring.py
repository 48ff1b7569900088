"""Servers, the load on them, and what is read off them.

Rules that live here: the CPU and memory of a server are those of all its processes; what else ran on the machine
meanwhile is noted beside each sample; the rounds of a comparison alternate between the servers.
"""

import os
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from apisix.runner.server.store import open_store
from benchmarks.cases import BUILD, HERE, Traffic, wrong_effect

ROOT = HERE.parent
RESULTS = HERE / "results"
FLOOR = "floor"
STARTS_WITHIN = 30.0  # seconds
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """Something cannot be measured; the text is for the user."""


class Sample(NamedTuple):
    """One run of the load generator.

    Attributes:
        cpu: microseconds of CPU a request, of all the server's processes.
        rate: requests a second.
        p50: microseconds, as p99 and p999.
        memory: megabytes, the most that all the server's processes held together, each at its own time.
        foreign: cores that were busy with neither the server nor the load: how disturbed the sample is.
    """

    cpu: float
    rate: float
    p50: float
    p99: float
    p999: float
    memory: float
    foreign: float


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each number."""
    return Sample(*(statistics.median(values) for values in zip(*samples, strict=True)))


def compiled(program: str) -> Path:
    """One of the C programs, built unless that was done before.

    Raises:
        Failure: there is no compiler, or it cannot compile it.
    """
    source, binary = HERE / f"{program}.c", BUILD / program
    if binary.exists() and binary.stat().st_mtime > source.stat().st_mtime:
        return binary
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise Failure(
            f"no C compiler (cc, gcc or clang) to build {source.name} with; install one, e.g. the package gcc"
        )
    BUILD.mkdir(exist_ok=True)
    run([compiler, "-O2", "-o", str(binary), str(source)])
    return binary


def run(command: Sequence[str], *, cwd: Path = ROOT, environ: Mapping[str, str] | None = None) -> str:
    """Run a command to its end. Returns what it printed.

    Raises:
        Failure: it cannot be run, or it failed.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Failure(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Failure(f"{Path(command[0]).name} failed: {said[-1]}")
    return done.stdout.strip()


class Server:
    """A process that answers on a socket of its own, and how it came up.

    Args:
        name: what the user calls it; for the names of its files.
        command: its arguments; "SOCKET" stands for the socket's path.
        folder: for the socket and the log.
        environ: variables beyond the usual; "SOCKET" stands for the socket's path there too.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self.socket.unlink(missing_ok=True)
        self._pids: list[int] = []
        usual = {key: value for key, value in os.environ.items() if not key.startswith("APISIX_")}
        variables = {key: value.replace("SOCKET", str(self.socket)) for key, value in (environ or {}).items()}
        started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [word.replace("SOCKET", str(self.socket)) for word in command],
                stdout=log,
                stderr=log,
                cwd=folder,
                env=usual | variables,
            )
        try:
            self._wait_until_it_accepts()
        except Failure:
            self.end()
            raise
        self.start_seconds = time.monotonic() - started

    def _wait_until_it_accepts(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with code {self.process.returncode}: {self.last_log_line()}")
            if self.accepts():
                return
            time.sleep(0.002)
        raise Failure(f"{self.name} did not listen within {STARTS_WITHIN:.0f} s: {self.last_log_line()}")

    def accepts(self) -> bool:
        """Whether it accepts connections."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))
        except OSError:
            return False
        return True

    def last_log_line(self) -> str:
        """What it said last."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it logged nothing"

    def pids(self) -> list[int]:
        """The process and its descendants."""
        parents = dict(_parents())
        family = [self.process.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def forget_peak(self) -> None:
        """Let the peak of memory begin anew, where the kernel can."""
        for pid in self.pids():
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                pass

    def megabytes(self, field: str = "VmHWM") -> list[float]:
        """The memory of each process: VmHWM, the most since `forget_peak`, or VmRSS, now."""
        sizes = []
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            sizes += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field)]
        return sizes

    def end(self) -> None:
        """End it, at once if it does not by itself."""
        family = self.pids()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in reversed(family):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
        store = open_store(self.socket)  # of a socket that nobody will listen on again
        if store:
            shutil.rmtree(store.folder, ignore_errors=True)


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except OSError:  # it has just ended
            continue
        yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


def cpu_seconds(pids: Sequence[int]) -> float:
    """The CPU that processes have used, user and system."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def _busy_seconds() -> float:
    """What all cores have worked since the machine started; what the host took from them counts as work."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / TICKS


def load_command(path: Path, traffic: Traffic, connections: int, seconds: float) -> list[str]:
    """The command of the load generator.

    Args:
        path: the server's socket.
        traffic: what is sent.
        connections: that send it, each one call at a time.
        seconds: for which they do.

    Raises:
        Failure: it cannot be compiled.
    """
    command = [str(compiled("a6load"))]
    if traffic.extra_info is not None:
        command += ["-i", str(traffic.extra_info)]
    if traffic.tokens is not None:
        command += ["-t", str(traffic.tokens)]
    command += [str(path), str(traffic.prepare), str(traffic.call), str(traffic.token_offset)]
    return [*command, str(connections), str(seconds)]


def measure(server: Server, traffic: Traffic, connections: int, seconds: float) -> Sample:
    """One run of the load generator.

    Raises:
        Failure: the server closed, answered with an error, or not always the same.
    """
    pids = server.pids()
    command = [*load_command(server.socket, traffic, connections, seconds), *map(str, pids)]
    server.forget_peak()
    own, busy, load = cpu_seconds(pids), _busy_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise Failure(f"{server.name} did not answer for a minute: {server.last_log_line()}") from None
    elapsed = time.monotonic() - started
    if done.returncode == 1:
        raise Failure(f"{server.name}: not all answers are the same as the first")
    if done.returncode:
        said = (done.stderr or done.stdout).strip().removeprefix("a6load: ")
        raise Failure(f"{server.name}: {said}; its last words: {server.last_log_line()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    loading = after.ru_utime + after.ru_stime - load.ru_utime - load.ru_stime
    foreign = (_busy_seconds() - busy - loading - (cpu_seconds(pids) - own)) / elapsed
    words = done.stdout.split()
    cpu, rate, p50, p99, p999 = (
        float(words[words.index(key) + 1]) for key in ("cpu_us/req", "rps", "p50", "p99", "p99.9")
    )
    if not rate:
        raise Failure(f"{server.name} answered no call within {seconds:g} s")
    return Sample(cpu, rate, p50, p99, p999, round(sum(server.megabytes()), 1), round(max(foreign, 0.0), 3))


class Kind(NamedTuple):
    """A kind of server that is compared with others.

    Attributes:
        name: in the tables.
        start: starts one in a folder; raises Failure.
        warm: seconds of load before it is measured.
        cannot: what it has no way to do, and why, by case.
        about: which version it is.
        only: the cases that it is measured in; without any, all.
    """

    name: str
    start: Callable[[Path], Server]
    warm: float = 0.5
    cannot: Mapping[str, str] = {}
    about: str = ""
    only: Sequence[str] = ()


def runner(
    folder: Path,
    *,
    python: str = sys.executable,
    workers: int = 1,
    pure: bool = False,
    plugins: Path = HERE / "plugins",
    flags: Sequence[str] = (),
) -> Server:
    """Start our runner."""
    command = [python, str(ROOT / "apisix" / "main.py"), "start", "--socket", "SOCKET", "--plugins", str(plugins)]
    command += ["--workers", str(workers), "--logging-level", "warn", *flags]
    return Server("pure" if pure else "runner", command, folder, {"APISIX_RUNNER_PURE": "1"} if pure else None)


def floor(folder: Path) -> Server:
    """Start the server that does nothing but answer."""
    return Server(FLOOR, [str(compiled(FLOOR)), "SOCKET"], folder)


def codec(python: str) -> str:
    """Which codec that interpreter's runner has: "compiled" or "pure"."""
    return run([python, "-c", "from apisix.runner.compiled import CODEC; print(CODEC)"])


def ours(python: str = sys.executable, workers: int = 1) -> list[Kind]:
    """Our runner, once for each codec that is there."""
    kinds = [Kind("pure", lambda folder: runner(folder, python=python, workers=workers, pure=True))]
    if codec(python) == "compiled":
        kinds.insert(0, Kind("compiled", lambda folder: runner(folder, python=python, workers=workers)))
    return kinds


FLOOR_KIND = Kind(FLOOR, floor, only=("stop",))


class Row(NamedTuple):
    """A kind of server in a case at a number of connections, over all rounds; or why it could not be measured."""

    server: str
    case: str
    connections: int
    rounds: list[Sample]
    failure: str | None = None


class Plan(NamedTuple):
    """How much is measured."""

    cases: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: float


def compare(kinds: Sequence[Kind], plan: Plan, traffic: Callable[[str], Traffic], folder: Path) -> list[Row]:
    """Measure servers in turns: in each round every case, and in each case every server, in changing order.

    Each is started anew for each case and round, so that what one case leaves behind burdens no other.
    """
    rows: dict[tuple[str, str, int], Row] = {}
    failed: dict[tuple[str, str], str] = {
        (kind.name, case): kind.cannot[case] for kind in kinds for case in plan.cases if case in kind.cannot
    }
    for number in range(plan.rounds):
        for case in plan.cases:
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                if (kind.name, case) in failed or (kind.only and case not in kind.only):
                    continue
                progress(f"round {number + 1} of {plan.rounds}: {case}, {kind.name}")
                try:
                    with started(kind, folder) as server:
                        _measure_case(server, kind, case, plan, traffic(case), rows)
                except Failure as failure:
                    failed[kind.name, case] = str(failure)
    progress("")
    measured = [row for row in rows.values() if (row.server, row.case) not in failed]
    return measured + [Row(name, case, 0, [], why) for (name, case), why in failed.items()]


def _measure_case(
    server: Server, kind: Kind, case: str, plan: Plan, sent: Traffic, rows: dict[tuple[str, str, int], Row]
) -> None:
    problem = None if kind.name == FLOOR else wrong_effect(server.socket, case)
    if problem:
        raise Failure(f"{problem}; its last words: {server.last_log_line()}")
    measure(server, sent, 16, kind.warm)
    for connections in plan.connections:
        key = (kind.name, case, connections)
        row = rows.setdefault(key, Row(*key, []))
        if row.failure is not None:
            continue
        try:
            row.rounds.append(measure(server, sent, connections, plan.seconds))
        except Failure as failure:
            rows[key] = Row(*key, [], str(failure))
            if not server.accepts():
                raise


@contextmanager
def started(kind: Kind, folder: Path) -> Iterator[Server]:
    """A server of that kind, ended in the end."""
    server = kind.start(folder)
    try:
        yield server
    finally:
        server.end()


def machine() -> dict[str, str | int]:
    """What was measured, and where."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    commit = _or_nothing("git", "describe", "--always", "--dirty", "--exclude", "*")
    return {
        "CPU": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "virtual": "yes" if " hypervisor" in cpuinfo else "no",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "compiler": (_or_nothing("cc", "--version").splitlines() or ["none"])[0],
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or "unknown",
    }


def about_python(python: str = sys.executable) -> dict[str, str]:
    """The interpreter that runs our runner, and what its codec is."""
    version = run([python, "-c", "import platform as p; print(p.python_implementation(), p.python_version())"])
    uvloop = _or_nothing(python, "-c", "import uvloop; print(uvloop.__version__)")
    return {"Python": version, "codec": codec(python), "uvloop": uvloop or "none"}


def _or_nothing(*command: str) -> str:
    try:
        return run(command)
    except Failure:
        return ""


def progress(text: str) -> None:
    """Say on a terminal what is going on; the next text takes the place of this one."""
    if sys.stderr.isatty():
        print(f"\r{text:70}\r", end="", file=sys.stderr, flush=True)
