"""The poller: one thread that polls all connections of a worker and runs proven-quick calls itself.

Rules that live here:
- One thread has the lead: it polls, reads frames and, in the inline lane, runs calls from bytes to bytes. No other
  thread wakes for such a call.
- Everything else leaves the poll with its connection and comes back with its answer: calls to the pool or the loop,
  PrepareConf to a thread of its own.
- The running inline call lies in `_slot`, a list of at most one item. Who pops it owns the lead: the leader after the
  call, or the sentinel when it sees the same call twice, some milliseconds apart. The sentinel then takes the call's
  connection out of the poll and leads on; the old leader's pop fails, and it answers its one call and ends.
  `list.pop` is the compare-and-swap. There is one list for each leadership, so that a retired leader cannot pop
  another's call.
- Events that were polled and not yet served lie in `_ready`, which belongs to whoever leads.
- A process that a plugin forks never answers: the connections are the parent's.
- A malformed frame costs its own connection. Nothing that a frame or a plugin does ends the lead.
"""

import asyncio
import errno
import logging
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from apisix.runner.server.afterwards import Afterwards
from apisix.runner.server.board import OwnRow, Row
from apisix.runner.server.call import BAD_REQUEST, Call
from apisix.runner.server.connection import CHUNK, Connection
from apisix.runner.server.coroutines import LoopThread
from apisix.runner.server.dispatch import Dispatcher, Refused, Unprepared
from apisix.runner.server.listen import peer_of
from apisix.runner.server.pool import Pool
from apisix.runner.server.stacks import stack_of_task, stack_of_thread
from apisix.runner.wire.frame import HEADER_SIZE, FrameType, frame_length

log = logging.getLogger("apisix.runner.poller")

TICK = 0.005  # seconds between two looks of the sentinel
IDLE_TICK = 0.5  # seconds, when nothing has run for a while; the next event wakes it
IDLE_AFTER = 100  # ticks
DEADLINE_TICKS = 10  # ticks between two looks at the deadlines
ACCEPT_PAUSE = 0.1  # seconds without accepting, when the process is out of file descriptors
YIELD = 0.02  # seconds that a worker with more connections than another waits for that one to accept
YIELD_TICK = 0.004  # seconds between two looks while it waits
MOST_EVENTS = 256
MOST_STUCK_SETUPS = 32
MOST_ACCEPTS = 64
FORKED_EXIT_CODE = 70
PREPARE_CONF = int(FrameType.PREPARE_CONF)
GiveUp = Callable[[str], bytes]
"""From what is wrong, for the log, to the answer that fails closed."""
_FROM_GATEWAY = (FrameType.PREPARE_CONF, FrameType.HTTP_REQ_CALL, FrameType.HTTP_RESP_CALL)


