"""The control socket: how `apisix-runner status` and `reload` talk to a running supervisor.

Rules that live here: it lies in the private folder of the confs' store, found by the path that the runner listens on,
so that only the runner's own user can reach it; one line asks, one line of JSON answers.
"""

import contextlib
import os
import select
import socket
from pathlib import Path

import msgspec

from apisix.runner.errors import StartError
from apisix.runner.server.store import open_store

COMMANDS = ("status", "reload")
ANSWER_SECONDS = 30.0


class WorkerStatus(msgspec.Struct):
    """One worker, as `status` shows it."""

    pid: int
    generation: int
    state: str
    seconds: float
    connections: int
    open_calls: int
    served: int
    confs: int
    stuck: int
    memory: int


class Status(msgspec.Struct):
    """A runner, as `status` shows it."""

    pid: int
    socket: str
    generation: int
    restarts: int
    plugins: list[str]
    problems: list[str]
    workers: list[WorkerStatus]


class Answer(msgspec.Struct):
    """What the supervisor answers: an error where `ok` is false."""

    ok: bool
    message: str = ""
    status: Status | None = None


class Control:
    """The supervisor's end.

    Args:
        socket_path: where the runner listens.
        poll: the supervisor's; the socket and its clients are registered there.
    """

    def __init__(self, socket_path: Path, poll: select.poll) -> None:
        self._socket_path = socket_path
        self._poll = poll
        self._clients: dict[int, socket.socket] = {}
        self._listener: socket.socket | None = None
        self._path = control_path(socket_path)
        self._listen()

    def look(self) -> None:
        """Make the socket again, if somebody has removed it."""
        if self._path is not None and not self._path.exists() and control_path(self._socket_path) == self._path:
            if self._listener is not None:
                self._poll.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self._listen()

    def _listen(self) -> None:
        path = self._path
        if path is None:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        temporary = path.with_name(f".control.{os.getpid():x}")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            listener.bind(os.fsencode(temporary))
            temporary.chmod(0o600)
            listener.listen(8)
            temporary.rename(path)
        except OSError:
            listener.close()
            return
        self._listener = listener
        self._poll.register(listener, select.POLLIN)

    def event(self, fd: int) -> tuple[int, str] | None:
        """Handle an event of one of its sockets. Returns a client and its command, once it is there."""
        if self._listener is not None and fd == self._listener.fileno():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                client.setblocking(False)
                self._clients[client.fileno()] = client
                self._poll.register(client, select.POLLIN)
            return None
        known = self._clients.get(fd)
        if known is None:
            return None
        try:
            command = known.recv(64).decode("ascii", "replace").strip()
        except BlockingIOError:  # the event was of a file that had this number before
            return None
        except OSError:
            command = ""
        self._poll.unregister(fd)
        if command in COMMANDS:
            return fd, command
        self.answer(fd, Answer(False, f"expected {' or '.join(COMMANDS)}, got {command!r}"))
        return None

    def owns(self, fd: int) -> bool:
        """Whether an event's file descriptor is one of its sockets."""
        return fd in self._clients or (self._listener is not None and fd == self._listener.fileno())

    def answer(self, fd: int, answer: Answer) -> None:
        """Answer a client."""
        client = self._clients.pop(fd, None)
        if client is not None:
            with contextlib.suppress(OSError):
                client.setblocking(True)
                client.settimeout(1)
                client.sendall(msgspec.json.encode(answer) + b"\n")
            client.close()

    def close(self) -> None:
        """Close everything, in a process that is not the supervisor."""
        if self._listener is not None:
            self._listener.close()
        for client in self._clients.values():
            client.close()


def control_path(socket_path: Path) -> Path | None:
    """Where the control socket of a runner is, None where there can be none."""
    store = open_store(socket_path)
    return None if store is None else store.folder / "control"


def ask(socket_path: Path, command: str) -> Answer:
    """Ask the runner that listens on a path.

    Raises:
        StartError: none runs there, or it is another user's.
    """
    path = control_path(socket_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            if path is None:
                raise FileNotFoundError
            client.connect(os.fsencode(path))
            client.sendall(command.encode() + b"\n")
            chunks = []
            while chunk := client.recv(65536):
                chunks.append(chunk)
        except (FileNotFoundError, ConnectionRefusedError):
            raise StartError(
                f"no runner of this user listens on {socket_path}; name its socket, or run this as its user"
            ) from None
        except OSError as error:
            raise StartError(f"the runner on {socket_path} does not answer: {error}") from None
    if not chunks:
        raise StartError(f"the runner on {socket_path} went away without an answer")
    return msgspec.json.decode(b"".join(chunks), type=Answer)
