"""Early asks: what a call is sure to ask the gateway for is asked before it runs.

Rules that live here:
- The lead sends the asks and polls on; when all is answered the call runs, and need not wait in a thread of its own,
  which costs many times as much.
- Sure is what plugins declare (`variables`, `needs_body`), and what a chain's calls have asked for several times in a
  row. What then goes unread in more than a fifth of the calls is asked late again, and takes longer to be learned anew.
- A request's body is asked for early where that is declared, and not learned: the gateway waits for a slow client to
  send it, on whom a plugin that looks at the headers first may not want to wait.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from apisix.runner.http.link import GatewayError
from apisix.runner.server.asking import Replies
from apisix.runner.server.connection import Connection, Held
from apisix.runner.wire.messages import ExtraInfoReq, InfoKind

if TYPE_CHECKING:
    from apisix.runner.server.call import Call

log = logging.getLogger("apisix.runner.early")

CALLS_TO_LEARN = 4
MOST_CALLS_TO_LEARN = 4096
UNREAD_WEIGHS = 4  # as much as so many reads
FORGET_AT = 11


class Habits:
    """What the calls of one chain ask for.

    Args:
        declared: what each of them needs.

    Attributes:
        asks: what is asked before each call.
        awake: whether there is anything to tell of a call that asked for nothing late.
    """

    __slots__ = ("_debts", "_declared", "_lock", "_rows", "_to_learn", "asks", "awake")

    def __init__(self, declared: tuple[ExtraInfoReq, ...] = ()) -> None:
        self.asks = self._declared = declared
        self.awake = False
        self._rows: dict[ExtraInfoReq, int] = {}
        self._debts: dict[ExtraInfoReq, int] = {}
        self._to_learn: dict[ExtraInfoReq, int] = {}
        self._lock = threading.Lock()

    def told(self, late: Sequence[ExtraInfoReq], unread: Sequence[ExtraInfoReq]) -> None:
        """Take note of a call.

        Args:
            late: what it asked for while it ran.
            unread: what was asked before and it did not read.
        """
        if not (late or unread or self._rows or self._debts):
            return
        with self._lock:
            self._rows = {ask: self._rows.get(ask, 0) + 1 for ask in late if ask.kind is not InfoKind.REQ_BODY}
            learned = [ask for ask, row in self._rows.items() if row >= self._to_learn.get(ask, CALLS_TO_LEARN)]
            for ask in learned:
                del self._rows[ask]
            debts = {ask: debt - 1 for ask, debt in self._debts.items() if debt > 1 or ask in unread}
            for ask in unread:
                debts[ask] = debts.get(ask, 1) + UNREAD_WEIGHS
            forgotten = {ask for ask, debt in debts.items() if debt >= FORGET_AT} - set(self._declared)
            for ask in forgotten:
                del debts[ask]
                self._to_learn[ask] = min(self._to_learn.get(ask, CALLS_TO_LEARN) * 4, MOST_CALLS_TO_LEARN)
            self._debts = debts
            self.asks = tuple(dict.fromkeys([*(ask for ask in self.asks if ask not in forgotten), *learned]))
            self.awake = bool(self._rows) or len(self.asks) > len(self._declared)


class Early:
    """A call that waits for what was asked before it runs.

    Args:
        call: the one.
        asks: what for.

    Attributes:
        replies: what was asked, and what has come of it.
        held: bytes of answers that are counted as held for it.
        since: time.monotonic() when it was asked.
    """

    __slots__ = ("call", "held", "replies", "since")

    def __init__(self, call: "Call", asks: tuple[ExtraInfoReq, ...]) -> None:
        self.call = call
        self.replies = Replies(asks)
        self.held = 0
        self.since = time.monotonic()


class EarlyAsks:
    """All calls of a worker that wait to be told. Used by whoever leads.

    Args:
        held: what is held of answers counts there.
        send: sends an answer on a connection, and closes one that is broken.
        close: closes a connection.
    """

    def __init__(
        self, held: Held, send: Callable[[Connection, bytes], None], close: Callable[[Connection], None]
    ) -> None:
        self._held = held
        self._send = send
        self._close = close
        self._waiting: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, connection: Connection, call: "Call", asks: tuple[ExtraInfoReq, ...]) -> None:
        """Ask, without waiting."""
        early = Early(call, asks)
        request = early.replies.request
        try:
            sent = connection.send(request)
        except OSError:
            sent = 0
        if sent < len(request):
            log.error("closing a connection: the gateway does not read on it")
            self._close(connection)
            return
        connection.early = early
        self._waiting.add(connection)

    def hear(self, connection: Connection, data: bytes) -> "Call | None":
        """Take what the gateway answers.

        Args:
            connection: with a call that waits.
            data: what came; nothing at the connection's end.

        Returns:
            The call, where it can run now; None where it goes on waiting, or has failed.
        """
        early = connection.early
        assert early is not None
        replies = early.replies
        try:
            replies.feed(data)
            if not replies.complete:
                self._held.bytes += replies.held - early.held
                early.held = replies.held
                if self._held.is_too_much:
                    raise GatewayError(f"unfinished frames hold more than limits.pending_bytes, {self._held.most}")
                return None
        except GatewayError as error:
            self._fail(connection, error)
            return None
        self.end(connection)
        early.call.told(replies.asks, replies.results, time.monotonic() - early.since)
        return early.call

    def end(self, connection: Connection) -> None:
        """Wait no more on a connection."""
        early, connection.early = connection.early, None
        if early is not None:
            self._waiting.discard(connection)
            self._held.bytes -= early.held

    def give_up(self, now: float) -> None:
        """Fail the calls whose deadline is over."""
        for connection in list(self._waiting):
            if connection.early is not None and now > connection.early.call.deadline:
                self._fail(
                    connection, GatewayError("the gateway did not answer extra information before the call's deadline")
                )

    def _fail(self, connection: Connection, error: GatewayError) -> None:
        """Fail a call that was not told what it needs. What may still come on its connection belongs to nobody."""
        early = connection.early
        assert early is not None
        self.end(connection)
        answer = early.call.not_told(error)
        connection.broken = True
        self._send(connection, answer)
