"""The Admin API, as far as it manages routes and upstreams.

Rules that live here: who may call (the key in `X-API-KEY`, or the argument `api_key`), which paths there are, and the
answers in APISIX's 3.x form. PATCH merges objects, drops what is null, and replaces what a sub-path names. Source:
APISIX's admin/init.lua, admin/resource.lua, admin/v3_adapter.lua and core/table.lua, 3.18.
"""

import hmac
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from apisix.runner.gateway.schema import Invalid
from apisix.runner.gateway.store import KINDS, Item, Kind, Store
from apisix.runner.gateway.uri import parse_args

PREFIX = "/apisix/admin"
DEFAULT_KEY = "edd1c9f034335f136f87ad84b625c8f1"
"""The key of APISIX's default configuration."""


class Reply(NamedTuple):
    """A status and what to send as JSON."""

    status: int
    body: dict[str, Any]


class AdminAPI:
    """The Admin API over a store.

    Args:
        store: what it manages.
        key: what `X-API-KEY` must hold.
    """

    def __init__(self, store: Store, key: str = DEFAULT_KEY) -> None:
        self._store = store
        self._key = key.encode()

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a request for this path is for the Admin API."""
        return path == PREFIX or path.startswith(PREFIX + "/")

    def answer(self, method: str, path: str, query: str, key: str | None, body: bytes) -> Reply:
        """Answer a request.

        Args:
            key: the header `X-API-KEY`, or None.
        """
        arguments = parse_args(query)
        given = (arguments.get("api_key") or [key])[0]
        if given is None:
            return _refuse(401, "failed to check token", description="missing apikey")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._key):
            return _refuse(401, "failed to check token", description="wrong apikey")
        name, id, *sub_path = [*path.removeprefix(PREFIX).strip("/").split("/"), ""]
        kind = next((kind for kind in KINDS if kind == name), None)
        if kind is None:
            return _refuse(404, f"Unsupported resource type: {name}")
        try:
            return self._run(method, kind, id, "/".join(sub_path).strip("/"), body)
        except Invalid as error:
            return _refuse(400, str(error))

    def _run(self, method: str, kind: Kind, id: str, sub_path: str, body: bytes) -> Reply:
        match method:
            case "GET" if id:
                item = self._store.get(kind, id)
                return _missing() if item is None else Reply(200, _shown(kind, item))
            case "GET":
                items = [_shown(kind, item) for item in self._store.all(kind)]
                return Reply(200, {"list": items, "total": len(items)})
            case "PUT":
                return self._put(kind, id, _object(body))
            case "POST" if id:
                raise Invalid(f"wrong {kind[:-1]} id, do not need it")
            case "POST":
                value = _object(body)
                if "id" in value:
                    raise Invalid(f"wrong {kind[:-1]} id, do not need it")
                return self._put(kind, self._store.next_id(), value)
            case "DELETE" | "PATCH" if not id:
                raise Invalid(f"missing {kind[:-1]} id")
            case "DELETE":
                if not self._store.delete(kind, id):
                    return _missing()
                return Reply(200, {"key": f"/apisix/{kind}/{id}", "deleted": "1"})
            case "PATCH":
                return self._patch(kind, id, sub_path, _json(body))
            case _:
                return _refuse(404, "not found")

    def _put(self, kind: Kind, id: str, value: dict[str, Any]) -> Reply:
        for field in ("create_time", "update_time"):
            if field in value:
                raise Invalid(f"the property is forbidden:  {field}")
        named = id or value.get("id")
        if not named:
            raise Invalid(f"missing {kind[:-1]} id")
        created = self._store.get(kind, str(named)) is None
        item = self._store.put(kind, named, value)
        return Reply(201 if created else 200, _shown(kind, item))

    def _patch(self, kind: Kind, id: str, sub_path: str, change: object) -> Reply:
        old = self._store.get(kind, id)
        if old is None:
            return _missing()
        value = deepcopy(old.value)
        if sub_path:
            value = _replaced(value, sub_path.split("/"), change)
        elif isinstance(change, dict):
            value = _merged(value, change)
        else:
            raise Invalid("invalid configuration")
        return Reply(200, _shown(kind, self._store.put(kind, id, value)))


def _shown(kind: Kind, item: Item) -> dict[str, Any]:
    defaults: dict[str, Any] = {"priority": 0, "status": 1} if kind == "routes" else {}
    return {
        "key": f"/apisix/{kind}/{item.id}",
        "value": {**defaults, **item.value},
        "createdIndex": item.created,
        "modifiedIndex": item.modified,
    }


def _refuse(status: int, message: str, **more: str) -> Reply:
    return Reply(status, {"error_msg": message, **more})


def _missing() -> Reply:
    return Reply(404, {"message": "Key not found"})


def _json(body: bytes) -> object:
    if not body:
        raise Invalid("missing configurations")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"invalid request body: {error}") from None


def _object(body: bytes) -> dict[str, Any]:
    value = _json(body)
    if not isinstance(value, dict):
        raise Invalid(f"invalid configuration: expected an object, got {type(value).__name__}")
    return value


def _merged(old: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in change.items():
        if value is None:
            old.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            old[key] = _merged(old[key], value)
        else:
            old[key] = value
    return old


def _replaced(old: dict[str, Any], path: list[str], value: object) -> dict[str, Any]:
    """`old` with what stands at `path` replaced, or removed where `value` is None."""
    parent = old
    for step in path[:-1]:
        inner = parent.setdefault(step, {})
        if not isinstance(inner, dict):
            raise Invalid(f"invalid sub-path: {step} holds no object")
        parent = inner
    if value is None:
        parent.pop(path[-1], None)
    else:
        parent[path[-1]] = value
    return old
