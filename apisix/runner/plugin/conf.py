"""A conf's value: from the text in a route to what a plugin finds in `self.config`.

Rules that live here:
- A class ``Conf`` inside the plugin is the type of its conf: a msgspec.Struct, a dataclass, a TypedDict or a pydantic
  model. The value is then JSON that fits it, with defaults applied, and `self.config` is the instance.
- Without ``Conf``: what the JSON decodes to where the value is JSON, else the text itself.
- An error says path, expected and got, and never the value: conf values hold secrets.
"""

from dataclasses import is_dataclass
from typing import Any, Protocol, is_typeddict, runtime_checkable

import msgspec

from apisix.runner.plugin.errors import ConfError


@runtime_checkable
class PydanticModel(Protocol):
    """As much of a pydantic model's class as is needed here; pydantic itself is no dependency."""

    def model_validate_json(self, value: bytes) -> Any:
        """The model of a JSON text; raises pydantic's ValidationError, a ValueError."""
        ...

    def model_json_schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        ...


def is_conf_type(conf_type: object) -> bool:
    """Whether a class can be a plugin's ``Conf``."""
    if not isinstance(conf_type, type):
        return False
    return (
        issubclass(conf_type, msgspec.Struct)
        or is_dataclass(conf_type)
        or is_typeddict(conf_type)
        or isinstance(conf_type, PydanticModel)
    )


def parse_conf(plugin: str, value: str, conf_type: type | None) -> Any:
    """What `self.config` is for a value.

    Args:
        plugin: the plugin's name in the route, for errors.
        value: the text in the route.
        conf_type: the plugin's ``Conf``, or None.

    Raises:
        ConfError: the value does not fit.

    Example:
        >>> parse_conf("stop", '{"body":"hello"}', None)
        {'body': 'hello'}
    """
    raw = value.encode("utf-8", "surrogateescape")  # a value may be any bytes
    if conf_type is None:
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return value
    if not isinstance(conf_type, PydanticModel):
        try:
            return msgspec.json.decode(raw or b"{}", type=conf_type)
        except msgspec.ValidationError as error:
            raise ConfError(plugin, f"conf {_path_first(str(error))}") from None
        except msgspec.DecodeError as error:
            raise ConfError(plugin, f"conf $: expected a JSON object, got text that is not JSON ({error})") from None
    try:
        return conf_type.model_validate_json(raw or b"{}")
    except ValueError as error:
        raise ConfError(plugin, f"conf {_pydantic_problem(error)}") from None


def json_schema(conf_type: type | None) -> dict[str, Any]:
    """The JSON Schema of a plugin's conf; of a plugin without ``Conf``, one that admits anything."""
    if conf_type is None:
        return {}
    if isinstance(conf_type, PydanticModel):
        return conf_type.model_json_schema()
    return msgspec.json.schema(conf_type)


def _path_first(message: str) -> str:
    """``Expected `int`, got `str` - at `$.rate``` as ``$.rate: expected int, got str``."""
    problem, _, path = message.partition(" - at ")
    problem = problem.replace("`", "")
    return f"{path.replace('`', '') or '$'}: {problem[:1].lower()}{problem[1:]}"


def _pydantic_problem(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return f"$: {error}"
    problems = []
    for one in errors():
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
        message = str(one["msg"])
        problems.append(f"${path}: {message[:1].lower()}{message[1:]}, got {type(one.get('input')).__name__}")
    return "; ".join(problems)
