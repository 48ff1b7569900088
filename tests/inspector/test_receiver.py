"""What workers tell, as it comes over the socket: whole, in pieces, late, or nonsense."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from apisix.runner.gateway import Gateway
from apisix.runner.gateway.exchange import Exchange
from apisix.runner.gateway.inspector.hub import MOST_LINES, Hub
from apisix.runner.gateway.inspector.receiver import Receiver
from apisix.runner.gateway.inspector.views import PluginView, with_run
from apisix.runner.inspection import Event, Line, Loaded, PluginRun

LINE = Line(1.0, "info", "shop", "sold")


class Told:
    """A receiver, what it heard, and workers that connect."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[Event] = []
        self.receiver = Receiver(folder / "i.sock", self.heard.append)
        self.workers: list[socket.socket] = []

    def worker(self) -> socket.socket:
        """A connection as a worker has it."""
        worker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        worker.connect(str(self.receiver.path))
        self.workers.append(worker)
        return worker

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        """Run a scenario while the receiver listens."""

        async def listening() -> None:
            self.receiver.start()
            try:
                await scenario()
            finally:
                self.receiver.stop()

        asyncio.run(listening())


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told
    for worker in told.workers:
        worker.close()


def encoded(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def test_what_has_come_is_heard_at_once_when_it_is_asked_for(told: Told) -> None:
    async def scenario() -> None:
        told.worker().sendall(encoded(LINE) * 3)
        told.receiver.drain()
        assert told.heard == [LINE] * 3

    told.run(scenario)


def test_an_event_may_come_in_pieces(told: Told) -> None:
    async def scenario() -> None:
        worker = told.worker()
        for byte in encoded(LINE):
            assert told.heard == []
            worker.sendall(bytes([byte]))
            told.receiver.drain()
        assert told.heard == [LINE]

    told.run(scenario)


@pytest.mark.parametrize(
    "nonsense", [b"\n", b"{}\n", b'{"type":"run"}\n', b"\xff\xfe\n", b'{"type":"line","time":"x"}\n']
)
def test_who_tells_nonsense_is_not_heard_any_more_and_others_are(
    told: Told, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        one, other = told.worker(), told.worker()
        one.sendall(nonsense + encoded(LINE))
        told.receiver.drain()
        assert told.heard == []
        assert one.recv(1) == b""
        other.sendall(encoded(LINE))
        told.receiver.drain()
        assert told.heard == [LINE]

    told.run(scenario)
    assert "what a worker tells the inspector cannot be read" in caplog.text


def test_it_hears_without_being_asked_too(told: Told) -> None:
    async def scenario() -> None:
        told.worker().sendall(encoded(LINE))
        async with asyncio.timeout(10):
            while not told.heard:
                await asyncio.sleep(0)

    told.run(scenario)


# The hub


def run_of(call: int, name: str = "late") -> PluginRun:
    return PluginRun(call=call, phase="request", name=name, file="x.py", started=0.0)


class CallNumbered77:
    """The hub behind a gateway without a runner, whose call gets a number all the same."""

    def __init__(self, hub: Hub) -> None:
        self.began = hub.began
        self._ended = hub.ended

    def ended(self, exchange: Exchange) -> None:
        exchange.record.runner[0].id = 77
        self._ended(exchange)


def test_a_run_that_ends_after_its_exchange_still_gets_there(tmp_path: Path) -> None:
    """A plugin that goes on after its call was given up on."""
    plugins = {"ext-plugin-pre-req": {"conf": [{"name": "late", "value": ""}]}}

    async def scenario() -> None:
        hub = Hub()
        async with Gateway(tmp_path / "nobody.sock", port=0) as gateway:
            gateway.observer = CallNumbered77(hub)
            gateway.put_route(1, {"uri": "/a", "plugins": plugins})
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()
        hub.heard(run_of(77))
        hub.heard(run_of(78))  # of nobody
        detail = hub.detail(1)
        assert detail is not None
        assert [plugin.run for plugin in detail.calls[0].plugins] == [run_of(77)]

    asyncio.run(scenario())


def test_a_run_belongs_to_the_plugin_of_its_name_whatever_was_dropped_before_it() -> None:
    plugins = [PluginView(name, "", None) for name in ("a", "b", "a", "c")]
    for name in ("b", "a", "unknown"):
        plugins = with_run(plugins, run_of(1, name))
    assert [plugin.run and plugin.run.name for plugin in plugins] == [None, "b", "a", None]


def test_a_watcher_that_is_slow_gets_the_last_lines_alone() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.watcher() as watcher:
            hub.update(watcher)
            for number in range(MOST_LINES + 10):
                hub.heard(Line(float(number), "info", "x", "y"))
            update = hub.update(watcher)
            assert [update.lines[0].time, len(update.lines)] == [10.0, MOST_LINES]
            assert hub.update(watcher).lines == []

    asyncio.run(scenario())


def test_code_that_is_refused_leaves_the_plugins_as_they_are_and_says_why() -> None:
    hub = Hub()
    hub.heard(Loaded(1, [], [], used=True))
    hub.heard(Loaded(2, [], ["token.py: no"], used=False))
    assert hub.loaded == Loaded(1, [], ["token.py: no"], used=True)
