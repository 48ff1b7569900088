"""The registry: which plugins there are, and what a route's name for one means.

Rules that live here:
- Everything about a plugin's class is checked when it is registered: name, signatures, phases, declarations. What is
  wrong is told with file and class, before any request.
- Names match without case and underscores. Two plugins of one name are an error that names both files, and neither
  runs: which one a route means cannot be guessed.
- A name that is not there is an error that says which names are, and which files did not load.
"""

import difflib
import inspect
import math
from typing import Any

from apisix.runner.plugin.base import Base
from apisix.runner.plugin.conf import conf_type_problem, is_conf_type
from apisix.runner.plugin.errors import ConfError, LoadError, told

REQUEST = "request"
RESPONSE = "response"
METHODS = {REQUEST: "filter", RESPONSE: "filter_response"}


def match_key(name: str) -> str:
    """What two names have in common that mean the same plugin.

    Example:
        >>> match_key("goes_on") == match_key("GoesOn")
        True
    """
    return name.replace("_", "").lower()


class Definition:
    """A plugin's class, checked.

    Args:
        plugin_class: a subclass of `Base`.
        origin: the file that it comes from.
        distribution: name and version of what it was installed with, if it was.

    Raises:
        LoadError: something about the class is wrong.
    """

    __slots__ = ("conf_type", "coroutine", "distribution", "name", "origin", "phases", "plugin_class", "raw_conf")

    def __init__(self, plugin_class: type[Base], origin: str, distribution: str = "") -> None:
        self.plugin_class = plugin_class
        self.origin = origin
        self.distribution = distribution
        self.phases = frozenset(
            phase for phase, method in METHODS.items() if getattr(plugin_class, method) is not getattr(Base, method)
        )
        if not self.phases:
            raise self._wrong(
                "has neither filter(self, request, response) nor filter_response(self, request, response)"
            )
        for phase in self.phases:
            self._check_signature(METHODS[phase])
        for method in ("setup", "teardown"):
            if inspect.iscoroutinefunction(getattr(plugin_class, method)):
                problem = f"{method} must be def, got async def: nobody would await it"
                raise self._wrong(problem, getattr(plugin_class, method))
        self.coroutine = frozenset(
            phase for phase in self.phases if inspect.iscoroutinefunction(getattr(plugin_class, METHODS[phase]))
        )
        self.conf_type: type | None = getattr(plugin_class, "Conf", None)
        if self.conf_type is not None:
            self._check_conf_type(self.conf_type)
        self.raw_conf: bool = getattr(plugin_class, "raw_conf", False)
        self.check_declarations(plugin_class)
        self.name = self._find_name()

    @property
    def source(self) -> str:
        """Where it comes from, for people: the file, and what it was installed with."""
        return f"{self.origin} ({self.distribution})" if self.distribution else self.origin

    def _wrong(self, problem: str, about: object = None) -> LoadError:
        line = _line_of(about or self.plugin_class, self.origin)
        return LoadError(f"{self.origin}{line}", f"plugin class {self.plugin_class.__name__}: {problem}")

    def _check_signature(self, method: str) -> None:
        function = getattr(self.plugin_class, method)
        if not callable(function):
            raise self._wrong(f"expected {method}(self, request, response), got {method} = {function!r}")
        signature = inspect.signature(function)
        try:
            signature.bind(None, None, None)
        except TypeError:
            names = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
            bare = signature.replace(parameters=names, return_annotation=signature.empty)
            problem = f"expected {method}(self, request, response), got {method}{bare}"
            raise self._wrong(problem, function) from None
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            problem = f"{method} is a generator, which nobody would run; take its yield out"
            raise self._wrong(problem, function)

    def _check_conf_type(self, conf_type: type) -> None:
        if not is_conf_type(conf_type):
            raise self._wrong(
                f"Conf must be a msgspec.Struct, a dataclass, a TypedDict or a pydantic model, got {conf_type!r}"
            )
        problem = conf_type_problem(conf_type)
        if problem:
            raise self._wrong(f"Conf cannot be used: {problem}", conf_type)

    def check_declarations(self, declared: Base | type[Base]) -> None:
        """Check what a plugin declares: in its class, or in an instance whose `setup` changed it.

        Raises:
            LoadError: a declaration is wrong.
        """
        if declared.on_error not in ("fail", "continue"):
            raise self._wrong(f"on_error must be 'fail' or 'continue', got {declared.on_error!r}")
        if declared.blocking not in (None, True, False):
            raise self._wrong(f"blocking must be True, False or None, got {declared.blocking!r}")
        names: object = declared.variables
        if not isinstance(names, list | tuple) or not all(name and isinstance(name, str) for name in names):
            raise self._wrong(f"variables must be a list or tuple of names, got {names!r}")
        if declared.needs_body not in (True, False):
            raise self._wrong(f"needs_body must be True or False, got {declared.needs_body!r}")
        timeout = declared.timeout
        if timeout is not None and not _is_seconds(timeout):
            raise self._wrong(f"timeout must be a number of seconds above 0 or None, got {timeout!r}")

    def _find_name(self) -> str:
        name: Any = self.plugin_class.name
        if not name and self.plugin_class.__init__ is not Base.__init__:
            name = self.create().name
        name = name or self.plugin_class.__name__
        if not isinstance(name, str) or not match_key(name):
            raise self._wrong(f"a plugin's name must be text, got {name!r}")
        if not name.isprintable() or any(letter.isspace() for letter in name):
            raise self._wrong(f"a plugin's name must be without spaces, got {name!r}; use - or _")
        return name

    def create(self) -> Base:
        """A new instance.

        Raises:
            LoadError: its ``__init__`` fails.
        """
        try:
            return self.plugin_class()
        except (Exception, SystemExit) as error:
            problem = f"__init__ failed: {told(error)}; it is called without arguments"
            raise self._wrong(problem) from error


