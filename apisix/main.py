"""The entry that APISIX starts: `python3 apisix/main.py start`, from any folder and with any python3.

Rules:
- A Python that has what the runner needs goes on right here.
- One that does not becomes `.venv/bin/python` beside the project: same process id, arguments, environment, folder.
- Where that is not there either, or does not help, one line says what to do, and the exit code is 3.
- Nothing here may need a Python newer than 3.0, or HOME, or LANG.
"""

import os
import sys

FOLDER = os.path.dirname(os.path.realpath(__file__))
PROJECT = os.path.dirname(FOLDER)
VENV_PYTHON = os.path.join(PROJECT, ".venv", "bin", "python")
MARK = "apisix_runner_venv"
"""A `-X` option for the Python that this one becomes: it is tried once, and arguments and environment stay."""


def find_lack() -> str:
    """Return what this Python lacks to run the runner, or an empty string."""
    if sys.version_info < (3, 11):
        return "needed is Python 3.11 or newer, and %s is %d.%d" % ((sys.executable,) + tuple(sys.version_info[:2]))
    for module in ("click", "msgspec", "yaml"):
        try:
            __import__(module)
        except ImportError as error:
            return "%s cannot import %s" % (sys.executable, error.name or module)
    return ""


def main() -> int:
    lack = find_lack()
    if not lack:
        # The project in place of this file's folder, where `runner` and `plugins` would be modules of their own.
        sys.path[:] = [PROJECT] + [path for path in sys.path if path != FOLDER]
        from apisix.runner import cli

        cli.main()
    if MARK not in sys._xoptions and os.access(VENV_PYTHON, os.X_OK):
        try:
            os.execv(VENV_PYTHON, [VENV_PYTHON, "-X", MARK] + sys.argv)
        except OSError as error:
            lack = "%s does not run: %s" % (VENV_PYTHON, error.strerror)
    sys.stderr.write("apisix-runner: run `make install` in %s first: %s\n" % (PROJECT, lack))
    return 3


if __name__ == "__main__":
    sys.exit(main())
