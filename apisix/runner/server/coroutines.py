"""The loop: one thread of a worker that runs the chains with ``async def`` plugins.

Rules that live here: every call is a task; uvloop drives the loop where it is installed; ``def`` plugins among
coroutines run in the pool, never on the loop. Nothing that a plugin raises ends the loop.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine

from apisix.runner.server.pool import Pool

log = logging.getLogger("apisix.runner.loop")


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class LoopThread:
    """An event loop in a thread of its own, started when first used.

    Args:
        pool: runs the ``def`` plugins of mixed chains.
        name: its thread's.
    """

    def __init__(self, pool: Pool, name: str = "loop") -> None:
        self._pool = pool
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.thread = 0

    def submit(self, start: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run a coroutine on the loop."""
        loop = self._loop or self._start()
        loop.call_soon_threadsafe(self._spawn, start)

    def cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel a task from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Run a function in the pool and await its end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def job() -> None:
            failure: BaseException | None = None
            try:
                function()
            except BaseException as error:
                failure = error
            loop.call_soon_threadsafe(settle, failure)

        self._pool.submit(job)
        await done

    def _spawn(self, start: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.get_running_loop().create_task(start())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the loop failed: a mistake of the runner, please report it", exc_info=task.exception())

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = _new_loop()
                threading.Thread(target=self._run, args=(loop,), name=self._name, daemon=True).start()
                self._loop = loop
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread = threading.get_ident()
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:  # asyncio lets these through, besides failing the task
                log.error("%s in a task that a plugin has started; the loop goes on", type(error).__name__)
