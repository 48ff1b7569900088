"""What a call costs as one size grows: confs, idle connections, headers, plugins in the chain, workers, waiting calls.

Rules that live here: all servers of a sweep run at once and are measured in turns, round by round; a size that this
machine does not allow is left out.
"""

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from apisix.runner.wire.messages import encode_http_req_call_req, encode_prepare_conf_req
from benchmarks.cases import BUILD, TOKEN, Gateway, Traffic, traffic, write
from benchmarks.measuring import Sample, Server, compiled, measure, progress, runner

CONNECTIONS = 16
WARM = 0.5  # seconds
RUNS_TO_WARM_A_CONF = 20
SLOW_RATE = 5000  # calls a second that any machine manages, to tell how long warming takes
SPARE_FILES = 200


class Point(NamedTuple):
    """One size of a sweep.

    Attributes:
        series: which line of the plot.
        x: the size.
        server: ready to be measured.
        sent: what it is sent.
        connections: that are busy.
        waiting: calls that wait beside it.
    """

    series: str
    x: float
    server: Server
    sent: Traffic
    connections: int = CONNECTIONS
    waiting: int = 0


class SweepRow(NamedTuple):
    """A point's samples, one for each round."""

    series: str
    x: float
    rounds: list[Sample]


class Stage:
    """The servers of one sweep, all ended together.

    Args:
        folder: for sockets and logs.
        python: the interpreter that runs them.
        quick: whether to leave out the large sizes.
    """

    def __init__(self, folder: Path, python: str, quick: bool) -> None:
        self._folder = folder
        self._python = python
        self.quick = quick
        self._stack = ExitStack()
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def server(self, *, workers: int = 1, flags: Sequence[str] = ()) -> Server:
        """Start a runner."""
        self._started += 1
        folder = self._folder / str(self._started)
        folder.mkdir(parents=True)
        server = runner(folder, python=self._python, workers=workers, flags=flags)
        self._stack.callback(server.end)
        return server

    def gateway(self, server: Server) -> Gateway:
        """A connection that stays open as long as the sweep lasts."""
        gateway = Gateway(server.socket)
        self._stack.callback(gateway.close)
        return gateway

    def sizes(self, *sizes: int) -> tuple[int, ...]:
        """Those to measure: in quick mode the first three."""
        return sizes[:3] if self.quick else sizes


def confs(stage: Stage) -> Iterator[Point]:
    """Calls that go through all prepared confs, one after the other."""
    for count in stage.sizes(1, 10, 100, 1000, 10_000):
        server = stage.server()
        gateway = stage.gateway(server)
        tokens = []
        for number in range(count):
            progress(f"confs: preparing {number + 1} of {count}")
            conf = [("stop", f'{{"number":{number}}}')]
            tokens.append(gateway.prepare(encode_prepare_conf_req(conf, f"route#{number}#ext-plugin-pre-req#1")))
        cycle = write(f"tokens_{count}.bin", b"".join(token.to_bytes(4, "little") for token in tokens))
        sent = traffic("stop")._replace(tokens=cycle)
        measure(server, sent, CONNECTIONS, WARM + count * RUNS_TO_WARM_A_CONF / SLOW_RATE)
        yield Point("stop", count, server, sent)


def idle(stage: Stage) -> Iterator[Point]:
    """Busy connections beside idle ones."""
    for count in stage.sizes(0, 100, 500, 1000, 2000):
        if not _can_open(count):
            break
        server = stage.server()
        for _ in range(count):
            stage.gateway(server)
        yield Point("stop", count, server, traffic("stop"))


def _can_open(count: int) -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = len(os.listdir("/proc/self/fd"))
    needed = open_files + count + SPARE_FILES
    if soft < needed <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return needed <= hard


