"""A connection: frames from pieces, and answers that may not fit at once."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.server.connection import Connection
from apisix.runner.wire.frame import pack_frame
from tests.server.connections import SECONDS


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """Our end, and the gateway's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(SECONDS)
    with ours, theirs:
        yield Connection(ours), theirs


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.lists(st.integers(1, 30)))
def test_frames_come_out_as_they_were_sent_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    frames = [pack_frame(2, body) for body in bodies]
    stream = b"".join(frames)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        connection = Connection(ours)
        taken: list[bytes] = []
        for length in [*cuts, len(stream)]:
            piece, stream = stream[:length], stream[length:]
            while piece and (frame := connection.take(piece)) is not None:
                taken.append(frame)
                piece = b""
                while connection.held and (frame := connection.take(b"")) is not None:
                    taken.append(frame)
        assert taken == frames
        assert connection.held == 0


def test_what_is_held_is_counted(pair: tuple[Connection, socket.socket]) -> None:
    connection, _ = pair
    frame = pack_frame(2, bytes(10))
    assert connection.take(frame) == frame
    assert connection.held == 0
    assert connection.take(frame + frame[:3]) == frame
    assert connection.held == 3
    assert connection.take(frame[3:]) == frame
    assert connection.held == 0


def test_what_fits_is_sent_without_waiting(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    data = bytes(range(256)) * 8192
    sent = connection.send_now(data)
    assert 0 < sent < len(data)
    assert connection.send_now(data) == 0
    assert theirs.recv(sent, socket.MSG_WAITALL) == data[:sent]


def test_a_connection_that_is_cut_ends_for_who_waits_on_it_and_keeps_its_number(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, theirs = pair
    connection.cut()
    assert connection.broken
    assert theirs.recv(1) == b""
    assert connection.sock.fileno() == connection.fd
    connection.cut()
    connection.close()
    connection.cut()


def test_what_is_not_there_is_not_waited_for(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    with pytest.raises(BlockingIOError):
        connection.receive(10)
    theirs.send(b"there")
    assert (connection.receive(3), connection.receive(10)) == (b"the", b"re")


def test_what_does_not_fit_is_not_waited_for(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    sent = connection.send(bytes(1 << 24))
    assert 0 < sent < 1 << 24
    with pytest.raises(BlockingIOError):
        connection.send(bytes(1 << 24))
    assert theirs.recv(1) == b"\0"


def test_a_peer_that_is_gone_is_an_error_or_the_end(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    theirs.close()
    with pytest.raises(OSError, match="Broken pipe"):
        connection.send(b"x")
    assert connection.receive(10) == b""


def test_the_number_of_a_connection_that_is_closed_is_not_used(pair: tuple[Connection, socket.socket]) -> None:
    connection, _ = pair
    other, sender = socket.socketpair()
    with other, sender:
        sender.send(b"not for it")
        connection.close()
        os.dup2(other.fileno(), connection.fd)
        for use in (lambda: connection.receive(10), lambda: connection.send(b"x")):
            with pytest.raises(OSError, match="Bad file descriptor"):
                use()
        os.close(connection.fd)
