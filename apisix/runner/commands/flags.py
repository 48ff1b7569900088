"""The flags of settings, for commands that take some or all of them.

Rules that live here:
- A flag is declared once, as a setting (config.py); help and names derive from it.
- Where an author's plugins are: where a flag, the environment or `--config` says; else in the folder `plugins` of the
  current one, if there is one; else where the packaged config file says.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from apisix.runner import config
from apisix.runner.errors import StartError

Command = Callable[..., None]
PLUGINS_FOLDER = "plugins"
_SECTION = "plugins."


def settings_flags(command: Command) -> Command:
    """Give `command` a flag for each setting, and `--config`; it gets them as keyword arguments."""
    return _with_flags(command, config.ROWS.values())


def plugin_flags(command: Command) -> Command:
    """As `settings_flags`, for the settings that say where plugins come from."""
    return _with_flags(command, [row for row in config.ROWS.values() if row.name.startswith(_SECTION)])


def socket_flag(command: Command) -> Command:
    """As `settings_flags`, for the setting that says where a runner listens."""
    return _with_flags(command, [config.ROWS["socket.file"]])


def _with_flags(command: Command, rows: Iterable[config.Row]) -> Command:
    for row in reversed(list(rows)):
        option = click.option(
            row.flag,
            row.keyword,
            metavar=row.kind.metavar,
            multiple=row.kind.many,
            help=f"{row.help}.  [{row.variable}; default: {row.default_text}]",
        )
        command = option(command)
    file_help = (
        f"Where the settings not given here are read from.  [{config.FILE_VARIABLE}; default: the packaged file]"
    )
    return click.option("--config", "config_file", metavar="FILE", help=file_help)(command)


def given(flags: dict[str, Any]) -> config.Flags:
    """The flags that were given, by the names of their settings."""
    found = {row.name: flags.get(row.keyword) for row in config.ROWS.values()}
    return {name: value for name, value in found.items() if value is not None and value != ()}


def path_of(config_file: str | None) -> Path | None:
    """The file that `--config` names."""
    return None if config_file is None else Path(config_file)


def plugin_settings(
    config_file: str | None, flags: dict[str, Any], folders: Sequence[Path] = ()
) -> config.PluginSettings:
    """Where plugins come from.

    Args:
        config_file: what `--config` was given.
        flags: what `plugin_flags` gave the command.
        folders: where plugins are if nothing else says so; without any, the folder `plugins` of the current one.

    Raises:
        StartError: a setting is mistaken.
    """
    said = dict(given(flags))
    row = config.ROWS["plugins.paths"]
    is_said = row.name in said or row.variable in os.environ or config_file or config.FILE_VARIABLE in os.environ
    if not is_said:
        if not folders and Path(PLUGINS_FOLDER).is_dir():
            folders = [Path(PLUGINS_FOLDER)]
        if folders:
            said[row.name] = [str(folder) for folder in folders]
    resolved = config.resolve(said, os.environ, path_of(config_file))
    values: dict[str, Any] = {}
    for one in resolved:
        if one.row.name.startswith(_SECTION):
            if one.problem:
                raise StartError(one.problem)
            values[one.row.name.removeprefix(_SECTION)] = one.value
    return config.PluginSettings(**values)
