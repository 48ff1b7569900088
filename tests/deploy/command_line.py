"""A command line that stands in a recipe, checked against the command line that there is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from apisix.runner import cli, config


def check(words: Sequence[str], environ: Mapping[str, str] | None = None) -> click.Context:
    """Parse what stands after `apisix-runner`; for `start`, resolve the settings, too.

    Args:
        words: the command and its flags.
        environ: variables that the recipe sets.

    Returns:
        What click made of it.

    Raises:
        click.UsageError: there is no such command or flag.
        StartError: a setting's value is mistaken.
    """
    name, *arguments = words
    command = cli.group.get_command(click.Context(cli.group), name)
    if command is None:
        raise click.UsageError(f"there is no command {name!r}")
    context = command.make_context(name, arguments)
    if name == "start":
        given = {row.name: context.params[row.keyword] for row in config.ROWS.values()}
        flags = {setting: value for setting, value in given.items() if value not in (None, ())}
        variables = environ or {}
        file = context.params["config_file"] or variables.get(config.FILE_VARIABLE)
        config.load(flags, variables, Path(file) if file else None)
    return context
