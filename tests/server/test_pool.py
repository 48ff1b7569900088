"""The pool: a bounded number of threads, from which stuck ones are not counted."""

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from apisix.runner.server.pool import Job, Pool
from tests.server.connections import SECONDS


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What stuck jobs wait for; set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Done:
    """Counts jobs that ran, and waits for them."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self._changed = threading.Condition()

    def job(self, meanwhile: Callable[[], object] = lambda: None) -> Job:
        def run() -> None:
            meanwhile()
            with self._changed:
                self.threads.append(threading.current_thread().name)
                self._changed.notify_all()

        return run

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.threads) >= count, SECONDS)

    def stays_at(self, count: int) -> bool:
        with self._changed:
            return not self._changed.wait_for(lambda: len(self.threads) > count, 0.05)


def stuck_in(pool: Pool, released: threading.Event) -> int:
    """Occupy a thread of the pool. Returns its ident."""
    ident: queue.SimpleQueue[int] = queue.SimpleQueue()

    def job() -> None:
        ident.put(threading.get_ident())
        released.wait(SECONDS)

    pool.submit(job)
    return ident.get(timeout=SECONDS)


def test_jobs_run_in_order_of_arrival() -> None:
    pool, done, order = Pool("p", 1), Done(), []
    for number in range(100):
        pool.submit(done.job(lambda number=number: order.append(number)))  # type: ignore[misc]
    done.wait_for(100)
    assert order == list(range(100))


def test_never_fewer_than_no_threads_are_busy(often_switched: None) -> None:
    pool, seen, over = Pool("p", 2), set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(pool.busy)

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(200_000):
        pool.submit(lambda: None)
    over.set()
    looker.join(SECONDS)
    assert seen <= {0, 1, 2}


def test_a_free_thread_is_used_again() -> None:
    pool, done = Pool("p", 8), Done()
    for number in range(1, 50):
        pool.submit(done.job())
        done.wait_for(number)
    assert len(set(done.threads)) <= 2, "the one before may not be quite free yet"


def test_jobs_run_side_by_side_up_to_the_limit() -> None:
    pool, done = Pool("p", 8), Done()
    together = threading.Barrier(8)
    for _ in range(16):
        pool.submit(done.job(lambda: together.wait(SECONDS)))
    done.wait_for(16)
    assert set(done.threads) == {f"p-{number}" for number in range(1, 9)}


def test_beyond_the_limit_jobs_wait(released: threading.Event) -> None:
    pool, done = Pool("p", 2), Done()
    stuck_in(pool, released)
    stuck_in(pool, released)
    pool.submit(done.job())
    assert done.stays_at(0)
    released.set()
    done.wait_for(1)


def test_a_job_that_comes_just_as_a_thread_takes_another_gets_a_thread_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, done = Pool("p", 2), Done()
    second_ran = threading.Event()

    class Jobs(queue.SimpleQueue[Job | None]):
        """Lets the second job come right after the first one was taken, and before its thread does anything."""

        def get(self, block: bool = True, timeout: float | None = None) -> Job | None:
            job = super().get(block, timeout)
            if pool._jobs is self and not done.threads and job is first:
                pool.submit(done.job(second_ran.set))
            return job

    pool._jobs = Jobs()
    first = done.job(lambda: second_ran.wait(SECONDS))
    pool.submit(first)
    done.wait_for(2)
    assert second_ran.is_set()


def test_a_stuck_thread_is_replaced(released: threading.Event) -> None:
    pool, done = Pool("p", 1), Done()
    ident = stuck_in(pool, released)
    pool.submit(done.job())
    assert done.stays_at(0)
    pool.give_up(ident)
    done.wait_for(1)
    assert pool.stuck == 1


def test_a_stuck_thread_ends_with_its_job(released: threading.Event) -> None:
    pool, done = Pool("p", 1), Done()
    ident = stuck_in(pool, released)
    thread = next(one for one in threading.enumerate() if one.ident == ident)
    pool.give_up(ident)
    released.set()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert pool.stuck == 0
    pool.submit(done.job())
    done.wait_for(1)


def test_no_more_threads_are_given_up_than_may_be_stuck(released: threading.Event) -> None:
    pool, done = Pool("p", 1, most_stuck=2), Done()
    for _ in range(2):
        pool.give_up(stuck_in(pool, released))
    last = stuck_in(pool, released)
    pool.give_up(last)
    assert pool.stuck == 2
    pool.submit(done.job())
    assert done.stays_at(0)
    released.set()
    done.wait_for(1)


def test_a_thread_of_another_pool_is_not_given_up() -> None:
    pool = Pool("p", 1)
    pool.give_up(threading.get_ident())
    assert pool.stuck == 0


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_job_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture, error: type[BaseException]) -> None:
    pool, done = Pool("p", 1), Done()

    def fail() -> None:
        raise error("so it is")

    with caplog.at_level(logging.ERROR):
        pool.submit(fail)
        pool.submit(done.job())
        done.wait_for(1)
    assert "so it is" in caplog.text


def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, done = Pool("p", 1), Done()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        pool.submit(done.job())
    pool.submit(done.job())
    done.wait_for(2)
