"""Discovery: from folders, installed distributions and named classes to a registry.

Rules that live here:
- Every ``*.py`` file of a plugins folder, and every package in it, is imported; names that begin with ``_`` or
  ``test_`` are not. Each class in it that derives from `Base` and does not begin with ``_`` is a plugin.
- An installed distribution offers plugins by entry points of the group ``apisix.plugins``: ``module:Class``, or
  ``module`` for all plugins of a module. A setting may name ``module:Class`` too.
- What does not import is a problem of its own: the others load, and a route that wants a plugin of it gets an error
  that names the file.
- A class that is found in two ways is one plugin.
"""

import difflib
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from apisix.runner.plugin.base import Base
from apisix.runner.plugin.core import PluginBase, adapt
from apisix.runner.plugin.errors import LoadError
from apisix.runner.plugin.importing import PACKAGED_FOLDER, import_file, import_module, place_of, why
from apisix.runner.plugin.limit import TooLong, time_limit
from apisix.runner.plugin.registry import Definition, Registry

__all__ = ["ENTRY_POINTS", "PACKAGED_FOLDER", "load_plugins"]

ENTRY_POINTS = "apisix.plugins"

PluginClass = type[Base] | type[PluginBase]


def load_plugins(
    folders: Sequence[Path], classes: Sequence[str] = (), *, installed: bool = False, limit: float | None = None
) -> Registry:
    """Import plugins: those of folders in order, then named ones, then installed ones.

    Args:
        folders: absolute paths. One that does not exist is a problem, not an exception.
        classes: as ``module:Class``.
        installed: whether installed distributions are asked for plugins.
        limit: seconds that a file may take to import, and a class to be looked at; None for any.

    Returns:
        The registry, with what went wrong in `Registry.problems`.

    Example:
        >>> load_plugins([PACKAGED_FOLDER]).find("stop").phases
        frozenset({'request'})
    """
    loader = _Loader(limit)
    for folder in folders:
        loader.load_folder(folder)
    for name in classes:
        loader.load_module(name, f"plugins.classes, {name}")
    if installed:
        loader.load_installed()
    return loader.registry


class _Loader:
    def __init__(self, limit: float | None) -> None:
        self.registry = Registry()
        self._limit = limit
        self._seen: set[type] = set()

    def load_folder(self, folder: Path) -> None:
        try:
            paths = list(_files(folder))
        except OSError as error:
            problem = "there is none" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            self.registry.problems.append(LoadError(str(folder), f"expected a folder of plugins: {problem}"))
            return
        for path in paths:
            try:
                module = import_file(folder, path, self._limit)
            except LoadError as problem:
                self.registry.problems.append(problem)
                continue
            for member in _plugin_classes(module):
                self._register(member, str(path))

    def load_installed(self) -> None:
        if not any(map(_may_offer, sys.path)):
            return
        from importlib import metadata  # it imports much, for which a worker without such plugins need not pay

        found = sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda one: (one.value, one.name))
        for entry in dict.fromkeys(found):  # an editable installation may be found twice
            distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
            wanted_by = f"entry point {entry.name} = {entry.value} of {distribution or 'an unknown distribution'}"
            self.load_module(entry.value.partition("[")[0].strip(), wanted_by, distribution)

    def load_module(self, name: str, wanted_by: str, distribution: str = "") -> None:
        module_name, _, class_name = (part.strip() for part in name.partition(":"))
        try:
            module = import_module(module_name, wanted_by, self._limit)
            members = [_named(module, class_name, wanted_by)] if class_name else _plugin_classes(module)
            if not members:
                raise LoadError(wanted_by, f"expected plugins in {module_name}, found none; name one, as module:Class")
        except LoadError as problem:
            self.registry.problems.append(problem)
            return
        for member in members:
            self._register(member, wanted_by, distribution)

    def _register(self, member: PluginClass, otherwise: str, distribution: str = "") -> None:
        if member in self._seen:
            return
        self._seen.add(member)
        origin = getattr(sys.modules.get(member.__module__), "__file__", None) or otherwise
        try:
            with time_limit(self._limit):
                plugin = adapt(member) if issubclass(member, PluginBase) else member
                self.registry.add(Definition(plugin, origin, distribution))
        except LoadError as problem:
            self.registry.problems.append(problem)
        except (Exception, SystemExit, TooLong) as error:  # of a class that does something when it is looked at
            where = place_of(error, origin, (Path(origin),))
            self.registry.problems.append(LoadError(where, f"plugin class {member.__name__}: {why(error)}"))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".", "test_")):
            continue
        if path.suffix == ".py" and path.is_file():
            yield path
        elif (path / "__init__.py").is_file():
            yield path / "__init__.py"


def _may_offer(folder: str) -> bool:
    """Whether the metadata of a distribution in a folder of `sys.path` names the group."""
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
    except FileNotFoundError:
        return False
    except OSError:  # an archive, perhaps
        return True
    return any(_names_group(os.path.join(name, "entry_points.txt")) for name in names)


def _names_group(file: str) -> bool:
    try:
        with open(file, "rb") as text:
            return ENTRY_POINTS.encode() in text.read()
    except OSError:
        return False


def _plugin_classes(module: ModuleType) -> list[PluginClass]:
    inside = module.__name__
    members = [
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, Base | PluginBase)
        and (member.__module__ == inside or member.__module__.startswith(f"{inside}."))
        and not member.__name__.startswith("_")
        and not inspect.isabstract(member)
    ]
    return list(dict.fromkeys(members))  # a class may have two names there


def _named(module: ModuleType, name: str, wanted_by: str) -> PluginClass:
    """The plugin class of a name in a module."""
    member: object = module
    for part in name.split("."):
        if not hasattr(member, part):
            known = [one.__name__ for one in _plugin_classes(module)]
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"plugins there are: {', '.join(known) or 'none'}"
            raise LoadError(wanted_by, f"there is no {name} in {module.__name__}; {hint}")
        member = getattr(member, part)
    if isinstance(member, type) and issubclass(member, Base | PluginBase):
        return member
    raise LoadError(wanted_by, f"expected a class that derives from Base, got {name} = {member!r:.80}")
