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

from apisix.runner.plugin.errors import ConfError, told


@runtime_checkable
class PydanticModel(Protocol):
    """As much of a pydantic model's class as is needed here; pydantic itself is no dependency."""

    def model_validate_json(self, value: bytes) -> Any:
        """The model of a JSON text; raises pydantic's ValidationError, a ValueError."""
        ...

    def model_json_schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        ...

    def model_rebuild(self) -> bool | None:
        """Look up the types that were not known yet; raises where one cannot be found."""
        ...


def is_conf_type(conf_type: object) -> bool:
    """Whether a class can be a plugin's ``Conf``.

    A dataclass of pydantic's is none: it would be read as any dataclass, and its own checks would not run.
    """
    if not isinstance(conf_type, type):
        return False
    if hasattr(conf_type, "__pydantic_validator__"):
        return isinstance(conf_type, PydanticModel)
    return issubclass(conf_type, msgspec.Struct) or is_dataclass(conf_type) or is_typeddict(conf_type)


def conf_type_problem(conf_type: type) -> str:
    """What keeps a ``Conf`` from being read, such as a field whose type cannot be found; else empty."""
    try:
        if isinstance(conf_type, PydanticModel):
            conf_type.model_rebuild()
            return ""
        msgspec.json.Decoder(conf_type)
    except Exception as error:
        return told(error)
    return ""


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
        except (msgspec.DecodeError, UnicodeDecodeError):
            return value
        except RecursionError:
            raise ConfError(plugin, "conf $: its JSON is nested too deeply") from None
    try:
        if isinstance(conf_type, PydanticModel):
            return conf_type.model_validate_json(raw or b"{}")
        return msgspec.json.decode(raw or b"{}", type=conf_type)
    except msgspec.ValidationError as error:
        problem = _path_first(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = f"$: expected a JSON object, got text that is not JSON ({error})"
    except Exception as error:
        problem = _pydantic_problem(error) if hasattr(error, "errors") else f"$: {told(error)}"
    raise ConfError(plugin, f"conf {problem}")


def json_schema(conf_type: type | None) -> dict[str, Any]:
    """The JSON Schema of a plugin's conf; of a plugin without ``Conf``, one that admits anything."""
    if conf_type is None:
        return {}
    if isinstance(conf_type, PydanticModel):
        return conf_type.model_json_schema()
    return msgspec.json.schema(conf_type)


def _path_first(message: str) -> str:
    """``Expected `int`, got `str` - at `$.rate``` as ``$.rate: expected int, got str``."""
    problem, _, path = message.rpartition(" - at `")
    if not problem:
        problem, path = message, "$"
    if problem.startswith(("Invalid enum value", "Invalid value")):  # these quote the value
        problem = "expected one of the values that Conf names, got another one"
    problem = problem.replace("`", "")
    return f"{path.rstrip('`')}: {problem[:1].lower()}{problem[1:]}"


def _pydantic_problem(error: Any) -> str:
    problems = []
    for one in error.errors():
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
        message = str(one["msg"])
        if one["type"] == "union_tag_invalid":  # this quotes the value
            message = f"expected one of the tags {one['ctx']['expected_tags']}, got another one"
        elif one["type"] not in ("missing", "value_error", "assertion_error"):
            message = f"{message}, got {type(one['input']).__name__}"
        problems.append(f"${path}: {message[:1].lower()}{message[1:]}")
    return "; ".join(problems)