def headers(stage: Stage) -> Iterator[Point]:
    """A plugin that reads no header, and one that reads and returns them all."""
    server = stage.server()
    for count in stage.sizes(0, 10, 20, 50, 100):
        pairs = [(f"x-header-{number}", f"the value of header {number}") for number in range(count)]
        token = int.from_bytes(TOKEN, "little")
        frame = encode_http_req_call_req(1, b"\x7f\0\0\1", 0, "/get", [("a", "1"), ("b", "2")], pairs, token)
        call = write(f"call_{count}.bin", frame)
        for plugin in ("stop", "echo"):
            yield Point(plugin, count, server, traffic(plugin)._replace(call=call))


def chain(stage: Stage) -> Iterator[Point]:
    """The same plugin, several times in one chain."""
    server = stage.server()
    for count in stage.sizes(1, 2, 5, 10):
        frame = encode_prepare_conf_req([("rewrite", "{}")] * count, f"route#chain{count}#ext-plugin-pre-req#1")
        yield Point("rewrite", count, server, traffic("rewrite")._replace(prepare=write(f"chain_{count}.bin", frame)))


def workers(stage: Stage) -> Iterator[Point]:
    """More worker processes on the same socket."""
    for count in stage.sizes(1, 2):
        server = stage.server(workers=count)
        for plugin in ("stop", "echo"):
            yield Point(plugin, count, server, traffic(plugin), 64)


def waiting(stage: Stage) -> Iterator[Point]:
    """Plugins that wait two milliseconds, in threads and on the event loop; as many calls at once as connections."""
    server = stage.server()
    for count in stage.sizes(1, 8, 32, 2, 4, 16, 64):
        for plugin in ("blocking", "async"):
            yield Point(plugin, count, server, traffic(plugin), count)


def beside(stage: Stage) -> Iterator[Point]:
    """A quick plugin while others wait in threads of the same worker."""
    server = stage.server()
    for count in stage.sizes(0, 8, 32):
        yield Point("stop", count, server, traffic("stop"), waiting=count)


@contextmanager
def _waiting_calls(server: Server, connections: int, seconds: float) -> Iterator[None]:
    if not connections:
        yield
        return
    sent = traffic("blocking")
    command = [compiled("a6load"), server.socket, sent.prepare, sent.call, sent.token_offset, connections, seconds + 1]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    time.sleep(0.2)  # until all its calls are on their way
    try:
        yield
    finally:
        process.terminate()
        process.wait()


class Sweep(NamedTuple):
    """One question about sizes."""

    points: Callable[[Stage], Iterator[Point]]
    title: str
    x_label: str


SWEEPS = {
    "confs": Sweep(confs, "Prepared confs, all in use", "confs"),
    "idle": Sweep(idle, "Idle connections beside 16 busy ones", "idle connections"),
    "headers": Sweep(headers, "Headers of a request", "headers"),
    "chain": Sweep(chain, "Plugins in the chain", "plugins"),
    "workers": Sweep(workers, "Workers, 64 connections", "workers"),
    "waiting": Sweep(waiting, "Calls that wait 2 ms, 32 threads", "calls at once"),
    "beside": Sweep(beside, "A quick plugin beside calls that wait", "waiting calls"),
}


def sweep(name: str, folder: Path, python: str, rounds: int, seconds: float, quick: bool) -> list[SweepRow]:
    """Measure one sweep.

    Args:
        name: in SWEEPS.
        folder: for sockets and logs.
        python: the interpreter that runs the runner.
        rounds: that all points are measured in turns.
        seconds: of one measurement.
        quick: whether to leave out the large sizes.

    Raises:
        Failure: a server did not start, or answered wrongly.
    """
    BUILD.mkdir(exist_ok=True)
    with Stage(folder / name, python, quick) as stage:
        progress(f"{name}: starting")
        points = list(SWEEPS[name].points(stage))
        rows = [SweepRow(point.series, point.x, []) for point in points]
        for point in points:
            measure(point.server, point.sent, point.connections, WARM)
        for number in range(rounds):
            for point, row in zip(points, rows, strict=True):
                progress(f"{name}: round {number + 1} of {rounds}, {point.series} {point.x:g}")
                with _waiting_calls(point.server, point.waiting, seconds):
                    row.rounds.append(measure(point.server, point.sent, point.connections, seconds))
    progress("")
    return sorted(rows)
