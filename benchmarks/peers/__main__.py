"""Measures our runner beside others, in turns, on the same frames. `make bench-peers` runs it; see ../README.md.

Peers are named by environment variables: GO_RUNNER, a checkout of the Go runner; JAVA_RUNNER, a release of the Java
runner, which Maven gets; OLD_PYTHON_RUNNER, a checkout of the older Python runner. One that is not named, or that
cannot be built here, is a line that says so, and the others are measured.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.cases import BUILD, CASES, COMPARED, HERE, traffic
from benchmarks.measuring import (
    FLOOR_KIND,
    RESULTS,
    Failure,
    Kind,
    Plan,
    Server,
    about_python,
    compare,
    machine,
    ours,
    progress,
    run,
)
from benchmarks.run import table, write_json
from benchmarks.starting import Start, starts

PEERS = HERE / "peers"
GO_MODULE = "github.com/apache/apisix-go-plugin-runner"
LISTEN = {"APISIX_LISTEN_ADDRESS": "unix:SOCKET", "APISIX_CONF_EXPIRE_TIME": "3600"}
STARTS = 5


def go() -> list[Kind]:
    """The Go runner, as it comes and on one core, like one worker of ours."""
    checkout = _named("GO_RUNNER", "a checkout of the Go runner")
    build = BUILD / "go"
    shutil.rmtree(build, ignore_errors=True)
    shutil.copytree(PEERS / "go", build)
    run(["go", "mod", "edit", "-replace", f"{GO_MODULE}={checkout}"], cwd=build)
    run(["go", "mod", "tidy"], cwd=build)
    run(["go", "build", "-o", "runner", "."], cwd=build)
    about = f"{_commit(checkout)}, {run(['go', 'version']).removeprefix('go version ')}"

    def start(name: str, **environ: str) -> Callable[[Path], Server]:
        return lambda folder: Server(name, [str(build / "runner")], folder, LISTEN | environ)

    return [
        Kind("Go", start("go"), about=about),
        Kind("Go, 1 core", start("go1", GOMAXPROCS="1"), about=f"{about}, GOMAXPROCS=1"),
    ]


def java() -> list[Kind]:
    """The Java runner."""
    version = _named("JAVA_RUNNER", "a release of the Java runner on Maven Central, e.g. 0.4.0")
    build = BUILD / "java"
    run(["mvn", "-q", "-B", "-f", str(PEERS / "java"), f"-Drunner={version}", f"-Doutput={build}", "package"])
    command = ["java", f"-Dloader.path={build / 'filters.jar'}", "-jar", str(build / "runner.jar")]
    command += ["--spring.main.sources=benchmark.Filters", "--logging.level.root=warn"]
    jvm = run(["java", "--version"]).splitlines()[0]
    cannot = {"async": "0.4.0 answers before an asynchronous filter has ended"} if version == "0.4.0" else {}
    return [Kind("Java", lambda folder: Server("java", command, folder, LISTEN), 5.0, cannot, f"{version}, {jvm}")]


def old_python() -> list[Kind]:
    """The older Python runner."""
    checkout = _named("OLD_PYTHON_RUNNER", "a checkout of the older Python runner")
    python = os.environ.get("OLD_PYTHON", sys.executable)
    run([python, "-c", "import A6, click, minicache, yaml"])  # its requirements; OLD_PYTHON names who has them
    command = [python, str(PEERS / "python" / "main.py"), str(checkout), "start"]
    cannot = {"async": "it has no coroutines", "respond": "it has no response phase"}
    about = f"{_commit(checkout)}, {run([python, '--version'])}"
    return [Kind("Python 0.2", lambda folder: Server("python02", command, folder, LISTEN), cannot=cannot, about=about)]


def _named(variable: str, what: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise Failure(f"{variable} is not set: expected {what}")
    return str(Path(value).resolve()) if "/" in value else value


def _commit(checkout: str) -> str:
    try:
        return run(["git", "describe", "--tags", "--always"], cwd=Path(checkout))
    except Failure:
        return "of an unknown version"


def peers() -> tuple[list[Kind], dict[str, str]]:
    """The peers that can be measured, and why the others cannot."""
    found: list[Kind] = []
    missing: dict[str, str] = {}
    for name, build in {"Go": go, "Java": java, "Python 0.2": old_python}.items():
        progress(f"building {name}")
        try:
            found += build()
        except Failure as failure:
            missing[name] = str(failure)
            print(f"{name} is not measured: {failure}")
    return found, missing


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--plugins", default=",".join(COMPARED), help="some of %(default)s")
    parser.add_argument("--connections", help="how many at once, several with commas (default: 1,16,64,256)")
    parser.add_argument("--seconds", type=float, help="of one measurement (default: 2)")
    parser.add_argument("--rounds", type=int, help="that the medians are taken of (default: 5)")
    parser.add_argument("--quick", action="store_true", help="short and few: to try the benchmarks, not the runners")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "peers.json", help="the JSON file (default: %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    chosen.connections = chosen.connections or ("1,16" if chosen.quick else "1,16,64,256")
    chosen.connections = [int(count) for count in chosen.connections.split(",")]
    chosen.seconds = chosen.seconds or (0.3 if chosen.quick else 2.0)
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 5)
    chosen.plugins = chosen.plugins.split(",")
    unknown = [name for name in chosen.plugins if name not in CASES]
    if unknown:
        parser.error(f"expected some of {', '.join(CASES)}, got {', '.join(unknown)}")
    return chosen


def main() -> None:
    """Measure, print the table, write the JSON."""
    chosen = options()
    others, missing = peers()
    mine = ours()
    kinds = [*mine, *others, FLOOR_KIND]
    plan = Plan(chosen.plugins, chosen.connections, chosen.rounds, chosen.seconds)
    up: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="a6bench-") as name:
        rows = compare(kinds, plan, traffic, Path(name))
        for kind in [*mine, *others]:
            try:
                up.append(starts(kind, Path(name), 2 if chosen.quick else STARTS))
            except Failure as failure:
                print(f"{kind.name}: {failure}")
    print(table(sorted(rows, key=lambda row: (chosen.plugins.index(row.case), row.connections))))
    report = {
        "machine": machine() | about_python(),
        "plan": {"rounds": chosen.rounds, "seconds": chosen.seconds, "quick": chosen.quick},
        "peers": {kind.name: kind.about for kind in others},
        "missing": missing,
        "rows": rows,
        "starts": up,
    }
    write_json(chosen.output, report)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench-peers: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
