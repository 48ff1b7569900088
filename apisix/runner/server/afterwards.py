"""What plugins asked to run after the answer: `Base.after`.

Rules that live here: it runs when the answer is on the wire, in threads of its own or on the loop, never in those of
calls; at most MOST_PENDING wait, beyond that they are dropped and counted in the log; failures are logged; a worker
that drains waits for the rest.
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from apisix.runner.logs.context import about
from apisix.runner.server.call import Call
from apisix.runner.server.coroutines import LoopThread
from apisix.runner.server.pool import Pool

log = logging.getLogger("apisix.runner.after")

Where = dict[str, object]
"""Which call it was, as its `log_fields`."""

MOST_PENDING = 10_000
THREADS = 4
TELL_EVERY = 5.0  # seconds between two lines about dropped functions


class Afterwards:
    """Runs functions after answers.

    Args:
        loop: runs coroutines.
        on_idle: called, from any thread, when nothing is pending any more.
    """

    def __init__(self, loop: LoopThread, on_idle: Callable[[], None]) -> None:
        self._loop = loop
        self._pool = Pool("after", THREADS)
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._dropped = 0
        self._told = 0.0
        self.pending = 0

    def submit(self, call: Call) -> None:
        """Run what the plugins of an answered call asked for."""
        where = call.log_fields()
        for function, args in call.response.after or ():
            with self._lock:
                if self.pending >= MOST_PENDING:
                    self._drop(where)
                    continue
                self.pending += 1
            if inspect.iscoroutinefunction(function):
                self._loop.submit(lambda f=function, a=args: self._await(where, f, a))  # type: ignore[misc]
            else:
                self._pool.submit(lambda f=function, a=args: self._call(where, f, a))  # type: ignore[misc]

    def _call(self, where: Where, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            with about(**where):
                function(*args)
        except BaseException as error:
            self._failed(where, function, error)
        self._done()

    async def _await(self, where: Where, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            with about(**where):
                await function(*args)
        except BaseException as error:
            self._failed(where, function, error)
        self._done()

    def _failed(self, where: Where, function: Callable[..., Any], error: BaseException) -> None:
        name = getattr(function, "__qualname__", repr(function))
        with about(**where):
            log.error("%s: %s, run after the answer, failed", _told(where), name, exc_info=error)

    def _done(self) -> None:
        with self._lock:
            self.pending -= 1
            idle = not self.pending
        if idle:
            self._on_idle()

    def _drop(self, where: Where) -> None:
        self._dropped += 1
        now = time.monotonic()
        if now - self._told > TELL_EVERY:
            self._told = now
            place = _told(where)
            log.error("%s: %d functions for after an answer wait, %d were dropped", place, self.pending, self._dropped)


def _told(where: Where) -> str:
    return f"{where['route']} request {where['request']}"
