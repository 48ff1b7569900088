"""Settings: what they are, and where their values come from.

The structs below are the one place that declares a setting: its name, type, default and help. From them derive the
flags of `apisix-runner start`, the environment names, the listing of `apisix-runner config` and the documentation.

Rules:
- A flag wins over an environment variable, that over the config file, that over the default.
- Wherever a value comes from, it arrives as text and is read by the one reader of its kind.
- Any value may be `$env.NAME`, which stands for the value of that environment variable.
- A relative folder is relative to the config file's folder; from a flag or the environment, to the current folder.
- Every mistake is a `StartError` of one line: where, what was expected, what came, what to do.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec

from apisix.runner import config_kinds as kinds
from apisix.runner.config_file import Entry, read_config_file
from apisix.runner.config_kinds import Kind
from apisix.runner.errors import StartError

PACKAGED_FILE = Path(__file__).resolve().parent.parent / "config.yaml"
FILE_VARIABLE = "APISIX_RUNNER_CONFIG"


class Setting(msgspec.Struct, frozen=True):
    """What a field of the structs below declares besides its type and default."""

    kind: Kind
    help: str
    ambient: str = ""
    """Environment variable that, where it is set, is the default (APISIX passes a few to the runner)."""
    flag: str = ""
    """The flag's name where it is not the setting's name with dashes."""


class SocketSettings(msgspec.Struct, frozen=True):
    file: Annotated[
        Path,
        Setting(
            kinds.socket_path(),
            "Unix socket to listen on, absolute, with or without unix:",
            "APISIX_LISTEN_ADDRESS",
            flag="--socket",
        ),
    ]
    mode: Annotated[int, Setting(kinds.octal(), "Permissions of the socket; APISIX connects as its workers' user")] = (
        0o666
    )
    group: Annotated[str, Setting(kinds.account(), "Group that the socket is given to, by name or number")] = ""
    allow_users: Annotated[
        tuple[str, ...],
        Setting(kinds.accounts(), "Users that may connect, by name or number; without any, everyone who can"),
    ] = ()


class LoggingSettings(msgspec.Struct, frozen=True):
    level: Annotated[
        Literal["debug", "info", "warn", "error"],
        Setting(kinds.choice("debug", "info", "warn", "error"), "Least serious level that is logged"),
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Setting(kinds.choice("text", "json"), "Lines to read, or one JSON object a line")
    ] = "text"
    file: Annotated[Path | None, Setting(kinds.file(), "File to log to, opened again on SIGUSR1; none: stderr")] = None
    access: Annotated[float, Setting(kinds.share(), "Share of the calls that are logged, each in a line")] = 0.0
    redact: Annotated[
        tuple[str, ...], Setting(kinds.header_names(), "Headers that are printed as ***, besides the usual ones")
    ] = ()


class MetricsSettings(msgspec.Struct, frozen=True):
    listen: Annotated[
        tuple[str, int] | Path | None,
        Setting(kinds.address(), "Where metrics and health are served over HTTP; none: nothing is measured"),
    ] = None


class TracingSettings(msgspec.Struct, frozen=True):
    enabled: Annotated[
        bool, Setting(kinds.switch(), "Whether calls and plugins have spans; needs the extra tracing")
    ] = False


class PluginSettings(msgspec.Struct, frozen=True):
    paths: Annotated[
        tuple[Path, ...], Setting(kinds.folders(), "Folders whose *.py files are loaded as plugins", flag="--plugins")
    ] = (Path("plugins"),)
    classes: Annotated[
        tuple[str, ...],
        Setting(kinds.classes(), "Plugins of installed modules, as module:Class", flag="--plugin-class"),
    ] = ()
    installed: Annotated[
        Literal["all", "none"],
        Setting(kinds.choice("all", "none"), "Whether installed distributions are asked for plugins"),
    ] = "all"
    load_timeout: Annotated[
        float,
        Setting(kinds.seconds(more_than=0, less_than=50), "Seconds that a plugin's file may take to import"),
    ] = 10.0


class ConfSettings(msgspec.Struct, frozen=True):
    expire: Annotated[
        float,
        Setting(kinds.seconds(more_than=0), "Seconds that APISIX keeps a conf token", "APISIX_CONF_EXPIRE_TIME"),
    ] = 3600.0


class GatewaySettings(msgspec.Struct, frozen=True):
    version: Annotated[
        tuple[int, int, int] | None, Setting(kinds.version(), "APISIX version, for what the protocol cannot tell")
    ] = None


class LimitSettings(msgspec.Struct, frozen=True):
    connections: Annotated[int, Setting(kinds.whole(1, 1_000_000), "Open connections from the gateway")] = 4096
    pending_bytes: Annotated[
        int, Setting(kinds.size(minimum=64 * 1024), "Bytes held for unfinished frames, over all connections")
    ] = 256 * 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a runner, checked. Only `socket.file` has no default.

    Example: ``Settings(socket=SocketSettings(Path("/tmp/runner.sock")), threads=8)``.
    """

    socket: SocketSettings
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    workers: Annotated[int, Setting(kinds.whole(0, 100), "Worker processes; 0: one for each core, at most 4")] = 0
    threads: Annotated[int, Setting(kinds.whole(1, 1024), "Threads of a worker, for plugins that block")] = 32
    timeout: Annotated[
        float,
        Setting(kinds.seconds(more_than=0, less_than=60), "Seconds that a call may take; APISIX gives up after 60"),
    ] = 50.0
    setup_timeout: Annotated[
        float,
        Setting(kinds.seconds(more_than=0, less_than=5), "Seconds that a plugin's setup may take; APISIX waits 5"),
    ] = 2.5
    max_requests: Annotated[
        int, Setting(kinds.whole(0, 10**12), "Calls after which a worker is replaced, give or take a tenth; 0: never")
    ] = 0
    max_memory: Annotated[
        int, Setting(kinds.size(minimum=0), "Memory of a worker above which it is replaced; 0: never")
    ] = 0
    hang_timeout: Annotated[
        float, Setting(kinds.seconds(), "Seconds without a sign of life after which a worker is replaced; 0: never")
    ] = 10.0
    drain_timeout: Annotated[
        float,
        Setting(
            kinds.seconds(), "Seconds to go on answering after being told to stop; APISIX reuses connections for 180"
        ),
    ] = 190.0
    plugins: PluginSettings = PluginSettings()
    conf: ConfSettings = ConfSettings()
    gateway: GatewaySettings = GatewaySettings()
    limits: LimitSettings = LimitSettings()


