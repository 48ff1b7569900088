"""Asks a policy service whether a request is allowed, and spares the service, and the clients, when it is down.

- Only a decision lets a request through: no answer in time, a strange answer and an open circuit are all a 503.
- The circuit opens after some failures in a row. Then nobody waits for the service. After a while one request is sent
  as a probe: its success closes the circuit, its failure keeps it open. Other requests do not wait for the probe.
- Only what says that the service is ill is a failure (no connection, no answer in time, 5xx, 429), not what a client
  might bring about with a request that the service does not like.
- Decisions are cached, allowed and denied alike, for a while, and so many at most.
- Circuit and cache belong to a worker: they are used on its one event loop, so they need no locks.
"""

import asyncio
import hashlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated

import httpx
import msgspec

from apisix.runner.http.fields import check_header_name
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("circuit_breaker")
logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each question

MAX_ANSWER = 65_536  # bytes
Clock = Callable[[], float]


class Decision(msgspec.Struct):
    """What the policy service answers."""

    allow: bool
    reason: Annotated[str, msgspec.Meta(max_length=200)] = "not allowed"


class CircuitBreaker(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        url: str
        timeout: Annotated[float, msgspec.Meta(gt=0, le=30)] = 0.5  # seconds for connecting and answering together
        max_connections: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 20
        headers: list[str] = msgspec.field(default_factory=lambda: ["authorization"])  # that the service is told
        failures: Annotated[int, msgspec.Meta(ge=1)] = 5  # in a row, that open the circuit
        open_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
        cache_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
        cache_size: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000

        def __post_init__(self) -> None:
            try:
                url = httpx.URL(self.url)
            except httpx.InvalidURL:
                url = httpx.URL("")
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError("url: expected one that begins with http:// or https:// and has a host")
            for name in self.headers:
                check_header_name(name)

    config: Conf

    def setup(self) -> None:
        self.circuit = Circuit(self.config.failures, self.config.open_seconds)
        self.decisions = Decisions(self.config.cache_seconds, self.config.cache_size)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.client = httpx.AsyncClient(
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            timeout=self.config.timeout,
            limits=httpx.Limits(max_connections=self.config.max_connections),
            trust_env=False,  # no proxy from the environment comes between
        )

    def teardown(self) -> None:
        if self.loop is not None and self.loop.is_running():
            asyncio.run_coroutine_threadsafe(self.client.aclose(), self.loop)

    async def filter(self, request: Request, response: Response) -> None:
        self.loop = asyncio.get_running_loop()
        told = {name: request.headers.getall(name) for name in self.config.headers}
        try:
            question = msgspec.json.encode({"method": request.method, "path": request.path, "headers": told})
        except UnicodeEncodeError:
            self.stop(400, {"error": "expected a request in UTF-8"})
            return
        key = hashlib.sha256(question).digest()  # the question itself may hold secrets
        try:
            decision = self.decisions.get(key)
            if decision is None:
                decision = await self.ask(question)
                self.decisions.put(key, decision)
        except NoDecision:
            seconds = max(1, math.ceil(self.circuit.seconds_left()))
            headers = {"Retry-After": str(seconds)} if self.circuit.is_open else {}
            self.stop(503, {"error": "nobody can say whether this is allowed"}, headers=headers)
            return
        if not decision.allow:
            self.stop(403, {"error": decision.reason})

    async def ask(self, question: bytes) -> Decision:
        """What the service decides. Raises `NoDecision`."""
        call = self.circuit.enter()
        if call is None:
            raise NoDecision
        is_well = False
        try:
            async with asyncio.timeout(self.config.timeout):
                status, body = await self.post(question)
            is_well = status < 500 and status != 429
            if status != 200:
                raise ValueError(f"it answers with status {status}")
            return msgspec.json.decode(body, type=Decision)
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            log.warning("the policy service gives no decision: %s", str(error) or type(error).__name__)
            raise NoDecision from None
        finally:  # a call that is cancelled counts, too: a probe must not be under way for ever
            self.circuit.leave(call, is_well)

    async def post(self, question: bytes) -> tuple[int, bytes]:
        """Status and body of the service's answer; a redirect is not followed."""
        async with self.client.stream("POST", self.config.url, content=question) as answer:
            body = b""
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER:
                    raise ValueError(f"its answer has more than {MAX_ANSWER} bytes")
            return answer.status_code, body


class NoDecision(Exception):
    """Nobody knows whether the request is allowed."""


class Circuit:
    """Closed, open, or half-open: open, with one probe under way.

    Args:
        failures: in a row, that open it.
        open_seconds: before a probe.
        clock: seconds.
    """

    def __init__(self, failures: int, open_seconds: float, clock: Clock = time.monotonic) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._opened_at = 0.0
        self._state = 0  # counts changes: what began in another state says nothing about this one
        self.is_open = False
        self.is_probing = False

    def enter(self) -> int | None:
        """Ask to make a call. Returns what `leave` wants; None where the call must not be made."""
        if self.is_open:
            if self.is_probing or self.seconds_left() > 0:
                return None
            self.is_probing = True
            self._state += 1
        return self._state

    def leave(self, call: int, is_well: bool) -> None:
        """Tell how a call ended."""
        if call != self._state:
            return
        self._failures = 0 if is_well else self._failures + 1
        if self.is_open and is_well:
            self.is_open = self.is_probing = False
            self._state += 1
            log.warning("the circuit is closed again")
        elif self.is_open or self._failures >= self._limit:
            log.warning("the circuit is open for %g s", self._open_seconds)
            self.is_open, self.is_probing = True, False
            self._opened_at = self._clock()
            self._state += 1

    def seconds_left(self) -> float:
        """Until a probe may be sent; 0 where it may."""
        return max(0.0, self._opened_at + self._open_seconds - self._clock()) if self.is_open else 0.0


class Decisions:
    """The newest decisions, each for a while.

    Args:
        seconds: for which a decision is kept; 0: not at all.
        size: how many are kept; the one not used for longest goes first.
        clock: seconds.
    """

    def __init__(self, seconds: float, size: int, clock: Clock = time.monotonic) -> None:
        self._seconds, self._size, self._clock = seconds, size, clock
        self._kept: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()

    def get(self, key: bytes) -> Decision | None:
        """A decision that is still good."""
        until, decision = self._kept.get(key, (0.0, None))
        if decision is None:
            return None
        if until <= self._clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return decision

    def put(self, key: bytes, decision: Decision) -> None:
        """Keep a decision."""
        self._kept[key] = (self._clock() + self._seconds, decision)
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
