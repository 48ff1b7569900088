"""The pool: threads for calls that may wait.

Rules that live here: threads start when work waits and none is free, up to a limit; a thread whose call was given up
on does not count towards it, until many are stuck; then calls wait, and fail at their deadline.
"""

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("apisix.runner.pool")

Job = Callable[[], None]


class Pool:
    """A bounded set of daemon threads that run jobs in order of arrival.

    Args:
        name: what its threads are called.
        limit: the most threads at a time, stuck ones apart.
        most_stuck: the most threads that may be stuck; by default as many as the limit.
    """

    def __init__(self, name: str, limit: int, most_stuck: int | None = None) -> None:
        self._name = name
        self._limit = limit
        self._most_stuck = limit if most_stuck is None else most_stuck
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads that wait for a job, less the jobs that wait for a thread
        self._members: set[int] = set()
        self._stuck: set[int] = set()
        self._started = 0

    def submit(self, job: Job) -> None:
        """Run a job as soon as a thread is free."""
        with self._lock:
            self._free -= 1  # first: a quick thread may have done the job before it is counted
            wanted = self._free < 0
        self._jobs.put(job)
        if wanted:
            self._grow()

    def give_up(self, thread: int) -> None:
        """Count a thread (its ident) as stuck: another may take its place, and it ends when its job does."""
        with self._lock:
            if thread not in self._members or len(self._stuck) >= self._most_stuck:
                return
            self._stuck.add(thread)
            wanted = self._free < 0
        if wanted:
            self._grow()

    @property
    def stuck(self) -> int:
        """Threads whose job was given up on and still runs."""
        return len(self._stuck)

    @property
    def busy(self) -> int:
        """Threads that run a job."""
        with self._lock:
            return self._threads - max(self._free, 0)

    def _grow(self) -> None:
        with self._lock:
            if self._threads - len(self._stuck) >= self._limit:
                return
            self._threads += 1
            self._started += 1
            name = f"{self._name}-{self._started}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError as error:  # out of threads or memory; the job waits for one that is there
            with self._lock:
                self._threads -= 1
            log.error("no thread can be started for %s: %s", self._name, error)

    def _run(self) -> None:
        ident = threading.get_ident()
        with self._lock:
            self._members.add(ident)
            self._free += 1
        while True:
            job = self._jobs.get()
            if job is not None:
                try:
                    job()
                except BaseException:
                    log.exception("a job of the pool failed; this is a mistake of the runner, please report it")
            with self._lock:
                if ident in self._stuck:
                    self._stuck.discard(ident)
                    self._members.discard(ident)
                    self._threads -= 1
                    return
                self._free += 1
