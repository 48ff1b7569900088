"""What became of an exchange on its way, for those who look at it: the inspector, and tests.

Rules that live here: calls of the runner, calls of the upstream and the client's answer, in the order they happened;
of a body the first `MOST_BODY` bytes and its length.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from apisix.runner.gateway.headers import Header
from apisix.runner.inspection import MOST_BODY
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import HTTPRespCallResp, Rewrite, Stop


@dataclass
class Body:
    """The beginning of a body, and its length in bytes."""

    start: bytes = b""
    length: int = 0

    def add(self, piece: bytes) -> None:
        """Take a piece that follows."""
        self.start += piece[: MOST_BODY - len(self.start)]
        self.length += len(piece)


@dataclass
class Asked:
    """What the runner asked for during a call: `variable request_id`, `request body`, `response body`."""

    what: str
    value: bytes | None


@dataclass
class Timed:
    """Something that takes time: seconds since the epoch when it began, and how many it took, None until it ended."""

    started: float = field(default_factory=time.time, init=False)
    seconds: float | None = field(default=None, init=False)

    def end(self) -> None:
        """It has ended."""
        self.seconds = time.time() - self.started


@dataclass
class RunnerCall(Timed):
    """One try of a call of the runner.

    Attributes:
        plugin: `ext-plugin-pre-req`, `ext-plugin-post-req` or `ext-plugin-post-resp`.
        conf: names and values of the runner's plugins.
        id: the gateway's number of the call; None where there was none, since preparing the conf failed.
        answer: what the runner answered; None for "nothing to change", and where it failed.
        failure: in one line, or empty.
    """

    plugin: str
    conf: Sequence[Pair]
    id: int | None = None
    asked: list[Asked] = field(default_factory=list)
    answer: Stop | Rewrite | HTTPRespCallResp | None = None
    failure: str = ""


@dataclass
class UpstreamCall(Timed):
    """One call of the upstream. `status` is 0 until it answers."""

    node: str
    method: str
    target: str
    headers: Sequence[Header]
    body: bytes
    status: int = 0
    response_headers: Sequence[Header] = ()
    response_body: Body = field(default_factory=Body)
    failure: str = ""


@dataclass
class ClientAnswer(Timed):
    """What the client is sent. `status` is 0 until it begins."""

    status: int = 0
    headers: Sequence[Header] = ()
    body: Body = field(default_factory=Body)


@dataclass
class Record(Timed):
    """All of it. `number` is given by who observes the gateway."""

    runner: list[RunnerCall] = field(default_factory=list)
    upstream: list[UpstreamCall] = field(default_factory=list)
    client: ClientAnswer = field(default_factory=ClientAnswer)
    number: int = 0
