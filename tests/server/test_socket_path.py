"""The socket's path: what is there when a runner starts, and what a runner makes of it."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.connections import SECONDS, Connection, passes
from tests.server.processes import PROJECT, Runner, Start, refused

START = """
import os, sys
from apisix.runner import cli, logs
from apisix.runner.server import supervisor
cli.main(["start"])
"""
START_AS_NOBODY = START.replace("cli.main", "os.setgid(65534); os.setuid(65534)\ncli.main")


@pytest.fixture
def path() -> Iterator[Path]:
    """A path for a socket, short enough, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "r.sock"


def refusal(path: Path | str, *flags: str) -> str:
    """The one line with which a start is refused."""
    code, output = refused(flags, APISIX_LISTEN_ADDRESS=f"unix:{path}")
    assert code == 3, output
    assert output.count("\n") == 1, output
    assert "Traceback" not in output
    assert output.startswith("apisix-runner: socket.file")
    return output


def answers(runner: Runner) -> bool:
    with runner.connect() as connection:
        return passes(connection.call(connection.prepare()))


# What is replaced.


def test_a_stale_socket_is_replaced(start: Start, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    assert answers(start(socket_path=path))


def test_what_a_killed_runner_left_is_replaced(start: Start, path: Path) -> None:
    first = start(socket_path=path)
    first.signal_group(signal.SIGKILL)
    first.wait()
    assert path.exists()
    assert answers(start(socket_path=path))


def test_no_other_file_is_left_beside_the_socket(start: Start, path: Path) -> None:
    runner = start(socket_path=path)
    assert [file.name for file in path.parent.iterdir()] == ["r.sock"]
    runner.signal(signal.SIGTERM)
    assert runner.wait() == 0
    assert list(path.parent.iterdir()) == []


# What is refused.


def test_a_live_runner_is_not_pushed_aside(start: Start, path: Path) -> None:
    first = start(socket_path=path)
    assert f"a live runner listens there (pid {first.pid})" in refusal(path)
    assert answers(first)


def test_a_live_runner_that_is_too_busy_to_accept_is_not_pushed_aside(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                waiting[-1].connect(str(path))
        except BlockingIOError:
            assert "listens there" in refusal(path)
        finally:
            for one in waiting:
                one.close()


def test_a_socket_of_another_kind_is_not_pushed_aside(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        before = path.stat()
        assert "another kind" in refusal(path)
        assert path.stat() == before


@pytest.mark.parametrize("kind", ["a file", "a folder", "a link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    if kind == "a file":
        path.write_text("mine")
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/nowhere")
    assert f"expected a socket or nothing, there is {kind}; remove it" in refusal(path)
    assert os.path.lexists(path)


def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    assert f"there is no folder {path.parent / 'missing'}; create it" in refusal(path.parent / "missing" / "r.sock")


def test_a_folder_that_is_not_writable_is_named(path: Path) -> None:
    path.parent.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", START_AS_NOBODY if os.geteuid() == 0 else START],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "APISIX_LISTEN_ADDRESS": f"unix:{path}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert f"the folder {path.parent} is not writable for this user" in done.stderr


def test_a_path_that_no_socket_can_have_is_refused(path: Path) -> None:
    assert "107 bytes" in refusal(path.parent / ("r" * (108 - len(os.fsencode(path.parent)) - 1)))


def test_the_longest_path_is_taken(start: Start, path: Path) -> None:
    longest = path.parent / ("r" * (107 - len(os.fsencode(path.parent)) - 1))
    runner = start(socket_path=longest)
    with Connection(longest) as connection:
        assert passes(connection.call(connection.prepare()))
    assert runner.process.poll() is None


# What is made of it.


@pytest.mark.parametrize(("flags", "mode"), [([], 0o666), (["--socket-mode", "0660"], 0o660)])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_socket_has_its_mode_whatever_the_umask_is(flags: list[str], mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        runner = Runner("", *flags)
    finally:
        os.umask(before)
    with runner:
        runner.wait_until_ready()
        assert stat.S_IMODE(runner.path.stat().st_mode) == mode


def test_a_path_that_somebody_took_is_left_to_them(start: Start, path: Path) -> None:
    runner = start(socket_path=path)
    path.unlink()
    path.write_text("somebody else's")
    runner.signal(signal.SIGTERM)
    assert runner.wait() == 0
    assert path.read_text() == "somebody else's"
