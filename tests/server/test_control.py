"""The control socket, as the supervisor uses it."""

import select
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from apisix.runner.server.control import Control, control_path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    found = control_path(tmp_path / "runner.sock")
    assert found is not None
    yield found
    shutil.rmtree(found.parent)


def test_an_event_without_a_command_is_waited_out(path: Path, tmp_path: Path) -> None:
    """A file that was closed just now may have had the client's number."""
    poll = select.poll()
    control = Control(tmp_path / "runner.sock", poll)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        ((listening, _),) = poll.poll()
        assert control.event(listening) is None
        number = next(fd for fd in range(1024) if control.owns(fd) and fd != listening)
        assert control.event(number) is None
        client.sendall(b"status\n")
        assert control.event(number) == (number, "status")
    control.close()
