"""`apisix-runner health`: whether the runner on a socket answers, for containers and scripts."""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from apisix.runner import config
from apisix.runner.commands.flags import given, path_of, socket_flag
from apisix.runner.errors import StartError

if TYPE_CHECKING:
    from apisix.runner.server.health_check import Check

UNHEALTHY = 1


@click.command()
@socket_flag
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
              help="Seconds for the whole check.")  # fmt: skip
def health(config_file: str | None, timeout: float, **flags: Any) -> None:
    """Check that the runner on the socket answers calls.

    It prepares a conf and calls a plugin of the runner's own, as APISIX would. The exit code is 0 where both are
    answered, 1 where they are not, with the reason. The runner's confs, metrics and log do not show it.

    \b
    Examples:
      apisix-runner health --socket /run/apisix-runner/runner.sock
      HEALTHCHECK CMD ["apisix-runner", "health"]
    """
    resolved = {one.row.name: one for one in config.resolve(given(flags), os.environ, path_of(config_file))}
    found = resolved["socket.file"]
    if found.problem:
        raise StartError(found.problem)

    from apisix.runner.server.health_check import check

    done: Check = check(found.value, timeout)  # type: ignore[arg-type]  # the kind of this setting says so
    if done.problem:
        click.echo(f"unhealthy: {found.value}: {done.problem}", err=True)
        sys.exit(UNHEALTHY)
    click.echo(f"healthy: answered in {done.seconds * 1000:.1f} ms")
