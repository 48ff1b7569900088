"""What a worker tells the inspector of `dev`: each run of a plugin; and that nobody is ever waited for."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from apisix.runner.inspection import MOST_BODY, MOST_LINES, SOCKET_VARIABLE, Change, Event, Line, Loaded, PluginRun
from apisix.runner.server.reporter import Reporter
from apisix.runner.wire.messages import encode_prepare_conf_req
from tests.server.connections import SECONDS, stop_of
from tests.server.processes import Runner, Start
from tests.server.test_early import LEARNED

PLUGINS = """
import asyncio, logging, msgspec
log = logging.getLogger("shop")

class Changes(Base):
    def filter(self, request, response):
        request.path = "/new"
        request.args.setall("a", ["1", "2"])
        del request.headers["x-old"]
        request.body = b"\\xff new"
        request.context["user"] = "anna"
        response.headers.add("X-Two", "1")
        response.headers.add("X-Two", "2")

class Looks(Base):
    def filter(self, request, response):
        request.path, request.args.pairs(), request.headers.pairs(), response.headers.pairs()

class Asks(Base):
    def filter(self, request, response):
        log.info("it is %s", request.var("a"))

class AsksAsync(Base):
    async def filter(self, request, response):
        await asyncio.gather(request.read_var("a"), self.more())

    async def more(self):
        log.warning("more")

class Leaves(Base):
    async def filter(self, request, response):
        self.task = asyncio.create_task(self.later())

    async def later(self):
        await asyncio.sleep(0.05)
        log.info("a task of its own has ended")

class Raises(Base):
    def filter(self, request, response):
        raise ValueError("no \\udcff good")

class GoesOn(Base):
    on_error = "continue"

    def filter(self, request, response):
        raise ValueError("never mind")

class Returns(Base):
    def filter(self, request, response):
        return 1

class Late(Base):
    timeout = 0.05

    async def filter(self, request, response):
        await asyncio.sleep(30)

class Stops(Base):
    def filter(self, request, response):
        self.stop(201, "x" * 100_000)

class Logs(Base):
    def filter(self, request, response):
        for number in range(1000):
            log.info("line %d", number)

class Typed(Base):
    \"\"\"Has a conf.\"\"\"

    class Conf(msgspec.Struct):
        rate: int

    def filter_response(self, request, response):
        response.status_code = 202
        response.body = b"changed"
"""


class Inspector:
    """Listens as the inspector does, in a thread."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self.changed = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                event = msgspec.json.decode(line, type=Event)
                with self.changed:
                    self.events.append(event)
                    self.changed.notify_all()

    def wait_for(self, is_it: Callable[[Event], bool]) -> Event:
        """The first event that is what is looked for."""
        found: list[Event] = []

        def is_there() -> bool:
            found[:] = [event for event in self.events if is_it(event)]
            return bool(found)

        with self.changed:
            assert self.changed.wait_for(is_there, SECONDS), self.events
        return found[0]

    def run_of(self, call: int) -> PluginRun:
        """What was told of a call's plugin."""
        event = self.wait_for(lambda event: isinstance(event, PluginRun) and event.call == call)
        assert isinstance(event, PluginRun)
        return event

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    listening = Inspector(tmp_path_factory.mktemp("inspector") / "i.sock")
    yield listening
    listening.close()


@pytest.fixture(scope="module")
def runner(inspector: Inspector) -> Iterator[Runner]:
    path = inspector._listener.getsockname()
    with Runner(PLUGINS, "--gateway-version", "3.18.0", environ={SOCKET_VARIABLE: path}) as running:
        yield running.wait_until_ready()


def told(runner: Runner, inspector: Inspector, name: str, call: int, calls: int = 1) -> PluginRun:
    """What is told of a plugin's (last) run."""
    with runner.connect() as gateway:
        token = gateway.prepare((name, ""), key=f"route#{name}#ext-plugin-pre-req#1")
        for number in range(calls):
            gateway.call(
                token,
                {"a": b"1"},
                id=call + number,
                path="/old",
                args=[("a", "0")],
                headers=[("X-Old", "o"), ("X-B", "b")],
            )
    return inspector.run_of(call + calls - 1)


