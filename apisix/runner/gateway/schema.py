"""What a route and an upstream may hold, and how a mistake in them is told.

Rules that live here: the fields that the embedded gateway understands (an unknown one is an error, so that nothing is
ignored in silence), their types and limits, and what must stand together. Source: `_M.route` and `upstream_schema` in
APISIX's schema_def.lua, and the plugins' own schemas.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from apisix.runner.gateway.versions import Feature, Version

ID = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
HOST = r"^\*$|^\*?[0-9a-zA-Z\-._\[\]:]+$"

Host = Annotated[str, msgspec.Meta(pattern=HOST)]
Uri = Annotated[str, msgspec.Meta(pattern="^/", max_length=4096)]
Weight = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Method = Literal[
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE", "MKCOL", "COPY", "MOVE",
    "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK",
]  # fmt: skip


class Invalid(ValueError):
    """A route, an upstream or a plugin's conf that cannot be used. Its text is APISIX's `error_msg`."""


class Conf(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every resource has."""

    id: str | int | None = None
    name: str | None = None
    desc: str | None = None
    labels: dict[str, str] = {}
    create_time: int | None = None
    update_time: int | None = None


class Timeout(msgspec.Struct, forbid_unknown_fields=True):
    """Seconds for each step of an upstream's call."""

    connect: Seconds = 60.0
    send: Seconds = 60.0
    read: Seconds = 60.0


class NodeConf(msgspec.Struct, forbid_unknown_fields=True):
    """A node in array form."""

    host: Host
    weight: Weight
    port: Port | None = None
    priority: int = 0
    metadata: dict[str, Any] = {}


class UpstreamConf(Conf):
    """An upstream: nodes by address or in a list."""

    nodes: dict[str, Weight] | list[NodeConf]
    type: Literal["roundrobin"] = "roundrobin"
    scheme: Literal["http"] = "http"
    pass_host: Literal["pass", "node", "rewrite"] = "pass"
    upstream_host: Host | None = None
    timeout: Timeout | None = None
    retries: Annotated[int, msgspec.Meta(ge=0)] | None = None
    retry_timeout: float | None = None
    keepalive_pool: dict[str, float] | None = None


class RouteConf(Conf):
    """A route."""

    uri: Uri | None = None
    uris: Annotated[list[Uri], msgspec.Meta(min_length=1)] | None = None
    methods: list[Method] = []
    host: Host | None = None
    hosts: Annotated[list[Host], msgspec.Meta(min_length=1)] | None = None
    remote_addr: str | None = None
    remote_addrs: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    priority: int = 0
    status: Literal[0, 1] = 1
    timeout: Timeout | None = None
    plugins: dict[str, dict[str, Any]] = {}
    upstream: UpstreamConf | None = None
    upstream_id: str | int | None = None
    enable_websocket: Literal[False] = False


class ConfEntry(msgspec.Struct):
    """One plugin of a runner."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    value: str


class ExtPlugin(msgspec.Struct):
    """`ext-plugin-pre-req`, `ext-plugin-post-req`, `ext-plugin-post-resp`."""

    conf: Annotated[list[ConfEntry], msgspec.Meta(min_length=1)] | None = None
    allow_degradation: bool = False


HeaderValue = str | int | float


class HeaderChanges(msgspec.Struct, forbid_unknown_fields=True):
    """proxy-rewrite's headers in their newer form."""

    add: dict[str, HeaderValue | list[HeaderValue]] = {}
    set: dict[str, HeaderValue | list[HeaderValue]] = {}
    remove: list[str] = []


class ProxyRewrite(msgspec.Struct):
    """`proxy-rewrite`."""

    uri: Uri | None = None
    method: Method | None = None
    regex_uri: Annotated[list[str], msgspec.Meta(min_length=2)] | None = None
    host: Host | None = None
    headers: dict[str, Any] = {}
    use_real_request_uri_unsafe: Literal[False] = False


PLUGINS: dict[str, type[ExtPlugin] | type[ProxyRewrite]] = {
    "ext-plugin-pre-req": ExtPlugin,
    "proxy-rewrite": ProxyRewrite,
    "ext-plugin-post-req": ExtPlugin,
    "ext-plugin-post-resp": ExtPlugin,
}

