"""The one part of the build that pyproject.toml cannot say: the compiled codec, and when to do without it.

`APISIX_RUNNER_PURE` decides: ``1`` builds without it, ``0`` fails where it cannot be built. Otherwise it is built where
that is possible.
"""

import os
import sys
from binascii import crc32
from pathlib import Path

from setuptools import Extension, setup

SPEEDUPS = Path("apisix/runner/wire/_speedups.pyx")
PURE = os.environ.get("APISIX_RUNNER_PURE", "")

extensions = [
    Extension(
        "apisix.runner.wire._speedups",
        [str(SPEEDUPS)],
        define_macros=[("WIRE_SOURCE_CRC", f"{crc32(SPEEDUPS.read_bytes())}u")],  # codec.py compares it
        optional=PURE != "0",
    )
]
wanted = PURE != "1" and sys.implementation.name == "cpython"

setup(ext_modules=extensions if wanted else [], options={"build_ext": {"cython_c_in_temp": True}})
