"""The command line as its users meet it: what it prints, and its exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from apisix.runner import __version__, cli, config
from apisix.runner.compiled import CODEC
from apisix.runner.config import Settings

ENVIRON = {"PATH": os.environ["PATH"]}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with nothing but `environ` in its environment."""
    command = [sys.executable, "-m", "apisix.runner", *arguments]
    return subprocess.run(command, env=ENVIRON | environ, capture_output=True, text=True, timeout=30, check=False)


class TestStart:
    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, bool]]:
        """What the supervisor was told, by a start that ends at once with exit code 7."""
        calls: list[tuple[Settings, bool]] = []

        def supervisor(settings: Settings, *, reload: bool = False) -> int:
            calls.append((settings, reload))
            return 7

        monkeypatch.setattr("apisix.runner.server.supervisor.run", supervisor)
        monkeypatch.setattr("apisix.runner.logs.setup", lambda level, format, file: None)
        return calls

    def test_hands_the_settings_to_the_supervisor_and_ends_with_its_code(
        self, started: list[tuple[Settings, bool]]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            cli.main(["start", "--socket", "/run/a.sock", "--workers", "2"])
        assert end.value.code == 7
        ((settings, reload),) = started
        assert (settings.socket.file, settings.workers, reload) == (Path("/run/a.sock"), 2, False)

    def test_reload(self, started: list[tuple[Settings, bool]]) -> None:
        with pytest.raises(SystemExit):
            cli.main(["start", "--socket", "/run/a.sock", "--reload"])
        assert started[0][1] is True

    def test_every_setting_has_its_flag(self) -> None:
        shown = run("start", "--help").stdout
        for row in config.ROWS.values():
            assert f"  {row.flag} {row.kind.metavar}" in shown
            assert row.variable in shown

    def test_a_flag_that_takes_many_is_repeated(self, started: list[tuple[Settings, bool]], tmp_path: Path) -> None:
        with pytest.raises(SystemExit):
            cli.main(["start", "--socket", "/a", "--plugins", "/", "--plugins", str(tmp_path)])
        assert started[0][0].plugins.paths == (Path("/"), tmp_path)

    def test_a_mistaken_setting_is_exit_code_3_and_one_line(self) -> None:
        ended = run("start", "--threads", "0", APISIX_LISTEN_ADDRESS="unix:/run/a.sock")
        assert (ended.returncode, ended.stdout) == (3, "")
        assert ended.stderr == (
            "apisix-runner: threads from flag --threads: expected a whole number from 1 to 1024,"
            ' got "0"; correct it or leave it out (default 32)\n'
        )

    def test_without_a_socket_it_says_what_to_set(self) -> None:
        ended = run("start")
        assert ended.returncode == 3
        assert ended.stderr.endswith(
            "environment variable APISIX_LISTEN_ADDRESS is not set;"
            " set it, or give --socket or APISIX_RUNNER_SOCKET_FILE\n"
        )

    def test_a_mistaken_config_file_is_exit_code_3_and_one_line(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_text("thread: 3")
        ended = run("start", "--config", str(file))
        assert ended.returncode == 3
        assert ended.stderr == f'apisix-runner: file {file}, line 1: unknown key "thread"; did you mean threads?\n'

    def test_a_wrong_call_is_exit_code_2(self) -> None:
        ended = run("start", "--thread", "3")
        assert ended.returncode == 2
        assert "--threads" in ended.stderr


class TestConfig:
    def test_prints_each_value_and_where_it_came_from(self) -> None:
        ended = run("config", "--threads", "8", APISIX_LISTEN_ADDRESS="unix:/run/a.sock", APISIX_RUNNER_WORKERS="2")
        assert (ended.returncode, ended.stderr) == (0, "")
        listed = [line.split(maxsplit=2) for line in ended.stdout.splitlines()]
        assert [name for name, _, _ in listed] == list(config.ROWS)
        values = {name: (value, origin) for name, value, origin in listed}
        assert values["threads"] == ("8", "flag --threads")
        assert values["workers"] == ("2", "environment APISIX_RUNNER_WORKERS")
        assert values["socket.file"][0] == "/run/a.sock"
        assert values["socket.file"][1].startswith(f"file {config.PACKAGED_FILE}, line ")
        assert values["socket.mode"] == ("0666", "default")

    def test_json(self) -> None:
        ended = run("config", "--json", "--threads", "8", APISIX_LISTEN_ADDRESS="unix:/run/a.sock")
        listing = json.loads(ended.stdout)
        assert list(listing) == list(config.ROWS)
        assert listing["threads"] == {"value": "8", "origin": "flag --threads"}

    def test_shows_the_good_values_beside_the_mistaken_ones(self) -> None:
        ended = run("config", "--threads", "0", "--workers", "none", APISIX_LISTEN_ADDRESS="unix:/run/a.sock")
        assert ended.returncode == 3
        assert "/run/a.sock" in ended.stdout
        assert [line.split()[1] for line in ended.stderr.splitlines()] == ["workers", "threads"]

    def test_mistaken_values_are_null_in_json(self) -> None:
        ended = run("config", "--json")
        assert ended.returncode == 3
        assert json.loads(ended.stdout)["socket.file"]["value"] is None

    def test_a_path_that_is_not_utf8_can_be_shown(self) -> None:
        command = [sys.executable, "-m", "apisix.runner", "config", "--socket", os.fsdecode(b"/run/\xff.sock")]
        ended = subprocess.run(command, env=ENVIRON, capture_output=True, timeout=30, check=False)
        assert ended.returncode == 0
        assert b"/run/\\udcff.sock" in ended.stdout


class TestDev:
    def test_without_its_extra_it_says_what_to_install(self, tmp_path: Path) -> None:
        (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('No module', name='aiohttp')")
        ended = run("dev", PYTHONPATH=str(tmp_path))
        assert ended.returncode == 3
        assert ended.stderr == ("apisix-runner: dev needs aiohttp; install it: pip install 'apisix-runner[gateway]'\n")

    def test_has_flags_of_its_own(self) -> None:
        ended = run("dev", "--help")
        assert ended.returncode == 0
        assert ended.stdout.startswith("Usage: apisix-runner dev")


class TestGroup:
    def test_version_tells_the_codec(self) -> None:
        assert run("--version").stdout.startswith(f"apisix-runner {__version__}, codec: {CODEC}")
        pure = run("--version", APISIX_RUNNER_PURE="1").stdout
        assert pure == f"apisix-runner {__version__}, codec: pure (APISIX_RUNNER_PURE is 1)\n"

    def test_help_lists_the_commands(self) -> None:
        _, *sections = re.split(r"^(?=Commands)", run("--help").stdout, flags=re.MULTILINE)
        listed = [re.findall(r"^  (\w+)  ", section, re.MULTILINE) for section in sections]
        assert listed == [
            ["config", "health", "reload", "start", "status"],
            ["new", "plugins", "check", "schema", "call", "dev"],
        ]

    def test_imports_no_more_than_a_failed_start_needs(self) -> None:
        heavy = {"aiohttp", "asyncio", "multiprocessing", "socket", "uvloop", "watchfiles", "apisix.runner.plugin"}
        script = f"import sys, apisix.runner.cli; print(sorted({heavy!r} & sys.modules.keys()))"
        ended = subprocess.run([sys.executable, "-c", script], env=ENVIRON, capture_output=True, text=True, check=True)
        assert ended.stdout == "[]\n"
