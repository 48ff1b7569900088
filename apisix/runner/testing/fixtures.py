"""The types of the fixtures `plugin_client` and `gateway`, for the annotations of tests.

Example:
    >>> def test_without_a_token(plugin_client: PluginClientFactory) -> None:
    ...     assert plugin_client(NeedsToken).get("/").status == 401
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from apisix.runner.testing.client import NEWEST, Plugin, PluginClient
from apisix.runner.testing.live import LiveGateway, Route


class PluginClientFactory(Protocol):
    """What the fixture `plugin_client` is."""

    def __call__(
        self,
        plugin: Plugin | Sequence[tuple[Plugin, object]],
        conf: object = None,
        *,
        phase: str = "ext-plugin-pre-req",
        version: str = NEWEST,
    ) -> PluginClient:
        """A client whose plugins are torn down after the test; arguments as `PluginClient`."""
        ...


class GatewayFactory(Protocol):
    """What the fixture `gateway` is."""

    def __call__(
        self,
        routes: str | Path | Sequence[Route] | None = None,
        *,
        plugins: str | Path | Sequence[str | Path] | None = None,
        version: str = NEWEST,
        flags: Sequence[str] = (),
    ) -> LiveGateway:
        """Start a gateway that is stopped after the test; arguments as `LiveGateway`.

        Args:
            routes: without them, the file ``apisix.yaml`` beside the test, or above it.
            plugins: a folder or several; without, the folder ``plugins`` beside the test, or above it.
            version: the APISIX to be.
            flags: for `apisix-runner start`.
        """
        ...
