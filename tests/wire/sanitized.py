"""Mutated frames against the compiled codec, built with AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m tests.wire.sanitized MUTATIONS

It builds the codec once more, into build/sanitized, and starts itself again with the sanitizers loaded first, as they
must be under an interpreter that was built without them. Memory comes from malloc, so that the sanitizers see every
block for itself. A finding, or anything but a message or a WireError, ends it with its report and a code that is not 0.
`FUZZ_SEED` says where it begins (0 unless set).
"""

import os
import subprocess
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build" / "sanitized"
MODULE = "apisix.runner.wire._speedups"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g -UNDEBUG"
LIBRARIES = ("libasan.so", "libubsan.so")


def main() -> None:
    """Build and start the second process, or be it."""
    mutations = int(sys.argv[1])
    if os.environ.get("LD_PRELOAD", "").count("libasan"):
        run(mutations)
    else:
        libraries = find_libraries()
        build()
        environ = os.environ | {
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # the interpreter itself keeps what it has
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        }
        command = [sys.executable, "-m", "tests.wire.sanitized", str(mutations)]
        ended = subprocess.run(command, env=environ, check=False).returncode
        sys.exit(f"sanitized: ended by signal {-ended}" if ended < 0 else ended)


def find_libraries() -> list[str]:
    """The sanitizers' libraries, as the compiler names them."""
    compiler = os.environ.get("CC", "cc").split()
    found = []
    for library in LIBRARIES:
        shown = subprocess.run([*compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
        path = Path(shown.stdout.strip())
        if not path.is_absolute():
            sys.exit(f"sanitized: expected a compiler with {library}, but {compiler[0]} has none")
        found.append(str(path.resolve()))
    return found


def build() -> None:
    """Build the module, apart from every other build."""
    environ = os.environ | {"CFLAGS": FLAGS, "LDFLAGS": FLAGS, "APISIX_RUNNER_PURE": "0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--force"]
    folders = [f"--build-lib={BUILD}", f"--build-temp={BUILD / 'temp'}"]
    subprocess.run([*command, *folders], cwd=ROOT, env=environ, check=True)


def load() -> None:
    """Make the sanitized module the one that is imported."""
    path = BUILD.joinpath(*MODULE.split(".")).with_suffix(EXTENSION_SUFFIXES[0])
    loader = ExtensionFileLoader(MODULE, str(path))
    spec = spec_from_loader(MODULE, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[MODULE] = module
    loader.exec_module(module)


def run(mutations: int) -> None:
    """Read, write and read again; say how it went."""
    load()
    from tests.wire.codec import COMPILED, NAMES
    from tests.wire.test_fuzz import SEED, check, corpus, mutate

    assert COMPILED is not None
    random = Random(SEED)
    frames = [(name, frame) for name, frame in corpus() if name not in ("Err.Resp", "PrepareConf.Resp")]
    decoded = 0
    began = told = time.monotonic()
    for number in range(1, mutations + 1):
        name, frame = random.choice(frames)
        mutated = mutate(random, frame, random.choice(frames)[1])
        if not random.randrange(8):
            name = random.choice(NAMES)
        try:
            decoded += check(COMPILED, name, mutated)
        except Exception as error:
            raise AssertionError(f"FUZZ_SEED={SEED}, mutation {number}: {name} {mutated.hex()}") from error
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"sanitized: {number} of {mutations} mutated frames after {told - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(f"sanitized: {mutations} mutated frames, {decoded} decoded, no finding, {seconds:.0f} s")


if __name__ == "__main__":
    main()