class Row(msgspec.Struct, frozen=True):
    """One setting as users meet it: its name and all that derives from it."""

    name: str
    kind: Kind
    help: str
    default: object
    ambient: str
    flag: str

    @property
    def keyword(self) -> str:
        """Its name where only an identifier will do: `socket_file`."""
        return self.name.replace(".", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it: `APISIX_RUNNER_SOCKET_FILE`."""
        return "APISIX_RUNNER_" + self.keyword.upper()

    @property
    def default_text(self) -> str:
        """The default as one would write it: `$env.APISIX_CONF_EXPIRE_TIME, else 3600`."""
        shown = "" if self.default is msgspec.NODEFAULT else self.kind.show(self.default)
        return ", else ".join(part for part in (self.ambient and f"$env.{self.ambient}", shown) if part)


class Resolved(msgspec.Struct, frozen=True):
    """A setting's value and where it came from. Where it is mistaken, `problem` says why, and `value` is None."""

    row: Row
    value: object
    origin: str
    problem: str = ""


def _rows(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Row]:
    for field in msgspec.structs.fields(struct):
        name = prefix + field.name
        declared = [extra for extra in getattr(field.type, "__metadata__", ()) if isinstance(extra, Setting)]
        if declared:
            (setting,) = declared
            flag = setting.flag or "--" + name.replace(".", "-").replace("_", "-")
            yield Row(name, setting.kind, setting.help, field.default, setting.ambient, flag)
        else:
            yield from _rows(field.type, name + ".")


ROWS: dict[str, Row] = {row.name: row for row in _rows(Settings)}
SECTIONS = {name.rpartition(".")[0] for name in ROWS} - {""}

Flags = Mapping[str, str | Sequence[str]]
"""Values of flags by setting name; several texts for the kinds that take many."""


def load(flags: Flags, environ: Mapping[str, str], config_file: Path | None = None) -> Settings:
    """Return the settings that `flags`, `environ`, the config file and the defaults amount to.

    Without `config_file` the file named by APISIX_RUNNER_CONFIG is read, else the packaged one.
    Raises `StartError` at the first mistake.

    Example: ``load({"threads": "8"}, os.environ).threads == 8``.
    """
    resolved = resolve(flags, environ, config_file)
    for one in resolved:
        if one.problem:
            raise StartError(one.problem)
    return cast(Settings, _build(Settings, {one.row.name: one.value for one in resolved}))


def resolve(flags: Flags, environ: Mapping[str, str], config_file: Path | None = None) -> list[Resolved]:
    """Return every setting's value and origin, mistakes in values included, in the order of their declaration.

    Raises `StartError` where no list can be made: the config file cannot be read, or a key is unknown.
    """
    if config_file is None:
        config_file = Path(environ.get(FILE_VARIABLE) or PACKAGED_FILE)
    config_file = Path(os.path.abspath(config_file))
    entries = read_config_file(config_file, SECTIONS, ROWS)
    for key, entry in entries.items():
        _check_key(key, f"file {config_file}, line {entry.line}")
    for name in flags:
        _check_key(name, "flags")
    return [_resolve(row, flags, environ, entries, config_file) for row in ROWS.values()]


def _check_key(key: str, where: str) -> None:
    if key in ROWS:
        return
    near = difflib.get_close_matches(key, ROWS, n=1) or [
        name for name in ROWS if difflib.get_close_matches(key.rpartition(".")[2], [name.rpartition(".")[2]])
    ]
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(ROWS)}"
    raise StartError(f"{where}: unknown key {_quote(key)}; {advice}")


