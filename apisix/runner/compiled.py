"""Which of the runner's modules run compiled: all that can, or none.

Rules that live here:
- What a call passes through is compiled where the package is built with a C compiler: the hot part of the codec and two
  calls into the kernel, which are written for that (``.pyx``), and Python modules as they stand, with their types
  beside them (``.pxd``).
- A module is never compiled without the others, since compiled classes know each other's layout.
- What was built from another source than the one that lies here is not used, nor is anything if
  ``APISIX_RUNNER_PURE=1``. Then everything runs from source, and `WHY_PURE` says why.
- This is settled once, before the first of them is imported: their packages import this module.
"""

import os
import sys
from binascii import crc32
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOM = "apisix.runner"
WRITTEN_FOR_IT = ("wire._speedups", "server._io")
"""Modules below `ROOM` that there are compiled only. The first says what all were built from."""

MODULES = (
    *("http.mapping", "http.fields", "http.request", "http.response", "http.answer", "http.variables"),
    "plugin.chain",
    *("server.lanes", "server.early", "server.confs", "server.connection", "server.dispatch"),
    *("server.meter", "server.call", "server.request_call", "server.response_call", "server.poller"),
)
"""Modules below `ROOM` that are Python otherwise."""

_HERE = Path(__file__).resolve().parent


def sources() -> list[Path]:
    """What the compiled modules are built from, in a fixed order."""
    written = [_source_of(module, ".pyx") for module in WRITTEN_FOR_IT]
    return written + [_source_of(module, suffix) for module in MODULES for suffix in (".py", ".pxd")]


def _source_of(module: str, suffix: str) -> Path:
    return _HERE.joinpath(*module.split(".")).with_suffix(suffix)


def fingerprint(files: Iterable[Path]) -> int:
    """The CRC-32 of files, one after the other.

    Raises:
        OSError: one of them cannot be read.
    """
    found = 0
    for file in files:
        found = crc32(file.read_bytes(), found)
    return found


def why_not_compiled(speedups: str = f"{ROOM}.{WRITTEN_FOR_IT[0]}", files: Sequence[Path] | None = None) -> str:
    """Why the compiled modules cannot be used, in a few words, or nothing if they can.

    Args:
        speedups: the name of the module that says what they were built from.
        files: what they should have been built from.
    """
    files = sources() if files is None else files
    try:
        built_from = import_module(speedups).SOURCE_CRC
        expected = fingerprint(files)
    except ModuleNotFoundError as error:
        return "the compiled one was not built" if error.name == speedups else f"the compiled one needs {error.name}"
    except Exception as error:  # an extension of another Python, or source, may fail in any way
        return f"the compiled one cannot be loaded: {' '.join(str(error).split())}"
    if built_from != expected:
        return "the compiled one was built from another source; install again where there is a C compiler"
    missing = [file.stem for file in files if file.suffix != ".pxd" and not _is_built(file)]
    return f"the compiled {missing[0]} is missing; install again" if missing else ""


def _is_built(source: Path) -> bool:
    return any(source.with_suffix(suffix).exists() for suffix in EXTENSION_SUFFIXES)


class _FromSource(MetaPathFinder):
    """Finds the source of a module that lies there compiled too, which Python would prefer."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        room, _, module = name.partition(f"{ROOM}.")
        if room or module not in MODULES:
            return None
        return spec_from_file_location(name, _source_of(module, ".py"))


def _choose() -> str:
    why = "APISIX_RUNNER_PURE is 1" if os.environ.get("APISIX_RUNNER_PURE") == "1" else why_not_compiled()
    if why:
        sys.meta_path.insert(0, _FromSource())
    return why


WHY_PURE = _choose()
"""Why everything runs from source, or nothing if it does not."""

CODEC = "pure" if WHY_PURE else "compiled"
"""The codec that runs, and with it the rest."""