def test_what_is_loaded_is_told_with_schemas(runner: Runner, inspector: Inspector) -> None:
    event = inspector.wait_for(lambda event: isinstance(event, Loaded))
    assert isinstance(event, Loaded)
    [typed] = [plugin for plugin in event.plugins if plugin.name == "Typed"]
    assert (typed.about, typed.phases, Path(typed.file).name) == ("Has a conf.", ["response"], "plugins.py")
    assert "rate" in str(typed.schema)
    [late] = [plugin for plugin in event.plugins if plugin.name == "Late"]
    assert (late.phases, late.timeout, late.schema) == (["async request"], 0.05, None)


def test_every_change_is_told(runner: Runner, inspector: Inspector) -> None:
    run = told(runner, inspector, "changes", 100)
    assert run.changes == [
        Change("path", "", ["/old"], ["/new"]),
        Change("argument", "a", ["0"], ["1", "2"]),
        Change("request header", "x-old", ["o"], None),
        Change("request body", "", None, ["\\xff new"]),
        Change("response header", "x-two", None, ["1", "2"]),
        Change("context", "user", None, ['"anna"']),
    ]
    assert not run.stopped
    assert 0 < run.seconds < SECONDS


def test_a_line_tells_its_call_as_without_an_inspector(runner: Runner, inspector: Inspector) -> None:
    told(runner, inspector, "asks", 150)
    assert "route=route#asks request=150 plugin=asks" in runner.log.wait_for("it is 1 ")


def test_looking_is_no_change(runner: Runner, inspector: Inspector) -> None:
    assert told(runner, inspector, "looks", 200).changes == []


def test_a_change_in_the_response_phase_is_told(runner: Runner, inspector: Inspector) -> None:
    with runner.connect() as gateway:
        token = gateway.prepare(("typed", '{"rate": 1}'), key="route#1#ext-plugin-post-resp#1")
        gateway.response_call(token, {"request_method": b"GET"}, id=250)
    run = inspector.run_of(250)
    assert run.phase == "response"
    assert run.changes == [
        Change("status", "", ["200"], ["202"]),
        Change("response body", "", None, ["changed"]),
    ]


@pytest.mark.parametrize(("name", "call"), [("asks", 300), ("asks_async", 400)])
def test_what_was_asked_and_logged_is_told(runner: Runner, inspector: Inspector, name: str, call: int) -> None:
    run = told(runner, inspector, name, call)
    [asked] = run.asked
    assert asked.value is not None
    assert (asked.what, asked.value.text) == ("variable a", "1")
    assert asked.seconds > 0
    [line] = run.lines
    assert (line.logger, line.level) == ("shop", "info" if name == "asks" else "warn")


def test_what_was_asked_before_the_plugin_ran_is_told_as_its_own(runner: Runner, inspector: Inspector) -> None:
    run = told(runner, inspector, "asks", 1000, LEARNED)
    [asked] = run.asked
    assert asked.value is not None
    assert (asked.what, asked.value.text, asked.seconds) == ("variable a", "1", 0.0)


@pytest.mark.parametrize(
    ("name", "call", "error", "continues"),
    [
        ("raises", 500, "ValueError: no \\xff good", False),
        ("goes_on", 501, "ValueError: never mind", True),
        ("returns", 502, "it returned int; filter must return None", False),
        ("late", 503, "TimeoutError: it took longer than its timeout of 0.05 s", False),
    ],
)
def test_a_failure_is_told(
    runner: Runner, inspector: Inspector, name: str, call: int, error: str, continues: bool
) -> None:
    run = told(runner, inspector, name, call)
    assert (run.error, run.continues) == (error, continues)
    if name in ("raises", "goes_on"):
        assert run.traceback.splitlines()[1].startswith(f'  File "{runner.folder}/plugins.py"')


def test_what_is_told_is_bounded(runner: Runner, inspector: Inspector) -> None:
    run = told(runner, inspector, "stops", 600)
    assert run.stopped
    [body] = [change.after for change in run.changes if change.part == "response body"]
    assert body is not None
    assert len(body[0]) <= MOST_BODY + 100
    assert len(told(runner, inspector, "logs", 601).lines) == MOST_LINES


