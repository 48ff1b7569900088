"""What routes ask of the runner, read from a file with the line of each thing.

Rules that live here:
- The file is APISIX's standalone format (`apisix.yaml`), or one resource as the Admin API takes it, YAML or JSON.
- `ext-plugin-pre-req`, `-post-req` and `-post-resp` stand wherever APISIX takes plugins: in routes, services,
  plugin_configs, consumers, consumer_groups and global_rules. Anything else in the file is APISIX's own.
- What is wrong with the file itself is a problem with its line, and the rest is read.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

SECTIONS = ("routes", "services", "plugin_configs", "consumers", "consumer_groups", "global_rules")
PHASES = {"ext-plugin-pre-req": "request", "ext-plugin-post-req": "request", "ext-plugin-post-resp": "response"}
END = "#END"


class Problem(NamedTuple):
    """What is wrong, with the line where, from 1."""

    line: int
    text: str


class Use(NamedTuple):
    """A plugin in a conf.

    Attributes:
        line: where, from 1.
        place: which resource, and which ext-plugin: ``routes/1, ext-plugin-pre-req``.
        phase: ``request`` or ``response``.
        name: what the plugin is called there.
        value: the text of its conf.
    """

    line: int
    place: str
    phase: str
    name: str
    value: str


class Found(NamedTuple):
    """What a file holds.

    Attributes:
        uses: of plugins, in order.
        problems: with the file itself.
        resources: how many routes, services and so on there are.
    """

    uses: list[Use]
    problems: list[Problem]
    resources: int


def read_routes(path: Path) -> Found:
    """Read a file.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> read_routes(Path("apisix.yaml")).uses[0].name
        'stop'
    """
    try:
        text = path.read_bytes().decode("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        return Found([], [Problem(1, f"expected UTF-8 text, got other bytes at offset {error.start}")], 0)
    except RecursionError:
        return Found([], [Problem(1, "nested too deeply")], 0)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        return Found([], [Problem(mark.line + 1 if mark else 1, f"not YAML: {' '.join(str(why).split())}")], 0)
    reader = _Reader()
    if isinstance(root, yaml.MappingNode) and (isinstance(_get(root, "plugins"), yaml.MappingNode)):
        reader.resource("the resource", root)
    else:
        reader.file(root)
        if path.suffix != ".json" and text.rstrip().rpartition("\n")[2].strip() != END:
            problem = f"the last line must be {END}: APISIX takes the file as incomplete without it"
            reader.problems.append(Problem(text.count("\n") + 1, problem))
    return Found(reader.uses, reader.problems, reader.resources)


class _Reader:
    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.problems: list[Problem] = []
        self.resources = 0

    def file(self, root: yaml.Node | None) -> None:
        if root is None or not isinstance(root, yaml.MappingNode):
            self._expected("a mapping with routes", root)
            return
        for section in SECTIONS:
            items = _get(root, section)
            if items is None or _is_null(items):
                continue
            if not isinstance(items, yaml.SequenceNode):
                self._expected(f"a list of {section}", items)
                continue
            for place, item in enumerate(items.value, 1):
                id = _get(item, "id") or _get(item, "username")
                self.resource(f"{section}/{id.value if isinstance(id, yaml.ScalarNode) else place}", item)

    def resource(self, place: str, node: yaml.Node) -> None:
        self.resources += 1
        if not isinstance(node, yaml.MappingNode):
            self._expected(f"a mapping in {place}", node)
            return
        plugins = _get(node, "plugins")
        for key, conf in plugins.value if isinstance(plugins, yaml.MappingNode) else ():
            name = str(key.value)
            if name in PHASES:
                self._ext_plugin(f"{place}, {name}", PHASES[name], conf)
            elif name.startswith("ext-plugin"):
                near = difflib.get_close_matches(name, PHASES, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PHASES)}"
                self.problems.append(Problem(_line(key), f"{place}: unknown plugin {name}; {hint}"))

    def _ext_plugin(self, place: str, phase: str, node: yaml.Node) -> None:
        conf = _get(node, "conf")
        if conf is None:
            return  # allowed: then no plugin runs
        if not isinstance(conf, yaml.SequenceNode):
            self._expected(f"a list of name and value as conf of {place}", conf)
            return
        for entry in conf.value:
            name, value = _get(entry, "name"), _get(entry, "value")
            if not isinstance(name, yaml.ScalarNode):
                self._expected(f"name and value in {place}", name or entry)
            elif value is None:
                self.problems.append(Problem(_line(entry), f"{place}, {name.value}: expected a value, got none"))
            elif not isinstance(value, yaml.ScalarNode) or value.tag != "tag:yaml.org,2002:str":
                what = f"a text as value of {place}, {name.value}, such as '{{\"rate\": 5}}' in quotes"
                self._expected(what, value)
            else:
                self.uses.append(Use(_line(name), place, phase, str(name.value), str(value.value)))

    def _expected(self, what: str, node: yaml.Node | None) -> None:
        self.problems.append(Problem(_line(node), f"expected {what}, got {_kind(node)}"))


def _get(node: yaml.Node, key: str) -> yaml.Node | None:
    """The value of a key of a mapping; None where there is no such thing."""
    entries: Iterator[tuple[yaml.Node, yaml.Node]]
    entries = iter(node.value) if isinstance(node, yaml.MappingNode) else iter(())
    return next((value for name, value in entries if name.value == key), None)


def _line(node: yaml.Node | None) -> int:
    return node.start_mark.line + 1 if node is not None else 1


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _kind(node: yaml.Node | None) -> str:
    if node is None or _is_null(node):
        return "nothing"
    if isinstance(node, yaml.ScalarNode):
        return "a text" if node.tag == "tag:yaml.org,2002:str" else str(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
