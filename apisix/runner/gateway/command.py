"""`apisix-runner dev`: runner, gateway, upstream and inspector in one command.

Rules that live here: what is started in which order, and stopped in the reverse one; what the user reads (on stdout,
while logs go to stderr); Ctrl-C and SIGTERM end it with exit code 0.
"""

import asyncio
import contextlib
import shlex
import signal
import tempfile
from pathlib import Path

import click

from apisix.runner import logs
from apisix.runner.gateway import admin, echo
from apisix.runner.gateway.app import DEFAULT_PORT, Gateway
from apisix.runner.gateway.child import RunnerChild, accepts
from apisix.runner.gateway.echo import Echo
from apisix.runner.gateway.inspector import Inspector
from apisix.runner.gateway.inspector.page import OPTION
from apisix.runner.gateway.routes import Route
from apisix.runner.gateway.versions import DEFAULT_VERSION, Version
from apisix.runner.inspection import SOCKET_VARIABLE

HOST = "127.0.0.1"
ROUTES = Path(__file__).parent / "apisix.yaml"
SHOWN_ROUTES = 5

PORT = click.IntRange(0, 65535)


def _version(context: click.Context, parameter: click.Parameter, text: str) -> str:
    try:
        return Version(text).text
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _socket(context: click.Context, parameter: click.Parameter, path: str | None) -> Path | None:
    return None if path is None else Path(path.removeprefix("unix:"))


@click.command(context_settings={"max_content_width": 120, "show_default": True})
@click.option("--port", type=PORT, default=DEFAULT_PORT, help="Port of the gateway; 0 for any free one.")
@click.option("--upstream-port", type=PORT, default=echo.DEFAULT_PORT, help="Port of the echo upstream.")
@click.option("--socket", metavar="PATH", callback=_socket, help="Use the runner that listens there; start none.")
@click.option("--routes", type=click.Path(path_type=Path), default=ROUTES, show_default="the packaged file",
              help="Routes in APISIX's standalone format, read again when the file changes.")  # fmt: skip
@click.option("--plugins", type=click.Path(path_type=Path), multiple=True, show_default="those of the runner's config",
              help="Folder whose *.py files are loaded as plugins; may be repeated.")  # fmt: skip
@click.option("--apisix-version", callback=_version, default=DEFAULT_VERSION, help="The APISIX to be, 2.6 or newer.")
@click.option("--admin-key", default=admin.DEFAULT_KEY, help="What the Admin API expects in X-API-KEY.")
@click.option(OPTION, type=PORT, show_default="9081, or a free one",
              help="Port of the page that shows each exchange; 0 for any free one.")  # fmt: skip
@click.option("--no-upstream", is_flag=True, show_default=False, help="Start no echo upstream.")
def dev(
    port: int,
    upstream_port: int,
    socket: Path | None,
    routes: Path,
    plugins: tuple[Path, ...],
    apisix_version: str,
    admin_key: str,
    inspector_port: int | None,
    no_upstream: bool,
) -> None:
    """Try plugins without APISIX.

    Starts a runner that loads plugins anew when their files change, a gateway that stands in for APISIX, an upstream
    that answers with what it received, and a page to look at what happens.
    """
    logs.setup("info", "text")
    upstream = None if no_upstream else Echo(HOST, upstream_port)
    flags = ["--reload", "--gateway-version", apisix_version]
    for folder in plugins:
        flags += ["--plugins", str(folder)]
    asyncio.run(_run(port, socket, flags, routes, apisix_version, admin_key, upstream, inspector_port))


async def _run(
    port: int,
    socket: Path | None,
    flags: list[str],
    routes: Path,
    version: str,
    admin_key: str,
    upstream: Echo | None,
    inspector_port: int | None,
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        nodes = {}
        if upstream is not None:
            await stack.enter_async_context(upstream)
            nodes[f"{HOST}:{echo.DEFAULT_PORT}"] = f"{HOST}:{upstream.port}"
        folder = _private_folder(stack)
        child_socket = socket or folder / "runner.sock"
        gateway = Gateway(
            child_socket, routes=routes, host=HOST, port=port, version=version, admin_key=admin_key, nodes=nodes
        )
        inspector = Inspector(gateway, folder, inspector_port)
        child = None
        if socket is None:
            environment = {SOCKET_VARIABLE: str(inspector.socket)}
            child = RunnerChild(child_socket, flags, on_death=gateway.runner.flush, environment=environment)
        if child is not None:
            stack.push_async_callback(child.stop)
        await stack.enter_async_context(gateway)
        await stack.enter_async_context(inspector)
        if child is None:
            if not await accepts(child_socket):
                click.echo(f"nobody listens on {child_socket} yet: requests get 503 until a runner does", err=True)
        elif not await _start(child, stopped):
            return
        click.echo(_banner(gateway, child, upstream, inspector, admin_key))
        await stopped.wait()
        click.echo("stopping", err=True)


def _private_folder(stack: contextlib.AsyncExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apisix-runner-")))


async def _start(child: RunnerChild, stopped: asyncio.Event) -> bool:
    """Start the runner unless told to stop meanwhile; whether it runs."""
    starting = asyncio.create_task(child.start())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    return not stopped.is_set()


def _banner(
    gateway: Gateway, child: RunnerChild | None, upstream: Echo | None, inspector: Inspector, admin_key: str
) -> str:
    pid = "" if child is None else f" (pid {child.pid})"
    lines = [
        f"gateway   {gateway.url}, as APISIX {gateway.version}",
        f"runner    {gateway.runner.socket}{pid}",
    ]
    if upstream is not None:
        lines.append(f"upstream  http://{upstream.host}:{upstream.port}, answers with what it received")
    lines.append(f"inspector {inspector.url}, shows what becomes of each request")
    lines += ["", "Try:"]
    for route in list(gateway.store.routes)[:SHOWN_ROUTES]:
        lines += [f"  {curl(route, gateway.url)}" + (f"  # {route.conf.desc}" if route.conf.desc else "")]
    key = shlex.quote(f"X-API-KEY: {admin_key}")
    lines += [f"  curl {gateway.url}/apisix/admin/routes -H {key}  # the routes", "", "Ctrl-C stops everything."]
    return "\n".join(lines)


def curl(route: Route, url: str) -> str:
    """A curl command that takes `route`.

    Example:
        ``curl -i http://127.0.0.1:9080/get``
    """
    words = ["curl", "-i", url + route.uris[0].replace("*", "hello")]
    if route.conf.methods and "GET" not in route.conf.methods:
        words += ["-X", route.conf.methods[0]]
    if route.hosts:
        words += ["-H", f"Host: {route.hosts[0].replace('*', 'www')}"]
    return shlex.join(words)