def test_lines_outside_of_plugins_are_told(runner: Runner, inspector: Inspector) -> None:
    with runner.connect() as gateway:
        gateway.exchange(encode_prepare_conf_req([("typed", "{}")], "route#9#ext-plugin-post-resp#1"))
    line = inspector.wait_for(lambda event: isinstance(event, Line) and "rate" in event.text)
    assert isinstance(line, Line)
    assert line.level == "error"


def test_what_a_task_logs_after_its_plugin_has_ended_is_a_line_outside(runner: Runner, inspector: Inspector) -> None:
    assert told(runner, inspector, "leaves", 700).lines == []
    inspector.wait_for(lambda event: isinstance(event, Line) and event.text == "a task of its own has ended")


def test_being_watched_changes_no_answer(runner: Runner, start: Start) -> None:
    unwatched = start(PLUGINS, "--gateway-version", "3.18.0").wait_until_ready()
    names = [name.lower() for name in re.findall(r"^class (\w+)\(", PLUGINS, re.MULTILINE) if name != "Typed"]
    answers = []
    for each in (runner, unwatched):
        with each.connect() as gateway:
            for name in names:
                token = gateway.prepare((name, ""), key="route#same#ext-plugin-pre-req#1")
                call = {"path": "/old", "args": [("a", "0"), ("b", None)], "headers": [("X-Old", "o"), ("x-b", "b")]}
                answers.append(gateway.call(token, {"a": b"1"}, **call))
            token = gateway.prepare(("typed", '{"rate": 1}'), key="route#same#ext-plugin-post-resp#1")
            answers.append(gateway.response_call(token, {"request_method": b"GET"}))
    half = len(answers) // 2
    assert answers[:half] == answers[half:]
    assert half == len(names) + 1


# Nobody is waited for


def test_an_inspector_that_is_not_there_changes_nothing(start: Start, tmp_path: Path) -> None:
    runner = start(PLUGINS, environ={SOCKET_VARIABLE: str(tmp_path / "nobody.sock")}).wait_until_ready()
    with runner.connect() as gateway:
        assert stop_of(gateway.call(gateway.prepare(("stops", "")))).status == 201


def test_an_inspector_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "i.sock"))
    listener.listen()
    reporter = Reporter(str(tmp_path / "i.sock"))
    connection, _ = listener.accept()
    line = Line(0.0, "info", "x", "y" * 2000)
    began = time.monotonic()
    for _ in range(20_000):  # 40 MB
        reporter.tell(line)
    assert time.monotonic() - began < SECONDS
    with listener, connection:
        connection.setblocking(False)
        read = b""
        while True:
            try:
                read += connection.recv(1 << 20)
            except BlockingIOError:
                reporter.tell(line)  # now there is room, for the rest of a line and what comes after it
                try:
                    read += connection.recv(1 << 20)
                except BlockingIOError:
                    break
                if b"were dropped" in read:
                    break
    events = [msgspec.json.decode(each, type=Event) for each in read.split(b"\n")[:-1]]
    assert all(isinstance(event, Line) for event in events)
    reporter.close()
    assert any("events before this one were dropped" in event.text for event in events if isinstance(event, Line))


def test_an_inspector_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "i.sock"))
    listener.listen()
    reporter = Reporter(str(tmp_path / "i.sock"))
    listener.accept()[0].close()
    listener.close()
    for _ in range(3):
        reporter.tell(Line(0.0, "info", "x", "y"))
    assert reporter._socket is None


def test_without_an_inspector_nothing_is_wrapped(start: Start) -> None:
    source = """
class Who(Base):
    def filter(self, request, response):
        import sys
        self.stop(200, sys._getframe(1).f_code.co_filename)
"""
    runner = start(source).wait_until_ready()
    with runner.connect() as gateway:
        caller = stop_of(gateway.call(gateway.prepare(("who", "")))).body or b""
    assert not caller.endswith(b"server/reporting.py")
