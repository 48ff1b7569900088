"""Hand-over: connections of workers that retire go, open as they are, to workers that stay.

Rules that live here:
- A connection that its worker can no longer serve is handed over rather than closed: the gateway may be sending on it
  at that very moment, and even right after an answer it may be faster than the close.
- It travels as a file descriptor in a datagram. Whichever worker is free takes it.
- The receiving end has a name in the private folder of the confs' store, so that only this user reaches it. The next
  runner on the path puts its own there, by rename, before it takes the path; thus the old one finds it. Without a
  store there is no name: workers of one runner still hand over to each other, and the next runner gets nothing.
"""

import contextlib
import os
import socket
from pathlib import Path

SEND_SECONDS = 1.0
"""How long a full queue is waited for; then the connection is closed after all."""


class Handover:
    """A runner's receiving end, and ways to it and to the next runner's.

    Args:
        folder: of the store; None where there is none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path = self._temporary = None if folder is None else folder / "handover"
        self._inode: tuple[int, int] | None = None
        if folder is not None:
            self._bind(folder / f".handover.{os.getpid():x}")
        self.receiver.setblocking(False)
        self._sender.settimeout(SEND_SECONDS)

    def _bind(self, temporary: Path) -> None:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            receiver.bind(os.fsencode(temporary))
            temporary.chmod(0o600)
            sender.connect(os.fsencode(temporary))
            self._inode = _inode_of(temporary)
        except OSError:
            receiver.close()
            sender.close()
            self._path = None
            return
        self.receiver.close()
        self._sender.close()
        self.receiver, self._sender, self._temporary = receiver, sender, temporary

    def publish(self) -> None:
        """Be the one to hand over to, for the runner that was on the path before."""
        if self._path is not None and self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.rename(self._path)

    def give(self, fd: int) -> None:
        """Give a connection to a worker of this runner.

        Raises:
            OSError: none takes it.
        """
        socket.send_fds(self._sender, [b"c"], [fd])

    def give_to_next(self, fd: int) -> None:
        """Give a connection to a worker of the runner that is on the path now: the next one, or one after that.

        Raises:
            OSError: none takes it.
        """
        if self._path is None or _inode_of(self._path) in (None, self._inode):
            raise FileNotFoundError("there is no other runner")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_SECONDS)
            sender.connect(os.fsencode(self._path))
            socket.send_fds(sender, [b"c"], [fd])


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
