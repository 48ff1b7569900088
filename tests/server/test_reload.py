"""New code in a running runner: on HUP, and by itself with --reload. No request is lost meanwhile."""

import contextlib
import signal

import pytest

from apisix.runner.wire.messages import encode_http_req_call_req
from tests.server.connections import body_of
from tests.server.load import Load
from tests.server.processes import Runner, Start, wait_for_death

VERSION = """
class Version(Base):
    def filter(self, request, response):
        self.stop(200, "{}")

class Sleeps(Base):
    def filter(self, request, response):
        time.sleep(0.5)
        self.stop(200, "slept {}")

class Asks(Base):
    async def filter(self, request, response):
        self.stop(200, (await request.read_var("uri")) + " {}")
"""


def version(text: str) -> str:
    return VERSION.replace("{}", text)


def reload(runner: Runner) -> None:
    """Reload by signal, and wait until the new code serves and the old has begun to hand over."""
    since = len(runner.log)
    runner.signal(signal.SIGHUP)
    runner.log.wait_for("reloaded: generation", since)
    runner.log.wait_for("draining: ", since)


def test_new_code_serves_the_connections_that_are_open(start: Start) -> None:
    runner = start(version("1"))
    with runner.connect() as used, runner.connect() as unused:
        token = used.prepare(("version", ""))
        assert body_of(used.call(token)) == "1"
        runner.write(version("2"))
        reload(runner)
        for connection in (used, unused) * 2:
            assert body_of(connection.call(token)) == "2"
        wait_for_death(runner.worker(1))


def test_code_of_the_same_size_saved_in_the_same_second_is_new_code(start: Start) -> None:
    runner = start(version("1"))
    with runner.connect() as connection:
        token = connection.prepare(("version", ""))
        for number in "23456":
            runner.write(version(number))
            reload(runner)
            assert body_of(connection.call(token)) == number


def test_what_a_plugin_imports_is_new_code_too(start: Start) -> None:
    runner = start(
        "from . import _helper\nclass Helped(Base):\n    def filter(self, request, response):\n"
        "        self.stop(200, _helper.WORD)\n"
    )
    runner.write("WORD = 'one'\n", "_helper.py")
    reload(runner)
    with runner.connect() as connection:
        token = connection.prepare(("helped", ""))
        assert body_of(connection.call(token)) == "one"
        runner.write("WORD = 'two'\n", "_helper.py")
        reload(runner)
        assert body_of(connection.call(token)) == "two"


@pytest.mark.parametrize("name", ["sleeps", "asks"])
def test_a_call_that_is_open_ends_with_the_old_code_and_its_connection_goes_on_with_the_new(
    start: Start, name: str
) -> None:
    runner = start(version("1"))
    with runner.connect() as connection:
        connection.start_call(connection.prepare((name, "")))
        runner.write(version("2"))
        reload(runner)
        assert body_of(connection.finish({"uri": b"/"})).endswith("1")
        assert body_of(connection.call(connection.prepare((name, "")), {"uri": b"/"})).endswith("2")
    wait_for_death(runner.worker(1))


def test_a_frame_that_comes_in_pieces_around_a_reload_is_answered(start: Start) -> None:
    runner = start(version("1"))
    with runner.connect() as connection:
        token = connection.prepare(("version", ""))
        frame = encode_http_req_call_req(7, b"\x7f\x00\x00\x01", 0, "/", [], [], token)
        connection.send(frame[:9])
        reload(runner)
        connection.send(frame[9:])
        assert body_of(connection.receive()) == "1"
        assert body_of(connection.call(token)) == "1"


def test_under_load_nothing_is_lost_over_five_reloads(start: Start) -> None:
    runner = start(version("1"))
    with Load(runner.path, ("version", ""), connections=8) as load:
        for number in "23456":
            runner.write(version(number))
            reload(runner)
            load.wait_for_answer(number)
            load.wait_for_more()
    assert load.failures == []
    assert load.histories == [sorted(history) for history in load.histories], "nobody goes back to older code"