T = TypeVar("T")


def check_id(id: object) -> str:
    """A resource's id as text.

    Raises:
        Invalid: 1 to 64 letters, digits, `-`, `_` and `.` were expected.
    """
    text = str(id)
    if isinstance(id, bool) or not isinstance(id, (str, int)) or not ID.fullmatch(text):
        raise Invalid(f"invalid configuration: id: expected 1 to 64 of A-Z a-z 0-9 - _ . , got {text!r}")
    return text


def read(value: object, type: type[T], what: str = "invalid configuration") -> T:
    """`value` as `type`.

    Raises:
        Invalid: `what`, then what was expected, what came and at which path.
    """
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        raise Invalid(f"{what}: {error}") from None


def check_upstream(value: object) -> UpstreamConf:
    """Validate an upstream.

    Raises:
        Invalid: with the first mistake.
    """
    conf = read(value, UpstreamConf)
    _check_pass_host(conf)
    return conf


def _check_pass_host(conf: UpstreamConf) -> None:
    if conf.pass_host == "rewrite" and not conf.upstream_host:
        raise Invalid("`upstream_host` can't be empty when `pass_host` is `rewrite`")


def check_route(value: object, version: Version) -> RouteConf:
    """Validate a route, its upstream and its plugins.

    Raises:
        Invalid: with the first mistake.
    """
    if isinstance(value, Mapping):
        for one, many in (("host", "hosts"), ("remote_addr", "remote_addrs")):
            if one in value and many in value:
                raise Invalid(f"only one of {one} or {many} is allowed")
    conf = read(value, RouteConf)
    if (conf.uri is None) == (conf.uris is None):
        raise Invalid("invalid configuration: expected either `uri` or `uris`")
    for uri in conf.uris or [conf.uri or ""]:
        if "*" in uri[:-1]:
            raise Invalid(f"invalid configuration: uri {uri}: a * stands only at the end")
    if not conf.plugins and conf.upstream is None and conf.upstream_id is None:
        raise Invalid("invalid configuration: expected `plugins`, `upstream` or `upstream_id` beside the uri")
    for address in conf.remote_addrs or ([conf.remote_addr] if conf.remote_addr else []):
        try:
            ip_network(address, strict=False)
        except ValueError as error:
            raise Invalid(f"invalid configuration: remote_addr: {error}") from None
    if conf.upstream is not None:
        _check_pass_host(conf.upstream)
    for name, plugin in conf.plugins.items():
        _check_plugin(name, plugin, version)
    return conf


def _check_plugin(name: str, conf: dict[str, Any], version: Version) -> None:
    known = name in PLUGINS and (name != "ext-plugin-post-resp" or version.has(Feature.RESPONSE_PHASE))
    if not known:
        raise Invalid(f"unknown plugin [{name}]")
    what = f"failed to check the configuration of plugin {name} err"
    checked = read(conf, PLUGINS[name], what)
    if isinstance(checked, ProxyRewrite):
        try:
            _check_proxy_rewrite(conf, checked)
        except Invalid as error:
            raise Invalid(f"{what}: {error}") from None


def _check_proxy_rewrite(given: dict[str, Any], conf: ProxyRewrite) -> None:
    unknown = given.keys() - {*ProxyRewrite.__struct_fields__, "disable", "_meta"}
    if unknown:
        raise Invalid(f"the embedded gateway does not know `{min(unknown)}`")
    if conf.regex_uri and len(conf.regex_uri) % 2:
        raise Invalid("The length of regex_uri should be an even number")
    for pattern in (conf.regex_uri or [])[::2]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Invalid(f"invalid regex_uri({pattern}): {error}") from None
    header_changes(conf.headers)


def header_changes(headers: dict[str, Any]) -> HeaderChanges:
    """proxy-rewrite's headers in one form.

    Raises:
        Invalid: neither names and values nor `add`, `set` and `remove`.
    """
    if any(isinstance(headers.get(key), (dict, list)) for key in ("add", "set", "remove")):
        return read(headers, HeaderChanges, "headers")
    return HeaderChanges(set={**read(headers, dict[str, HeaderValue], "headers")})
