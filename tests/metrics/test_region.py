"""A region as its reader sees it: another process, or the memory of one that was killed."""

import os
import signal
import struct

import pytest

from apisix.runner.metrics.region import SIZE, Family, Region, new_memory, overflown, read

SOLD = Family("sold_total", "counter", "Sold.", ("kind",))
PRICE = Family("price", "histogram", "Prices.", (), (1.0, 10.0))


def test_what_a_process_counted_is_there_after_it_was_killed() -> None:
    memory = new_memory()
    pid = os.fork()
    if pid == 0:
        region = Region(memory)
        region.cells[region.series(SOLD, ("ü",))] += 7
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert [tuple(found) for found in read(memory)] == [(SOLD, ("ü",), (7.0,))]


def test_each_series_has_its_own_cells_as_many_as_its_kind_needs() -> None:
    memory = new_memory()
    region = Region(memory)
    places = [region.series(PRICE), region.series(SOLD, ("a",)), region.series(SOLD, ("b",))]
    for number, at in enumerate(places, 1):
        region.cells[at] = number
    assert {found.values: found.cells for found in read(memory)} == {
        (): (1.0, 0.0, 0.0, 0.0),
        ("a",): (2.0,),
        ("b",): (3.0,),
    }


def test_a_series_asked_for_again_is_the_same() -> None:
    region = Region()
    assert region.series(SOLD, ("a",)) == region.series(SOLD, ("a",))


def test_what_finds_no_room_is_counted_nowhere_and_told() -> None:
    memory = new_memory()
    region = Region(memory)
    last = 0
    while not overflown(memory):
        last = region.series(SOLD, (f"{last:0100}",))
    region.cells[last] += 1
    region.cells[region.series(PRICE) + PRICE.cells - 1] += 1  # the last of the spare cells is within the memory
    assert all(found.cells == (0.0,) for found in read(memory))
    assert overflown(memory) == 2


def test_a_count_never_goes_back_while_it_is_written() -> None:
    memory = new_memory()
    region = Region(memory)
    number = 0
    while not overflown(memory):
        number += 1
        region.series(SOLD, (f"{number:0100}",))
    pid = os.fork()
    if pid == 0:
        while True:
            number += 1
            region.series(SOLD, (f"{number:0100}",))
    try:
        before = overflown(memory)
        while overflown(memory) == before:
            pass
        seen = [overflown(memory) for _ in range(100_000)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen == sorted(seen)


@pytest.mark.parametrize(("at", "value"), [(0, SIZE + 8), (16, SIZE), (16, 3)])
def test_damaged_memory_is_an_error_and_not_a_wrong_number(at: int, value: int) -> None:
    memory = new_memory()
    Region(memory).series(SOLD, ("a",))
    struct.pack_into("<I", memory, at, value)
    with pytest.raises(ValueError):
        list(read(memory))
