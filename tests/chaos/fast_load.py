"""Load that costs little: the load generator of the benchmarks, written in C, with calls of one plugin."""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from apisix.runner.wire.messages import encode_http_req_call_req, encode_prepare_conf_req
from tests.server.processes import PROJECT

TOKEN = 0x7E57AB1E  # stands in the call's frame where the conf token goes


class Seen(NamedTuple):
    """What came of a run: calls a second, milliseconds of the slowest in a hundred and in a thousand, wrong answers."""

    rate: float
    p99: float
    p999: float
    bad: int


class FastLoad:
    """Calls as many as the machine allows, each answer compared with the first one by type and length.

    Args:
        program: compiled.
        folder: for its frames.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def run(self, path: Path, plugin: str, seconds: float, connections: int, tokens: Sequence[int] = ()) -> Seen:
        """Run it.

        Args:
            path: the runner's socket.
            plugin: what the calls run.
            seconds: how long.
            connections: calls at a time.
            tokens: of confs with that plugin, through which the calls go; without any, one is prepared.
        """
        prepare, call = self._folder / f"prepare_{plugin}.bin", self._folder / "call.bin"
        prepare.write_bytes(encode_prepare_conf_req([(plugin, "")], f"route#{plugin}#ext-plugin-pre-req#1"))
        frame = encode_http_req_call_req(1, b"\x7f\0\0\1", 0, "/fast", [("a", "1")], [("host", "localhost")], TOKEN)
        call.write_bytes(frame)
        command: list[str | Path] = [self._program]
        if tokens:
            stored = self._folder / "tokens.bin"
            stored.write_bytes(struct.pack(f"<{len(tokens)}I", *tokens))
            command += ["-t", stored]
        command += [path, prepare, call, str(frame.index(TOKEN.to_bytes(4, "little"))), str(connections), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
        assert done.returncode in (0, 1), done.stderr
        words = done.stdout.split()
        rate, p99, p999, bad = (float(words[words.index(name) + 1]) for name in ("rps", "p99", "p99.9", "max_bad"))
        return Seen(rate, p99 / 1000, p999 / 1000, int(bad))


def compile_c(source: Path, binary: Path, *flags: str) -> Path:
    """Compile a C program; the test is skipped where there is no compiler."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip(f"no C compiler to build {source.name} with")
    subprocess.run([compiler, "-O2", *flags, "-o", str(binary), str(source)], check=True)
    return binary


def build_fast_load(folder: Path) -> FastLoad:
    """The load generator, compiled into a folder."""
    return FastLoad(compile_c(PROJECT / "benchmarks" / "a6load.c", folder / "a6load"), folder)
