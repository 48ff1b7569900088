"""The command line: `apisix-runner start`, `config`, `status`, `reload` and `dev`. Authors' commands: commands/.

Rules:
- The flags of `start` and `config` are the settings' own (commands/flags.py); nothing here declares one a second time.
- A command that is called wrongly ends with exit code 2 (click's way); a runner that cannot start, with 3 and one line.
- A command imports what it needs when it runs: help and a failed start are quick, the supervisor stays small.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from apisix.runner import __version__, config
from apisix.runner.commands.flags import given, path_of, settings_flags
from apisix.runner.commands.lazy import LazyGroup
from apisix.runner.errors import StartError

if TYPE_CHECKING:
    from apisix.runner.server.control import Answer

GATEWAY_EXTRA = ("aiohttp", "h11")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that `arguments` (without them, those of the process) ask for, and exit with its code."""
    try:
        group.main(arguments, prog_name="apisix-runner")
    except StartError as error:
        _complain(str(error))
        sys.exit(StartError.exit_code)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from apisix.runner.compiled import CODEC, WHY_PURE

        click.echo(f"apisix-runner {__version__}, codec: {CODEC}" + (f" ({WHY_PURE})" if WHY_PURE else ""))
        context.exit()


@click.group(cls=LazyGroup, context_settings={"max_content_width": 120})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, and which codec runs.",
)
def group() -> None:
    """Runs plugins for Apache APISIX that are written in Python."""


@group.command()
@settings_flags
@click.option("--reload", is_flag=True, help="Load plugins anew when their files change.")
def start(config_file: str | None, reload: bool, **flags: Any) -> None:
    """Listen for APISIX and run plugins until told to stop.

    A flag wins over an environment variable, that over the config file, that over the default.
    """
    settings = config.load(given(flags), os.environ, path_of(config_file))

    from apisix.runner import logs
    from apisix.runner.server import supervisor

    logs.setup(settings.logging.level, settings.logging.format, file=settings.logging.file)
    sys.exit(supervisor.run(settings, reload=reload))


@group.command("config")
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show_config(config_file: str | None, as_json: bool, **flags: Any) -> None:
    """Print each setting's value and where it came from."""
    resolved = config.resolve(given(flags), os.environ, path_of(config_file))
    problems = [one.problem for one in resolved if one.problem]
    if as_json:
        listing = {one.row.name: {"value": _text(one), "origin": one.origin} for one in resolved}
        click.echo(json.dumps(listing, indent=2))
    else:
        width = max(len(one.row.name) for one in resolved)
        value_width = max(len(_text(one) or "?") for one in resolved)
        for one in resolved:
            line = f"{one.row.name:{width}}  {_text(one) or '?':{value_width}}  {one.origin}"
            click.echo(line.encode("utf-8", "backslashreplace"))
    for problem in problems:
        _complain(problem)
    sys.exit(StartError.exit_code if problems else 0)


@group.command()
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def status(config_file: str | None, as_json: bool, **flags: Any) -> None:
    """Show the workers, plugins and calls of the runner that listens on the socket."""
    answer = _ask("status", config_file, flags)
    found = answer.status
    if found is None:
        raise StartError(answer.message)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    click.echo(f"{found.socket}  pid {found.pid}  generation {found.generation}  restarts {found.restarts}")
    click.echo(f"plugins: {', '.join(found.plugins) or 'none'}")
    for problem in found.problems:
        click.echo(f"problem: {problem}")
    click.echo(f"{'worker':>8} {'state':9} {'up':>9} {'conns':>6} {'open':>5} {'served':>11} {'confs':>6} {'MiB':>6}")
    for one in found.workers:
        click.echo(
            f"{one.pid:8} {one.state:9} {one.seconds:8.1f}s {one.connections:6} {one.open_calls:5} {one.served:11} "
            f"{one.confs:6} {one.memory / 2**20:6.1f}"
        )


@group.command()
@settings_flags
def reload(config_file: str | None, **flags: Any) -> None:
    """Roll the workers of the runner that listens on the socket onto the plugins' new code."""
    answer = _ask("reload", config_file, flags)
    if not answer.ok:
        _complain(answer.message)
        sys.exit(1)
    click.echo(answer.message)


def _ask(command: str, config_file: str | None, flags: dict[str, Any]) -> "Answer":
    from apisix.runner.server import control

    settings = config.load(given(flags), os.environ, path_of(config_file))
    return control.ask(settings.socket.file, command)


@group.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dev(arguments: tuple[str, ...]) -> None:
    """Try plugins without APISIX: runner, gateway and upstream in one."""
    try:
        from apisix.runner.gateway.command import dev as command

        command.main(arguments, prog_name="apisix-runner dev")
    except ModuleNotFoundError as error:
        if error.name not in GATEWAY_EXTRA:
            raise
        raise StartError(f"dev needs {error.name}; install it: pip install 'apisix-runner[gateway]'") from None


def _text(one: config.Resolved) -> str | None:
    return None if one.problem else one.row.kind.show(one.value)


def _complain(problem: str) -> None:
    sys.stderr.write(f"apisix-runner: {' '.join(problem.split())}\n")
