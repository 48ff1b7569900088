"""`apisix-runner plugins`: which plugins there are, and where they come from."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from apisix.runner.commands.flags import plugin_flags, plugin_settings
from apisix.runner.commands.loading import FOUND_WRONG, load, say, short

if TYPE_CHECKING:
    from apisix.runner.plugin.registry import Definition


@click.command()
@plugin_flags
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, with the JSON Schema of each conf.")
def plugins(config_file: str | None, as_json: bool, **flags: Any) -> None:
    """List the plugins that a route can name.

    For each: its name, phases, class, the file or distribution it comes from, and what its conf may hold. Without
    --plugins they are taken from ./plugins, or from where the config file says.

    What did not load is told on stderr; then the exit code is 1.

    \b
    Examples:
      apisix-runner plugins
      apisix-runner plugins --plugins plugins --plugins more_plugins
      apisix-runner plugins --json | jq -r '.[].name'
    """
    registry = load(plugin_settings(config_file, flags))
    definitions = registry.definitions()
    if as_json:
        click.echo(json.dumps([_described(one) for one in definitions], indent=2, ensure_ascii=False))
    else:
        rows = [("NAME", "PHASES", "CLASS", "FROM"), *(_row(one) for one in definitions)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row, definition in zip(rows, [None, *definitions], strict=True):
            cells = (f"{cell:{width}}" for cell, width in zip(row[:3], widths, strict=True))
            say("  ".join([*cells, row[3]]))
            if definition is not None and definition.conf_type is not None:
                say(f"{'':{widths[0]}}  conf: {_conf_line(definition)}")
    for problem in registry.problems:
        say(str(problem), err=True)
    sys.exit(FOUND_WRONG if registry.problems else 0)


def _row(definition: "Definition") -> tuple[str, str, str, str]:
    phases = ", ".join(
        f"{phase} (async)" if phase in definition.coroutine else phase for phase in sorted(definition.phases)
    )
    return definition.name, phases, definition.plugin_class.__name__, short(definition.source)


def _schema(definition: "Definition") -> dict[str, Any]:
    from apisix.runner.plugin.conf import json_schema

    try:
        return json_schema(definition.conf_type)
    except Exception:  # a type that JSON Schema cannot say; `schema` tells which
        return {}


def _described(definition: "Definition") -> dict[str, Any]:
    return {
        "name": definition.name,
        "class": f"{definition.plugin_class.__module__}.{definition.plugin_class.__qualname__}",
        "file": definition.origin,
        "distribution": definition.distribution or None,
        "phases": sorted(definition.phases),
        "async": sorted(definition.coroutine),
        "schema": _schema(definition) if definition.conf_type is not None else None,
    }


def _conf_line(definition: "Definition") -> str:
    """The fields of a conf in one line: ``rate: integer, per: string = "minute"``."""
    schema = _schema(definition)
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    body = schema.get("$defs", {}).get(name, schema)
    fields = [_field(key, field) for key, field in body.get("properties", {}).items()]
    return ", ".join(fields) or "anything"


def _field(name: str, schema: dict[str, Any]) -> str:
    kind = _kind(schema)
    default = f" = {json.dumps(schema['default'], ensure_ascii=False)}" if "default" in schema else ""
    return f"{name}: {kind}{default}"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_kind(schema['items'])}" if isinstance(schema.get("items"), dict) else kind
