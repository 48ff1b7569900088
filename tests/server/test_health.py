"""`apisix-runner health`, asked of real runners: what it finds, and that it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from apisix.runner.server.health import TOKEN
from apisix.runner.server.health_check import check
from tests.server.connections import SECONDS, error_of, stop_of
from tests.server.processes import PROJECT, Runner, Start
from tests.server.scraped import METRICS, Samples, scrape
from tests.server.test_workers import status, wait_until

PLUGINS = """
class Passes(Base):
    def filter(self, request, response):
        pass

class Sleeps(Base):
    blocking = True
    def filter(self, request, response):
        time.sleep(30)
"""
FLAGS = (*METRICS, "--logging-access", "1")


def health(*arguments: str | Path, **environ: str) -> tuple[int, str]:
    """The exit code of the command, and what it says."""
    command: Sequence[str | Path] = [sys.executable, "-m", "apisix.runner", "health", *arguments]
    env = {"PATH": os.environ["PATH"], **environ}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_runner_that_answers_is_healthy(runner: Runner) -> None:
    code, said = health("--socket", runner.path)
    assert (code, said.partition(" in ")[0]) == (0, "healthy: answered")


def test_the_socket_is_the_one_that_the_settings_name(runner: Runner) -> None:
    assert health(APISIX_LISTEN_ADDRESS=f"unix:{runner.path}")[0] == 0


def test_it_leaves_no_conf_no_count_and_no_line(runner: Runner) -> None:
    def counted() -> Samples:
        volatile = ("memory", "silence", "connections")
        return {name: value for name, value in scrape(runner).items() if not any(word in name for word in volatile)}

    before, lines = counted(), len(runner.log)
    for _ in range(3):
        assert check(runner.path, SECONDS).problem == ""
    assert counted() == before
    assert status(runner).workers[0].confs == 0
    runner.catch_up()
    assert len(runner.log) == lines + 1  # that of catching up


def test_it_is_no_call_that_was_served(start: Start) -> None:
    runner = start(PLUGINS)
    for _ in range(3):
        assert check(runner.path, SECONDS).problem == ""
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("passes", "")))
        wait_until(lambda: status(runner).workers[0].served > 0)
    assert status(runner).workers[0].served == 1


def test_a_runner_whose_threads_all_wait_is_healthy(start: Start) -> None:
    runner = start(PLUGINS, "--threads", "1")
    with runner.connect() as gateway:
        gateway.start_call(gateway.prepare(("sleeps", "")))
        assert check(runner.path, SECONDS).problem == ""


def test_a_runner_that_does_not_answer_is_not(start: Start) -> None:
    runner = start(PLUGINS)
    os.kill(runner.worker(), signal.SIGSTOP)
    assert health("--socket", runner.path, "--timeout", "0.3") == (
        1,
        f"unhealthy: {runner.path}: no answer within 0.3 s\n",
    )


@pytest.mark.parametrize(("there", "problem"), [(False, "there is no such socket"), (True, "no runner listens there")])
def test_nor_is_a_socket_without_one(tmp_path: Path, there: bool, problem: str) -> None:
    path = tmp_path / "x.sock"
    if there:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    code, said = health("--socket", path)
    assert code == 1
    assert problem in said


def test_a_mistaken_setting_is_no_answer(tmp_path: Path) -> None:
    assert health("--socket", "x")[0] == 3
    assert health()[0] == 3


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "the runner closed the connection"),
        (b"\0\0\0\0", "the answer is malformed"),
        (b"\x07\0\0\0", "PrepareConf was answered with a frame of type 7"),
    ],
)
def test_something_else_that_listens_there_is_no_runner(tmp_path: Path, answer: bytes, problem: str) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        if os.fork() == 0:
            client, _ = listener.accept()
            client.recv(4096)
            client.send(answer)
            os._exit(0)
        found = check(path, SECONDS).problem
        os.wait()
    assert problem in found


def test_a_user_that_may_not_connect_is_told_so(start: Start) -> None:
    other = "nobody" if os.getuid() != 65534 else "root"
    runner = start(PLUGINS, "--socket-allow-users", other)
    assert "does socket.allow_users name this user?" in check(runner.path, SECONDS).problem


def test_its_token_lets_no_request_through(runner: Runner) -> None:
    with runner.connect() as gateway:
        stop_of(gateway.call(TOKEN))
        gateway.start_response_call(TOKEN)
        error_of(gateway.receive())
