"""What the commands have in common: the plugins are loaded as a worker loads them, and told in lines.

Rules that live here: a command that finds something wrong ends with exit code 1; files below the current folder are
told relative to it.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from apisix.runner.config import PluginSettings

if TYPE_CHECKING:
    from apisix.runner.plugin.registry import Definition, Registry

FOUND_WRONG = 1


def load(settings: PluginSettings) -> "Registry":
    """The plugins that a runner with these settings would have."""
    from apisix.runner.plugin.discovery import load_plugins

    sys.dont_write_bytecode = True  # as in a worker: an author saves twice within a second
    installed = settings.installed == "all"
    return load_plugins(settings.paths, settings.classes, installed=installed, limit=settings.load_timeout)


def find(registry: "Registry", name: str) -> "Definition":
    """A plugin by its name; where there is none, the command ends and says which there are."""
    from apisix.runner.plugin.errors import ConfError

    try:
        return registry.find(name)
    except ConfError as error:
        for problem in registry.problems:
            say(str(problem), err=True)
        fail(str(error))


def say(line: str, err: bool = False) -> None:
    """Print a line: paths as short as they can be, bytes that are no text spelled out."""
    click.echo(short(line).encode("utf-8", "backslashreplace"), err=err)


def short(text: str) -> str:
    """A text with the paths in it relative to the current folder, where they are below it."""
    here = str(Path.cwd())
    return text if here == os.sep else text.replace(here + os.sep, "")


def fail(problem: str) -> NoReturn:
    """End the command with exit code 1 and one line."""
    say(f"apisix-runner: {' '.join(problem.split())}", err=True)
    sys.exit(FOUND_WRONG)
