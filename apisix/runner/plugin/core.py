"""Plugins that were written for the older published runner, 0.2: `PluginBase`, and the adapter that runs them here.

Rules that live here:
- A plugin of 0.2 has ``name(self)``, ``config(self, conf)`` and ``filter(self, conf, request, response)``, and gets a
  request and a response with ``get_...`` and ``set_...`` methods. It runs unchanged.
- What its author meant, happens: a request header that is set reaches the upstream, a body too; any response field
  that is set answers the client and ends the chain. ``get_...`` never gives None for text: what is not there is "".
- What ``set_headers`` and ``set_args`` leave out stays on the request, as it did: only what a plugin takes out of
  the dict of ``get_headers`` or ``get_args`` is removed. Of repeated names the getters give the last value, as there.
- There, each call had an instance and a conf of its own, and one request for all plugins. Here ``config`` runs once a
  prepared conf, and each call gets a copy of the instance that saw it, and of what it returned, with dicts, lists and
  sets copied too. What ``set_var`` and its like keep lives as long as the call.
- What only the old server called on these objects (``config_handler``, ``call_handler``, ``unknown_handler``) is gone
  with it.
"""

import copy
from collections.abc import Callable
from typing import Any, ClassVar

from apisix.runner.http.fields import Fields
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class PluginBase:
    """Base class of plugins for runner 0.2. New plugins derive from `apisix.runner.plugin.base.Base`."""

    def name(self) -> str:
        """The plugin's name in a route."""
        return type(self).__name__ if isinstance(self, PluginBase) else getattr(self, "__name__", "")

    def config(self, conf: Any) -> Any:
        """From the text of the route's conf to what `filter` gets as `conf`."""
        return conf

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """The request phase."""
        raise NotImplementedError(f"{type(self).__name__} has no filter")


def adapt(plugin_class: type[PluginBase]) -> type[Base]:
    """The plugin as this runner knows them."""

    class Adapted(Base):
        raw_conf: ClassVar[bool] = True
        name = _name_of(plugin_class)

        def setup(self) -> None:
            self._plugin = plugin_class()
            self._conf = self._plugin.config(self.config)

        def filter(self, request: Request, response: Response) -> None:
            plugin = copy.copy(self._plugin)
            vars(plugin).update(_copied(vars(plugin)))
            old_response = OldResponse(request, response)
            plugin.filter(_copied(self._conf), OldRequest(request), old_response)
            if old_response.changed():
                self.stop()

    Adapted.__name__ = Adapted.__qualname__ = plugin_class.__name__
    Adapted.__module__ = plugin_class.__module__
    return Adapted


def _name_of(plugin_class: type[PluginBase]) -> str:
    try:
        return str(plugin_class.name(plugin_class) or plugin_class.__name__)  # type: ignore[arg-type]
    except Exception:  # it needs an instance
        return str(plugin_class().name() or plugin_class.__name__)


def _copied(value: Any) -> Any:
    """A value of its own for one call: plain containers are copied, what is in them likewise; the rest is shared."""
    if type(value) is dict:
        return {key: _copied(inner) for key, inner in value.items()}
    if type(value) is list:
        return [_copied(inner) for inner in value]
    return set(value) if type(value) is set else value


