"""The log of a real runner: its fields, its file, and a line for each call."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.server.connections import Connection, error_of
from tests.server.processes import Runner, Start
from tests.server.test_workers import wait_until

PLUGINS = """
import logging

class Logs(Base):
    def setup(self):
        logging.getLogger("shop").info("set up")

    def teardown(self):
        logging.getLogger("shop").info("torn down")

    def filter(self, request, response):
        logging.getLogger("shop").info("hello", extra={"n": 1})
        print(request.headers)
        self.after(logging.warning, "afterwards")

class Awaits(Base):
    async def filter(self, request, response):
        await asyncio.sleep(0)
        logging.warning("hello from the loop")

class Threads(Base):
    blocking = True
    def filter(self, request, response):
        logging.warning("hello from a thread")

class Raises(Base):
    def filter(self, request, response):
        raise ValueError("no")

class Answers(Base):
    def filter(self, request, response):
        self.stop(402, "pay")

    def filter_response(self, request, response):
        response.status_code = 418

class Sleeps(Base):
    blocking = True
    def filter(self, request, response):
        time.sleep(30)
"""
FLAGS = ("--logging-access", "1", "--logging-redact", "x-secret")


class TestFields:
    @pytest.mark.parametrize(
        ("plugin", "line"),
        [
            ("logs", r"INFO  shop hello n=1 route=route#1 request=7 plugin=logs worker=\d+"),
            ("awaits", r"WARN  root hello from the loop route=route#1 request=7 plugin=awaits worker=\d+"),
            ("threads", r"WARN  root hello from a thread route=route#1 request=7 plugin=threads worker=\d+"),
        ],
    )
    def test_a_line_of_a_plugin_tells_route_request_plugin_and_worker(
        self, runner: Runner, gateway: Connection, plugin: str, line: str
    ) -> None:
        since = len(runner.log)
        gateway.call(gateway.prepare((plugin, "")))
        assert re.search(line + "$", runner.log.wait_for(" hello", since))

    def test_the_worker_is_the_one_that_ran_it(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        gateway.call(gateway.prepare(("logs", "")))
        assert runner.log.wait_for(" hello", since).endswith(f"worker={runner.worker()}")

    def test_setup_tells_route_and_plugin(self, runner: Runner, gateway: Connection) -> None:
        gateway.prepare(("logs", "new"), key="route#setup#ext-plugin-pre-req#1")
        assert re.search(r"shop set up route=route#setup plugin=logs worker=\d+$", runner.log.wait_for("route#setup"))

    def test_what_runs_after_the_answer_tells_route_and_request(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        gateway.call(gateway.prepare(("logs", "")))
        assert re.search(r"root afterwards route=route#1 request=7 worker=", runner.log.wait_for("afterwards", since))

    def test_the_runners_own_lines_have_the_rest_in_their_message(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        error_of(gateway.call(gateway.prepare(("raises", ""))))
        line = runner.log.wait_for("failed: ValueError", since)
        assert re.search(r"route#1 request 7 '/': plugin 'raises' failed: .*; the call fails worker=\d+$", line)

    def test_in_json_the_runners_own_lines_have_them_too(self, start: Start) -> None:
        runner = start(PLUGINS, "--logging-format", "json", "--timeout", "0.2")
        with runner.connect() as gateway:
            for plugin in ("raises", "sleeps"):
                error_of(gateway.call(gateway.prepare((plugin, ""))))
                gateway.close()
                gateway = runner.connect()
            gateway.close()
        of_call = {"route": "route#1", "request": 7, "worker": runner.worker()}
        failed = _event(runner.log.wait_for("failed: ValueError"))
        given_up = _event(runner.log.wait_for("passed its deadline"))
        assert failed.items() >= {**of_call, "plugin": "raises", "level": "error"}.items()
        assert given_up.items() >= {**of_call, "plugin": "sleeps", "level": "error"}.items()

    def test_headers_that_are_secret_are_not_printed(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        headers = [("x-secret", "a"), ("cookie", "b"), ("x-plain", "c")]
        gateway.call(gateway.prepare(("logs", "")), headers=headers)
        assert runner.log.wait_for("<Headers", since) == "<Headers x-secret: ***, cookie: ***, x-plain: c>"


def _event(line: str) -> dict[str, Any]:
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


class TestAccess:
    def test_each_call_has_a_line(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        token = gateway.prepare(("answers", ""))
        for number in range(20):
            gateway.call(token, path=f"/{number}")
        runner.log.wait_for("apisix.runner.access GET '/19'", since)
        lines = [line for line in runner.log.text(since).splitlines() if "apisix.runner.access" in line]
        assert len(lines) == 20
        facts = r"route=route#1 request=7 phase=request outcome=stopped seconds=[\d.e-]+ status=402 plugins=answers"
        assert re.search(rf"GET '/0' {facts} worker=\d+$", lines[0])

    @pytest.mark.parametrize(("plugin", "outcome"), [("logs", "passed"), ("awaits", "passed"), ("raises", "failed")])
    def test_it_tells_what_became_of_the_request(
        self, runner: Runner, gateway: Connection, plugin: str, outcome: str
    ) -> None:
        since = len(runner.log)
        gateway.call(gateway.prepare((plugin, "")))
        assert f"outcome={outcome} " in runner.log.wait_for("apisix.runner.access", since)

    def test_and_so_in_the_response_phase(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        gateway.response_call(gateway.prepare(("answers", ""), key="route#1#ext-plugin-post-resp#1"))
        line = runner.log.wait_for("apisix.runner.access", since)
        assert "access response route=route#1 request=8 phase=response outcome=rewritten" in line
        assert "status=418" in line

    def test_neither_query_nor_headers_are_in_it(self, runner: Runner, gateway: Connection) -> None:
        since = len(runner.log)
        token = gateway.prepare(("answers", ""))
        gateway.call(token, path="/x\ny", args=[("token", "hush")], headers=[("x-token", "hush")])
        line = runner.log.wait_for("apisix.runner.access", since)
        assert "GET '/x\\ny' " in line
        assert "hush" not in line

    def test_a_call_that_is_given_up_on_has_one_too(self, start: Start) -> None:
        runner = start(PLUGINS, "--logging-access", "1", "--timeout", "0.2")
        with runner.connect() as gateway:
            gateway.call(gateway.prepare(("sleeps", "")))
        assert "outcome=failed " in runner.log.wait_for("apisix.runner.access")

    def test_it_is_there_whatever_the_level(self) -> None:
        with Runner(PLUGINS, "--logging-access", "1", "--logging-level", "error") as runner:
            wait_until(runner.path.exists)  # no line tells that it accepts
            with runner.connect() as gateway:
                gateway.call(gateway.prepare(("answers", "")))
            runner.log.wait_for("apisix.runner.access GET '/'")

    def test_without_the_setting_there_is_none(self, start: Start) -> None:
        runner = start(PLUGINS)
        with runner.connect() as gateway:
            gateway.call(gateway.prepare(("answers", "")))
        runner.catch_up()
        assert not runner.log.events("apisix.runner.access")


class TestFile:
    def test_all_processes_log_to_it_and_nothing_to_stderr(self, tmp_path: Path) -> None:
        file = tmp_path / "runner.log"
        with Runner(PLUGINS, "--logging-file", str(file)) as runner:
            call(runner, file)
            runner.signal(signal.SIGINT)
            assert runner.wait() == 0
            runner.log.wait_for_end()
            text = file.read_text()
        assert "apisix.runner.supervisor listening" in text
        assert "shop hello" in text
        assert text.endswith("ended\n")
        assert file.stat().st_mode & 0o777 == 0o640 & ~_umask()
        assert runner.log.text().replace("<Headers >", "") == ""

    def test_on_usr1_all_processes_go_on_in_a_new_file(self, tmp_path: Path) -> None:
        file, old = tmp_path / "runner.log", tmp_path / "runner.log.1"
        with Runner(PLUGINS, "--logging-file", str(file)) as runner:
            call(runner, file)
            file.rename(old)
            runner.signal(signal.SIGUSR1)
            wait_for(file, "")
            wait_until(lambda: call(runner, None) or "shop hello" in file.read_text())  # the worker hears it later
            runner.signal(signal.SIGINT)
            assert runner.wait() == 0
            assert "ended" in file.read_text()
            assert "ended" not in old.read_text()

    def test_a_full_disk_is_told_once_and_lines_go_to_stderr(self, start: Start) -> None:
        runner = start(PLUGINS, "--logging-file", "/dev/full")
        with runner.connect() as gateway:
            gateway.call(gateway.prepare(("logs", "")))
        runner.log.wait_for("shop hello")
        problem = "logging.file /dev/full cannot be written (No space left on device): lines go to stderr instead"
        assert len(runner.log.events(problem)) == 2  # the supervisor's, and the worker's

    def test_a_file_that_cannot_be_made_is_told_and_had_as_soon_as_it_can(self, start: Start, tmp_path: Path) -> None:
        file = tmp_path / "later" / "runner.log"
        runner = start(PLUGINS, "--logging-file", str(file))
        assert "No such file or directory" in runner.log.wait_for("cannot be written")
        file.parent.mkdir()
        wait_until(lambda: call(runner, None) or file.exists())
        assert "shop hello" in file.read_text()

    def test_without_a_file_usr1_is_harmless(self, start: Start) -> None:
        runner = start(PLUGINS)
        runner.signal_group(signal.SIGUSR1)
        with runner.connect() as gateway:
            gateway.call(gateway.prepare(("logs", "")))
        assert not runner.log.events("ended (")


def call(runner: Runner, file: Path | None) -> bool:
    """Make a call that is logged, once the runner's file says that it accepts. Returns False."""
    if file is not None:
        wait_for(file, "accepting, pid")
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("logs", "")))
    return False


def wait_for(file: Path, text: str) -> None:
    """Wait until a file is there and holds a text."""
    wait_until(lambda: file.exists() and text in file.read_text())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
