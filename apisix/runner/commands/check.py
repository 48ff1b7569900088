"""`apisix-runner check`: what is wrong with plugins, and with the routes that use them.

Rules that live here: each problem is one line, beginning with file and line; the exit code is 1 where there is any. A
plugin is loaded, and a conf prepared, as a worker does it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apisix.runner.commands.flags import PLUGINS_FOLDER, plugin_flags, plugin_settings
from apisix.runner.commands.loading import FOUND_WRONG, load, say
from apisix.runner.errors import StartError

if TYPE_CHECKING:
    from apisix.runner.commands.routes import Use
    from apisix.runner.plugin.registry import Definition, Registry

SETUP_SECONDS = 2.5  # as the setting setup_timeout is by default
ROUTES_FILE = "apisix.yaml"
ROUTES_SUFFIXES = (".yaml", ".yml", ".json")


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=".")
@plugin_flags
@click.option("--no-setup", is_flag=True, help="Do not run the plugins' setup for the confs of routes.")
def check(path: Path, no_setup: bool, config_file: str | None, **flags: Any) -> None:
    """Check plugins, and the routes that use them.

    PATH is a project's folder (with a folder `plugins` and routes in `apisix.yaml`, the current folder if not given), a
    folder of plugins, or a file of routes in APISIX's standalone or Admin API format.

    Plugins: whether they import, in time, and their names, signatures, declarations and Conf are right.
    Routes: whether each plugin that they name exists, runs in that phase, and accepts its conf; for that, its setup
    is run, unless --no-setup says otherwise.

    Each problem is one line. Exit codes: 0 none, 1 some, 3 a setting is mistaken.

    \b
    Examples:
      apisix-runner check
      apisix-runner check routes.yaml --plugins plugins
    """
    folder, routes = _parts(path)
    settings = plugin_settings(config_file, flags, [folder] if folder is not None else [])
    registry = load(settings)
    problems = [str(problem) for problem in registry.problems]
    if routes is None and not problems and not registry.definitions():
        folders = ", ".join(map(str, settings.paths))
        problems.append(f"{folders}: no plugins; a plugin is a class that derives from apisix.runner.plugin.base.Base")
    resources = 0
    if routes is not None:
        from apisix.runner.commands.routes import read_routes

        try:
            found = read_routes(routes)
        except OSError as error:
            raise StartError(f"{routes}: {error.strerror}") from None
        resources = found.resources
        lines: list[tuple[int, str]] = list(found.problems)
        for use in found.uses:
            lines += [(use.line, f"{use.place}: {problem}") for problem in _use_problems(use, registry, not no_setup)]
        problems += [f"{routes}:{line}: {problem}" for line, problem in sorted(lines)]
    for text in problems:
        say(" ".join(text.split()))
    say(_summary(len(registry.definitions()), routes, resources, len(problems)))
    sys.exit(FOUND_WRONG if problems else 0)


def _parts(path: Path) -> tuple[Path | None, Path | None]:
    """The folder of plugins and the file of routes that a path stands for."""
    if path.is_dir():
        folder = path / PLUGINS_FOLDER
        routes = path / ROUTES_FILE
        is_project = folder.is_dir() or routes.is_file()
        if path == Path(".") and not is_project:
            return None, None
        return (folder if folder.is_dir() else None if is_project else path), (routes if routes.is_file() else None)
    if not path.exists():
        raise StartError(f"{path}: there is none; name a folder, or a file of routes")
    if path.suffix not in ROUTES_SUFFIXES:
        raise StartError(f"{path}: expected a folder of plugins, or a file of routes ({', '.join(ROUTES_SUFFIXES)})")
    beside = path.parent / PLUGINS_FOLDER
    return (beside if beside.is_dir() else None), path


def _use_problems(use: "Use", registry: "Registry", with_setup: bool) -> Iterator[str]:
    from apisix.runner.plugin.errors import ConfError
    from apisix.runner.plugin.registry import METHODS

    try:
        definition = registry.find(use.name)
        if use.phase not in definition.phases:
            has = ", ".join(METHODS[phase] for phase in sorted(definition.phases))
            yield f"plugin {use.name!r}: expected {METHODS[use.phase]} for the {use.phase} phase, but it has only {has}"
        _prepare(use, definition, registry, with_setup)
    except ConfError as error:
        yield f"{error}{_where(error, registry)}"


def _prepare(use: "Use", definition: "Definition", registry: "Registry", with_setup: bool) -> None:
    """Prepare a conf as a worker does it, and let it go.

    Raises:
        ConfError: the plugin rejects it.
    """
    import logging

    from apisix.runner.plugin.chain import build_plugins, tear_down
    from apisix.runner.plugin.conf import parse_conf
    from apisix.runner.plugin.errors import ConfError
    from apisix.runner.plugin.limit import TooLong, time_limit

    if not with_setup:
        if not definition.raw_conf:
            parse_conf(use.name, use.value, definition.conf_type)
        return
    logging.getLogger("apisix.runner").setLevel(logging.CRITICAL)  # a problem is one line, without its traceback
    try:
        with time_limit(SETUP_SECONDS):
            tear_down(build_plugins([(use.name, use.value)], registry))
    except TooLong as late:
        advice = "wait at the first call instead, or raise setup_timeout"
        raise ConfError(use.name, f"its setup is {late}; {advice}") from late


def _where(error: BaseException, registry: "Registry") -> str:
    """Where a plugin's own code refused a conf, for the end of a line."""
    from apisix.runner.plugin.importing import place_of

    if error.__cause__ is None:
        return ""
    files = tuple({Path(definition.origin) for definition in registry.definitions()})
    place = place_of(error.__cause__, "", files)
    return f" (at {place})" if place else ""


def _summary(plugins: int, routes: Path | None, resources: int, problems: int) -> str:
    checked = _count(plugins, "plugin")
    if routes is not None:
        checked += f" and {_count(resources, 'resource')} of {routes.name}"
    return f"checked {checked}: {_count(problems, 'problem') if problems else 'no problems'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