class _Live(dict[str, str]):
    """A dict, as 0.2 gave for headers and arguments, whose changes are changes of the call.

    Args:
        shown: what it holds at first.
        fields: where changes go.
        on_change: called for each.
    """

    def __init__(self, shown: dict[str, str], fields: Fields, on_change: Callable[[], None] = lambda: None) -> None:
        super().__init__(shown)
        self._fields = fields
        self._on_change = on_change

    def find(self, name: str) -> str | None:
        """The value of a name as it is written here, else of one that differs in case only."""
        if name in self:
            return self[name]
        return {key.lower(): value for key, value in self.items()}.get(name.lower())

    def put_in(self, others: dict[str, str]) -> None:
        """Add these; what the fields have already stays as it is, repeated values too."""
        for name, value in others.items():
            if self._fields.getall(name)[-1:] == [value]:
                super().__setitem__(name, value)
            else:
                self[name] = value

    def __setitem__(self, name: str, value: str) -> None:
        self._fields[name] = value
        super().__setitem__(name, value)
        self._on_change()

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._fields.pop(name, None)
        self._on_change()

    def __ior__(self, other: Any) -> "_Live":  # type: ignore[misc,override]
        self.update(other)
        return self

    def pop(self, name: str, *default: Any) -> Any:
        value = super().pop(name, *default)
        if self._fields.pop(name, None) is not None:
            self._on_change()
        return value

    def popitem(self) -> tuple[str, str]:
        name = next(reversed(self))
        return name, self.pop(name)

    def setdefault(self, name: str, default: str = "") -> str:
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *others: Any, **more: str) -> None:
        for name, value in dict(*others, **more).items():
            self[name] = value

    def clear(self) -> None:
        for name in list(self):
            del self[name]


class _Kept:
    """What plugins of one call keep on the request, and later ones see."""

    def __init__(self) -> None:
        self.vars: dict[str, str] = {}
        self.overrides: dict[str, Any] = {}
        self.configs: dict[str, str] = {}


class OldRequest:
    """The request, with the methods of 0.2."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._kept: _Kept = vars(request.state).setdefault("_kept_by_plugins_of_0_2", _Kept())
        self._headers: _Live | None = None
        self._args: _Live | None = None

    def get_header(self, key: str) -> str | None:
        """A header's value, None where there is none. Case does not count."""
        return self._live_headers().find(key)

    def set_header(self, key: str, value: str) -> bool:
        """Set a header for the upstream."""
        if not (key and value):
            return False
        self._live_headers()[key] = value
        return True

    def get_headers(self) -> dict[str, str]:
        """All headers; changes of the dict are changes of the request."""
        return self._live_headers()

    def set_headers(self, headers: dict[str, str]) -> bool:
        """Set these headers for the upstream; the getters know only these from now on, in this plugin."""
        if not headers:
            return False
        self._headers = _Live({}, self._request.headers)
        self._headers.put_in(headers)
        return True

    def _live_headers(self) -> _Live:
        if self._headers is None:
            self._headers = _Live(dict(self._request.headers.pairs()), self._request.headers)
        return self._headers

    def get_arg(self, key: str) -> str | None:
        """An argument's value, None where there is none."""
        return self._live_args().get(key)

    def set_arg(self, key: str, value: str) -> bool:
        """Set an argument for the upstream."""
        if not (key and value):
            return False
        self._live_args()[key] = value
        return True

    def get_args(self) -> dict[str, str]:
        """All arguments; changes of the dict are changes of the request."""
        return self._live_args()

    def set_args(self, args: dict[str, str]) -> bool:
        """Set these arguments for the upstream; the getters know only these from now on, in this plugin."""
        if not args:
            return False
        self._args = _Live({}, self._request.args)
        self._args.put_in(args)
        return True

    def _live_args(self) -> _Live:
        if self._args is None:
            self._args = _Live(dict(self._request.args.pairs()), self._request.args)
        return self._args

    def get_uri(self) -> str:
        """The path."""
        return self._request.path

    def set_uri(self, uri: str) -> bool:
        """Send the request to another path."""
        if not (uri and uri.startswith("/")):
            return False
        self._request.path = uri
        return True

    def get_var(self, key: str) -> str:
        """A variable of the gateway, "" where it is not set."""
        if key in self._kept.vars:
            return self._kept.vars[key]
        return self._request.var(key) or ""

    def set_var(self, key: str, val: str) -> bool:
        """What `get_var` gives from now on, in this call."""
        if not (key and val):
            return False
        self._kept.vars[key] = val
        return True

    def get_body(self) -> str:
        """The body as text, "" where there is none."""
        body = self._request.body
        return "" if body is None else body.decode("utf-8", "surrogateescape")

    def set_body(self, body: str) -> bool:
        """Replace the body."""
        if not body:
            return False
        self._request.body = body
        return True

    def get_remote_addr(self) -> str:
        """The client's address; one of IPv6 with all its zeros."""
        return str(self._kept.overrides.get("remote_addr") or self._request.remote_addr.exploded)

    def set_remote_addr(self, remote_addr: str) -> bool:
        """What `get_remote_addr` gives from now on, in this call."""
        return self._override("remote_addr", remote_addr)

    def get_method(self) -> str:
        """The method."""
        return str(self._kept.overrides.get("method") or self._request.method)

    def set_method(self, method: str) -> bool:
        """What `get_method` gives from now on, in this call: the protocol cannot change a request's method."""
        known = method and method.upper() in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
        return self._override("method", method if known else "")

    def get_id(self) -> int:
        """The gateway's number of the call."""
        return int(self._kept.overrides.get("id") or self._request.id)

    def set_id(self, id: int) -> bool:
        """What `get_id` gives from now on, in this call."""
        return self._override("id", id)

    def get_conf_token(self) -> int:
        """The conf token of the call."""
        return int(self._kept.overrides.get("conf_token") or self._request.conf_token)

    def set_conf_token(self, conf_token: int) -> bool:
        """What `get_conf_token` gives from now on, in this call."""
        return self._override("conf_token", conf_token)

    def get_config(self, key: str) -> str | None:
        """What `set_config` was given."""
        return self._kept.configs.get(key)

    def set_config(self, key: str, value: str) -> bool:
        """Keep a value, in this call."""
        if not key:
            return False
        self._kept.configs[key] = value
        return True

    def get_configs(self) -> dict[str, str]:
        """All that `set_config` was given."""
        return self._kept.configs

    def set_configs(self, configs: dict[str, str]) -> bool:
        """Keep these values, in this call."""
        if not configs:
            return False
        self._kept.configs = configs
        return True

    def checked(self) -> bool:
        """Whether there is a request at all."""
        return True

    def _override(self, name: str, value: Any) -> bool:
        if not value:
            return False
        self._kept.overrides[name] = value
        return True


