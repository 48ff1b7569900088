"""The access log: a line for each call, or for a share of them.

Rules that live here: a line tells what became of the call and how long it took, never headers, query or bodies. It is
logged whatever the level is. Without a share nothing of this runs.
"""

import logging
import os
import random
import time
from typing import TypeVar

from apisix.runner.http.link import GatewayError
from apisix.runner.plugin.chain import InThread
from apisix.runner.plugin.registry import REQUEST, RESPONSE
from apisix.runner.server.call import Call
from apisix.runner.server.meter import FAILED, STOPPED
from apisix.runner.server.watch import Watch
from apisix.runner.wire.frame import WireError

log = logging.getLogger("apisix.runner.access")
C = TypeVar("C", bound=Call)


def log_calls(watch: Watch, share: float, timeout: float) -> None:
    """Have calls logged.

    Args:
        watch: that is chosen from.
        share: of the calls, from 0 to 1.
        timeout: seconds that a call has, from which its start is known.
    """
    log.setLevel(logging.INFO)
    watch.request_call = _logged(watch.request_call, REQUEST, share, timeout)
    watch.response_call = _logged(watch.response_call, RESPONSE, share, timeout)


def _logged(base: type[C], phase: str, share: float, timeout: float) -> type[C]:
    class LoggedCall(base):  # type: ignore[valid-type, misc]
        __slots__ = ()

        def run(self) -> bytes:
            answer: bytes = super().run()
            if self.ticket and random.random() < share:
                tell(self, self.outcome(answer))
            return answer

        async def run_async(self, in_thread: InThread) -> bytes:
            answer: bytes = b""
            try:
                answer = await super().run_async(in_thread)
            finally:
                if self.ticket and random.random() < share:
                    tell(self, self.outcome(answer))
            return answer

        def not_told(self, error: GatewayError) -> bytes:
            answer: bytes = super().not_told(error)
            if random.random() < share:
                tell(self, FAILED)
            return answer

        def given_up(self) -> None:
            super().given_up()
            if random.random() < share:
                tell(self, FAILED)

    def tell(call: Call, outcome: str) -> None:
        seconds = time.monotonic() - call.deadline + timeout
        facts = {"phase": phase, "outcome": outcome, "seconds": round(seconds, 6)}
        if phase == RESPONSE or outcome == STOPPED:
            facts["status"] = call.response.status_code or 200  # what the gateway makes of none
        facts["plugins"] = ", ".join(step.name for step in call.phase_chain.chain.steps)
        message = _request_line(call) if phase == REQUEST else "response"
        log.info("%s", message, extra={**call.log_fields(), **facts, "worker": os.getpid()})

    return LoggedCall


def _request_line(call: Call) -> str:
    """The method and the path: without the query, which may hold secrets."""
    try:
        return f"{call.request.method} {call.request.path!r}"
    except (WireError, GatewayError, LookupError):  # a malformed frame, or a path that the gateway would be asked for
        return "?"
