"""Discovery: from folders of Python files to a registry.

Rules that live here:
- Every ``*.py`` file of a plugins folder, and every package in it, is imported; names that begin with ``_`` or
  ``test_`` are not. Each class in it that derives from `Base` and does not begin with ``_`` is a plugin.
- A file that does not import is a problem of its own: the others load, and a route that wants a plugin of it gets an
  error that names the file.
"""

import importlib
import importlib.util
import inspect
import sys
import traceback
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import apisix
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.core import PluginBase, adapt
from apisix.runner.plugin.errors import LoadError
from apisix.runner.plugin.registry import Definition, Registry

PACKAGED_FOLDER = Path(apisix.__file__).resolve().parent / "plugins"


def load_plugins(folders: Sequence[Path]) -> Registry:
    """Import the plugins of folders, in order.

    Args:
        folders: absolute paths. One that does not exist is a problem, not an exception.

    Returns:
        The registry, with what went wrong in `Registry.problems`.
    """
    registry = Registry()
    for folder in folders:
        if not folder.is_dir():
            registry.problems.append(LoadError(str(folder), "expected a folder of plugins, there is none"))
            continue
        for path in _files(folder):
            try:
                module = _import(folder, path)
            except LoadError as problem:
                registry.problems.append(problem)
                continue
            for plugin_class in _plugin_classes(module):
                try:
                    registry.add(Definition(plugin_class, str(path)))
                except LoadError as problem:
                    registry.problems.append(problem)
    return registry


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".", "test_")):
            continue
        if path.suffix == ".py" and path.is_file():
            yield path
        elif (path / "__init__.py").is_file():
            yield path / "__init__.py"


def _import(folder: Path, path: Path) -> ModuleType:
    is_package = path.name == "__init__.py"
    stem = path.parent.name if is_package else path.stem
    resolved = folder.resolve()
    if resolved == PACKAGED_FOLDER:
        prefix = "apisix.plugins"
    else:
        prefix = f"apisix_plugins_{zlib.crc32(str(resolved).encode('utf-8', 'surrogateescape')):08x}"
    name = f"{prefix}.{stem}"
    try:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(
            name, path, submodule_search_locations=[str(path.parent)] if is_package else None
        )
        if spec is None or spec.loader is None:
            raise LoadError(str(path), "cannot be imported as a Python file")
        if prefix not in sys.modules and prefix != "apisix.plugins":
            parent = ModuleType(prefix)
            parent.__path__ = [str(resolved)]
            sys.modules[prefix] = parent
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise LoadError(_place(path, error), f"does not import: {type(error).__name__}: {_message(error)}") from error
    return module


def _place(path: Path, error: BaseException) -> str:
    """The file and the line in it that failed."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.filename or path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _message(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def _plugin_classes(module: ModuleType) -> list[type[Base]]:
    inside = module.__name__
    return [
        adapt(member) if issubclass(member, PluginBase) else member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, Base | PluginBase)
        and (member.__module__ == inside or member.__module__.startswith(f"{inside}."))
        and not member.__name__.startswith("_")
        and not inspect.isabstract(member)
    ]
