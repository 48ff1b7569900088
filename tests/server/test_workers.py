"""Several workers: how connections are spread, and what happens to workers that die, hang, or had enough."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apisix.runner.server.control import Status, ask
from tests.server.connections import SECONDS, Closed, Connection, body_of
from tests.server.processes import Runner, Start, wait_for_death

PLUGINS = """
class Who(Base):
    def filter(self, request, response):
        self.stop(200, str(os.getpid()))

class Leak(Base):
    kept = []
    def filter(self, request, response):
        self.kept.append(b"x" * 10_000_000)
        self.stop(200, str(os.getpid()))

class Hang(Base):
    def filter(self, request, response):
        # One call into C that keeps the interpreter, as a bad regular expression does.
        re.match(r"(a+)+$", "a" * 64 + "b")

class Large(Base):
    def filter(self, request, response):
        bytearray(1 << 30)[::4096] = b"x" * (1 << 18)

class Crash(Base):
    def filter(self, request, response):
        import ctypes
        ctypes.string_at(0)

class Leave(Base):
    def filter(self, request, response):
        os._exit(3)

class Fork(Base):
    def filter(self, request, response):
        if os.fork() == 0:
            return
        self.stop(200, "parent")

import re
"""


def status(runner: Runner) -> Status:
    found = ask(runner.path, "status").status
    assert found is not None
    return found


def limited_group(megabytes: int) -> Path | None:
    """A new control group with so much memory and no swap; None without the right to make one."""
    memory = str(megabytes << 20)
    for controller, limit, swap in (
        ("memory/", "memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", memory)),
        ("", "memory.max", ("memory.swap.max", "0")),
    ):
        group = Path(f"/sys/fs/cgroup/{controller}runner-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            if not (group / limit).exists():
                group.rmdir()
                continue
            (group / limit).write_text(memory)
            with contextlib.suppress(OSError):  # where there is swap
                (group / swap[0]).write_text(swap[1])
            return group
    return None


@pytest.fixture
def little_memory() -> Iterator[tuple[str, ...]]:
    """A command line's beginning that gives what it starts 200 MiB of memory."""
    group = limited_group(200)
    if group is None:
        pytest.skip("no right to limit memory with a control group")
    yield ("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh")
    wait_until(lambda: not (group / "cgroup.procs").read_text())  # the last process has ended
    group.rmdir()


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again until something is so; the asking itself takes its time."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not come to be so"


def who(connection: Connection, token: int) -> str:
    return body_of(connection.call(token))