def _line_of(thing: object, origin: str) -> str:
    """``:7`` where a class or function begins on line 7 of its plugin's file; nothing where it is from elsewhere."""
    try:
        if inspect.getsourcefile(inspect.unwrap(thing)) != origin:  # type: ignore[arg-type]
            return ""
        return f":{inspect.getsourcelines(inspect.unwrap(thing))[1]}"  # type: ignore[arg-type]
    except (OSError, TypeError, ValueError):
        return ""


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


class Registry:
    """All plugins of a worker, and what kept others from being among them."""

    def __init__(self) -> None:
        self._definitions: dict[str, Definition] = {}
        self._duplicates: dict[str, list[str]] = {}
        self.problems: list[LoadError] = []

    def add(self, definition: Definition) -> None:
        """Register a plugin. A second one of the same name takes the first one out too, and is a problem."""
        key = match_key(definition.name)
        if key in self._duplicates:
            self._duplicates[key].append(definition.source)
        elif key in self._definitions:
            first = self._definitions.pop(key)
            self._duplicates[key] = [first.source, definition.source]
        else:
            self._definitions[key] = definition
            return
        origins = " and ".join(self._duplicates[key])
        self.problems.append(
            LoadError(definition.origin, f"plugin {definition.name!r} is defined in {origins}; rename one")
        )

    def definitions(self) -> list[Definition]:
        """The plugins that can be used, by name."""
        return sorted(self._definitions.values(), key=lambda definition: definition.name.lower())

    def find(self, name: str) -> Definition:
        """The plugin that a route means.

        Raises:
            ConfError: there is none, or more than one.
        """
        key = match_key(name)
        definition = self._definitions.get(key)
        if definition is not None:
            return definition
        if key in self._duplicates:
            raise ConfError(name, f"is defined in {' and '.join(self._duplicates[key])}; rename one")
        known = [definition.name for definition in self.definitions()]
        close = difflib.get_close_matches(key, [match_key(one) for one in known], 1)
        hint = f"; did you mean {self._definitions[close[0]].name!r}?" if close else ""
        failed = f"; these files did not load: {', '.join(p.origin for p in self.problems)}" if self.problems else ""
        raise ConfError(name, f"unknown plugin, loaded are: {', '.join(known) or 'none'}{hint}{failed}")
