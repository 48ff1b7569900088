"""The watcher: a process of its own that tells the supervisor when plugins' files change.

Rules that live here: it is a process because the supervisor forks and so has no threads; it ends with the supervisor.
"""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from apisix.runner.errors import StartError
from apisix.runner.server.title import set_title

DEBOUNCE = 100  # milliseconds in which several changes are one
STEP = 20  # milliseconds between two looks


def start_watcher(folders: Sequence[Path], on_fork: Callable[[], None]) -> int:
    """Start a process that sends this one a SIGHUP for each change of a Python file.

    Args:
        folders: where plugins are.
        on_fork: called in the new process, to close what is the supervisor's.

    Returns:
        Its pid.

    Raises:
        StartError: watchfiles is not installed.
    """
    try:
        import watchfiles
    except ModuleNotFoundError:
        raise StartError("--reload needs watchfiles; install it: pip install 'apisix-runner[reload]'") from None
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        on_fork()
        set_title("watcher of plugins' files")
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the supervisor tells what comes of a change
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's
        changes = watchfiles.watch(
            *(folder for folder in folders if folder.is_dir()),
            watch_filter=watchfiles.PythonFilter(),
            debounce=DEBOUNCE,
            step=STEP,
            rust_timeout=500,
            yield_on_timeout=True,
        )
        for changed in changes:
            if os.getppid() != parent:
                break
            if changed:
                os.kill(parent, signal.SIGHUP)
    finally:
        os._exit(0)
