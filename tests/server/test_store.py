"""The store: confs on disk, private, whole, and never a reason to fail."""

import os
import threading
import time
from pathlib import Path

import pytest

from apisix.runner.server.store import MAGIC, Store, open_store, remove_unused
from tests.server.connections import body_of
from tests.server.processes import Start

SOCKET = Path("/run/runner.sock")
PLUGIN = """
class Stops(Base):
    def filter(self, request, response):
        self.stop(200, "served")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = open_store(SOCKET, (tmp_path,))
    assert found is not None
    return found


def test_what_is_written_can_be_read_by_everyone_who_opens_it(store: Store, tmp_path: Path) -> None:
    assert store.write(7, b"conf")
    other = open_store(SOCKET, (tmp_path,))
    assert other is not None
    assert other.has(7)
    assert other.read(7) == b"conf"


def test_another_socket_has_another_store(store: Store, tmp_path: Path) -> None:
    store.write(7, b"conf")
    other = open_store(Path("/run/other.sock"), (tmp_path,))
    assert other is not None
    assert other.read(7) is None


def test_what_is_not_there_is_none(store: Store) -> None:
    assert not store.has(7)
    assert store.read(7) is None


def test_the_first_content_of_a_token_stays(store: Store) -> None:
    assert store.write(7, b"first")
    assert not store.write(7, b"second")
    assert store.write(7, b"first")
    assert store.read(7) == b"first"


def test_of_many_who_write_at_once_one_wins_and_all_know_which(store: Store) -> None:
    together = threading.Barrier(16)
    won: list[bytes] = []

    def write(content: bytes) -> None:
        together.wait()
        if store.write(7, content):
            won.append(content)

    threads = [threading.Thread(target=write, args=(b"%d" % (number % 4),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.read(7)] * 4


def test_nothing_else_is_left_in_the_folder(store: Store) -> None:
    store.write(7, b"first")
    store.write(7, b"second")
    assert [file.name for file in store.folder.iterdir()] == ["00000007"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"a", MAGIC, b"apisix-runner conf 2\n" + bytes(20), MAGIC + bytes(40), b"\xff" * 100],
    ids=["empty", "short", "without digest", "of another version", "with a wrong digest", "noise"],
)
def test_a_damaged_file_is_as_good_as_none_and_is_replaced(store: Store, damage: bytes) -> None:
    store.write(7, b"conf")
    (store.folder / "00000007").write_bytes(damage)
    assert store.read(7) is None
    assert store.write(7, b"another")
    assert store.read(7) == b"another"


def test_a_damaged_file_does_not_keep_its_token_from_another_conf(store: Store) -> None:
    (store.folder / "00000007").write_bytes(b"half a fi")
    assert store.write(7, b"conf")
    assert store.read(7) == b"conf"


def test_folder_and_files_are_private(store: Store) -> None:
    before = os.umask(0)
    try:
        store.write(7, b"secret")
    finally:
        os.umask(before)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert store.folder.parent.stat().st_mode & 0o777 == 0o700
    assert (store.folder / "00000007").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_may_enter_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / f"apisix-runner-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"apisix-runner-{os.getuid()}").chmod(0o777)
    assert open_store(SOCKET, (tmp_path,)) is None
    assert "others may enter it" in caplog.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    top = tmp_path / f"apisix-runner-{os.getuid()}"
    top.mkdir(mode=0o700)
    os.chown(top, 65534, 65534)
    assert open_store(SOCKET, (tmp_path,)) is None


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"apisix-runner-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert open_store(SOCKET, (tmp_path,)) is None


def test_where_one_place_cannot_be_had_the_next_is_tried(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "good").mkdir()
    found = open_store(SOCKET, (tmp_path / "missing", tmp_path / "file", tmp_path / "good"))
    assert found is not None
    assert found.folder.is_relative_to(tmp_path / "good")


def test_a_store_that_takes_nothing_says_so_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "link", full)
        for token in range(3):
            with pytest.raises(OSError, match="No space left"):
                store.write(token, b"conf")
    assert caplog.text.count("No space left on device") == 1
    assert list(store.folder.iterdir()) == []


def test_a_store_that_was_deleted_is_no_error_to_read_and_made_again_to_write(store: Store) -> None:
    store.folder.rmdir()
    assert store.read(7) is None
    assert not store.has(7)
    store.touch(7)
    store.sweep(1)
    assert store.write(7, b"conf")
    assert store.read(7) == b"conf"
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_what_was_not_touched_for_long_goes(store: Store) -> None:
    for token in (1, 2):
        store.write(token, b"conf")
        long_ago = time.time() - 100
        os.utime(store.folder / f"{token:08x}", (long_ago, long_ago))
    store.touch(2)
    store.sweep(50)
    assert store.read(1) is None
    assert store.read(2) == b"conf"


def test_stores_of_other_sockets_go_when_no_runner_has_used_them_for_a_day(tmp_path: Path) -> None:
    own, unused, used = (open_store(Path(f"/run/{name}.sock"), (tmp_path,)) for name in ("own", "unused", "used"))
    assert own is not None
    assert unused is not None
    assert used is not None
    unused.write(7, b"conf")
    yesterday = time.time() - 100_000
    for store in (own, unused, used):
        os.utime(store.folder, (yesterday, yesterday))
    used.sweep(3600)
    remove_unused(own)
    assert (own.folder.exists(), unused.folder.exists(), used.folder.exists()) == (True, False, True)


def test_a_runner_that_can_write_no_file_serves(start: Start) -> None:
    """As in a container whose root is read-only."""
    runner = start(PLUGIN, prefix=("prlimit", "--fsize=0"))
    with runner.connect() as gateway:
        assert body_of(gateway.call(gateway.prepare(("stops", "")))) == "served"
    runner.log.wait_for("confs cannot be stored in")
