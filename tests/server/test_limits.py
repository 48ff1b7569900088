"""What a runner holds: connections up to a limit, and nothing of those that are gone."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from apisix.runner.wire.messages import InfoKind
from tests.server.connections import SECONDS, Connection, body_of, can_be_read, passes, stop_of
from tests.server.processes import Runner, Start

PLUGINS = """
class Quick(Base):
    def filter(self, request, response):
        self.stop(200, "quick")

class Sleeps(Base):
    def filter(self, request, response):
        time.sleep(0.1)

class SleepsInline(Sleeps):
    blocking = False

class SleepsAsync(Base):
    async def filter(self, request, response):
        await asyncio.sleep(0.1)

class Asks(Base):
    def filter(self, request, response):
        request.var("uri")

class AsksAsync(Base):
    async def filter(self, request, response):
        await request.read_var("uri")

class Large(Base):
    def filter(self, request, response):
        self.stop(200, bytes(8 << 20))

class LargeAsync(Base):
    async def filter(self, request, response):
        self.stop(200, bytes(8 << 20))
"""


def test_beyond_the_limit_of_connections_the_next_waits_until_one_closes(start: Start) -> None:
    runner = start(PLUGINS, "--limits-connections", "3")
    with ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(3)]
        token = connections[0].prepare(("quick", ""))
        for connection in connections:
            assert body_of(connection.call(token)) == "quick"
        waiting = stack.enter_context(runner.connect())
        waiting.start_call(token)
        assert "3 connections are open, as limits.connections allows" in runner.log.wait_for("not accepting")
        assert body_of(connections[1].call(token)) == "quick", "those that are open go on"
        assert waiting.is_silent()
        connections[0].close()
        assert body_of(waiting.receive()) == "quick"


def test_large_answers_arrive_whole_in_every_lane(runner: Runner, gateway: Connection) -> None:
    for name in ("large", "large_async"):
        token = gateway.prepare((name, ""))
        for _ in range(12):
            assert len(stop_of(gateway.call(token)).body or b"") == 8 << 20


def test_an_answer_that_is_not_read_holds_no_thread(start: Start) -> None:
    runner = start(PLUGINS, "--threads", "1")
    with runner.connect() as deaf, runner.connect() as other:
        deaf.start_call(deaf.prepare(("large", "")))
        assert can_be_read(deaf.sock, SECONDS), "its answer has begun"
        for name in ("sleeps", "sleeps_async", "asks"):
            assert passes(other.call(other.prepare((name, "")), {"uri": b"/"}))
        assert len(stop_of(other.call(other.prepare(("large", "")))).body or b"") == 8 << 20
        assert len(stop_of(deaf.receive()).body or b"") == 8 << 20


def test_answers_that_are_not_read_hold_so_much_and_no_more(start: Start) -> None:
    runner = start(PLUGINS, "--limits-pending-bytes", "10MiB")
    with runner.connect() as deaf, runner.connect() as second:
        token = deaf.prepare(("large", ""))
        deaf.start_call(token)
        assert can_be_read(deaf.sock, SECONDS), "its answer has begun"
        assert second.prepare(("large", "")) == token
        second.start_call(token)
        runner.log.wait_for("answers that the gateway does not read hold")
        closed = [one.gets_closed() for one in (second, deaf)]
        assert sorted(closed) == [False, True], "one is closed, the other gets its answer"
        kept = (second, deaf)[closed.index(False)]
        assert len(stop_of(kept.call(token)).body or b"") == 8 << 20, "there is room again"


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_nothing_is_left_of_connections_that_vanish_at_any_moment(runner: Runner, gateway: Connection) -> None:
    worker = runner.worker()
    names = ("quick", "sleeps", "sleeps_inline", "sleeps_async", "asks", "asks_async", "large", "large_async")
    tokens = {name: gateway.prepare((name, "")) for name in names}
    for token in tokens.values():
        gateway.call(token, {"uri": b"/", InfoKind.REQ_BODY: b""})
    before = open_files(worker)
    for _ in range(10):
        with ExitStack() as stack:
            for token in tokens.values():
                stack.enter_context(runner.connect()).start_call(token)
            stack.enter_context(runner.connect())
            stack.enter_context(runner.connect()).send(b"\x02\x00")
            stack.enter_context(runner.connect()).send(b"\x01\x00\x00\x00" * 3)
            asking = stack.enter_context(runner.connect())
            asking.start_call(tokens["asks"])
            asking.receive()
    end = time.monotonic() + SECONDS
    while open_files(worker) > before:
        assert time.monotonic() < end, os.listdir(f"/proc/{worker}/fd")
        assert passes(gateway.call(gateway.prepare()))
