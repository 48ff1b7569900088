"""Which codec runs: the compiled one where it was built from the source that lies beside it, else the pure one.

Rules that live here: it is settled once, at import; `APISIX_RUNNER_PURE=1` asks for the pure one; a compiled module
that cannot be loaded, or was built from another source, is not used, and `WHY_PURE` says so.
"""

import os
from binascii import crc32
from importlib import import_module
from pathlib import Path
from typing import Literal

_SOURCE = Path(__file__).with_name("_speedups.pyx")


def why_not_compiled(module: str = "apisix.runner.wire._speedups", source: Path = _SOURCE) -> str:
    """Why the compiled codec cannot be used, in a few words, or nothing if it can.

    Args:
        module: the compiled module's name.
        source: what it should have been built from.
    """
    try:
        built_from = import_module(module).SOURCE_CRC
        expected = crc32(source.read_bytes())
    except ModuleNotFoundError as error:
        return "the compiled one was not built" if error.name == module else f"the compiled one needs {error.name}"
    except Exception as error:  # an extension of another Python, or source, may fail in any way
        return f"the compiled one cannot be loaded: {' '.join(str(error).split())}"
    if built_from != expected:
        return "the compiled one was built from another source; install again where there is a C compiler"
    return ""


WHY_PURE = "APISIX_RUNNER_PURE is 1" if os.environ.get("APISIX_RUNNER_PURE") == "1" else why_not_compiled()
"""Why the pure codec runs, or nothing if it does not."""

CODEC: Literal["compiled", "pure"] = "pure" if WHY_PURE else "compiled"
"""The codec that runs."""
