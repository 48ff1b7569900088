"""Who may connect, and sockets that systemd passes."""

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.connections import SECONDS, Connection, passes
from tests.server.processes import PROJECT, Start, refused

PLUGINS = """
class Pass(Base):
    def filter(self, request, response):
        pass
"""
ME = pwd.getpwuid(os.getuid())
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")

CONNECT_AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(15)
    sock.connect(sys.argv[1])
    try:
        sock.send(bytes(4))
        print(len(sock.recv(1)))
    except ConnectionError:
        print(0)
"""


def as_nobody(path: Path) -> str:
    """What user nobody gets who connects and sends a frame of a type that is refused: 1 for an answer, 0 for none."""
    command = [sys.executable, "-c", CONNECT_AS_NOBODY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def open_to_all(path: Path) -> None:
    """Let other users reach the socket's folder."""
    path.parent.chmod(0o755)


@as_root
def test_by_default_another_user_can_connect(start: Start) -> None:
    runner = start(PLUGINS)
    open_to_all(runner.path)
    assert as_nobody(runner.path) == "1"


@as_root
def test_under_umask_0_and_under_umask_077_alike(start: Start) -> None:
    runner = start(PLUGINS, managed=True)
    assert runner.path.stat().st_mode & 0o777 == 0o666


@as_root
def test_a_user_who_is_not_named_is_refused_and_told_in_the_log(start: Start) -> None:
    runner = start(PLUGINS, "--socket-allow-users", ME.pw_name)
    open_to_all(runner.path)
    assert as_nobody(runner.path) == "0"
    assert "user 65534" in runner.log.wait_for("is refused: socket.allow_users")


def test_a_user_who_is_named_is_served(start: Start) -> None:
    runner = start(PLUGINS, "--socket-allow-users", str(ME.pw_uid))
    with runner.connect() as connection:
        assert passes(connection.call(connection.prepare(("pass", ""))))


@as_root
def test_the_socket_is_given_to_a_group(start: Start) -> None:
    runner = start(PLUGINS, "--socket-group", "65534", "--socket-mode", "0660")
    status = runner.path.stat()
    assert (status.st_gid, status.st_mode & 0o777) == (65534, 0o660)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--socket-allow-users", "nosuchuser"], "socket.allow_users: there is no user 'nosuchuser'"),
        (["--socket-group", "nosuchgroup"], "socket.group: there is no group 'nosuchgroup'"),
    ],
)
def test_names_that_do_not_exist_are_told_at_start(tmp_path: Path, flags: list[str], message: str) -> None:
    code, output = refused(["--socket", str(tmp_path / "s"), *flags])
    assert code == 3
    assert message in output


def test_a_socket_that_systemd_passes_is_used_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "passed.sock"
    states = tmp_path / "notify.sock"
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listener.bind(str(path))
        listener.listen()
        notified.bind(str(states))
        notified.settimeout(SECONDS)
        # As systemd does: the socket becomes descriptor 3 of the process whose pid LISTEN_PID names.
        code = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
        code += "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        command = ["-m", "apisix.runner", "start", "--workers", "1", "--socket", str(path), "--plugins", str(plugins)]
        runner = subprocess.Popen(
            [sys.executable, "-c", code, str(listener.fileno()), *command],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], "LISTEN_FDS": "1", "NOTIFY_SOCKET": str(states)},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert notified.recv(100) == b"READY=1"
            with Connection(path) as connection:
                assert passes(connection.call(connection.prepare()))
            runner.terminate()
            assert notified.recv(100) == b"STOPPING=1"
            assert runner.wait(SECONDS) == 0
        finally:
            runner.kill()
            runner.wait(SECONDS)
        assert path.exists()
