"""The plugin proxy-rewrite: another uri, host, method or other headers for the upstream.

Rules that live here: `uri` wins over `regex_uri`; the new uri may bring arguments, which the request's follow; its
path is percent-encoded, and a question mark that came from the client stays part of it; `$variable` and, after
`regex_uri`, `$1` stand for values. Source: APISIX's plugins/proxy-rewrite.lua and core/utils.lua, 3.18.
"""

import re
from collections.abc import Callable
from typing import Any

from apisix.runner.gateway.exchange import Exchange
from apisix.runner.gateway.schema import header_changes
from apisix.runner.gateway.uri import escape_path, escape_unsendable

VARIABLE = re.compile(r"(?<!\\)\$(?:\{\s*([^}]+?)\s*\}|([\w.]+))")
CAPTURE = re.compile(r"(?<!\\)\$\{?(\d+)\}?")


def apply(exchange: Exchange, conf: dict[str, Any]) -> None:
    """Do what `conf` (as validated) says."""
    if conf.get("host"):
        exchange.upstream_host = conf["host"]
    uri, may_have_query, captures = _new_uri(exchange, conf)
    path, mark, query = uri.partition("?") if may_have_query else (uri, "", "")
    rewritten = escape_path(path) + escape_unsendable(mark + query)
    if exchange.query:
        rewritten += ("&" if mark else "?") + exchange.query
    exchange.upstream_uri = rewritten
    _change_headers(exchange, conf.get("headers") or {}, captures)
    if conf.get("method"):
        exchange.method = conf["method"]


def _new_uri(exchange: Exchange, conf: dict[str, Any]) -> tuple[str, bool, list[str]]:
    """The uri, whether a question mark in it begins its arguments, and what `regex_uri` captured."""
    if conf.get("uri") is not None:
        return _resolve(conf["uri"], exchange, lambda value: value.replace("?", "%3F")), True, []
    patterns = conf.get("regex_uri") or []
    for pattern, replacement in zip(patterns[::2], patterns[1::2], strict=True):
        match = re.search(pattern, exchange.path)
        if match is not None:
            captures = [match[0], *(group or "" for group in match.groups())]
            uri = exchange.path[: match.start()] + _fill(replacement, captures) + exchange.path[match.end() :]
            return uri, "?" not in exchange.path, captures
    return exchange.path, False, []


def _change_headers(exchange: Exchange, headers: dict[str, Any], captures: list[str]) -> None:
    changes = header_changes(headers)

    def values(given: object) -> list[str]:
        listed = given if isinstance(given, list) else [given]
        return [_resolve(_fill(str(each), captures), exchange) for each in listed]

    for name, given in changes.add.items():
        for value in values(given):
            exchange.add_header(name, value)
    for name, given in changes.set.items():
        exchange.set_header(name, values(given))
    for name in changes.remove:
        exchange.set_header(name, None)


def _resolve(template: str, exchange: Exchange, clean: Callable[[str], str] = str) -> str:
    def value(match: re.Match[str]) -> str:
        name, _, default = (match[1] or match[2]).partition("??")
        found = exchange.variable(name.strip())
        return clean(default.strip() if found is None else found)

    return VARIABLE.sub(value, template)


def _fill(template: str, captures: list[str]) -> str:
    def value(match: re.Match[str]) -> str:
        number = int(match[1])
        return captures[number] if number < len(captures) else ""

    return CAPTURE.sub(value, template) if captures else template
