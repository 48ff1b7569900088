"""The hub: the last exchanges, what the runner told about them, and who watches.

Rules that live here: everything is bounded, the oldest goes first; a watcher gets what has changed since it was last
told, however often it changed, so that a slow one holds up nobody and costs no memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from apisix.runner.gateway.exchange import Exchange
from apisix.runner.gateway.inspector.views import Detail, Summary, detail, with_run
from apisix.runner.inspection import Event, Line, Loaded, PluginRun

MOST_EXCHANGES = 500
MOST_LINES = 500


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has changed.

    Attributes:
        exchanges: those that are new or have changed, the oldest first.
        lines: of the runner's log, those that no plugin logged in its run.
        loaded: the plugins, where they were loaded (again).
        routes: whether routes have changed.
        cleared: whether everything before was forgotten.
    """

    exchanges: list[Summary] = []
    lines: list[Line] = []
    loaded: Loaded | None = None
    routes: bool = False
    cleared: bool = False


class _Entry:
    """An exchange: as it is while it goes on, else as it was when it ended."""

    def __init__(self, number: int, exchange: Exchange) -> None:
        self.number = number
        self.port = exchange.arrival.remote[1]
        self.exchange: Exchange | None = exchange
        self.runs: dict[int, list[PluginRun]] = {}
        self.calls: list[int] = []
        self._detail: Detail | None = None

    def owns(self, call: int) -> bool:
        """Whether a call of the runner was made for this exchange."""
        return self.exchange is not None and any(one.id == call for one in self.exchange.record.runner)

    def end(self) -> None:
        """Keep what is shown of the exchange, not the exchange with all its bodies."""
        assert self.exchange is not None
        self.calls = [call.id for call in self.exchange.record.runner if call.id is not None]
        self._detail = self.detail()
        self.exchange = None

    def late(self, run: PluginRun) -> None:
        """Add a run that ended after the exchange."""
        assert self._detail is not None
        calls = []
        for call in self._detail.calls:
            plugins = with_run(call.plugins, run) if call.id == run.call else call.plugins
            calls.append(msgspec.structs.replace(call, plugins=plugins))
        self._detail = msgspec.structs.replace(self._detail, calls=calls)

    def detail(self) -> Detail:
        """The exchange as the page gets it."""
        if self.exchange is not None:
            return detail(self.number, self.exchange, self.runs)
        assert self._detail is not None
        return self._detail


class Watcher:
    """Somebody who looks at the page."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.numbers: dict[int, None] = {}
        self.lines: deque[Line] = deque(maxlen=MOST_LINES)
        self.loaded = self.routes = self.cleared = False


class Hub:
    """The gateway's observer, and the receiver's listener.

    Attributes:
        drain: reads what the runner has told so far.
    """

    def __init__(self) -> None:
        self.drain: Callable[[], None] = lambda: None
        self.loaded: Loaded | None = None
        self._last = 0
        self._entries: dict[int, _Entry] = {}
        self._by_call: dict[int, _Entry] = {}
        self._lines: deque[Line] = deque(maxlen=MOST_LINES)
        self._watchers: set[Watcher] = set()
        self.closed = False

    # What happens.

    def began(self, exchange: Exchange) -> None:
        """An exchange has arrived."""
        self._last += 1
        self._entries[self._last] = _Entry(self._last, exchange)
        exchange.record.number = self._last
        while len(self._entries) > MOST_EXCHANGES:
            self._forget(next(iter(self._entries)))
        self._changed(self._last)

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self.drain()
        entry = self._entries.get(exchange.record.number)
        if entry is None:
            return
        entry.end()
        self._by_call |= dict.fromkeys(entry.calls, entry)
        self._changed(entry.number)

    def heard(self, event: Event) -> None:
        """The runner has told something."""
        match event:
            case PluginRun():
                self._ran(event)
            case Line():
                self._lines.append(event)
                for watcher in self._watchers:
                    watcher.lines.append(event)
            case Loaded():
                if self.loaded is None or event.used:
                    self.loaded = event
                else:
                    self.loaded = msgspec.structs.replace(self.loaded, problems=event.problems)
                for watcher in self._watchers:
                    watcher.loaded = True
        self._wake()

    def _ran(self, run: PluginRun) -> None:
        ended = self._by_call.get(run.call)
        if ended is not None:
            ended.late(run)
            self._changed(ended.number)
            return
        for entry in self._entries.values():
            if entry.owns(run.call):
                entry.runs.setdefault(run.call, []).append(run)
                self._changed(entry.number)

    def routes_changed(self) -> None:
        """Routes were changed on the page."""
        for watcher in self._watchers:
            watcher.routes = True
        self._wake()

    def clear(self) -> None:
        """Forget every exchange that has ended, and the log."""
        for number in [number for number, entry in self._entries.items() if entry.exchange is None]:
            self._forget(number)
        self._lines.clear()
        for watcher in self._watchers:
            watcher.cleared = True
            watcher.lines.clear()
            watcher.numbers = dict.fromkeys(self._entries)
        self._wake()

    def close(self) -> None:
        """Let every watcher go."""
        self.closed = True
        self._wake()

    def _forget(self, number: int) -> None:
        for call in self._entries.pop(number).calls:
            self._by_call.pop(call, None)

    def _changed(self, number: int) -> None:
        for watcher in self._watchers:
            watcher.numbers[number] = None
            if len(watcher.numbers) > MOST_EXCHANGES:
                del watcher.numbers[next(iter(watcher.numbers))]
        self._wake()

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.changed.set()

    # Who looks at it.

    def detail(self, number: int) -> Detail | None:
        """An exchange, None where it is not there any more."""
        entry = self._entries.get(number)
        return None if entry is None else entry.detail()

    def number_of(self, port: int) -> int | None:
        """The last exchange whose client has that port."""
        return next((entry.number for entry in reversed(self._entries.values()) if entry.port == port), None)

    def lines_between(self, started: float, ended: float) -> list[Line]:
        """What the runner logged meanwhile, outside of its plugins."""
        return [line for line in self._lines if started <= line.time <= ended]

    @contextmanager
    def watcher(self) -> Iterator[Watcher]:
        """Somebody who looks, and at first gets all there is."""
        watcher = Watcher()
        watcher.numbers = dict.fromkeys(self._entries)
        watcher.lines.extend(self._lines)
        watcher.loaded = watcher.routes = watcher.cleared = True
        watcher.changed.set()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def update(self, watcher: Watcher) -> Update:
        """What has changed for a watcher since the last time."""
        watcher.changed.clear()
        entries = [self._entries[number] for number in sorted(watcher.numbers) if number in self._entries]
        update = Update(
            [entry.detail().summary for entry in entries],
            list(watcher.lines),
            self.loaded if watcher.loaded else None,
            watcher.routes,
            watcher.cleared,
        )
        watcher.numbers, watcher.loaded, watcher.routes, watcher.cleared = {}, False, False, False
        watcher.lines.clear()
        return update
