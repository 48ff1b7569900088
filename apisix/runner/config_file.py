"""The config file: YAML read as text, each value with its line.

Rules:
- Scalars stay the text that was written: `0666` is four digits, `no` is two letters. The settings' own readers
  say what a text means, the same for the file as for flags and the environment.
- Keys are flattened: `socket: {file: x}` is the key `socket.file`. A section may be empty.
- A key given twice is a mistake, as is anything that is not YAML; both are a `StartError` with the line.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
import yaml

from apisix.runner.errors import StartError


class Entry(msgspec.Struct, frozen=True):
    """A key's value: text, a list of texts, or None where nothing was written; and its line, from 1."""

    value: str | tuple[str, ...] | None
    line: int


def read_config_file(path: Path, sections: Collection[str], settings: Collection[str]) -> dict[str, Entry]:
    """Return the entries of the file at `path` by flattened key; `sections` are the keys that hold
    others, `settings` all flattened keys there are.

    Raises `StartError` where the file cannot be read, or where something else than a text or a list of texts
    stands under a key that is no section.

    Example: a file with the one line ``logging: {level: warn}`` gives ``{"logging.level": Entry("warn", 1)}``.
    """
    try:
        root = yaml.compose(path.read_bytes().decode("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise StartError(f"file {path}: {error.strerror}; name another with --config FILE") from None
    except UnicodeDecodeError as error:
        raise StartError(f"file {path}: expected UTF-8 text, got other bytes at offset {error.start}") from None
    except RecursionError:
        raise StartError(f"file {path}: expected two levels of keys, got far more; see the packaged file") from None
    except yaml.YAMLError as error:
        raise StartError(f"file {path}{_where(error)}: expected YAML, but {_problem(error)}; correct it") from None
    entries: dict[str, Entry] = {}
    for key, entry in _flatten(root, "", path, sections, settings):
        if key in entries:
            first = entries[key].line
            raise StartError(f"file {path}, line {entry.line}: {key} was given before, on line {first}; remove one")
        entries[key] = entry
    return entries


def _flatten(
    node: yaml.Node | None, prefix: str, path: Path, sections: Collection[str], settings: Collection[str]
) -> Iterator[tuple[str, Entry]]:
    if node is None or _is_null(node):
        return
    if not isinstance(node, yaml.MappingNode):
        raise StartError(
            f"file {path}, line {_line(node)}: expected keys and values"
            f"{' in ' + prefix[:-1] if prefix else ''}, got {_describe(node)}"
        )
    for key_node, value_node in node.value:
        key = prefix + (key_node.value if isinstance(key_node, yaml.ScalarNode) else "?")
        is_misspelt_section = not prefix and isinstance(value_node, yaml.MappingNode) and key not in settings
        if key in sections or is_misspelt_section:
            yield from _flatten(value_node, key + ".", path, sections, settings)
        else:
            yield key, Entry(_value(key, value_node, path), _line(key_node))


def _value(key: str, node: yaml.Node, path: Path) -> str | tuple[str, ...] | None:
    if _is_null(node):
        return None
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        wrong = [item for item in node.value if not isinstance(item, yaml.ScalarNode)]
        if not wrong:
            return tuple(str(item.value) for item in node.value)
        node = wrong[0]
    raise StartError(f"file {path}, line {_line(node)}: {key}: expected a value, got {_describe(node)}")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _describe(node: yaml.Node) -> str:
    names = {yaml.ScalarNode: "a single value", yaml.SequenceNode: "a list", yaml.MappingNode: "more keys"}
    return names[type(node)]


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return " ".join(str(text).split())