def test_reloads_that_come_faster_than_code_loads_end_with_the_newest_code(start: Start) -> None:
    runner = start(version("1"))
    with Load(runner.path, ("version", "")) as load:
        for number in "2345":
            runner.write(version(number))
            runner.signal(signal.SIGHUP)
        load.wait_for_answer("5")
    assert load.failures == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("class Broken(Base)\n    pass\n", "plugins.py:7: does not import: SyntaxError"),
        ("import no_such_module\n", "plugins.py:7: does not import: ModuleNotFoundError"),
        ("sys.exit('not today')\n", "plugins.py:7: does not import: SystemExit: not today"),
        ("class NoFilter(Base):\n    pass\n", "plugin class NoFilter: has neither filter"),
    ],
)
def test_code_that_does_not_load_leaves_the_old_and_says_why(start: Start, source: str, problem: str) -> None:
    runner = start(version("1"))
    with Load(runner.path, ("version", ""), connections=2) as load:
        runner.write(source)
        runner.signal(signal.SIGHUP)
        line = runner.log.wait_for("reload refused, the old code goes on")
        assert problem in line
        load.wait_for_more()
        runner.write(version("3"))
        reload(runner)
        load.wait_for_answer("3")
    assert load.failures == []
    assert set(load.answers) == {"1", "3"}


def test_code_that_ends_the_process_as_it_loads_leaves_the_old(start: Start) -> None:
    runner = start(version("1"))
    with Load(runner.path, ("version", ""), connections=2) as load:
        runner.write("os._exit(7)\n")
        runner.signal(signal.SIGHUP)
        assert "exit code 7" in runner.log.wait_for("reload refused")
        load.wait_for_more()
    assert load.failures == []


LOADS_ONCE = """
import pathlib
room = pathlib.Path(__file__).parent
try:
    (room / "first").touch(exist_ok=False)
except FileExistsError:
    while not (room / "go").exists():
        time.sleep(0.01)
    raise ValueError("once is enough")

class Version(Base):
    def filter(self, request, response):
        (room / "called").touch()
        while not (room / "refused").exists():
            time.sleep(0.01)
        self.stop(200, "2")
"""


def test_a_new_worker_that_accepted_before_the_reload_was_refused_answers_its_calls(start: Start) -> None:
    runner = start(version("1"), "--workers", "2")
    runner.worker(2)
    runner.write(LOADS_ONCE)
    runner.signal(signal.SIGHUP)
    runner.worker(3)
    called = runner.folder / "called"
    with contextlib.ExitStack() as stack:
        while not called.exists():  # until one gets to the new worker
            connection = stack.enter_context(runner.connect())
            connection.start_call(connection.prepare(("version", "")))
            while connection.is_silent() and not called.exists():
                pass
        (runner.folder / "go").touch()
        runner.log.wait_for("reload refused, the old code goes on")
        (runner.folder / "refused").touch()
        assert body_of(connection.receive()) == "2"
        wait_for_death(runner.worker(3))


# By itself.


def test_a_saved_file_is_live_without_a_failed_request(start: Start) -> None:
    runner = start(version("1"), "--reload")
    with Load(runner.path, ("version", "")) as load:
        for number in "234":
            runner.write(version(number))
            load.wait_for_answer(number)
    assert load.failures == []


def test_a_saved_mistake_leaves_the_old_code_and_shows_file_and_line(start: Start) -> None:
    runner = start(version("1"), "--reload")
    with Load(runner.path, ("version", ""), connections=2) as load:
        runner.write("class Broken(Base)\n    pass\n")
        assert "plugins.py:7: does not import: SyntaxError" in runner.log.wait_for("reload refused")
        load.wait_for_more()
        runner.write(version("2"))
        load.wait_for_answer("2")
    assert load.failures == []


def test_a_new_file_is_live_too(start: Start) -> None:
    runner = start(version("1"), "--reload")
    runner.write(
        "class Added(Base):\n    def filter(self, request, response):\n        self.stop(200, 'added')\n", "b.py"
    )
    runner.log.wait_for("reloaded: generation 1")
    with runner.connect() as connection:
        assert body_of(connection.call(connection.prepare(("added", "")))) == "added"
