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
from apisix.runner.plugin.errors import LoadError, told
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
        try:
            paths = list(_files(folder))
        except OSError as error:
            problem = "there is none" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            registry.problems.append(LoadError(str(folder), f"expected a folder of plugins: {problem}"))
            continue
        for path in paths:
            _load(folder, path, registry)
    return registry


def _load(folder: Path, path: Path, registry: Registry) -> None:
    try:
        module = _import(folder, path)
    except LoadError as problem:
        registry.problems.append(problem)
        return
    for member in _plugin_classes(module):
        origin = getattr(sys.modules.get(member.__module__), "__file__", None) or str(path)
        try:
            registry.add(Definition(adapt(member) if issubclass(member, PluginBase) else member, origin))
        except LoadError as problem:
            registry.problems.append(problem)
        except (Exception, SystemExit) as error:  # of a class that does something when it is looked at
            registry.problems.append(LoadError(origin, f"plugin class {member.__name__}: {told(error)}"))


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
        known = sys.modules.get(name)
        if known is not None:
            if Path(known.__file__ or "").resolve() != path.resolve():
                raise LoadError(str(path), f"has the name of {known.__file__}; rename one")
            return known
        spec = importlib.util.spec_from_file_location(
            name, path, submodule_search_locations=[str(path.parent)] if is_package else None
        )
        if spec is None or spec.loader is None:
            raise LoadError(str(path), "cannot be imported as a Python file")
        if prefix not in sys.modules and prefix != "apisix.plugins":
            package = ModuleType(prefix)
            package.__path__ = [str(resolved)]
            sys.modules[prefix] = package
        parent = importlib.import_module(prefix)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        setattr(parent, stem, module)
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise LoadError(_place(path, error), f"does not import: {_message(error)}") from error
    return module


def _place(path: Path, error: BaseException) -> str:
    """The file and the line in it that failed."""
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():  # else of a text that is no file
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg}" if isinstance(error, SyntaxError) else told(error)


def _plugin_classes(module: ModuleType) -> list[type[Base] | type[PluginBase]]:
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
