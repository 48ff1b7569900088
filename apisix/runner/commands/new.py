"""`apisix-runner new`: a plugin with its test and its route, in the current folder.

Rules that live here: no file is overwritten, and nothing is written where one thing cannot be; what is printed as next
steps works as it stands, with the Python that runs this command.
"""

import importlib.util
import keyword
import re
import shlex
import shutil
import sys
from pathlib import Path

import click

from apisix.runner.commands.flags import PLUGINS_FOLDER
from apisix.runner.commands.loading import fail

ROUTES_FILE = "apisix.yaml"


@click.command()
@click.argument("name")
@click.option("--async", "is_async", is_flag=True, help="With async def, for plugins that wait for others.")
@click.option("--response", is_flag=True, help="For the response phase: what the upstream answered is changed.")
def new(name: str, is_async: bool, response: bool) -> None:
    """Write a new plugin, its test and its route.

    All three work at once, and are meant to be changed. NAME is what routes call it: letters, digits and _ (rate-limit
    and RateLimit become rate_limit). In the current folder are written plugins/NAME.py, test_NAME.py, and a route in
    apisix.yaml, which is made where there is none. Nothing is overwritten.

    \b
    Examples:
      apisix-runner new rate_limit
      apisix-runner new lookup --async
      apisix-runner new mask --response
    """
    from apisix.runner.commands import templates

    snake = _snake(name)
    class_name = "".join(part[:1].upper() + part[1:] for part in snake.split("_"))
    plugin, test, routes = Path(PLUGINS_FOLDER) / f"{snake}.py", Path(f"test_{snake}.py"), Path(ROUTES_FILE)
    for file in (plugin, test):
        if file.exists():
            fail(f"{file} is there already; take another name, or remove it")
    if (Path(PLUGINS_FOLDER) / snake).is_dir():
        fail(f"{Path(PLUGINS_FOLDER) / snake} is there already; take another name, or remove it")
    if routes.exists():
        whole = _with_route(routes, snake, templates.route(snake, response=response))
    else:
        whole = templates.routes(snake, response=response)
    try:
        plugin.parent.mkdir(exist_ok=True)
        plugin.write_text(templates.plugin(snake, class_name, is_async=is_async, response=response))
        test.write_text(templates.test(snake, class_name, is_async=is_async, response=response))
        if whole is not None:
            routes.write_text(whole)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    click.echo(f"wrote {plugin}, {test}" + (f" and a route in {routes}" if whole is not None else ""))
    if whole is None:
        click.echo(f"\n{routes} is not a list of routes with #END at its end; add this route yourself:\n")
        click.echo(templates.route(snake, response=response), nl=False)
    click.echo("\n" + _next_steps(snake, test, response))


def _snake(name: str) -> str:
    """A name as files have it; the command ends where it can be none."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", snake) or snake.endswith("_"):
        fail(f"expected a name of letters, digits and _, which begins with a letter, got {name!r}")
    if keyword.iskeyword(snake) or snake.startswith("test_"):
        fail(f"{name!r} cannot be the name of a plugin's file; take another")
    if snake in ("base", "request", "response", "conf", "test", "plugins"):
        fail(f"{name!r} says nothing of what the plugin does; take another name")
    return snake


def _with_route(file: Path, name: str, route: str) -> str | None:
    """The text of a routes file with one route more; None where it is not in the form that allows it."""
    import yaml

    text = file.read_text(encoding="utf-8")
    head, end, rest = text.rpartition("#END")
    if not end or rest.strip():
        return None
    try:
        before = yaml.safe_load(head)
        whole = f"{head.rstrip()}\n\n{route}{end}{rest}"
        after = yaml.safe_load(whole)
    except yaml.YAMLError:
        return None
    if not isinstance(before, dict) or not isinstance(before.get("routes"), list):
        return None
    if any(isinstance(one, dict) and str(one.get("id")) == name for one in before["routes"]):
        fail(f"{file} has a route with the id {name} already; take another name, or remove it")
    expected = {**before, "routes": [*before["routes"], *yaml.safe_load(route)]}
    return whole if after == expected else None


def _is_ours(program: str) -> bool:
    """Whether a name leads to the Python, or its environment's program, that runs this."""
    found = shutil.which(program)
    return found is not None and Path(found).parent.resolve() == Path(sys.executable).parent.resolve()


def _next_steps(name: str, test: Path, response: bool) -> str:
    python = next((name for name in ("python", "python3") if _is_ours(name)), shlex.quote(sys.executable))
    runner = "apisix-runner" if _is_ours("apisix-runner") else f"{python} -m apisix.runner"
    steps = []
    if importlib.util.find_spec("pytest") is None:
        steps.append((f"{python} -m pip install pytest", "to run tests"))
    if importlib.util.find_spec("aiohttp") is None or importlib.util.find_spec("h11") is None:
        steps.append((f"{python} -m pip install 'apisix-runner[gateway]'", "for dev"))
    call = f"{runner} call {name}" + ("" if response else " --header 'X-Name: you'")
    steps += [
        (f"{python} -m pytest {test}", "run its test"),
        (f"{runner} check", "look for mistakes in plugins and routes"),
        (call, "run it once, and see what it does"),
        (f"{runner} dev --plugins {PLUGINS_FOLDER} --routes {ROUTES_FILE}", "try it behind a gateway"),
        (f"curl -i http://127.0.0.1:9080/{name}", "in another terminal"),
    ]
    width = max(len(command) for command, _ in steps)
    return "Next:\n" + "\n".join(f"  {command:{width}}  # {why}" for command, why in steps)
