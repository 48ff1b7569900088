"""`apisix-runner call`: run one plugin on one request, and show what it did.

Rules that live here: without `--socket` the plugin runs in this process, so that print and breakpoint() work, by the
same code as in a worker; with it, in the runner that listens there, whose questions about variables and bodies are
answered from what was given.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apisix.runner.commands.flags import plugin_flags, plugin_settings
from apisix.runner.commands.loading import FOUND_WRONG, fail, find, load, say

if TYPE_CHECKING:
    from apisix.runner.commands.calls import Given, Outcome

PHASES = ("request", "response", "both")


def _pair(separator: str, expected: str) -> Any:
    def read(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
        pairs = []
        for text in texts:
            name, found, value = text.partition(separator)
            if not found or not name.strip():
                raise click.BadParameter(f"expected {expected}, got {text!r}", context, parameter)
            pairs.append((name.strip(), value.strip() if separator == ":" else value))
        return pairs

    return read


def _content(context: click.Context, parameter: click.Parameter, text: str | None) -> bytes | None:
    """A text as it is, or with @ before it the content of that file; @- is stdin."""
    if text is None or not text.startswith("@"):
        return None if text is None else text.encode("utf-8", "surrogateescape")
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{text[1:]}: {error.strerror}", context, parameter) from None


_header = _pair(":", "'Name: value'")


@click.command()
@click.argument("name")
@click.option("--conf", metavar="TEXT", callback=_content, help="The conf's value in the route, mostly JSON; @FILE.")
@click.option("-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, callback=_header,
              help="A header of the request; may be repeated.")  # fmt: skip
@click.option("-d", "--data", metavar="TEXT", callback=_content, help="The request's body; @FILE, @- for stdin.")
@click.option("-X", "--method", metavar="METHOD", help="GET, or POST with --data.")
@click.option("--path", metavar="PATH", default="/", show_default=True, help="Path and query, as in a URL.")
@click.option("--remote-addr", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The client's address.")
@click.option("--var", "variables", metavar="NAME=VALUE", multiple=True, callback=_pair("=", "NAME=VALUE"),
              help="A variable of the gateway, beside those that the request makes; may be repeated.")  # fmt: skip
@click.option("--phase", type=click.Choice(PHASES), help="What to run; by default each phase that the plugin has, or "
              "with --socket the request phase.")  # fmt: skip
@click.option("--upstream-status", type=click.IntRange(100, 599), default=200, show_default=True,
              help="The status of the upstream's response, for the response phase.")  # fmt: skip
@click.option("--upstream-header", "upstream_headers", metavar="'NAME: VALUE'", multiple=True, callback=_header,
              help="A header of it; may be repeated.")  # fmt: skip
@click.option("--upstream-data", metavar="TEXT", callback=_content, help="Its body; @FILE, @- for stdin.")
@click.option("--socket", metavar="PATH", help="Run the plugin in the runner that listens there.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@plugin_flags
def call(
    name: str,
    conf: bytes | None,
    headers: list[tuple[str, str]],
    data: bytes | None,
    method: str | None,
    path: str,
    remote_addr: str,
    variables: list[tuple[str, str]],
    phase: str | None,
    upstream_status: int,
    upstream_headers: list[tuple[str, str]],
    upstream_data: bytes | None,
    socket: str | None,
    as_json: bool,
    config_file: str | None,
    **flags: Any,
) -> None:
    """Run plugin NAME on one request, and show what it did to it.

    What the plugin takes away is shown with -, what it adds with +. Print and breakpoint() work in it. Its log, and
    the traceback of an exception, go to stderr. Exit codes: 0 it ran, 1 it failed or rejects the conf.

    With --socket the plugin runs in a live runner, which must know it; NAME is then any name that a route may have.

    \b
    Examples:
      apisix-runner call stop --conf '{"body": "hello"}'
      apisix-runner call auth --header 'X-Token: t' --path '/books?page=2'
      apisix-runner call resize --data @request.json --var request_id=1
      apisix-runner call mask --upstream-data '{"card": "4111"}' --phase response
      apisix-runner call stop --socket /tmp/runner.sock
    """
    from apisix.runner.commands.calls import Given, in_process, in_runner
    from apisix.runner.plugin.errors import ConfError

    given = Given(
        conf=(conf or b"").decode("utf-8", "surrogateescape"),
        method=method or ("GET" if data is None else "POST"),
        target=path,
        headers=headers,
        body=data,
        remote_addr=remote_addr,
        variables=dict(variables),
        status=upstream_status,
        upstream_headers=upstream_headers,
        upstream_body=upstream_data or b"",
    )
    try:
        if socket is not None:
            outcome = in_runner(name, given, Path(socket.removeprefix("unix:")), phase or "request")
        else:
            _set_up_logs()
            outcome = in_process(find(load(plugin_settings(config_file, flags)), name), given, phase)
    except ConfError as error:
        fail(str(error))
    except ValueError as error:  # of a method, a target or an address that is none
        raise click.UsageError(str(error)) from None
    _print(outcome, given, as_json)
    sys.exit(FOUND_WRONG if outcome.failure else 0)


def _set_up_logs() -> None:
    import logging

    from apisix.runner import logs

    logs.setup("info", "text")
    logging.getLogger("apisix.runner.confs").setLevel(logging.CRITICAL)  # what it says is printed here


def _print(outcome: "Outcome", given: "Given", as_json: bool) -> None:
    from apisix.runner.commands import shown

    if as_json:
        click.echo(shown.as_json(outcome, given))
    else:
        for line in shown.as_text(outcome, given):
            say(line)
    if outcome.failure:
        say(outcome.failure, err=True)
