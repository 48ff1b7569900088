"""Lanes: how a chain earns the inline lane, and loses it."""

from apisix.runner.server.lanes import MOST_RUNS_TO_PROMOTE, QUICK_SECONDS, RUNS_TO_PROMOTE, WINDOW, Lane

QUICK, SLOW = 0.0001, 0.01


def run_in_pool(lane: Lane, count: int, seconds: float = QUICK, computing: float = 0) -> None:
    for _ in range(count):
        lane.ran_in_pool(seconds, computing)


def run_inline(lane: Lane, seconds: float) -> None:
    lane.runs += 1
    if seconds > QUICK_SECONDS:
        lane.was_slow_inline()


def promoted(blocking: bool | None = None) -> Lane:
    lane = Lane(blocking)
    run_in_pool(lane, RUNS_TO_PROMOTE)
    assert lane.inline
    return lane


def runs_until_promoted(lane: Lane) -> int:
    runs = 0
    while not lane.inline:
        lane.ran_in_pool(QUICK, 0)
        runs += 1
    return runs


def test_a_chain_starts_in_the_pool() -> None:
    assert not Lane().inline


def test_eight_quick_runs_in_a_row_promote_it() -> None:
    lane = Lane()
    run_in_pool(lane, 7)
    assert not lane.inline
    run_in_pool(lane, 1)
    assert lane.inline


def test_a_slow_run_begins_the_row_anew() -> None:
    lane = Lane()
    run_in_pool(lane, 7)
    run_in_pool(lane, 1, SLOW)
    run_in_pool(lane, 7)
    assert not lane.inline
    run_in_pool(lane, 1)
    assert lane.inline


def test_one_slow_run_proves_nothing() -> None:
    lane = promoted()
    for _ in range(5):
        run_inline(lane, SLOW)
        for _ in range(WINDOW):
            run_inline(lane, QUICK)
    assert lane.inline


def test_two_slow_runs_within_the_window_demote_it() -> None:
    lane = promoted()
    run_inline(lane, SLOW)
    for _ in range(WINDOW - 2):
        run_inline(lane, QUICK)
    assert lane.inline
    run_inline(lane, SLOW)
    assert not lane.inline


def test_a_slow_run_from_before_the_promotion_does_not_count() -> None:
    lane = promoted()
    run_inline(lane, SLOW)
    lane.demote()
    runs_until_promoted(lane)
    run_inline(lane, SLOW)
    assert lane.inline


def test_each_demotion_doubles_what_the_next_promotion_takes() -> None:
    lane = promoted()
    for expected in (16, 32, 64):
        lane.demote()
        assert runs_until_promoted(lane) == expected


def test_a_chain_that_was_demoted_often_can_still_come_back() -> None:
    lane = promoted()
    for _ in range(30):
        lane.demote()
    assert runs_until_promoted(lane) == MOST_RUNS_TO_PROMOTE


def test_what_declares_to_block_is_never_promoted() -> None:
    lane = Lane(True)
    run_in_pool(lane, 1000)
    assert not lane.inline


def test_what_declares_not_to_block_begins_inline_and_is_not_demoted_for_slow_runs() -> None:
    lane = Lane(False)
    for _ in range(100):
        run_inline(lane, SLOW)
    assert lane.inline


def test_what_declares_not_to_block_is_demoted_by_a_stall() -> None:
    lane = Lane(False)
    lane.demote()
    assert not lane.inline


def test_a_slow_run_that_computes_burns_and_one_that_waits_does_not() -> None:
    lane = Lane()
    run_in_pool(lane, 1, SLOW, computing=SLOW * 0.9)
    assert lane.burns
    run_in_pool(lane, 1, SLOW, computing=SLOW * 0.1)
    assert not lane.burns
    run_in_pool(lane, 1, QUICK, computing=QUICK)
    assert not lane.burns, "a quick run costs nobody anything"
