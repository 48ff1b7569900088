"""Routes from a file: APISIX's standalone format.

Rules that live here: YAML with `routes` and `upstreams`, complete when its last line is `#END`; a resource without an
id is called by its place, `arr_1`; the file is read again when it changes; a file that cannot be used changes nothing,
and is told in one line. Source: APISIX's core/config_yaml.lua, 3.18.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from apisix.runner.gateway.schema import Invalid
from apisix.runner.gateway.store import KINDS, Kind, Store

log = logging.getLogger(__name__)

END = "#END"
POLL = 0.2
"""Seconds between two looks at the file."""

Resources = dict[Kind, dict[str, Mapping[str, Any]]]


def parse(text: str) -> Resources:
    """Routes and upstreams by id.

    Raises:
        Invalid: not YAML, without its end mark, or not in that form; one line.

    Example:
        >>> parse("routes:\\n- {id: 1, uri: /a, upstream_id: 2}\\n#END")
        {'routes': {'1': {'id': 1, 'uri': '/a', 'upstream_id': 2}}, 'upstreams': {}}
    """
    if text.rstrip().rpartition("\n")[2].strip() != END:
        raise Invalid(f"the last line must be {END}, which tells that the file is complete")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise Invalid(f"expected a mapping with `routes`, got {type(data).__name__}")
    unknown = [key for key in data if key not in KINDS]
    if unknown:
        raise Invalid(f"the embedded gateway knows `routes` and `upstreams`, not `{unknown[0]}`")
    return {kind: _by_id(kind, data.get(kind)) for kind in KINDS}


def _by_id(kind: Kind, items: object) -> dict[str, Mapping[str, Any]]:
    if items is None:
        return {}
    if not isinstance(items, list):
        raise Invalid(f"{kind}: expected a list, got {type(items).__name__}")
    found: dict[str, Mapping[str, Any]] = {}
    for place, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise Invalid(f"{kind}/{place}: expected a mapping, got {type(item).__name__}")
        id = str(item.get("id", f"arr_{place}"))
        if id in found:
            raise Invalid(f"{kind}/{id}: the id is used twice")
        found[id] = item
    return found


class RoutesFile:
    """A file whose resources a store holds.

    Args:
        path: the file.
        store: where its resources go.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self._store = store
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> None:
        """Read the file and put its resources into the store.

        Raises:
            Invalid: the file cannot be read or used; the store is unchanged. One line, beginning with the path.
        """
        try:
            self._seen = self._stamp()
            text = self.path.read_text(encoding="utf-8")
            self._store.load(parse(text))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise Invalid(f"{self.path}: {reason}") from None
        except Invalid as error:
            raise Invalid(f"{self.path}: {error}") from None

    def _stamp(self) -> tuple[int, int, int]:
        status = os.stat(self.path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def changed(self) -> bool:
        """Whether the file is another one than when it was last read; a missing file has not changed."""
        try:
            return self._stamp() != self._seen
        except OSError:
            return False

    async def watch(self) -> None:
        """Load the file whenever it changes, until cancelled."""
        while True:
            await asyncio.sleep(POLL)
            if self.changed():
                try:
                    self.load()
                    log.info("routes loaded from %s", self.path)
                except Invalid as error:
                    log.error("%s; the routes stay as they were", error)
