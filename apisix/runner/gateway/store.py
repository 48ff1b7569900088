"""The resources that a gateway holds: routes and upstreams, from the Admin API or from a file.

Rules that live here: every change gets the next revision, and a route knows the revision of its last change (so
that PrepareConf's key is new with every change); a file replaces only what a file brought, and never what somebody put
by hand; a route's upstream is looked up when it is needed. Source: APISIX's core/etcd.lua and core/config_yaml.lua.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from apisix.runner.gateway.routes import Route, Upstream
from apisix.runner.gateway.schema import Invalid, check_id, check_route, check_upstream
from apisix.runner.gateway.versions import Version

Kind = Literal["routes", "upstreams"]
KINDS: tuple[Kind, ...] = ("routes", "upstreams")


@dataclass
class Item:
    """One resource as it was given, with the revisions of its first and its last change."""

    id: str
    value: dict[str, Any]
    created: int
    modified: int
    from_file: bool


class Store:
    """Routes and upstreams by id.

    Args:
        version: the APISIX to be, which decides about plugins.
        nodes: addresses to use instead of others, by `host:port`.

    Raises:
        ValueError: a node that is no address.
    """

    def __init__(self, version: Version, nodes: Mapping[str, str]) -> None:
        self._version = version
        self._nodes = nodes
        self._revision = int(time.time())
        self._items: dict[Kind, dict[str, Item]] = {"routes": {}, "upstreams": {}}
        self._routes: dict[str, Route] = {}
        self._upstreams: dict[str, Upstream] = {}

    def next_id(self) -> str:
        """An id for a resource that came without one."""
        self._revision += 1
        return f"{self._revision:020}"

    def get(self, kind: Kind, id: str) -> Item | None:
        """The resource, or None."""
        return self._items[kind].get(id)

    def all(self, kind: Kind) -> list[Item]:
        """Every resource of that kind, the oldest first."""
        return sorted(self._items[kind].values(), key=lambda item: item.created)

    @property
    def routes(self) -> Iterable[Route]:
        """Every route, the oldest first, ready to match."""
        return self._routes.values()

    def upstream(self, route: Route) -> Upstream | None:
        """The upstream of a route: its own, or the one it names."""
        if route.upstream is not None or route.conf.upstream_id is None:
            return route.upstream
        return self._upstreams.get(str(route.conf.upstream_id))

    def put(self, kind: Kind, id: str | int, value: Mapping[str, Any], *, from_file: bool = False) -> Item:
        """Create or replace a resource.

        Raises:
            Invalid: the resource cannot be used; then nothing has changed.
        """
        key = check_id(id)
        if "id" in value and str(value["id"]) != key:
            raise Invalid(f"wrong {kind[:-1]} id")
        _check_json(value)
        self._check(kind, key, value)
        now = int(time.time())
        old = self._items[kind].get(key)
        self._revision += 1
        stored = {**value, "id": key, "update_time": now, "create_time": old.value["create_time"] if old else now}
        item = Item(key, stored, old.created if old else self._revision, self._revision, from_file)
        self._install(kind, item)
        return item

    def delete(self, kind: Kind, id: str) -> bool:
        """Remove a resource; False where there is none.

        Raises:
            Invalid: a route still uses the upstream.
        """
        if id not in self._items[kind]:
            return False
        if kind == "upstreams":
            for route in self._routes.values():
                if str(route.conf.upstream_id) == id:
                    raise Invalid(f"can not delete this upstream, route [{route.id}] is still using it now")
        self._revision += 1
        del self._items[kind][id]
        (self._routes if kind == "routes" else self._upstreams).pop(id, None)
        return True

    def load(self, resources: Mapping[Kind, Mapping[str, Mapping[str, Any]]]) -> None:
        """Make `resources`, by kind and id, all that came from a file.

        Raises:
            Invalid: with kind and id of the first resource that cannot be used; then nothing has changed.
        """
        fresh = Store(self._version, self._nodes)
        fresh._revision = self._revision
        for kind in reversed(KINDS):
            by_hand = {id: item for id, item in self._items[kind].items() if not item.from_file}
            for item in by_hand.values():
                fresh._install(kind, item)
            for id, value in resources.get(kind, {}).items():
                if id not in by_hand:
                    try:
                        fresh.put(kind, id, value, from_file=True)
                    except Invalid as error:
                        raise Invalid(f"{kind}/{id}: {error}") from None
        self._revision, self._items = fresh._revision, fresh._items
        self._routes, self._upstreams = fresh._routes, fresh._upstreams

    def _check(self, kind: Kind, id: str, value: Mapping[str, Any]) -> None:
        if kind == "upstreams":
            _upstream(value, self._nodes)
            return
        conf = check_route(value, self._version)
        if conf.upstream is not None:
            _upstream(value["upstream"], self._nodes)
        if conf.upstream_id is not None and str(conf.upstream_id) not in self._upstreams:
            raise Invalid(f"failed to fetch upstream info by upstream id [{conf.upstream_id}], response code: 404")

    def _install(self, kind: Kind, item: Item) -> None:
        self._items[kind][item.id] = item
        if kind == "upstreams":
            self._upstreams[item.id] = _upstream(item.value, self._nodes)
            return
        conf = check_route(item.value, self._version)
        upstream = None if conf.upstream is None else Upstream(conf.upstream, self._nodes)
        self._routes[item.id] = Route(item.id, item.modified, conf, upstream)


def _check_json(value: Mapping[str, Any]) -> None:
    """YAML and Python know values that JSON does not, and JSON half characters that are no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"invalid configuration: not JSON: {error}") from None


def _upstream(value: object, nodes: Mapping[str, str]) -> Upstream:
    try:
        return Upstream(check_upstream(value), nodes)
    except Invalid:
        raise
    except ValueError as error:
        raise Invalid(str(error)) from None
