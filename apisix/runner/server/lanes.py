"""Lanes: where a chain's calls run, and how a chain earns or loses the fast one.

Rules that live here:
- A chain starts in the pool. Eight quick runs in a row promote it to the inline lane, where the I/O thread runs it.
- In the inline lane two runs of more than a millisecond within 32, a stall that the sentinel had to break, or a wait
  for the gateway demote it. Each demotion doubles the quick runs that the next promotion takes.
- A chain that computes rather than waits gains nothing from threads, and slows the others down: while it does, its
  runs in the pool share one thread.
- ``blocking = True`` is never promoted; ``blocking = False`` begins inline and is demoted by stalls only.
"""

QUICK_SECONDS = 0.001
RUNS_TO_PROMOTE = 8
MOST_RUNS_TO_PROMOTE = 8192
WINDOW = 32
BURNING = 0.5  # share of a slow run spent computing, above which it burns


class Lane:
    """The lane of one chain.

    Args:
        blocking: what its plugins declare; None lets the runs decide.

    Attributes:
        runs: in the inline lane, counted by who runs them.
    """

    __slots__ = ("_blocking", "_last_slow", "_quick", "_to_promote", "burns", "inline", "runs")

    def __init__(self, blocking: bool | None = None) -> None:
        self._blocking = blocking
        self.inline = blocking is False
        self.burns = False
        self._quick = 0
        self._to_promote = RUNS_TO_PROMOTE
        self.runs = 0
        self._last_slow = -WINDOW

    def was_slow_inline(self) -> None:
        """Take note that the last run in the inline lane took more than QUICK_SECONDS."""
        if self._blocking is None:
            if self.runs - self._last_slow < WINDOW:
                self.demote()
            self._last_slow = self.runs

    def ran_in_pool(self, seconds: float, computing: float) -> None:
        """Count a run in the pool.

        Args:
            seconds: from start to end.
            computing: seconds of CPU that its thread used meanwhile.
        """
        self.burns = seconds > QUICK_SECONDS and computing > seconds * BURNING
        if self._blocking:
            return
        self._quick = self._quick + 1 if seconds <= QUICK_SECONDS else 0
        if self._quick >= self._to_promote:
            self._last_slow = self.runs - WINDOW
            self.inline = True

    def demote(self) -> None:
        """Leave the inline lane: it was slow, stalled, or waits for the gateway."""
        self.inline = False
        self._quick = 0
        self._to_promote = min(self._to_promote * 2, MOST_RUNS_TO_PROMOTE)
