"""Settings: where they come from, what each accepts, and what is said about mistakes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from apisix.runner import config
from apisix.runner.config import Settings
from apisix.runner.errors import StartError

SOCKET = {"socket.file": "/run/runner.sock"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an empty config file and a folder for plugins."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "config.yaml").touch()
    return tmp_path


def load(
    folder: Path,
    text: str = "",
    flags: Mapping[str, str | Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    file = folder / "config.yaml"
    file.write_text(text)
    return config.load(SOCKET | dict(flags or {}), environ or {}, file)


def mistake(
    folder: Path,
    text: str = "",
    flags: Mapping[str, str | Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(StartError) as caught:
        load(folder, text, flags, environ)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(folder), "FOLDER")


class TestOrder:
    def test_a_default_holds_where_nothing_is_said(self, folder: Path) -> None:
        assert load(folder).threads == 32

    def test_the_file_wins_over_the_default(self, folder: Path) -> None:
        assert load(folder, "threads: 2").threads == 2

    def test_the_environment_wins_over_the_file(self, folder: Path) -> None:
        assert load(folder, "threads: 2", environ={"APISIX_RUNNER_THREADS": "3"}).threads == 3

    def test_a_flag_wins_over_the_environment(self, folder: Path) -> None:
        assert load(folder, "threads: 2", {"threads": "4"}, {"APISIX_RUNNER_THREADS": "3"}).threads == 4

    def test_what_loses_is_not_looked_at(self, folder: Path) -> None:
        assert load(folder, "threads: $env.NOT_SET", {"threads": "4"}, {"APISIX_RUNNER_THREADS": "x"}).threads == 4


class TestOrigins:
    def origin(self, folder: Path, name: str, text: str = "", **environ: str) -> str:
        (folder / "config.yaml").write_text(text)
        resolved = config.resolve(SOCKET, environ, folder / "config.yaml")
        (found,) = [one.origin for one in resolved if one.row.name == name]
        return found.replace(str(folder), "FOLDER")

    def test_flag(self, folder: Path) -> None:
        assert self.origin(folder, "socket.file") == "flag --socket"

    def test_environment(self, folder: Path) -> None:
        assert self.origin(folder, "workers", APISIX_RUNNER_WORKERS="2") == "environment APISIX_RUNNER_WORKERS"

    def test_file_with_its_line(self, folder: Path) -> None:
        assert self.origin(folder, "workers", "\nworkers: 2") == "file FOLDER/config.yaml, line 2"

    def test_file_that_names_a_variable(self, folder: Path) -> None:
        origin = self.origin(folder, "workers", "workers: $env.CORES", CORES="2")
        assert origin == "file FOLDER/config.yaml, line 1 ($env.CORES)"

    def test_default(self, folder: Path) -> None:
        assert self.origin(folder, "workers") == "default"

    def test_default_that_a_variable_gives(self, folder: Path) -> None:
        origin = self.origin(folder, "conf.expire", APISIX_CONF_EXPIRE_TIME="60")
        assert origin == "default ($env.APISIX_CONF_EXPIRE_TIME)"


class TestConfigFile:
    def test_without_a_path_the_variable_names_it(self, folder: Path) -> None:
        (folder / "config.yaml").write_text("threads: 7")
        environ = {"APISIX_RUNNER_CONFIG": str(folder / "config.yaml")}
        assert config.load(SOCKET, environ).threads == 7

    def test_a_path_wins_over_the_variable(self, folder: Path) -> None:
        (folder / "config.yaml").write_text("threads: 7")
        environ = {"APISIX_RUNNER_CONFIG": "/not/there"}
        assert config.load(SOCKET, environ, folder / "config.yaml").threads == 7

    def test_without_either_it_is_the_packaged_one(self) -> None:
        settings = config.load({}, {"APISIX_LISTEN_ADDRESS": "unix:/run/a.sock"})
        assert settings == Settings(
            socket=config.SocketSettings(Path("/run/a.sock")),
            plugins=config.PluginSettings((config.PACKAGED_FILE.parent / "plugins",)),
        )

    def test_the_packaged_one_explains_every_setting_with_its_default(self, folder: Path) -> None:
        text = config.PACKAGED_FILE.read_text()
        uncommented = re.sub(r"(?m)^( *)# (\w+: [^ ]+)$", r"\1\2", text)
        (folder / "config.yaml").write_text(uncommented)
        environ = {"APISIX_LISTEN_ADDRESS": "/run/runner.sock"}
        resolved = config.resolve({}, environ, folder / "config.yaml")
        assert [one.row.name for one in resolved if not one.origin.startswith("file ")] == []
        assert config.load({}, environ, folder / "config.yaml") == load(folder)

    @pytest.mark.parametrize("text", ["", "# nothing", "---\n", "socket:\n", "{}", "socket: {}"])
    def test_may_be_empty(self, folder: Path, text: str) -> None:
        assert load(folder, text) == load(folder)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("thread: 1", 'line 1: unknown key "thread"; did you mean threads?'),
            ("a: 1\n", 'line 1: unknown key "a"; known are socket.file, socket.mode, '),
            ("\nsocket:\n  fil: x", 'line 3: unknown key "socket.fil"; did you mean socket.file?'),
            ("level: info", 'line 1: unknown key "level"; did you mean logging.level?'),
            ("thread:\n", 'line 1: unknown key "thread"; did you mean threads?'),
            ("threads: {a: 1}", "line 1: threads: expected a value, got more keys"),
            ("sockets:\n  file: /a", 'line 2: unknown key "sockets.file"; did you mean socket.file?'),
            ("[a]: 1", 'line 1: unknown key "?"'),
            ("plugins: {paths: [[a]]}", "line 1: plugins.paths: expected a value, got a list"),
            ("socket: /run/x.sock", "line 1: expected keys and values in socket, got a single value"),
            ("- a", "line 1: expected keys and values, got a list"),
            ("threads: 1\nthreads: 2", "line 2: threads was given before, on line 1; remove one"),
            ("threads: 1\nworkers: [", "line 2: expected YAML, but "),
            ("threads: *x", "line 1: expected YAML, but found undefined alias 'x'"),
            ("\ta: b", "line 1: expected YAML, but found character '\\t'"),
            ("a: \x01", "expected YAML, but special characters are not allowed"),
            ("[" * 5000, "expected two levels of keys, got far more"),
        ],
    )
    def test_a_mistake_is_told_with_its_line(self, folder: Path, text: str, line: str) -> None:
        found = mistake(folder, text)
        assert found.startswith("file FOLDER/config.yaml")
        assert line in found

    def test_bytes_that_are_not_utf8(self, folder: Path) -> None:
        (folder / "config.yaml").write_bytes(b"a: \xff")
        with pytest.raises(StartError, match="expected UTF-8 text, got other bytes at offset 3"):
            config.load(SOCKET, {}, folder / "config.yaml")

    def test_a_missing_file(self, folder: Path) -> None:
        with pytest.raises(
            StartError, match=r"file .*/no\.yaml: No such file or directory; name another with --config"
        ):
            config.load(SOCKET, {}, folder / "no.yaml")

    def test_a_folder_in_its_place(self, folder: Path) -> None:
        with pytest.raises(StartError, match="Is a directory"):
            config.load(SOCKET, {}, folder)


class TestVariables:
    def test_any_value_may_name_one(self, folder: Path) -> None:
        environ = {"LEVEL": "warn", "N": "3", "P": str(folder)}
        settings = load(
            folder, "logging: {level: $env.LEVEL}\nplugins: {paths: [$env.P]}", {"threads": "$env.N"}, environ
        )
        assert (settings.logging.level, settings.threads, settings.plugins.paths) == ("warn", 3, (folder,))

    def test_its_value_is_not_looked_up_again(self, folder: Path) -> None:
        environ = {"A": "$env.B", "B": "3"}
        assert 'got "$env.B"' in mistake(folder, "threads: $env.A", environ=environ)

    def test_one_that_is_not_set(self, folder: Path) -> None:
        assert mistake(folder, "threads: $env.CORES") == (
            "threads from file FOLDER/config.yaml, line 1 ($env.CORES): environment variable CORES is not set;"
            " set it, or give --threads or APISIX_RUNNER_THREADS"
        )

    @pytest.mark.parametrize("text", ["$env.", "$env.A B", "$env.1"])
    def test_one_that_is_no_name(self, folder: Path, text: str) -> None:
        assert "expected $env.NAME with the name of an environment variable" in mistake(folder, f"threads: '{text}'")


class TestValues:
    """What each kind of setting accepts; the text comes from a flag, a variable or the file alike."""

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("socket.file", "/run/a.sock", Path("/run/a.sock")),
            ("socket.file", "unix:/run/a.sock", Path("/run/a.sock")),
            ("socket.file", "/" + "x" * 106, Path("/" + "x" * 106)),
            ("socket.mode", "0600", 0o600),
            ("socket.mode", "0o660", 0o660),
            ("logging.level", "debug", "debug"),
            ("logging.format", "json", "json"),
            ("logging.file", "/var/log/runner.log", Path("/var/log/runner.log")),
            ("logging.file", "none", None),
            ("logging.access", "0.25", 0.25),
            ("logging.access", "1", 1.0),
            ("logging.redact", "X-Secret", ("x-secret",)),
            ("logging.redact", "none", ()),
            ("metrics.listen", "127.0.0.1:9464", ("127.0.0.1", 9464)),
            ("metrics.listen", "localhost:0", ("localhost", 0)),
            ("metrics.listen", "unix:/run/m.sock", Path("/run/m.sock")),
            ("metrics.listen", "none", None),
            ("tracing.enabled", "true", True),
            ("tracing.enabled", "False", False),
            ("workers", "1", 1),
            ("threads", "1024", 1024),
            ("timeout", "59.9", 59.9),
            ("setup_timeout", "0.5", 0.5),
            ("drain_timeout", "0", 0.0),
            ("conf.expire", "86400", 86400.0),
            ("gateway.version", "3.18.0", (3, 18, 0)),
            ("gateway.version", "3.2", (3, 2, 0)),
            ("gateway.version", "unknown", None),
            ("limits.connections", "1", 1),
            ("limits.pending_bytes", "65536", 65536),
            ("limits.pending_bytes", "1GiB", 2**30),
        ],
    )
    @pytest.mark.parametrize("source", ["flag", "environment", "file"])
    def test_accepted(self, folder: Path, source: str, name: str, text: str, value: object) -> None:
        if source == "flag":
            settings = load(folder, flags={name: text})
        elif source == "environment":
            settings = config.load(
                {}, {"APISIX_LISTEN_ADDRESS": "/x", config.ROWS[name].variable: text}, folder / "config.yaml"
            )
        else:
            section, _, key = name.rpartition(".")
            (folder / "config.yaml").write_text(f"{section}: {{{key}: {text}}}" if section else f"{key}: {text}")
            settings = config.load({}, {"APISIX_LISTEN_ADDRESS": "/x"}, folder / "config.yaml")
        found: object = settings
        for part in name.split("."):
            found = getattr(found, part)
        assert found == value

    def test_an_address_of_ip_6_stands_in_brackets(self, folder: Path) -> None:
        assert load(folder, flags={"metrics.listen": "[::1]:9464"}).metrics.listen == ("::1", 9464)
        assert load(folder, 'metrics: {listen: "[::1]:9464"}').metrics.listen == ("::1", 9464)

    @pytest.mark.parametrize(
        ("name", "texts", "expected"),
        [
            ("socket.file", ["", "run/a.sock", "unix:a.sock", "/run/", "tcp:/a"], "the absolute path of a unix socket"),
            ("socket.file", ["/" + "x" * 107, "/" + "ü" * 54], "a path of at most 107 bytes"),
            (
                "socket.mode",
                ["666", "0o7777", "0888", "438", "rw-rw-rw-", "-0666"],
                "octal permissions from 0000 to 0777",
            ),
            ("logging.level", ["", "warning", "INFO", "3"], "debug, info, warn or error"),
            ("logging.format", ["xml"], "text or json"),
            ("logging.file", ["", "/var/log/"], "the path of a file"),
            ("logging.access", ["1.1", "-1", "10%", "", "nan"], "a share from 0 to 1"),
            ("logging.redact", ["", "x secret", "a,b"], "names of headers"),
            (
                "metrics.listen",
                [
                    "",
                    "9464",
                    ":9464",
                    "a.example:80",
                    "127.0.0.1",
                    "1.2.3:80",
                    "::1:80",
                    "127.0.0.1:65536",
                    "[1.2.3.4]:80",
                ],
                "an address and port as 127.0.0.1:9464, a unix socket as unix:/run/metrics.sock, or none",
            ),
            ("metrics.listen", ["/" + "x" * 107], "a path of at most 107 bytes"),
            ("tracing.enabled", ["", "yes", "1"], "true or false"),
            ("workers", ["101", "-1", "1.0", "two", "", "1e1", "²"], "a whole number from 0 to 100"),
            ("threads", ["0", "1025", "true", "9" * 30], "a whole number from 1 to 1024"),
            ("timeout", ["0", "60", "-1", "nan", "inf", "1m", ""], "seconds, more than 0 and less than 60"),
            ("setup_timeout", ["0", "5"], "seconds, more than 0 and less than 5"),
            ("drain_timeout", ["-1", "9" * 400], "seconds, 0 or more"),
            ("conf.expire", ["0", "1h"], "seconds, more than 0"),
            ("gateway.version", ["3", "v3.18", "3.18.0.1", "latest", ""], "an APISIX version as 3.18.0, or unknown"),
            ("limits.connections", ["0", "1000001"], "a whole number from 1 to 1000000"),
            (
                "limits.pending_bytes",
                ["1", "63KiB", "256MB", "1.5GiB"],
                "bytes, as 268435456 or 256MiB, at least 64KiB",
            ),
        ],
    )
    def test_refused(self, folder: Path, name: str, texts: list[str], expected: str) -> None:
        for text in texts:
            line = mistake(folder, flags={name: text})
            assert line.startswith(f"{name} from flag {config.ROWS[name].flag}: expected {expected}"), text

    def test_a_mistake_says_what_to_do(self, folder: Path) -> None:
        assert mistake(folder, "threads: many") == (
            "threads from file FOLDER/config.yaml, line 1: expected a whole number from 1 to 1024,"
            ' got "many"; correct it or leave it out (default 32)'
        )

    def test_a_long_value_is_not_repeated_whole(self, folder: Path) -> None:
        assert len(mistake(folder, flags={"logging.level": "x" * 9999})) < 400

    def test_nothing_in_place_of_a_value(self, folder: Path) -> None:
        assert "got nothing; give a value or remove the key" in mistake(folder, "threads:")

    def test_a_list_in_place_of_a_value(self, folder: Path) -> None:
        assert "got a list; give one value" in mistake(folder, "threads: [1]")

    def test_an_unknown_setting(self, folder: Path) -> None:
        assert mistake(folder, flags={"theads": "1"}) == 'flags: unknown key "theads"; did you mean threads?'

    def test_what_has_no_default_must_be_given(self, folder: Path) -> None:
        with pytest.raises(StartError, match=r"socket\.file from default .*APISIX_LISTEN_ADDRESS is not set"):
            config.load({}, {}, folder / "config.yaml")

    def test_the_gateway_tells_its_expiry(self, folder: Path) -> None:
        assert load(folder, environ={"APISIX_CONF_EXPIRE_TIME": "60"}).conf.expire == 60.0

    @pytest.mark.parametrize("name", list(config.ROWS))
    def test_a_value_that_is_shown_can_be_given(self, folder: Path, name: str) -> None:
        for one in config.resolve(SOCKET, {}, folder / "config.yaml"):
            if one.row.name == name:
                shown = one.row.kind.show(one.value)
                again = config.resolve(SOCKET | {name: shown}, {}, folder / "config.yaml")
                assert one.value in [other.value for other in again if other.row.name == name]


class TestPluginFolders:
    def test_the_default_is_beside_the_config_file(self, folder: Path) -> None:
        assert load(folder).plugins.paths == (folder / "plugins",)

    def test_in_the_file_they_are_relative_to_it(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "more").mkdir()
        monkeypatch.chdir("/")
        assert load(folder, "plugins: {paths: [more, plugins]}").plugins.paths == (folder / "more", folder / "plugins")

    def test_one_needs_no_list(self, folder: Path) -> None:
        assert load(folder, "plugins: {paths: plugins}").plugins.paths == (folder / "plugins",)

    def test_from_flags_they_are_relative_to_the_current_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder / "plugins")
        assert load(folder, flags={"plugins.paths": [".", ".."]}).plugins.paths == (folder / "plugins", folder)

    def test_in_a_variable_colons_part_them(self, folder: Path) -> None:
        environ = {"APISIX_RUNNER_PLUGINS_PATHS": f"{folder}/plugins:{folder}"}
        assert load(folder, environ=environ).plugins.paths == (folder / "plugins", folder)

    def test_one_that_is_not_there(self, folder: Path) -> None:
        assert mistake(folder, "plugins: {paths: [plugin]}") == (
            "plugins.paths from file FOLDER/config.yaml, line 1:"
            " expected a folder, but FOLDER/plugin is none; create it or name another"
        )

    def test_a_default_that_is_not_there(self, folder: Path) -> None:
        (folder / "plugins").rmdir()
        assert mistake(folder).startswith("plugins.paths from default: expected a folder, but FOLDER/plugins is none")

    @pytest.mark.parametrize("text", ["[]", "['']", "''"])
    def test_none_at_all(self, folder: Path, text: str) -> None:
        assert "expected one folder or more" in mistake(folder, f"plugins: {{paths: {text}}}")


class TestRows:
    def test_names_derive_from_the_setting(self) -> None:
        row = config.ROWS["limits.pending_bytes"]
        assert (row.flag, row.variable) == ("--limits-pending-bytes", "APISIX_RUNNER_LIMITS_PENDING_BYTES")

    def test_every_default_is_shown(self) -> None:
        assert [row.name for row in config.ROWS.values() if not row.default_text] == []

    def test_every_setting_has_one_line_of_help(self) -> None:
        assert [row.name for row in config.ROWS.values() if not row.help or "\n" in row.help] == []
