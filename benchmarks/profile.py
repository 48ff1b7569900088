"""Where the microseconds of one call go: `python -m benchmarks.profile`.

Rules that live here: each stage is timed by itself, in this process, in the order in which the poller does it, on a
socket beside fifteen idle ones; the clock's own time is taken off; what the poller takes beyond the stages is the rest.
Nobody waits on the other end, so the kernel's work to wake a gateway is not in it.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from apisix.runner.server.connection import CHUNK
from apisix.runner.wire.messages import HTTPReqCallReq
from benchmarks.cases import traffic
from benchmarks.in_process import InProcess
from benchmarks.measuring import RESULTS, Failure, about_python, codec, machine, run
from benchmarks.run import write_json

CASES = ("stop", "rewrite", "echo")
STAGES = {
    "poll": "epoll",
    "receive": "recv",
    "decode": "decode the frame: id and token",
    "open": "find the conf, make request and response",
    "plugin": "the plugin, with what it reads and changes",
    "encode": "gather what changed, encode it",
    "send": "send",
    "rest": "lanes, clocks, checks, the loop",
}
READS = {"stop": (), "rewrite": ("headers", "args"), "echo": ("headers",)}
CALLS = 4000
WARM = 500

Stages = dict[str, float]


def stages(worker: InProcess, case: str, calls: int) -> Stages:
    """Microseconds of each stage of one call; `whole` is their sum, measured apart.

    Args:
        worker: without threads of its own.
        case: its plugin.
        calls: that the medians are taken of.
    """
    _, frame = worker.prepare(case)
    peer, connection, epoll = worker.peer, worker.connection, worker.epoll
    open_call, slot, serve = worker.dispatcher.open_call, worker.poller._slot, worker.poller._serve
    clock = time.perf_counter_ns
    parts: list[list[int]] = [[] for _ in range(8)]
    wholes: list[int] = []
    for _ in range(calls + WARM):
        peer.send(frame)
        t0 = clock()
        epoll.poll(-1, 256)
        t1 = clock()
        data = connection.sock.recv(CHUNK)
        t2 = clock()
        call = open_call(connection, data, 0.0)
        t3 = clock()
        call.phase_chain.chain.run(call.request, call.response)
        t4 = clock()
        answer = call.answer()
        t5 = clock()
        connection.send_now(answer)
        t6 = clock()
        HTTPReqCallReq(data)
        t7 = clock()
        t8 = clock()
        times = (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4, t6 - t5, t7 - t6, t8 - t7)
        for part, taken in zip(parts, times, strict=True):
            part.append(taken)
        peer.recv(CHUNK)
        # The same once more, by the poller itself.
        peer.send(frame)
        t0 = clock()
        epoll.poll(-1, 256)
        serve(connection, slot)
        wholes.append(clock() - t0)
        peer.recv(CHUNK)
    *middles, tick = (statistics.median(part[WARM:]) for part in parts)
    poll, receive, opened, plugin, encode, send, decode = ((middle - tick) / 1000 for middle in middles)
    whole = (statistics.median(wholes[WARM:]) - tick) / 1000
    found = {"poll": poll, "receive": receive, "decode": decode, "open": opened - decode}
    found |= {"plugin": plugin, "encode": encode, "send": send}
    return found | {"rest": whole - sum(found.values()), "whole": whole, "reads": _reads(case, calls, tick)}


def _reads(case: str, calls: int, tick: float) -> float:
    """What the plugin's share has of decoding: headers and arguments are read when they are touched."""
    frame = traffic(case).call.read_bytes()
    taken: list[int] = []
    for _ in range(calls):
        message = HTTPReqCallReq(frame)
        before = time.perf_counter_ns()
        for name in READS[case]:
            getattr(message, name)
        taken.append(time.perf_counter_ns() - before)
    return max(0.0, (statistics.median(taken) - tick) / 1000) if READS[case] else 0.0


def profile(calls: int) -> dict[str, Stages]:
    """The stages of each case, with the codec of this process."""
    worker = InProcess()
    return {case: stages(worker, case, calls) for case in CASES}


def table(found: dict[str, Stages]) -> str:
    """For people."""
    lines = [f"{'us':46}" + "".join(f"{case:>10}" for case in found)]
    for key, text in [*STAGES.items(), ("whole", "whole call")]:
        lines.append(f"{text:46}" + "".join(f"{stage[key]:10.2f}" for stage in found.values()))
    return "\n".join(lines)


def main() -> None:
    """Profile both codecs, each in a process of its own, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=CALLS, help="that the medians are taken of (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "profile.json", help="(default: %(default)s)")
    parser.add_argument("--only", action="store_true", help="this process's codec; print JSON")
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(profile(chosen.calls)))
        return
    report: dict[str, dict[str, Stages]] = {}
    for name in ("compiled", "pure") if codec(sys.executable) == "compiled" else ("pure",):
        pure = str(int(name == "pure"))
        command = [sys.executable, "-m", "benchmarks.profile", "--only", "--calls", str(chosen.calls)]
        report[name] = json.loads(run(command, environ=dict(os.environ) | {"APISIX_RUNNER_PURE": pure}))
        print(f"{name} codec\n{table(report[name])}")
    write_json(chosen.output, {"machine": machine() | about_python(), "stages": report})


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"profile: {failure}")
