"""The board: numbers of workers in shared memory."""

import os
import signal

from apisix.runner.server.board import Board, OwnRow, Row


def test_a_taken_row_is_not_taken_twice() -> None:
    board = Board()
    assert [board.take_row(), board.take_row()] == [0, 1]


def test_a_freed_row_can_be_taken_again() -> None:
    board = Board()
    board.take_row()
    board.free(0)
    assert board.take_row() == 0


def test_what_a_forked_process_writes_is_read() -> None:
    board = Board()
    number = board.take_row()
    row = Row(pid=7, accepting=1, connections=3, open_calls=2, confs=5, stuck=1, served=2**40, beat=1.5)
    pid = os.fork()
    if pid == 0:
        OwnRow(board, number).write(row)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.read(number) == row


def test_a_row_is_whole_while_it_is_written() -> None:
    """The supervisor looks at any moment: a beat that is gone for an instant would cost a healthy worker its life."""
    board = Board()
    row = Row(pid=7, accepting=1, connections=3, open_calls=2, confs=5, stuck=1, served=2**40, beat=1.5, threads=4)
    board.write(0, row)
    pid = os.fork()
    if pid == 0:
        while True:
            board.write(0, row)
    try:
        assert {board.read(0) for _ in range(100_000)} == {row}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_emptiest_is_sought_among_those_that_accept() -> None:
    board = Board()
    board.write(0, Row(pid=1, accepting=1, connections=5))
    board.write(1, Row(pid=2, accepting=0, connections=1))
    board.write(2, Row(pid=3, accepting=1, connections=4))
    assert board.fewest_connections() == 4


def test_where_nobody_accepts_there_is_nobody_to_wait_for() -> None:
    assert Board().fewest_connections() == 0