def served_by(runner: Runner, count: int, meanwhile: Callable[[], object] = lambda: None) -> list[str]:
    """The workers that serve as many connections, all open at once; `meanwhile` happens before they are used."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(count)]
        token = connections[0].prepare(("who", ""))
        meanwhile()
        return [who(connection, token) for connection in connections]


class TestSpread:
    def test_64_connections_at_4_workers_are_spread_evenly(self, start: Start) -> None:
        runner = start(PLUGINS, "--workers", "4")
        runner.worker(4)
        served = served_by(runner, 64)
        assert max(served.count(pid) for pid in set(served)) <= 24
        assert len(set(served)) == 4

    def test_a_token_is_known_to_every_worker(self, start: Start) -> None:
        runner = start(PLUGINS, "--workers", "4")
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(runner.connect())]
            token = connections[0].prepare(("who", ""))
            served = {who(connections[0], token)}
            while len(served) < 4 and len(connections) < 200:
                connections.append(stack.enter_context(runner.connect()))
                served.add(who(connections[-1], token))
        assert len(served) == 4

    def test_after_a_reload_connections_are_spread_evenly_too(self, start: Start) -> None:
        runner = start(PLUGINS, "--workers", "2")
        runner.worker(2)
        served = served_by(runner, 16, lambda: ask(runner.path, "reload"))
        assert max(served.count(pid) for pid in set(served)) <= 10


class TestReplacement:
    def test_a_worker_that_leaves_is_replaced_and_its_exit_code_told(self, start: Start) -> None:
        runner = start(PLUGINS)
        with runner.connect() as connection:
            connection.start_call(connection.prepare(("leave", "")))
            assert connection.gets_closed()
        assert "exit code 3" in runner.log.wait_for("ended (")
        runner.worker(2)
        with runner.connect() as connection:
            assert who(connection, connection.prepare(("who", "")))

    def test_a_worker_that_is_killed_is_replaced_and_the_signal_told(self, start: Start) -> None:
        runner = start(PLUGINS)
        os.kill(runner.worker(), signal.SIGKILL)
        assert "killed by SIGKILL" in runner.log.wait_for("ended (")
        runner.worker(2)

    def test_a_worker_that_crashes_is_replaced_and_the_place_told(self, start: Start) -> None:
        runner = start(PLUGINS)
        with runner.connect() as connection:
            connection.start_call(connection.prepare(("crash", "")))
            assert connection.gets_closed()
        assert "killed by SIGSEGV" in runner.log.wait_for("ended (")
        runner.log.wait_for("Segmentation fault")
        assert "plugins.py" in runner.log.wait_for("in filter")

    def test_that_the_kernel_killed_a_worker_for_want_of_memory_is_told(self, little_memory: tuple[str, ...]) -> None:
        with Runner(PLUGINS, prefix=little_memory) as runner, runner.wait_until_ready().connect() as connection:
            connection.start_call(connection.prepare(("large", "")))
            assert connection.gets_closed()
            assert "killed by SIGKILL, out of memory" in runner.log.wait_for("ended (")

    def test_a_crash_loop_backs_off(self, start: Start) -> None:
        runner = start(PLUGINS)
        pauses = []
        for number in (1, 2, 3):
            os.kill(runner.worker(number), signal.SIGKILL)
            line = runner.log.wait_for("the next starts in", count=number)
            pauses.append(float(line.rsplit("in ", 1)[1].removesuffix(" s")))
        assert pauses == [0.5, 1.0, 2.0]

    def test_a_worker_that_keeps_the_interpreter_is_replaced_and_its_stacks_shown(self, start: Start) -> None:
        runner = start(PLUGINS, "--hang-timeout", "1")
        old = runner.worker()
        wait_until(lambda: status(runner).workers[0].state == "ready")
        with runner.connect() as connection:
            connection.start_call(connection.prepare(("hang", "")))
            assert connection.gets_closed()
        wait_for_death(old)
        runner.log.wait_for("gives no sign of life")
        assert "plugins.py" in runner.log.wait_for("in filter")
        runner.worker(2)

    def test_a_stopped_worker_is_replaced(self, start: Start) -> None:
        runner = start(PLUGINS, "--hang-timeout", "1")
        old = runner.worker()
        wait_until(lambda: status(runner).workers[0].state == "ready")
        os.kill(old, signal.SIGSTOP)
        wait_for_death(old)
        runner.worker(2)

    def test_a_worker_that_goes_on_before_it_is_killed_goes_on(self, start: Start) -> None:
        runner = start(PLUGINS, "--hang-timeout", "1")
        worker = runner.worker()
        wait_until(lambda: status(runner).workers[0].state == "ready")
        with runner.connect() as connection:
            token = connection.prepare(("who", ""))
            os.kill(worker, signal.SIGSTOP)
            runner.log.wait_for("gives no sign of life")
            os.kill(worker, signal.SIGCONT)
            runner.log.wait_for("gives signs of life again")
            assert who(connection, token) == str(worker)
        assert status(runner).workers[0].state == "ready"

    def test_a_process_that_a_plugin_forks_does_not_answer(self, start: Start) -> None:
        runner = start(PLUGINS)
        with runner.connect() as connection:
            token = connection.prepare(("fork", ""))
            assert [body_of(connection.call(token)) for _ in range(5)] == ["parent"] * 5
            assert connection.is_silent()

    def test_a_second_death_does_not_put_off_the_start_that_is_due(self, start: Start) -> None:
        runner = start(PLUGINS, "--workers", "2")
        for number in (1, 2):
            os.kill(runner.worker(number), signal.SIGKILL)
        line = runner.log.wait_for("the next starts in", count=2)
        assert float(line.rsplit("in ", 1)[1].removesuffix(" s")) <= 0.5
        runner.worker(4)


class TestRecycling:
    def test_after_max_requests_a_worker_is_replaced_and_no_call_is_lost(self, start: Start) -> None:
        runner = start(PLUGINS, "--max-requests", "100")
        with runner.connect() as connection:
            token = connection.prepare(("who", ""))
            first = who(connection, token)
            wait_until(lambda: who(connection, token) != first)
        assert "it served" in runner.log.wait_for("is replaced")

    def test_above_max_memory_a_worker_is_replaced(self, start: Start) -> None:
        runner = start(PLUGINS, "--max-memory", "100MiB")
        with runner.connect() as connection:
            token = connection.prepare(("leak", ""))
            first = body_of(connection.call(token))
            while body_of(connection.call(token)) == first and "is replaced" not in runner.log.text():
                pass
        assert "MiB of memory" in runner.log.wait_for("is replaced")


class TestNumberOfWorkers:
    def test_ttin_starts_one_more_and_ttou_lets_one_go(self, start: Start) -> None:
        runner = start(PLUGINS)
        runner.signal(signal.SIGTTIN)
        runner.worker(2)
        assert len(status(runner).workers) == 2
        runner.signal(signal.SIGTTOU)
        wait_until(lambda: len(status(runner).workers) == 1)

    def test_the_last_one_stays(self, start: Start) -> None:
        runner = start(PLUGINS)
        first = runner.worker()
        runner.signal(signal.SIGTTOU)
        assert [worker.pid for worker in status(runner).workers] == [first]


class TestRestart:
    def test_the_next_runner_on_the_socket_knows_the_tokens(self, start: Start) -> None:
        runner = start(PLUGINS)
        with runner.connect() as connection:
            token = connection.prepare(("who", ""))
        runner.signal(signal.SIGINT)
        assert runner.wait() == 0
        successor = start(runner.folder, socket_path=runner.path)
        with successor.connect() as connection:
            assert who(connection, token)

    def test_under_rolling_reloads_no_call_fails(self, start: Start) -> None:
        runner = start(PLUGINS, "--workers", "2")
        runner.worker(2)
        stop = threading.Event()
        counts: list[int] = []
        failures: list[BaseException] = []

        def load() -> None:
            count = 0
            try:
                with runner.connect() as connection:
                    token = connection.prepare(("who", ""))
                    while not stop.is_set():
                        assert who(connection, token)
                        count += 1
            except (AssertionError, Closed, OSError) as error:
                failures.append(error)
            counts.append(count)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert ask(runner.path, "reload").ok
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
        assert not failures
        assert min(counts) > 0
        assert "CONF_TOKEN" not in runner.log.text()


class TestControl:
    def test_status_tells_workers_plugins_and_calls(self, start: Start) -> None:
        runner = start(PLUGINS)
        with runner.connect() as connection:
            token = connection.prepare(("who", ""))
            for _ in range(3):
                who(connection, token)
            wait_until(lambda: status(runner).workers[0].state == "ready")
            wait_until(lambda: status(runner).workers[0].served == 3)
            found = status(runner)
        assert found.pid == runner.pid
        assert found.plugins == ["Crash", "Fork", "Hang", "Large", "Leak", "Leave", "Who"]
        assert (found.generation, found.restarts) == (0, 0)
        assert found.workers[0].connections == 1
        assert found.workers[0].state == "ready"

    def test_reload_says_which_generation_serves(self, start: Start) -> None:
        runner = start(PLUGINS)
        assert ask(runner.path, "reload").message == "generation 1 serves"

    def test_code_that_does_not_load_is_refused_with_file_and_line(self, start: Start) -> None:
        runner = start(PLUGINS)
        runner.write("def broken(:", "broken.py")
        answer = ask(runner.path, "reload")
        assert not answer.ok
        assert re.search(r"broken\.py:7: does not import: SyntaxError", answer.message)
        assert status(runner).generation == 0

    def test_a_problem_that_was_there_before_does_not_keep_other_code_from_loading(self, start: Start) -> None:
        folder = start("").folder
        (folder / "broken.py").write_text("def broken(:")
        runner = start(folder)
        assert ask(runner.path, "reload").ok


def test_processes_are_named_after_what_they_do(start: Start) -> None:
    runner = start(PLUGINS)

    def title(pid: int) -> str:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").rstrip("\0")

    assert title(runner.pid) == f"apisix-runner: supervisor on {runner.path}"
    assert title(runner.worker()) == f"apisix-runner: worker of generation 0 on {runner.path}"
