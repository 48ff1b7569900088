"""The units: systemd's own check of them, and the runner started as they start it."""

import configparser
import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apisix.runner.server.store import open_store
from apisix.runner.wire.messages import encode_prepare_conf_req
from tests.deploy import command_line
from tests.deploy.conftest import DEPLOY
from tests.installed import needed
from tests.server.connections import SECONDS, Connection
from tests.server.processes import Log

FOLDER = DEPLOY / "systemd"
PROGRAM = "/opt/apisix-runner/.venv/bin/apisix-runner"
EXPOSURE = 20
"""Tenths on the scale of `systemd-analyze security`, from 0, safe, to 100. Plugins that may call out cost 5 of them."""


def unit(name: str, section: str) -> dict[str, str]:
    """A unit's section. Of a key that stands there twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(FOLDER / name)
    return dict(parser[section])


def command_of(key: str) -> list[str]:
    return shlex.split(unit("apisix-runner.service", "Service")[key])


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with a program that is there."""
    for name in ("apisix-runner.service", "apisix-runner.socket"):
        (tmp_path / name).write_text((FOLDER / name).read_text().replace(PROGRAM, "/bin/true"))
    return tmp_path


def test_systemd_understands_the_units(installed: Path) -> None:
    command = [needed("systemd-analyze"), "verify", "--man=no", "apisix-runner.socket", "apisix-runner.service"]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_is_shut_in(installed: Path) -> None:
    service = str(installed / "apisix-runner.service")
    command = [needed("systemd-analyze"), "security", "--offline=yes", f"--threshold={EXPOSURE}", service]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_user_can_be_made() -> None:
    command = [needed("systemd-sysusers"), "--dry-run", str(FOLDER / "sysusers.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert unit("apisix-runner.service", "Service")["User"] in done.stdout + done.stderr


@pytest.mark.parametrize("key", ["ExecStart", "ExecReload"])
def test_its_commands_are_commands_and_name_the_socket_of_the_other_unit(key: str) -> None:
    program, *words = command_of(key)
    assert program == PROGRAM
    path = unit("apisix-runner.socket", "Socket")["ListenStream"]
    assert command_line.check(words).params["socket_file"] == path


@pytest.fixture
def activated(tmp_path: Path) -> Iterator[Path]:
    """The runner behind a socket that systemd's own program listens on, with the unit's flags."""
    path = tmp_path / "runner.sock"
    words = command_of("ExecStart")[1:]
    words[words.index("--socket") + 1] = str(path)
    me = ["--socket-allow-users", getpass.getuser(), "--workers", "1"]
    activate = [needed("systemd-socket-activate"), f"--listen={path}"]
    process = subprocess.Popen(
        [*activate, sys.executable, "-m", "apisix.runner", *words, *me],
        env={"PATH": os.environ["PATH"]},
        cwd=DEPLOY.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    log = Log(process.stdout)
    log.wait_for("Listening on")
    yield path
    process.send_signal(signal.Signals[unit("apisix-runner.service", "Service")["KillSignal"]])
    assert process.wait(SECONDS) == 0, log.end()
    store = open_store(path)
    assert store is not None
    shutil.rmtree(store.folder)


def test_the_first_request_starts_the_runner_and_waits_for_it(activated: Path) -> None:
    with Connection(activated) as connection:
        assert connection.exchange(encode_prepare_conf_req([], None))
