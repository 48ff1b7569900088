"""The one part of the build that pyproject.toml cannot say: what is compiled, and when to do without.

`APISIX_RUNNER_PURE` decides: ``1`` builds without, ``0`` fails where it cannot be compiled. Otherwise that is done
where it is possible, wholly or not at all. What is compiled, and why so, is said in apisix/runner/compiled.py.
"""

import os
import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PURE = os.environ.get("APISIX_RUNNER_PURE", "")
os.environ["APISIX_RUNNER_PURE"] = "1"  # nothing that was built before is loaded here
compiled = runpy.run_path("apisix/runner/compiled.py")
sources = [path.relative_to(Path.cwd()) for path in compiled["sources"]()]
DIRECTIVES = {"language_level": "3", "annotation_typing": False}  # types are those of the .pxd


names = compiled["WRITTEN_FOR_IT"] + compiled["MODULES"]
files = [str(path) for path in sources if path.suffix != ".pxd"]
modules = [
    Extension(f"{compiled['ROOM']}.{name}", [file], extra_compile_args=["-g0"], optional=PURE != "0")
    for name, file in zip(names, files, strict=True)
]
for module in modules[len(compiled["WRITTEN_FOR_IT"]) :]:
    module.extra_compile_args += ["-O2"]  # as quick as with the interpreter's own -O3, and sooner built
modules[0].define_macros = [("SOURCE_CRC_AT_BUILD", f"{compiled['fingerprint'](sources)}u")]
modules[0].depends = [str(path) for path in sources]


class AllOrNothing(build_ext):
    """Leaves nothing behind where something could not be compiled."""

    def finalize_options(self) -> None:
        """Set what is not asked for on the command line."""
        super().finalize_options()
        self.cython_c_in_temp = True
        self.cython_directives = DIRECTIVES
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        """Build."""
        if self.inplace:  # what is not built again would be found before its source
            for path in Path("apisix").rglob("*.so"):
                path.unlink()
        super().run()
        built = [Path(self.get_ext_fullpath(one.name)) for one in self.extensions]
        if not all(path.exists() for path in built):
            self.warn("the compiled modules are left out: not all of them could be built")
            for path in built:
                path.unlink(missing_ok=True)


wanted = PURE != "1" and sys.implementation.name == "cpython"

setup(
    ext_modules=modules if wanted else [],
    cmdclass={"build_ext": AllOrNothing},
)