class OldResponse:
    """The response, with the methods of 0.2."""

    def __init__(self, request: Request, response: Response) -> None:
        self._response = response
        self._req_id = request.id
        self._body = ""
        self._headers: _Live | None = None
        self._changed = False

    def get_header(self, key: str) -> str | None:
        """A header's value, None where there is none. Case does not count."""
        return self._live_headers().find(key)

    def set_header(self, key: str, value: str) -> bool:
        """Set a header of the answer."""
        if not (key and value):
            return False
        self._live_headers()[key] = value
        return True

    def get_headers(self) -> dict[str, str]:
        """All headers; changes of the dict are changes of the answer."""
        return self._live_headers()

    def set_headers(self, headers: dict[str, str]) -> bool:
        """Make these the only headers."""
        if not headers:
            return False
        new = dict(headers)
        self._live_headers().clear()
        self._live_headers().update(new)
        return True

    def _live_headers(self) -> _Live:
        if self._headers is None:
            headers = self._response.headers
            self._headers = _Live(dict(headers.pairs()), headers, self._on_change)
        return self._headers

    def _on_change(self) -> None:
        self._changed = True

    def get_body(self) -> str:
        """The body that was set, else ""."""
        return self._body

    def set_body(self, body: str) -> bool:
        """Set the body."""
        if not body:
            return False
        self._response.body = body
        self._body = body
        self._on_change()
        return True

    def get_status_code(self) -> int:
        """The status, 200 where none was set."""
        return self._response.status_code or 200

    def set_status_code(self, status_code: int) -> bool:
        """Set the status, 100 to 599."""
        if not status_code or not 100 <= status_code <= 599:
            return False
        self._response.status_code = status_code
        self._on_change()
        return True

    def get_req_id(self) -> int:
        """The gateway's number of the call."""
        return self._req_id

    def set_req_id(self, req_id: int) -> bool:
        """What `get_req_id` gives from now on; the answer has the call's own all the same."""
        if not req_id:
            return False
        self._req_id = req_id
        return True

    def changed(self) -> bool:
        """Whether this plugin set anything: then the client is answered."""
        return self._changed
