"""Importing a plugin's file or module, and saying where it failed.

Rules that live here:
- Each plugins folder is a package of its own in `sys.modules`, so that files of one name in two folders do not mix, and
  files of one folder import each other relatively. The packaged folder is `apisix.plugins`.
- A failure is told with the last line of the plugin's own code on the way to it.
"""

import importlib
import importlib.util
import os
import sys
import traceback
import zlib
from pathlib import Path
from types import ModuleType

import apisix
from apisix.runner.plugin.errors import LoadError, told
from apisix.runner.plugin.limit import TooLong, time_limit

PACKAGED_FOLDER = Path(apisix.__file__).resolve().parent / "plugins"


def import_file(folder: Path, path: Path, limit: float | None = None) -> ModuleType:
    """Import a file of a plugins folder.

    Args:
        folder: the plugins folder.
        path: a file in it, or the ``__init__.py`` of a package in it.
        limit: seconds that it may take; None for any.

    Raises:
        LoadError: it does not import; with file and line.
    """
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
        with time_limit(limit):
            spec.loader.exec_module(module)
        setattr(parent, stem, module)
    except LoadError:
        raise
    except (Exception, SystemExit, TooLong) as error:
        sys.modules.pop(name, None)
        raise LoadError(place_of(error, str(path), (folder, resolved)), f"does not import: {why(error)}") from error
    return module


def import_module(name: str, wanted_by: str, limit: float | None = None) -> ModuleType:
    """Import a module that is installed.

    Args:
        name: with dots.
        wanted_by: who names it, for the error where there is none.
        limit: seconds that it may take; None for any.

    Raises:
        LoadError: it does not import; with file and line where it has one.
    """
    try:
        with time_limit(limit):
            return importlib.import_module(name)
    except (Exception, SystemExit, TooLong) as error:
        raise LoadError(place_of(error, wanted_by, _homes(name)), f"{name} does not import: {why(error)}") from error


def _homes(module: str) -> tuple[Path, ...]:
    """Where the code of a module's topmost package lies."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except Exception:
        return ()
    if spec is None:
        return ()
    found = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return tuple(Path(one) for one in found if one)


def place_of(error: BaseException, otherwise: str, homes: tuple[Path, ...]) -> str:
    """Where an error is to be mended: the last line in the author's own code that led to it.

    Args:
        error: with its traceback.
        otherwise: what is told where there is no such line.
        homes: folders and files with the author's code.
    """
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():  # else of a text that is no file
        return f"{error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if any(frame.filename == str(home) or frame.filename.startswith(f"{home}{os.sep}") for home in homes):
            return f"{frame.filename}:{frame.lineno}"
    return otherwise


def why(error: BaseException) -> str:
    """An error in words, with what to do where that is known."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, TooLong):
        innermost = traceback.extract_tb(error.__traceback__)[-2:-1]  # the last one is the limit's own
        stuck = "".join(f", in {frame.name} at {frame.filename}:{frame.lineno}" for frame in innermost)
        return f"{error}{stuck}; wait and compute in setup or filter, or raise plugins.load_timeout"
    return " ".join(told(error).split())
