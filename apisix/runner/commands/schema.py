"""`apisix-runner schema`: what a plugin's conf may hold, as JSON Schema."""

import json
from typing import Any

import click

from apisix.runner.commands.flags import plugin_flags, plugin_settings
from apisix.runner.commands.loading import fail, find, load

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.command()
@click.argument("name")
@plugin_flags
def schema(name: str, config_file: str | None, **flags: Any) -> None:
    """Print the JSON Schema of the conf of plugin NAME.

    It derives from the plugin's class Conf. A plugin without one accepts any conf. Editors and CI can check the
    values in routes with it; what a plugin checks in its own code is not in it.

    \b
    Example:
      apisix-runner schema rate_limit > rate_limit.schema.json
    """
    from apisix.runner.plugin.conf import json_schema

    definition = find(load(plugin_settings(config_file, flags)), name)
    try:
        found = json_schema(definition.conf_type)
    except Exception as error:  # msgspec's and pydantic's are of several kinds
        fail(f"{definition.origin}: plugin {definition.name!r}: its Conf has no JSON Schema: {error}")
    click.echo(json.dumps({"$schema": DIALECT, "title": definition.name, **found}, indent=2, ensure_ascii=False))
