"""The poller: one thread that polls all connections of a worker and runs proven-quick calls itself.

Rules that live here:
- One thread has the lead: it polls, reads frames and, in the inline lane, runs calls from bytes to bytes. No other
  thread wakes for such a call.
- Everything else leaves the poll with its connection (away.py) and comes back with its answer.
- The running inline call lies in `_slot`, a list of at most one item. Who pops it owns the lead: the leader after the
  call, or the sentinel when it sees the same call twice, some milliseconds apart. The sentinel then takes the call's
  connection out of the poll and leads on; the old leader's pop fails, and it answers its one call and ends.
  `list.pop` is the compare-and-swap. There is one list for each leadership, so that a retired leader cannot pop
  another's call.
- Events that were polled and not yet served lie in `_ready`, which belongs to whoever leads.
- A call that is sure to ask the gateway is told first (early.py): its connection stays in the poll meanwhile.
- A process that a plugin forks never answers: the connections are the parent's.
- A malformed frame costs its own connection. Nothing that a frame or a plugin does ends the lead.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from apisix.runner.server.asking import CHUNK as BODY_CHUNK
from apisix.runner.server.away import FORKED_EXIT_CODE, Away
from apisix.runner.server.board import OwnRow, Row
from apisix.runner.server.call import BAD_REQUEST, Call
from apisix.runner.server.connection import CHUNK, Connection, Held
from apisix.runner.server.dispatch import Dispatcher, Refused, Unprepared
from apisix.runner.server.early import EarlyAsks
from apisix.runner.server.entrance import YIELD_TICK, Entrance
from apisix.runner.server.lanes import QUICK_SECONDS
from apisix.runner.server.readiness import READABLE, Wakeup, readiness
from apisix.runner.wire.frame import HEADER_SIZE, FrameType

log = logging.getLogger("apisix.runner.poller")

HandOver = Callable[[int], None]
"""Gives the connection with that file descriptor away, or raises OSError."""

TICK = 0.005  # seconds between two looks of the sentinel
IDLE_TICK = 0.5  # seconds, when nothing has run for a while; the next event wakes it
IDLE_AFTER = 100  # ticks
DEADLINE_TICKS = 10  # ticks between two looks at the deadlines
MOST_EVENTS = 256
LOOK_AT_ENTRANCE = -1  # among the file descriptors that are ready: other workers had their moment
PREPARE_CONF = int(FrameType.PREPARE_CONF)
_FROM_GATEWAY = (FrameType.PREPARE_CONF, FrameType.HTTP_REQ_CALL, FrameType.HTTP_RESP_CALL)


class Poller:
    """The connections of one worker.

    Args:
        listener: bound and listening; becomes non-blocking.
        dispatcher: turns frames into calls.
        threads: the most threads for calls that wait.
        setup_timeout: seconds that a PrepareConf may take.
        most_connections: above, no more are accepted until one closes.
        most_pending: bytes held for unfinished frames over all connections, and as many for answers that are not read;
            a connection that goes beyond is closed.
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
        self._dispatcher = dispatcher
        self._before_wait = self._leave_lead  # looked up once, not for each call
        self._row = row
        self._served = 0
        self._epoll = readiness()
        self._connections: dict[int, Connection] = {}
        self._ready: deque[tuple[int, int]] = deque()
        self._slot: list[Call] = []
        self._lead_thread = 0
        self._lead_lock = threading.Lock()
        self._held = Held(most_pending)
        self._early = EarlyAsks(self._held, self._send, self._close)
        self._active = True
        self._sentinel_rests = False
        self._sentinel_call = threading.Event()
        self._forked = False
        self._draining = False
        self._closing = False
        self._hand_over: HandOver | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = Wakeup()
        self._entrance = Entrance(
            listener,
            self._epoll,
            most_connections=most_connections,
            allowed_users=allowed_users,
            row=row,
            count=self._connections.__len__,
            welcome=self._welcome,
        )
        self._away = Away(
            threads=threads,
            timeout=dispatcher.timeout,
            setup_timeout=setup_timeout,
            most_unsent=most_pending,
            plugin_files=lambda: dispatcher.plugin_files,
            refused=dispatcher.watch.refused,
            release=self._release,
            close=self._close,
            forget=self._forget,
            on_idle=self._check_drained,
        )
        self.drained = threading.Event()
        self.confs: Callable[[], int] = lambda: 0
        self.housekeeping: Callable[[float], None] = lambda now: None

    # Life.

    def start(self, predecessors: socket.socket | None = None) -> None:
        """Start polling in a thread of its own.

        Args:
            predecessors: a datagram socket on which workers that retire send their idle connections.
        """
        self._epoll.register(self._wake.fd, READABLE)
        self._entrance.open(predecessors)
        self._share()
        threading.Thread(target=self._lead, name="io", daemon=True).start()
        threading.Thread(target=self._watch, name="sentinel", daemon=True).start()

    def drain(self, hand_over: HandOver | None = None) -> None:
        """Stop accepting, answer what is open and what still comes, and set `drained` when no connection is left.

        Each connection closes right after an answer on it, never while it is idle: the gateway may be sending.

        Args:
            hand_over: takes connections instead, with whatever the gateway is sending on them: idle ones at once,
                others after their answer.
        """
        self._command(lambda: self._begin_drain(hand_over))

    def close(self) -> None:
        """Stop accepting and close idle connections; calls that are open are still answered."""
        self._command(self._begin_close)

    @property
    def open_calls(self) -> int:
        """Calls that have no answer yet."""
        return self._away.open + len(self._slot) + len(self._early)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake.set()

    def _begin_drain(self, hand_over: HandOver | None) -> None:
        self._hand_over = hand_over
        self._entrance.close()
        self._draining = True  # not before: while connections still come, the end of the last one there is no end
        log.info("draining: %d connections, %d open calls", len(self._connections), self.open_calls)
        self._hand_over_idle()
        self._share()  # not accepting any more, which says that the idle ones are handed over
        self._check_drained()

    def _hand_over_idle(self) -> None:
        for connection in list(self._connections.values()):
            if self._hand_over is None:
                break
            if connection.registered and not connection.held and connection.early is None:
                self._detach(connection)
                if self._is_handed_over(connection):
                    self._close(connection)
                else:
                    self._attach(connection)

    def _begin_close(self) -> None:
        self._begin_drain(None)
        self._closing = True
        for connection in list(self._connections.values()):
            if connection.registered and connection.early is None:
                self._close(connection)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._draining and not self._connections and not self._away.afterwards.pending:
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
            if self._entrance.yields:
                ready.extend(poll(YIELD_TICK, MOST_EVENTS))
                ready.append((LOOK_AT_ENTRANCE, 0))
            else:
                ready.extend(poll(-1, MOST_EVENTS))

    def _special(self, fd: int) -> None:
        if fd == self._wake.fd:
            self._wake.clear()
            while self._commands:
                self._commands.popleft()()
        elif fd == LOOK_AT_ENTRANCE:
            self._entrance.look()
        else:
            self._entrance.event(fd)

    def _serve(self, connection: Connection, slot: list[Call]) -> bool:
        """Read from a connection and handle its frame. Returns False when the lead was lost meanwhile."""
        if not connection.registered:
            return True
        early = connection.early
        try:
            data = connection.receive(CHUNK if early is None or not early.held else BODY_CHUNK)
        except BlockingIOError:
            data = b""
            if connection.pieces is None:
                return True
        except OSError:
            if early is not None:
                return self._hear(connection, b"", slot)
            self._close(connection)
            return True
        else:
            if early is not None:
                return self._hear(connection, data, slot)
            if not data:
                if connection.held:
                    log.warning(
                        "the gateway closed a connection in the middle of a frame, after %d bytes", connection.held
                    )
                self._close(connection)
                return True
        if connection.pieces is None and len(data) >= HEADER_SIZE:
            if len(data) == 4 + (data[1] << 16 | data[2] << 8 | data[3]):  # frame_length, without a call
                return self._handle(connection, data, slot)
        return self._serve_pieces(connection, data, slot)

    def _serve_pieces(self, connection: Connection, data: bytes, slot: list[Call]) -> bool:
        """The same for frames that come in pieces, or several at once."""
        held = connection.held
        frame = connection.take(data)
        if held or frame is None:
            self._held.bytes += connection.held - held
            if self._held.is_too_much:
                log.error(
                    "closing a connection: unfinished frames hold %d bytes, limits.pending_bytes is %d",
                    self._held.bytes,
                    self._held.most,
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
            self._held.bytes += connection.held - held
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
            self._away.prepare(
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
            if unprepared.is_check:
                self._served -= 1
            self._detach(connection)
            self._away.prepare(
                connection,
                unprepared.give_up,
                partial(self._dispatcher.restore, connection, frame, unprepared),
            )
            return True
        if call.phase_chain.habits.asks:
            asks = call.early_asks()
            if asks:
                self._early.ask(connection, call, asks)
                return True
        return self._run(connection, call, slot, now)

    def _hear(self, connection: Connection, data: bytes, slot: list[Call]) -> bool:
        """Take what the gateway answers before a call runs. Returns False when the lead was lost meanwhile."""
        call = self._early.hear(connection, data)
        return call is None or self._run(connection, call, slot, time.monotonic())

    def _run(self, connection: Connection, call: Call, slot: list[Call], now: float) -> bool:
        """Run a call, or hand it out. Returns False when the lead was lost meanwhile."""
        lane = call.phase_chain.lane
        if not lane.inline:
            self._detach(connection)
            self._away.hand_out(call)
            return True
        call.before_wait = self._before_wait
        slot.append(call)
        answer = call.run()
        try:
            slot.pop()
        except IndexError:
            with self._lead_lock:
                pass  # the new leader is still taking the connection out of the poll
            self._away.answer(call, answer)
            return False
        lane.runs += 1
        if time.monotonic() - now > QUICK_SECONDS:
            lane.was_slow_inline()
        self._send(connection, answer)
        if call.response.after is not None:
            self._away.afterwards.submit(call)
        return True

    def _send(self, connection: Connection, answer: bytes) -> None:
        """Send an answer without waiting; what does not fit is sent away from the poll."""
        if self._forked:
            os._exit(FORKED_EXIT_CODE)
        try:
            sent = connection.send(answer)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(answer):
            self._detach(connection)
            self._away.send_rest(connection, answer[sent:])
        elif connection.broken or self._draining:
            self._detach(connection)
            self._release(connection)

    def _refuse(self, connection: Connection, refused: Refused) -> None:
        self._dispatcher.watch.refused(refused.reason)
        if refused.reason is not None:
            log.error("malformed frame: %s; it is refused and its connection closed", refused.reason)
            connection.broken = True
        self._send(connection, refused.answer)

    def in_forked_child(self) -> None:
        """A plugin forked this process: its connections are the parent's, and it ends when the plugin returns."""
        self._forked = True
        self._away.in_forked_child()
        # It may live on: nobody is to wait for answers on what it holds open.
        self._entrance.in_forked_child()
        for connection in self._connections.values():
            connection.close()

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
            quiet = 0 if self._active or self._away.open else quiet + 1
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
            self._away.adopt(call)
        call.phase_chain.lane.demote()
        return call

    def _leave_lead(self, call: Call) -> None:
        """A running inline call is about to wait for the gateway: another thread leads on."""
        if self._take_call(call) is not None:
            threading.Thread(target=self._lead, name="io", daemon=True).start()

    def _look_after(self, now: float) -> None:
        self._away.look(now)
        if self._entrance.is_due(now):
            self._command(self._entrance.resume)
        if self._early:
            self._command(lambda: self._early.give_up(now))
        if self._hand_over is not None:  # a call may have ended just while the idle ones were handed over
            self._command(self._hand_over_idle)
        self._share()
        self.housekeeping(now)

    # Connections.

    def _welcome(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        self._connections[connection.fd] = connection
        self._attach(connection)
        self._share()

    def _share(self) -> None:
        """Write this worker's numbers to the board."""
        if self._row is not None:
            numbers = len(self._connections), self.open_calls, self.confs(), self._away.stuck, self._served
            accepting = int(self._entrance.accepting)
            self._row.write(Row(os.getpid(), accepting, *numbers, time.monotonic(), self._away.busy_threads))

    def _attach(self, connection: Connection) -> None:
        self._epoll.register(connection.fd, READABLE)
        connection.registered = True  # only now: the lead may take it out of the poll as soon as it reads this

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
        if self._draining and not connection.held and (self._is_handed_over(connection) or not connection.has_more()):
            self._close(connection)
            return
        self._attach(connection)
        if connection.held:
            self._command(lambda: self._ready.append((connection.fd, 0)))

    def _is_handed_over(self, connection: Connection) -> bool:
        """Give a connection to workers that stay. Returns whether there are any."""
        hand_over = self._hand_over
        if hand_over is None:
            return False
        try:
            hand_over(connection.fd)
        except OSError as error:
            log.warning("connections cannot be handed over (%s): each ends after its next answer", error)
            self._hand_over = None
            return False
        return True

    def _forget(self, connection: Connection) -> None:
        if self._connections.get(connection.fd) is connection:
            del self._connections[connection.fd]
        self._check_drained()

    def _close(self, connection: Connection) -> None:
        connection.close()  # first: until then the gateway may send in vain
        if connection.early is not None:
            self._early.end(connection)
        if connection.held:
            self._held.bytes -= connection.held
            connection.pieces = None
        connection.registered = False
        self._forget(connection)
        self._share()
        self._check_drained()
