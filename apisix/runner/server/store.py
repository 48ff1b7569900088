"""The store: prepared confs on disk, for other workers and for the next runner on the same socket.

Rules that live here:
- One folder a socket path and user, on a tmpfs where there is one, mode 0700: conf values hold secrets. A folder that
  belongs to another user, or that others may enter, is not used.
- A conf is one file, named by its token, written whole under another name and then linked to its own with link(2):
  the first one wins, in whichever process, and nobody reads half a file.
- What is used is touched; what was not touched for twice APISIX_CONF_EXPIRE_TIME is removed.
- A store that no runner has used for a day is removed by the next runner that starts, on whichever socket.
- Without a store (full, read-only, not ours) the worker goes on from memory and says so once. A file that is damaged
  or of another version is as good as absent. A folder that somebody has removed is made again.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import stat
import time
from pathlib import Path

log = logging.getLogger("apisix.runner.store")

MAGIC = b"apisix-runner conf 1\n"
DIGEST_SIZE = 16
UNUSED_SECONDS = 86400.0
# Not tempfile.gettempdir(): where no file can be written, as in a container that is read-only, that raises.
_PARENTS = (Path("/dev/shm"), Path(os.environ.get("TMPDIR") or "/tmp"))


class Store:
    """Files of one socket's confs.

    Args:
        folder: private to this user.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._said = False
        self._inode = self._inode_now()

    def was_removed(self) -> bool:
        """Whether somebody has removed the folder since this was last asked."""
        before, self._inode = self._inode, self._inode_now()
        return self._inode != before or not self._inode

    def _inode_now(self) -> int:
        try:
            return self.folder.stat().st_ino
        except OSError:
            return 0

    def _path(self, token: int) -> Path:
        return self.folder / f"{token:08x}"

    def has(self, token: int) -> bool:
        """Whether there is a file of that token."""
        return os.path.exists(self._path(token))

    def read(self, token: int) -> bytes | None:
        """The content stored under a token, None where there is none that can be used."""
        try:
            raw = self._path(token).read_bytes()
        except OSError:
            return None
        head = len(MAGIC) + DIGEST_SIZE
        if not raw.startswith(MAGIC) or raw[len(MAGIC) : head] != _digest(raw[head:]):
            log.warning("the stored conf %08x is damaged or of another version; it is prepared again", token)
            with contextlib.suppress(OSError):
                self._path(token).unlink()
            return None
        return raw[head:]

    def write(self, token: int, content: bytes) -> bool:
        """Store a content under a token, unless there is one.

        Returns:
            Whether the token stands for this content now; False where it stands for another.

        Raises:
            OSError: nothing can be stored; told in the log once.
        """
        try:
            try:
                return self._write(token, content)
            except FileNotFoundError:
                make_private(self.folder)
                return self._write(token, content)
        except OSError as error:
            self._say(error)
            raise

    def _write(self, token: int, content: bytes) -> bool:
        path = self._path(token)
        temporary = self.folder / f".{token:08x}.{os.getpid():x}.{time.monotonic_ns():x}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(MAGIC + _digest(content) + content)
            for _ in range(2):
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    stored = self.read(token)  # removes what is damaged; then the second link succeeds
                    if stored is not None:
                        self.touch(token)
                        return stored == content
                else:
                    return True
            return False
        finally:
            temporary.unlink()

    def touch(self, token: int) -> None:
        """Say that a conf is in use."""
        with contextlib.suppress(OSError):
            os.utime(self._path(token))

    def sweep(self, keep: float) -> None:
        """Remove what was not touched for `keep` seconds, and say that the store itself is in use."""
        oldest = time.time() - keep
        with contextlib.suppress(OSError):
            os.utime(self.folder)
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)

    def _say(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            log.error(
                "confs cannot be stored in %s (%s): other workers and the next runner will ask the gateway for them "
                "again; told once",
                self.folder,
                error.strerror,
            )


def open_store(socket_path: Path, parents: tuple[Path, ...] = _PARENTS) -> Store | None:
    """The store of a socket path, made if need be; None where none can be had (told in the log).

    Args:
        socket_path: where the runner listens; the next runner there shares the store.
        parents: folders to try, in order.
    """
    name = hashlib.blake2b(os.fsencode(socket_path), digest_size=8).hexdigest()
    reasons = []
    for parent in parents:
        if not parent.is_dir():
            continue
        try:
            folder = parent / f"apisix-runner-{os.getuid()}" / name
            make_private(folder)
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror or error}")
            continue
        return Store(folder)
    log.error("confs are kept in memory only, no folder for them can be had (%s)", "; ".join(reasons) or "none exists")
    return None


def remove_unused(store: Store, keep: float = UNUSED_SECONDS) -> None:
    """Remove the stores of other sockets that no runner has used for `keep` seconds.

    Args:
        store: one's own, which is left, and beside which the others are.
        keep: seconds.
    """
    oldest = time.time() - keep
    with contextlib.suppress(OSError), os.scandir(store.folder.parent) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                is_unused = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest
                if is_unused and entry.name != store.folder.name:
                    shutil.rmtree(entry.path, ignore_errors=True)


def make_private(folder: Path, depth: int = 2) -> None:
    """Make a folder that only this user may enter, with the folders above it.

    Args:
        folder: which may be there already.
        depth: how many levels, itself included, are private.

    Raises:
        OSError: it cannot be made, belongs to another user, or others may enter it.
    """
    for level in reversed([folder, *folder.parents][:depth]):
        _make_private(level)


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{folder} is no folder")
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise OSError(f"{folder} belongs to another user, or others may enter it; remove it")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest()
