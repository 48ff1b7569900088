"""The fixtures `plugin_client` and `gateway`, which pytest has where apisix-runner is installed.

Rules that live here: pytest imports this module in every project, so it imports nothing of ours until a test asks for
a fixture; only `gateway` needs the extra of that name.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from apisix.runner.testing import GatewayFactory, LiveGateway, PluginClient, PluginClientFactory

ROUTES_FILE = "apisix.yaml"
PLUGINS_FOLDER = "plugins"


@pytest.fixture
def plugin_client() -> "Iterator[PluginClientFactory]":
    """Runs a plugin in the test's own process: plugin_client(Plugin, conf={...}).get("/path")."""
    from apisix.runner.testing import PluginClient

    with contextlib.ExitStack() as stack:

        def make(plugin: Any, conf: object = None, **options: Any) -> "PluginClient":
            return stack.enter_context(PluginClient(plugin, conf, **options))

        yield make


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> "Iterator[GatewayFactory]":
    """Starts a gateway, a runner and an upstream: gateway(routes, plugins=...).get("/path")."""
    from apisix.runner.testing import LiveGateway

    with contextlib.ExitStack() as stack:

        def start(
            routes: str | Path | Sequence[Any] | None = None,
            *,
            plugins: str | Path | Sequence[str | Path] | None = None,
            **options: Any,
        ) -> "LiveGateway":
            if routes is None:
                routes = _nearest(request, ROUTES_FILE, "routes")
            if plugins is None:
                plugins = _nearest(request, PLUGINS_FOLDER, "plugins")
            folders = [plugins] if isinstance(plugins, str | Path) else plugins
            live = LiveGateway(routes, folders, **options)
            stack.callback(_show_log, live)
            try:
                return stack.enter_context(live)
            except ModuleNotFoundError as error:
                if error.name not in ("aiohttp", "h11"):
                    raise
                missing = error.name
            what = f"the fixture gateway needs {missing}; install it: pip install 'apisix-runner[gateway]'"
            return pytest.fail(what, pytrace=False)

        yield start


def _nearest(request: pytest.FixtureRequest, name: str, argument: str) -> Path:
    """A file or folder beside the test, or in a folder above it, as far as pytest's root."""
    for folder in request.path.parents:
        if (folder / name).exists():
            return folder / name
        if folder == request.config.rootpath:
            break
    what = f"expected {name} beside {request.path} or above it; make one, or call gateway({argument}=...)"
    return pytest.fail(what, pytrace=False)


def _show_log(live: "LiveGateway") -> None:
    """Write the runner's log where pytest shows it, if the test fails."""
    sys.stderr.write(live.log)
