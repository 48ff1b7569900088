"""Work away from the poll: calls that may wait, and PrepareConf, each with its deadline.

Rules that live here:
- A connection that comes here has left the poll and belongs to its call; it goes back with the answer.
- Calls run in the pool, those that compute share one thread of it, coroutines run on the loop. PrepareConf has a
  thread of its own, so that a full pool does not keep confs from being prepared.
- What of an answer does not fit into the socket's buffer is sent on a loop of its own: a gateway that does not read
  holds neither a thread nor the coroutines of plugins. Of such answers only so many bytes are held.
- At its deadline a call is answered with what fails closed, and its stack is logged. Its thread may be stuck for ever
  and then counts no more; its connection ends, and its own answer is dropped when it comes.
- Deadlines rest while a debugger is attached.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import partial

from apisix.runner.server.afterwards import Afterwards
from apisix.runner.server.call import Call
from apisix.runner.server.connection import Connection
from apisix.runner.server.coroutines import LoopThread
from apisix.runner.server.dispatch import Refused
from apisix.runner.server.pool import Pool
from apisix.runner.server.stacks import stack_of_coroutine, stack_of_thread

log = logging.getLogger("apisix.runner.away")

MOST_STUCK_SETUPS = 32
SEND_SECONDS = 60.0  # as long as the gateway waits for one read
FORKED_EXIT_CODE = 70
GiveUp = Callable[[str], bytes]
"""From what is wrong, for the log, to the answer that fails closed."""


class Away:
    """Runs calls and PrepareConfs that left the poll.

    Args:
        threads: the most threads for calls that wait.
        timeout: seconds until a call is given up on, for the log; each call has its deadline.
        setup_timeout: seconds until a PrepareConf is given up on.
        most_unsent: bytes of answers that may wait for the gateway to read; a connection that goes beyond is closed.
        plugin_files: where plugins come from; stacks that are logged begin there.
        refused: told of each frame that is refused, as `Watch.refused`.
        release: gets a connection back after its answer.
        close: closes a connection.
        forget: forgets a connection that a stuck thread still holds.
        on_idle: called when nothing that runs after answers is pending any more.
    """

    def __init__(
        self,
        *,
        threads: int,
        timeout: float,
        setup_timeout: float,
        most_unsent: int,
        plugin_files: Callable[[], Collection[str]],
        refused: Callable[[str | None], None],
        release: Callable[[Connection], None],
        close: Callable[[Connection], None],
        forget: Callable[[Connection], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._timeout = timeout
        self._setup_timeout = setup_timeout
        self._plugin_files = plugin_files
        self._refused = refused
        self._release = release
        self._close = close
        self._forget = forget
        self._pool = Pool("call", threads)
        self._burning_pool = Pool("burn", 1)
        self._prepare_pool = Pool("prepare", 1, MOST_STUCK_SETUPS)
        self._loop = LoopThread(self._pool)
        self._send_loop = LoopThread(self._pool, "send")
        self._most_unsent = most_unsent
        self._unsent = 0  # used on that loop alone
        self._calls: set[Call] = set()
        self._prepares: dict[Connection, tuple[float, list[int], GiveUp]] = {}
        self._giving_up = threading.Lock()  # held from the decision to give up on a call until its answer is sent
        self._forked = False
        self.afterwards = Afterwards(self._loop, on_idle)

    @property
    def open(self) -> int:
        """Calls and PrepareConfs without an answer."""
        return len(self._calls) + len(self._prepares)

    @property
    def stuck(self) -> int:
        """Threads whose call was given up on."""
        return self._pool.stuck

    @property
    def busy_threads(self) -> int:
        """Threads that run calls."""
        return self._pool.busy + self._burning_pool.busy

    def in_forked_child(self) -> None:
        """A plugin forked this process: its connections are the parent's, and it ends instead of answering."""
        self._forked = True

    # In.

    def hand_out(self, call: Call) -> None:
        """Let a call run in the pool or on the loop."""
        self._calls.add(call)
        if call.phase_chain.chain.coroutine:
            self._loop.submit(lambda: self._run_on_loop(call))
        else:
            pool = self._burning_pool if call.phase_chain.lane.burns else self._pool
            pool.submit(lambda: self._run_in_pool(call))

    def adopt(self, call: Call) -> None:
        """Watch over a call that runs already, in a thread that had the lead."""
        self._calls.add(call)

    def prepare(self, connection: Connection, failed_answer: GiveUp, job: Callable[[], bytes | Call]) -> None:
        """Run a job that prepares a conf, in the thread for that.

        Args:
            connection: where it was asked.
            failed_answer: the answer when it takes too long.
            job: returns the answer, or the call that can run now.
        """
        thread = [0]
        self._prepares[connection] = (time.monotonic() + self._setup_timeout, thread, failed_answer)
        self._prepare_pool.submit(lambda: self._run_prepare(connection, job, thread, failed_answer))

    def send_rest(self, connection: Connection, rest: bytes) -> None:
        """Send what did not fit into the socket's buffer."""
        self._send_loop.submit(lambda: self._send_rest(connection, rest))

    # Running.

    def _run_in_pool(self, call: Call) -> None:
        if not call.ticket:  # given up on while it waited for a thread
            self._close_given_up(call.connection)
            return
        call.thread = threading.get_ident()
        started, computed = time.monotonic(), time.thread_time()
        answer = call.run()
        if not call.waited:
            call.phase_chain.lane.ran_in_pool(time.monotonic() - started, time.thread_time() - computed)
        self.answer(call, answer)

    async def _run_on_loop(self, call: Call) -> None:
        call.task = asyncio.current_task()
        if not call.ticket:
            self._close_given_up(call.connection)
            return
        try:
            answer = await call.run_async(partial(self._run_in_thread, call))
        except BaseException:
            if call.ticket:  # not ours: a cancellation that no deadline asked for
                self.answer(call, call.failed_answer())
            else:
                self._close_given_up(call.connection)
            raise
        self.answer(call, answer)

    async def _run_in_thread(self, call: Call, function: Callable[[], None]) -> None:
        """Run a part of a call that is on the loop in the pool."""

        def run() -> None:
            call.thread = threading.get_ident()
            try:
                function()
            finally:
                call.thread = 0

        await self._loop.in_thread(run)

    def _run_prepare(
        self, connection: Connection, job: Callable[[], bytes | Call], thread: list[int], failed_answer: GiveUp
    ) -> None:
        if connection not in self._prepares:  # its time was over before a thread was free
            self._close_given_up(connection)
            return
        thread[0] = threading.get_ident()
        result: bytes | Call
        try:
            result = job()
        except Refused as refused:
            self._refused(refused.reason)
            if refused.reason is not None:
                log.error("malformed frame: %s; it is refused and its connection closed", refused.reason)
                connection.broken = True
            result = refused.answer
        except BaseException as error:
            log.error("preparing failed: a mistake of the runner, please report it", exc_info=error)
            result = failed_answer("failed")
        if self._prepares.pop(connection, None) is None:  # answered when its time was over
            self._close_given_up(connection)
        elif isinstance(result, Call):
            self.hand_out(result)
        else:
            self._finish(connection, result)

    # Out.

    def answer(self, call: Call, answer: bytes) -> None:
        """Answer a call, and give its connection back."""
        self._calls.discard(call)
        try:
            call.ticket.pop()
        except IndexError:  # answered at its deadline
            self._close_given_up(call.connection)
            return
        self._finish(call.connection, answer)
        if call.response.after is not None:
            self.afterwards.submit(call)

    def _finish(self, connection: Connection, answer: bytes) -> None:
        """Send an answer without waiting, and give the connection back when all is sent."""
        if self._forked:
            os._exit(FORKED_EXIT_CODE)
        try:
            sent = connection.send_now(answer)
        except OSError:
            self._close(connection)
            return
        if sent < len(answer):
            self.send_rest(connection, answer[sent:])
        else:
            self._release(connection)

    async def _send_rest(self, connection: Connection, rest: bytes) -> None:
        self._unsent += len(rest)
        try:
            if self._unsent > max(self._most_unsent, len(rest)):  # one alone is always sent
                log.error(
                    "closing a connection: answers that the gateway does not read hold %d bytes, "
                    "limits.pending_bytes is %d",
                    self._unsent,
                    self._most_unsent,
                )
                self._close(connection)
                return
            async with asyncio.timeout(SEND_SECONDS):
                await asyncio.get_running_loop().sock_sendall(connection.sock, rest)
        except OSError:  # or it was not read in time
            self._close(connection)
        else:
            self._release(connection)
        finally:
            self._unsent -= len(rest)

    # Deadlines.

    def look(self, now: float) -> None:
        """Give up on what is over its time."""
        if _debugger_attached():
            return
        for call in list(self._calls):
            if now > call.deadline:
                self._give_up(call, f"passed its deadline of {self._timeout:g} s")
                continue
            running = call.response.running
            if running is not None and running[1] is not None and now - running[2] > running[1]:
                self._give_up(call, f"plugin {running[0]!r} passed its timeout of {running[1]:g} s")
        for connection, (deadline, thread, failed_answer) in list(self._prepares.items()):
            if now > deadline:
                self._give_up_prepare(connection, thread[0], failed_answer)

    def _give_up(self, call: Call, why: str) -> None:
        with self._giving_up:
            try:
                call.ticket.pop()
            except IndexError:
                return
            _send_last(call.connection, call.failed_answer())
        call.given_up()
        self._calls.discard(call)
        with call.current():
            log.error("%s: %s; the call fails; it was at:\n%s", call.describe(), why, _stack_of(call))
        if call.task is not None:
            self._loop.cancel(call.task)
        if call.thread:
            self._pool.give_up(call.thread)
            self._burning_pool.give_up(call.thread)
        self._cut(call.connection)

    def _give_up_prepare(self, connection: Connection, thread: int, failed_answer: GiveUp) -> None:
        stack = stack_of_thread(thread, self._plugin_files())
        with self._giving_up:
            if self._prepares.pop(connection, None) is None:
                return
            answer = failed_answer(f"takes longer than setup_timeout, {self._setup_timeout:g} s; it is at:\n{stack}")
            _send_last(connection, answer)
        if thread:
            self._prepare_pool.give_up(thread)
        self._cut(connection)

    def _cut(self, connection: Connection) -> None:
        """End a connection that a thread still holds, which may never let go of it."""
        connection.cut()
        self._forget(connection)

    def _close_given_up(self, connection: Connection) -> None:
        """Close a connection whose answer somebody else sends: afterwards."""
        with self._giving_up:
            pass
        self._close(connection)


def _send_last(connection: Connection, answer: bytes) -> None:
    try:
        connection.send_now(answer)
    except OSError:
        pass


def _stack_of(call: Call) -> str:
    files = {step.definition.origin for step in call.phase_chain.chain.steps}
    if call.task is not None and not call.thread:
        return stack_of_coroutine(call.response.coroutine, files)
    return stack_of_thread(call.thread, files)


def _debugger_attached() -> bool:
    return sys.gettrace() is not None or "pydevd" in sys.modules or "debugpy" in sys.modules
