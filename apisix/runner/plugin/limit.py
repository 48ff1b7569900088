"""A time limit for code of plugins that runs while they are loaded: a file that never ends must not hang the start.

Rules that live here:
- The limit is a signal, which interrupts loops and waiting alike, and tells where; so it holds in the main thread only.
- It comes again and again, since a plugin may catch it. Code that goes on nevertheless ends the process, with the stack
  on stderr: the process that started it says what became of it.
"""

import contextlib
import faulthandler
import signal
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN = 0.25  # seconds after which a limit that was caught is enforced again
GRACE = 2.0  # seconds after the limit in which code must have ended
STDERR = 2


class TooLong(BaseException):
    """Code ran longer than its limit. No `Exception`, as it must pass by those who catch these.

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"still running after {self.seconds:g} s"


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Limit the time of what runs inside.

    Args:
        seconds: the limit; None for none. In another thread than the main one there is none.

    Raises:
        TooLong: where the code was when its time was over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = [True]

    def late(_: int, __: FrameType | None) -> None:
        if armed:
            raise TooLong(seconds)

    before = signal.signal(signal.SIGALRM, late)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=STDERR)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        if signal.getsignal(signal.SIGALRM) is late:  # else the code has set one of its own
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