def _resolve(
    row: Row, flags: Flags, environ: Mapping[str, str], entries: Mapping[str, Entry], config_file: Path
) -> Resolved:
    given: str | Sequence[str] | None = None
    folder = config_file.parent
    if row.name in flags:
        given, origin, folder = flags[row.name], f"flag {row.flag}", Path.cwd()
    elif row.variable in environ:
        given, origin, folder = environ[row.variable], f"environment {row.variable}", Path.cwd()
    elif row.name in entries:
        given, origin = entries[row.name].value, f"file {config_file}, line {entries[row.name].line}"
    else:
        origin = "default"
        if row.ambient in environ or row.default is msgspec.NODEFAULT:
            given = f"$env.{row.ambient}"
    names = [text for text in ([given] if isinstance(given, str) else given or []) if text.startswith("$env.")]
    if names:
        origin += f" ({', '.join(names)})"
    try:
        value = row.default if given is None and origin == "default" else _read(row, given, environ)
        return Resolved(row, row.kind.settle(value, folder), origin)
    except ValueError as mistake:
        return Resolved(row, None, origin, f"{row.name} from {origin}: {mistake}")


def _read(row: Row, given: str | Sequence[str] | None, environ: Mapping[str, str]) -> object:
    """The value of what was given; ValueError says what was expected, what came and what to do."""
    kind = row.kind
    if given is None:
        raise ValueError(f"expected {kind.expected}, got nothing; give a value or remove the key")
    if isinstance(given, str):
        text = _expand(row, given, environ)
        texts = text.split(kind.separator) if kind.many else [text]
    elif kind.many:
        texts = [_expand(row, text, environ) for text in given]
    else:
        raise ValueError(f"expected {kind.expected}, got a list; give one value")
    try:
        return kind.read(texts)
    except ValueError as mistake:
        advice = f"correct it or leave it out (default {row.default_text})"
        if row.default is msgspec.NODEFAULT:
            advice = "correct it"
        raise ValueError(
            f"expected {str(mistake) or kind.expected}, got {_quote(kind.separator.join(texts))}; {advice}"
        ) from None


_VARIABLE = re.compile(r"\$env\.([A-Za-z_][A-Za-z0-9_]*)")


def _expand(row: Row, text: str, environ: Mapping[str, str]) -> str:
    if not text.startswith("$env."):
        return text
    match = _VARIABLE.fullmatch(text)
    if not match:
        raise ValueError(f"expected $env.NAME with the name of an environment variable, got {_quote(text)}")
    if match[1] not in environ:
        raise ValueError(f"environment variable {match[1]} is not set; set it, or give {row.flag} or {row.variable}")
    return environ[match[1]]


def _build(struct: type[msgspec.Struct], values: Mapping[str, object], prefix: str = "") -> msgspec.Struct:
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        name = prefix + field.name
        arguments[field.name] = values[name] if name in ROWS else _build(field.type, values, name + ".")
    return struct(**arguments)


def _quote(text: str) -> str:
    return json.dumps(text if len(text) <= 200 else text[:200] + "…", ensure_ascii=False)