class Poller:
    """The connections of one worker.

    Args:
        listener: bound and listening; becomes non-blocking.
        dispatcher: turns frames into calls.
        threads: the most threads for calls that wait.
        setup_timeout: seconds that a PrepareConf may take.
        most_connections: above, no more are accepted until one closes.
        most_pending: bytes held for unfinished frames over all connections; a connection that goes beyond is closed.
        allowed_users: numbers of the users that may connect; without any, everyone.
        row: where the worker's numbers are shared with other workers; None where there is nobody to share them with.
    """

    def __init__(
        self,
        listener: socket.socket,
        dispatcher: Dispatcher,
        *,
        threads: int,
        setup_timeout: float,
        most_connections: int,
        most_pending: int,
        allowed_users: frozenset[int] = frozenset(),
        row: OwnRow | None = None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._dispatcher = dispatcher
        self._setup_timeout = setup_timeout
        self._most_connections = most_connections
        self._most_pending = most_pending
        self._allowed_users = allowed_users
        self._row = row
        self._served = 0
        self._accept_by = 0.0  # when to accept although other workers have fewer connections; 0 while not waiting
        self.confs: Callable[[], int] = lambda: 0
        self._pool = Pool("call", threads)
        self._burning_pool = Pool("burn", 1)
        self._prepare_pool = Pool("prepare", 1, MOST_STUCK_SETUPS)
        self._loop = LoopThread(self._pool)
        self._afterwards = Afterwards(self._loop, self._check_drained)
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._ready: deque[tuple[int, int]] = deque()
        self._slot: list[Call] = []
        self._lead_thread = 0
        self._lead_lock = threading.Lock()
        self._giving_up = threading.Lock()  # held from the decision to give up on a call until its answer is sent
        self._open_calls: set[Call] = set()
        self._prepares: dict[Connection, tuple[float, list[int], GiveUp]] = {}
        self._pending_bytes = 0
        self._active = True
        self._sentinel_rests = False
        self._sentinel_call = threading.Event()
        self._forked = False
        self._accepting = False
        self._accept_again = 0.0
        self._draining = False
        self._closing = False
        self._successors: socket.socket | None = None
        self._predecessors: socket.socket | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.drained = threading.Event()
        self.housekeeping: Callable[[float], None] = lambda now: None

    # Life.

    def start(self, predecessors: socket.socket | None = None) -> None:
        """Start polling in a thread of its own.

        Args:
            predecessors: a datagram socket on which workers that retire send their idle connections.
        """
        self._epoll.register(self._wake, select.EPOLLIN)
        if predecessors is not None:
            predecessors.setblocking(False)
            self._predecessors = predecessors
            self._epoll.register(predecessors, select.EPOLLIN)
        self._resume_accepting()
        threading.Thread(target=self._lead, name="io", daemon=True).start()
        threading.Thread(target=self._watch, name="sentinel", daemon=True).start()

    def drain(self, successors: socket.socket | None = None) -> None:
        """Stop accepting, answer what is open and what still comes, and set `drained` when no connection is left.

        Each connection closes right after an answer on it, never while it is idle: the gateway may be sending.

        Args:
            successors: where connections go instead, with whatever the gateway is sending on them: idle ones at once,
                others after their answer.
        """
        self._command(lambda: self._begin_drain(successors))

    def close(self) -> None:
        """Stop accepting and close idle connections; calls that are open are still answered."""
        self._command(self._begin_close)

    @property
    def open_calls(self) -> int:
        """Calls that have no answer yet."""
        return len(self._open_calls) + len(self._prepares) + len(self._slot)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        os.eventfd_write(self._wake, 1)

    def _begin_drain(self, successors: socket.socket | None) -> None:
        self._draining = True
        self._successors = successors
        self._end_yielding()
        if self._predecessors is not None:
            self._adopt(None)
            self._epoll.unregister(self._predecessors)
            self._predecessors = None
        if self._accepting:
            self._accept(None)
            self._pause_accepting()
        self._listener.close()  # who connects from now on is refused rather than kept waiting
        log.info("draining: %d connections, %d open calls", len(self._connections), self.open_calls)
        self._hand_over_idle()
        self._check_drained()

    def _hand_over_idle(self) -> None:
        for connection in list(self._connections.values()):
            if self._successors is None:
                break
            if connection.registered and not connection.held:
                self._detach(connection)
                if self._hand_over(connection):
                    self._close(connection)
                else:
                    self._attach(connection)

    def _begin_close(self) -> None:
        self._begin_drain(None)
        self._closing = True
        for connection in list(self._connections.values()):
            if connection.registered:
                self._close(connection)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._draining and not self._connections and not self._afterwards.pending:
            self.drained.set()

    # The lead.

    def _lead(self) -> None:
        slot: list[Call] = []
        self._slot = slot
        self._lead_thread = threading.get_ident()
        threading.current_thread().name = "io"
        ready = self._ready
        connections = self._connections
        poll = self._epoll.poll
        while True:
            while ready:
                fd, _ = ready.popleft()
                connection = connections.get(fd)
                try:
                    if connection is None:
                        self._special(fd)
                    elif not self._serve(connection, slot):
                        return
                except Exception:
                    log.exception("serving a connection failed: a mistake of the runner, please report it")
                    if connection is not None:
                        self._close(connection)
            self._active = True
            if self._sentinel_rests:
                self._sentinel_rests = False
                self._sentinel_call.set()
            if self._accept_by:
                ready.extend(poll(YIELD_TICK, MOST_EVENTS))
                self._accept(MOST_ACCEPTS)
                self._adopt(MOST_ACCEPTS)
            else:
                ready.extend(poll(-1, MOST_EVENTS))

    def _special(self, fd: int) -> None:
        if fd == self._wake:
            os.eventfd_read(fd)
            while self._commands:
                self._commands.popleft()()
        elif fd == self._listener.fileno():
            self._accept(MOST_ACCEPTS)
        elif self._predecessors is not None and fd == self._predecessors.fileno():
            self._adopt(MOST_ACCEPTS)

    def _serve(self, connection: Connection, slot: list[Call]) -> bool:
        """Read from a connection and handle its frame. Returns False when the lead was lost meanwhile."""
        if not connection.registered:
            return True
        try:
            data = connection.sock.recv(CHUNK)
        except BlockingIOError:
            data = b""
            if connection.pieces is None:
                return True
        except OSError:
            self._close(connection)
            return True
        else:
            if not data:
                if connection.held:
                    log.warning(
                        "the gateway closed a connection in the middle of a frame, after %d bytes", connection.held
                    )
                self._close(connection)
                return True
        if connection.pieces is None and len(data) >= HEADER_SIZE and frame_length(data) == len(data):
            return self._handle(connection, data, slot)
        return self._serve_pieces(connection, data, slot)

    def _serve_pieces(self, connection: Connection, data: bytes, slot: list[Call]) -> bool:
        """The same for frames that come in pieces, or several at once."""
        held = connection.held
        frame = connection.take(data)
        if held or frame is None:
            self._pending_bytes += connection.held - held
            if self._pending_bytes > self._most_pending:
                log.error(
                    "closing a connection: unfinished frames hold %d bytes, limits.pending_bytes is %d",
                    self._pending_bytes,
                    self._most_pending,
                )
                self._close(connection)
                return True
            if frame is None:
                return self._check_type(connection)
        while frame is not None:
            if not self._handle(connection, frame, slot):
                return False
            if not connection.registered or connection.pieces is None:
                return True
            held = connection.held
            frame = connection.take(b"")
            self._pending_bytes += connection.held - held
        return True

    def _check_type(self, connection: Connection) -> bool:
        """Refuse a frame of an impossible type before its body has come."""
        pieces = connection.pieces
        kind = pieces.first_byte if pieces is not None else None
        if kind is not None and kind not in _FROM_GATEWAY:
            reason = f"frame.type at offset 0: expected 1, 2 or 4 from the gateway, got {kind}"
            self._refuse(connection, Refused(BAD_REQUEST, reason))
        return True

    def _handle(self, connection: Connection, frame: bytes, slot: list[Call]) -> bool:
        """Run or hand out what a frame asks for. Returns False when the lead was lost meanwhile."""
        if frame[0] == PREPARE_CONF:
            self._detach(connection)
            self._submit_prepare(
                connection,
                partial(self._dispatcher.give_up_preparing, frame),
                partial(self._dispatcher.prepare, frame),
            )
            return True
        now = time.monotonic()
        self._served += 1
        try:
            call = self._dispatcher.open_call(connection, frame, now)
        except Refused as refused:
            self._refuse(connection, refused)
            return True
        except Unprepared as unprepared:
            self._detach(connection)
            self._submit_prepare(
                connection,
                unprepared.give_up,
                partial(self._dispatcher.restore, connection, frame, unprepared),
            )
            return True
        phase_chain = call.phase_chain
        if not phase_chain.lane.inline or phase_chain.chain.coroutine:
            self._detach(connection)
            self._hand_out(call)
            return True
        call.before_wait = self._leave_lead
        slot.append(call)
        answer = call.run()
        try:
            slot.pop()
        except IndexError:
            with self._lead_lock:
                pass  # the new leader is still taking the connection out of the poll
            self._answer(call, answer)
            return False
        phase_chain.lane.ran_inline(time.monotonic() - now)
        self._send(connection, answer)
        if call.response.after is not None:
            self._afterwards.submit(call)
        return True

    def _hand_out(self, call: Call) -> None:
        """Let a call run in the pool or on the loop; its connection has left the poll."""
        self._open_calls.add(call)
        if call.phase_chain.chain.coroutine:
            self._loop.submit(lambda: self._run_on_loop(call))
        else:
            pool = self._burning_pool if call.phase_chain.lane.burns else self._pool
            pool.submit(lambda: self._run_in_pool(call))

    def _submit_prepare(self, connection: Connection, failed_answer: GiveUp, job: Callable[[], bytes | Call]) -> None:
        thread = [0]
        self._prepares[connection] = (time.monotonic() + self._setup_timeout, thread, failed_answer)
        self._prepare_pool.submit(lambda: self._run_prepare(connection, job, thread, failed_answer))

    def _send(self, connection: Connection, answer: bytes) -> None:
        """Send an answer without waiting; what does not fit is sent by the pool."""
        if self._forked:
            os._exit(FORKED_EXIT_CODE)
        try:
            sent = connection.send_now(answer)
        except OSError:
            self._close(connection)
            return
        if sent < len(answer):
            self._detach(connection)
            self._pool.submit(lambda: self._finish(connection, answer[sent:]))
        elif connection.broken or self._draining:
            self._detach(connection)
            self._release(connection)

    def _refuse(self, connection: Connection, refused: Refused) -> None:
        if refused.reason is not None:
            log.error("malformed frame: %s; it is refused and its connection closed", refused.reason)
            connection.broken = True
        self._send(connection, refused.answer)

    def in_forked_child(self) -> None:
        """A plugin forked this process: its connections are the parent's, and it ends when the plugin returns."""
        self._forked = True

    # Taking the lead from a call that stalls or waits.

    def _watch(self) -> None:
        """The sentinel: looks at the running call, at deadlines, and at what else is due."""
        seen: Call | None = None
        ticks = quiet = 0
        while True:
            if quiet < IDLE_AFTER:
                time.sleep(TICK)
            else:
                self._sentinel_rests = True
                self._sentinel_call.wait(IDLE_TICK)
                self._sentinel_call.clear()
            ticks += 1
            quiet = 0 if self._active or self._open_calls or self._prepares else quiet + 1
            self._active = False
            try:
                running: Call | None = self._slot[0]
            except IndexError:
                running = None
            if running is not None and running is seen:
                if self._take_call(running) is not None:
                    threading.Thread(target=self._watch, name="sentinel", daemon=True).start()
                    self._lead()
                    return
            seen = running
            if quiet >= IDLE_AFTER or ticks % DEADLINE_TICKS == 0:
                try:
                    self._look_after(time.monotonic())
                except Exception:
                    log.exception("the sentinel's round failed: a mistake of the runner, please report it")

    def _take_call(self, running: Call) -> Call | None:
        """Pop the running call and take its connection out of the poll.

        Returns:
            The call, or None where it had ended or was taken already.
        """
        with self._lead_lock:
            try:
                if self._slot[0] is not running:
                    return None
                call = self._slot.pop()
            except IndexError:
                return None
            call.before_wait = None
            call.thread = self._lead_thread
            self._detach(call.connection)
            self._open_calls.add(call)
        call.phase_chain.lane.demote()
        return call

    def _leave_lead(self, call: Call) -> None:
        """A running inline call is about to wait for the gateway: another thread leads on."""
        if self._take_call(call) is not None:
            threading.Thread(target=self._lead, name="io", daemon=True).start()

    # Deadlines and housekeeping.

    def _look_after(self, now: float) -> None:
        if not _debugger_attached():
            for call in list(self._open_calls):
                if now > call.deadline:
                    self._give_up(call, f"passed its deadline of {self._dispatcher.timeout:g} s")
                    continue
                running = call.response.running
                if running is not None and running[1] is not None and now - running[2] > running[1]:
                    self._give_up(call, f"plugin {running[0]!r} passed its timeout of {running[1]:g} s")
            for connection, (deadline, thread, failed_answer) in list(self._prepares.items()):
                if now > deadline:
                    self._give_up_prepare(connection, thread[0], failed_answer)
        if not self._accepting and not self._draining and now > self._accept_again:
            self._command(self._resume_accepting)
        if self._successors is not None:  # a call may have ended just while the idle ones were handed over
            self._command(self._hand_over_idle)
        self._share()
        self.housekeeping(now)

    def _give_up(self, call: Call, why: str) -> None:
        with self._giving_up:
            try:
                call.ticket.pop()
            except IndexError:
                return
            self._send_last(call.connection, call.failed_answer())
        self._open_calls.discard(call)
        log.error("%s: %s; the call fails; it was at:\n%s", call.describe(), why, _stack_of(call))
        if call.task is not None:
            self._loop.cancel(call.task)
        if call.thread:
            self._pool.give_up(call.thread)
            self._burning_pool.give_up(call.thread)
        self._cut(call.connection)

    def _give_up_prepare(self, connection: Connection, thread: int, failed_answer: GiveUp) -> None:
        stack = stack_of_thread(thread, self._dispatcher.plugin_files)
        with self._giving_up:
            if self._prepares.pop(connection, None) is None:
                return
            answer = failed_answer(f"takes longer than setup_timeout, {self._setup_timeout:g} s; it is at:\n{stack}")
            self._send_last(connection, answer)
        if thread:
            self._prepare_pool.give_up(thread)
        self._cut(connection)

    def _send_last(self, connection: Connection, answer: bytes) -> None:
        try:
            connection.send_now(answer)
        except OSError:
            pass

    def _cut(self, connection: Connection) -> None:
        """End a connection that a thread still holds, which may never let go of it."""
        connection.cut()
        self._forget(connection)
        self._check_drained()

    def _close_given_up(self, connection: Connection) -> None:
        """Close a connection whose answer somebody else sends: afterwards."""
        with self._giving_up:
            pass
        self._close(connection)

    # Calls away from the poll.

    def _run_in_pool(self, call: Call) -> None:
        if not call.ticket:  # given up on while it waited for a thread
            self._close_given_up(call.connection)
            return
        call.thread = threading.get_ident()
        started, computed = time.monotonic(), time.thread_time()
        answer = call.run()
        if not call.waited:
            call.phase_chain.lane.ran_in_pool(time.monotonic() - started, time.thread_time() - computed)
        self._answer(call, answer)

    async def _run_on_loop(self, call: Call) -> None:
        call.task = asyncio.current_task()
        if not call.ticket:
            self._close_given_up(call.connection)
            return
        try:
            answer = await call.run_async(partial(self._run_in_thread, call))
        except BaseException:
            if call.ticket:  # not ours: a cancellation that no deadline asked for
                self._answer(call, call.failed_answer())
            else:
                self._close_given_up(call.connection)
            raise
        if len(answer) <= CHUNK:  # fits the socket's buffer: does not wait
            self._answer(call, answer)
        else:
            self._pool.submit(lambda: self._answer(call, answer))

    async def _run_in_thread(self, call: Call, function: Callable[[], None]) -> None:
        """Run a part of a call that is on the loop in the pool."""

        def run() -> None:
            call.thread = threading.get_ident()
            try:
                function()
            finally:
                call.thread = 0

        await self._loop.in_thread(run)

    def _answer(self, call: Call, answer: bytes) -> None:
        """Answer a call that left the poll, waiting if need be, and give its connection back."""
        self._open_calls.discard(call)
        try:
            call.ticket.pop()
        except IndexError:  # answered at its deadline
            self._close_given_up(call.connection)
            return
        self._finish(call.connection, answer)
        if call.response.after is not None:
            self._afterwards.submit(call)

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
            self._hand_out(result)
        else:
            self._finish(connection, result)

    def _finish(self, connection: Connection, answer: bytes) -> None:
        """Send an answer, waiting if need be, and give the connection back."""
        if self._forked:
            os._exit(FORKED_EXIT_CODE)
        try:
            connection.send_waiting(answer)
        except OSError:
            self._close(connection)
            return
        self._release(connection)

    # Connections.

    def _accept(self, most: int | None) -> None:
        accepted = 0
        while most is None or accepted < most:
            if most is not None and not self._is_my_turn():
                return
            if len(self._connections) >= self._most_connections and most is not None:
                log.error(
                    "not accepting: %d connections are open, as limits.connections allows", len(self._connections)
                )
                self._pause_accepting()
                return
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._end_yielding()
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("not accepting for a moment: %s; raise the limit of open files", error.strerror)
                    self._pause_accepting()
                return
            accepted += 1
            if self._is_allowed(sock):
                self._welcome(sock)
            self._end_yielding()

    def _is_allowed(self, sock: socket.socket) -> bool:
        if not self._allowed_users:
            return True
        pid, uid, _ = peer_of(sock)
        if uid in self._allowed_users:
            return True
        log.error("a connection of user %d (pid %d) is refused: socket.allow_users does not name it", uid, pid)
        sock.close()
        return False

    def _is_my_turn(self) -> bool:
        """Whether to accept now: a worker that is ahead of the emptiest one leaves it a moment to be faster."""
        if self._row is None or len(self._connections) <= self._row.fewest_connections():
            return True
        now = time.monotonic()
        if not self._accept_by:
            self._accept_by = now + YIELD
            for source in self._sources():
                self._epoll.unregister(source)
        return now >= self._accept_by

    def _end_yielding(self) -> None:
        if self._accept_by:
            self._accept_by = 0.0
            for source in self._sources():
                self._epoll.register(source, select.EPOLLIN)

    def _sources(self) -> list[socket.socket]:
        """What brings connections and is polled, unless this worker yields to others."""
        sources = [self._listener] if self._accepting else []
        return sources if self._predecessors is None else [*sources, self._predecessors]

    def _adopt(self, most: int | None) -> None:
        """Take connections that workers hand over which retire."""
        adopted = 0
        while self._predecessors is not None and (most is None or (adopted < most and self._is_my_turn())):
            try:
                _, fds, _, _ = socket.recv_fds(self._predecessors, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            adopted += 1
            for fd in fds:  # none, where this process is out of file descriptors
                sock = socket.socket(fileno=fd)
                if self._is_allowed(sock):
                    self._welcome(sock)
            self._end_yielding()

    def _welcome(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        self._connections[connection.fd] = connection
        self._attach(connection)
        self._share()

    def _share(self) -> None:
        """Write this worker's numbers to the board."""
        if self._row is not None:
            numbers = len(self._connections), self.open_calls, self.confs(), self._pool.stuck, self._served
            self._row.write(Row(os.getpid(), int(self._accepting), *numbers, time.monotonic()))

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._end_yielding()
            self._accepting = False
            self._accept_again = time.monotonic() + ACCEPT_PAUSE
            self._epoll.unregister(self._listener)
            self._share()

    def _resume_accepting(self) -> None:
        if not self._accepting and not self._draining and len(self._connections) < self._most_connections:
            self._accepting = True
            self._epoll.register(self._listener, select.EPOLLIN)
            self._share()

    def _attach(self, connection: Connection) -> None:
        connection.registered = True
        self._epoll.register(connection.fd, select.EPOLLIN)

    def _detach(self, connection: Connection) -> None:
        """Take a connection out of the poll: it belongs to its call."""
        if connection.registered:
            connection.registered = False
            self._epoll.unregister(connection.fd)

    def _release(self, connection: Connection) -> None:
        """Put a connection back into the poll after its answer, or let it go."""
        if connection.broken or self._closing:
            self._close(connection)
            return
        if self._draining and not connection.held:
            self._hand_over(connection)
            self._close(connection)
            return
        self._attach(connection)
        if connection.held:
            self._command(lambda: self._ready.append((connection.fd, 0)))

    def _hand_over(self, connection: Connection) -> bool:
        """Give a connection to workers that stay. Returns whether there are any."""
        successors = self._successors
        if successors is None:
            return False
        try:
            socket.send_fds(successors, [b"c"], [connection.fd])
        except OSError as error:
            log.warning("connections cannot be handed over (%s): each ends after its next answer", error)
            self._successors = None
            return False
        return True

    def _forget(self, connection: Connection) -> None:
        if self._connections.get(connection.fd) is connection:
            del self._connections[connection.fd]

    def _close(self, connection: Connection) -> None:
        if connection.held:
            self._pending_bytes -= connection.held
            connection.pieces = None
        connection.registered = False
        self._forget(connection)
        connection.close()
        self._share()
        self._check_drained()


def _stack_of(call: Call) -> str:
    files = {step.definition.origin for step in call.phase_chain.chain.steps}
    if call.task is not None and not call.thread:
        return stack_of_task(call.task, files)
    return stack_of_thread(call.thread, files)


def _debugger_attached() -> bool:
    return sys.gettrace() is not None or "pydevd" in sys.modules or "debugpy" in sys.modules
