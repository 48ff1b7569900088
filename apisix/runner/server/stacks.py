"""Stacks: where a thread or a coroutine is right now, for the log.

Rules that live here: a stack begins in the first of the given files that occurs in it, since what is above is the
runner's own and the same every time; of a coroutine, what it awaits belongs to it.
"""

import sys
import traceback
from collections.abc import Collection
from types import FrameType


def stack_of_thread(ident: int, files: Collection[str]) -> str:
    """Where a thread is.

    Args:
        ident: the thread's; 0 for none.
        files: of plugins.
    """
    frame = sys._current_frames().get(ident) if ident else None
    if frame is None:
        return "(waiting for a thread)"
    return _shown(traceback.extract_stack(frame), files)


def stack_of_coroutine(coroutine: object, files: Collection[str]) -> str:
    """Where a coroutine is; None for none. Arguments else as `stack_of_thread`."""
    stack: list[traceback.FrameSummary] = []
    awaited = coroutine
    while awaited is not None:
        frame: FrameType | None = getattr(awaited, "cr_frame", None)
        if frame is None:
            break
        stack += traceback.extract_stack(frame, 1)
        awaited = getattr(awaited, "cr_await", None)
    return _shown(stack, files) if stack else "(waiting for the loop)"


def _shown(stack: list[traceback.FrameSummary], files: Collection[str]) -> str:
    first = next((at for at, entry in enumerate(stack) if entry.filename in files), 0)
    return "".join(traceback.format_list(stack[first:])).rstrip()
