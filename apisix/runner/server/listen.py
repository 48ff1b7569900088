"""The socket's path: bound so that it is never absent, and never taken from one who lives.

Rules that live here:
- The socket is bound to a temporary name beside the path, gets its mode, and is renamed over the path: whoever
  connects finds either the old runner or the new one.
- Under APISIX's management a live runner on the path is a predecessor, which the gateway is about to end. It goes on
  serving until the new one is ready, for only then the rename happens. Elsewhere a live runner is somebody else's, and
  a start is refused with its pid.
- A stale socket is replaced. What is no socket is never touched.
- systemd may pass a socket that it has bound; then the path is systemd's, and left alone.
- The path is removed only where it is still our own inode, and never under APISIX's management: its successor may be
  taking it at that moment.
"""

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

from apisix.runner.config import SocketSettings
from apisix.runner.errors import StartError
from apisix.runner.server.notify import passed_socket

BACKLOG = 65535  # as many as the kernel allows: a connect that finds it full fails at once, and its request with it
LONGEST_PATH = 107  # bytes of sun_path on Linux, its terminator apart
_NOT_TO_CONNECT = {errno.EPROTOTYPE: "of another kind", errno.EACCES: "of another user"}


class Listener:
    """A bound and listening socket with its path.

    Args:
        settings: path, mode and group.
        take_over: whether a live runner on the path is replaced.

    Raises:
        StartError: the path cannot be listened on.
    """

    def __init__(self, settings: SocketSettings, take_over: bool) -> None:
        path = self.path = settings.file
        self.managed = take_over
        self._inode: tuple[int, int] | None = None
        self._temporary: Path | None = None
        passed = passed_socket()
        if passed is not None:
            self.socket = passed
            return
        self._check_folder()
        has_predecessor = self._check_path()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = path.parent / f".{os.getpid():x}"
        if len(os.fsencode(temporary)) > LONGEST_PATH:
            raise self._wrong(
                f"expected a path with room for a temporary name of {LONGEST_PATH} bytes; choose a shorter one"
            )
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            self.socket.bind(os.fsencode(temporary))
            if settings.group:
                os.chown(temporary, -1, self._group_id(settings.group))
            temporary.chmod(settings.mode)
            self.socket.listen(BACKLOG)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise self._wrong(f"cannot listen there: {error.strerror}; check the folder's permissions") from None
        self._inode = _inode_of(temporary)
        self._temporary = temporary
        if not has_predecessor:
            self.publish()

    @property
    def is_published(self) -> bool:
        """Whether the path was taken."""
        return self._temporary is None

    def publish(self) -> None:
        """Take the path, from a predecessor if there is one.

        Raises:
            StartError: the path cannot be taken.
        """
        if self._temporary is not None:
            try:
                self._temporary.rename(self.path)
            except OSError as error:
                self.remove()
                raise self._wrong(f"cannot be taken: {error.strerror}; check the folder's permissions") from None
            self._temporary = None

    def _group_id(self, name: str) -> int:
        try:
            return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
        except KeyError:
            raise StartError(f"socket.group: there is no group {name!r}; create it or name another") from None

    def _wrong(self, problem: str) -> StartError:
        return StartError(f"socket.file {self.path}: {problem}")

    def _check_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise self._wrong(f"there is no folder {folder}; create it or choose another path")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise self._wrong(f"the folder {folder} is not writable for this user; change its permissions or the path")

    def _check_path(self) -> bool:
        """Whether a predecessor listens on the path."""
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._wrong(f"{error.strerror}; choose another path") from None
        if not stat.S_ISSOCK(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a file"
            raise self._wrong(f"expected a socket or nothing, there is {kind}; remove it or choose another path")
        listener = self._who_listens()
        if listener is None or self.managed:
            return listener is not None
        raise self._wrong(f"a live runner listens there{listener}; stop it or choose another path")

    def _who_listens(self) -> str | None:
        """Who listens on the socket that is there, for a message; None where nobody does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a full backlog is an error then, and nothing to wait for
            try:
                probe.connect(os.fsencode(self.path))
            except BlockingIOError:
                return " and is too busy to accept"
            except (ConnectionRefusedError, FileNotFoundError):
                return None
            except OSError as error:
                kind = _NOT_TO_CONNECT.get(error.errno or 0, f"that cannot be connected to ({error.strerror})")
                raise self._wrong(f"there is a socket {kind}; remove it or choose another path") from None
            return f" (pid {peer_of(probe)[0]})"

    def is_ours(self) -> bool:
        """Whether the path is still our socket."""
        return self._inode is not None and _inode_of(self.path) == self._inode

    def is_taken_over(self) -> bool:
        """Whether the path is another runner's socket."""
        return self._inode is not None and _inode_of(self.path) not in (self._inode, None)

    def remove(self) -> None:
        """Remove the path, if it is ours to remove."""
        with contextlib.suppress(OSError):
            if self._temporary is not None:
                self._temporary.unlink()
            elif not self.managed and self.is_ours():
                self.path.unlink()


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def user_ids(names: Sequence[str]) -> frozenset[int]:
    """The numbers of users.

    Args:
        names: names or numbers.

    Raises:
        StartError: there is no such user.
    """
    ids = set()
    for name in names:
        try:
            ids.add(int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise StartError(f"socket.allow_users: there is no user {name!r}; create it or name another") from None
    return frozenset(ids)


def peer_of(sock: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end of a connected unix socket, as the kernel knows them."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid, gid
