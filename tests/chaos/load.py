"""Load as a gateway's workers make it: many calls at a time over pooled connections, every answer checked.

What counts:
- A connection that the runner closes between calls is no failure: the gateway sees the end of it before it uses it
  again. So does the load, which looks before it sends.
- A call is lost when the connection ends, or nothing comes, while it is open; it failed when it could not be made, or
  its answer is an error or another call's.
- The pause of a call is the time from its start to its answer, connecting included, less the time that its plugin
  sleeps.
"""

import contextlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from apisix.runner.wire.frame import FrameType, WireError
from apisix.runner.wire.messages import ErrorCode, Stop, decode_error, decode_http_req_call_resp
from tests.server.connections import Closed, Connection, response_of

CONNECT_SECONDS = 1.0
"""As long as APISIX waits for a connection."""
ANSWER_SECONDS = 60.0
"""As long as APISIX waits for an answer."""
KEPT_IDLE = 32
"""Idle connections that APISIX keeps in each of its workers."""

PLUGINS = """
class Quick(Base):
    def filter(self, request, response):
        self.stop(200, f"{os.getpid()} {request.path}")

class Waits(Base):
    def filter(self, request, response):
        time.sleep(0.005)
        self.stop(200, f"{os.getpid()} {request.path}")

class Later(Base):
    async def filter(self, request, response):
        await asyncio.sleep(0.005)
        self.stop(200, f"{os.getpid()} {request.path}")

class Asks(Base):
    def filter(self, request, response):
        assert request.var("remote_addr") == "127.0.0.1"
        self.stop(200, f"{os.getpid()} {request.path}")

class Responds(Base):
    def filter_response(self, request, response):
        response.headers["X-Seen"] = f"{os.getpid()} {response.headers['X-Path']}"

class Long(Base):
    def filter(self, request, response):
        time.sleep(1.5)
        self.stop(200, f"{os.getpid()} {request.path}")

class Chatty(Base):
    def filter(self, request, response):
        print("x" * 400)
        self.stop(200, f"{os.getpid()} {request.path}")
"""

SLEEPS: Mapping[str, float] = {"waits": 0.005, "later": 0.005, "long": 1.5}
"""Seconds that a plugin sleeps."""

USUAL = ("quick",) * 6 + ("waits", "later", "asks", "responds")
"""Most calls are quick, some wait, in each of the ways that there are."""


class Failure(NamedTuple):
    """A call that went wrong.

    Attributes:
        began, ended: by time.monotonic().
        lost: whether it was open; else it failed.
        worker: the process that answered last on its connection; 0 where it was a new one.
        text: when it went wrong, as the runner's log tells time, and how.
    """

    began: float
    ended: float
    lost: bool
    worker: int
    text: str


class Pooled:
    """A connection that is kept for later calls."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.worker = 0

    def is_over(self) -> bool:
        """Whether the runner has closed it, or said something that nobody asked for."""
        return not self.connection.is_silent()


class Failed(Exception):
    """A call could not be made, or its answer is wrong."""


class UnknownToken(Failed):
    """The runner does not know the conf that a call names."""


class Load:
    """Calls a runner from several threads, until it is stopped.

    Args:
        path: the runner's socket.
        plugins: what the calls run, each drawn from these.
        threads: calls at a time.
        pause: seconds that a thread waits after a call, on average.
        prepares: how many threads besides prepare a new conf again and again, and call it at once.
        tries: how often a call is made whose token turns out to be unknown. APISIX makes it three times, and prepares
            the conf again before each; where nothing excuses that, it is made once, and has failed.

    Attributes:
        at_a_time: the most calls that are open at once.
        sent: calls made.
        failures: those that went wrong.
        workers: the processes that have answered.
    """

    def __init__(
        self,
        path: Path,
        plugins: Sequence[str] = USUAL,
        *,
        threads: int = 8,
        pause: float = 0.002,
        prepares: int = 1,
        tries: int = 1,
    ) -> None:
        self.path = path
        self.at_a_time = threads + prepares
        self.sent = 0
        self.failures: list[Failure] = []
        self.workers: set[int] = set()
        self._plugins = plugins
        self._tries = tries
        self._pause = pause
        self._worst = 0.0
        self._tokens: dict[str, int] = {}
        self._idle: list[Pooled] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call_on, args=(seed,)) for seed in range(threads)]
        self._threads += [threading.Thread(target=self._prepare_on, args=(seed,)) for seed in range(prepares)]
        with Connection(path) as connection:
            for plugin in set(plugins) | {"quick"}:
                self._tokens[plugin] = connection.prepare((plugin, "0"), key=_key_of(plugin, 0))

    # What came of it.

    @property
    def failed(self) -> int:
        """Calls that failed without being open."""
        return sum(not failure.lost for failure in self.failures)

    @property
    def lost(self) -> int:
        """Calls that were open and got no answer."""
        return len(self.lost_ones)

    @property
    def lost_ones(self) -> list[Failure]:
        """The failures of calls that were lost."""
        return [failure for failure in self.failures if failure.lost]

    @property
    def worst(self) -> float:
        """The longest pause of a call, in milliseconds."""
        return self._worst * 1000

    def since(self, moment: float) -> list[Failure]:
        """The failures of calls that began after a moment (time.monotonic())."""
        return [failure for failure in self.failures if failure.began > moment]

    def run_for(self, seconds: float) -> None:
        """Let it go on for a while."""
        self._stop.wait(seconds)

    def close_idle(self) -> None:
        """Close the connections that no call uses, as the gateway does when they were idle for long."""
        with self._lock:
            idle, self._idle = self._idle, []
        for pooled in idle:
            pooled.connection.close()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.close_idle()

    # Its threads.

    def _call_on(self, seed: int) -> None:
        chance = random.Random(seed)
        number = seed << 22
        while not self._stop.is_set():
            plugin = chance.choice(self._plugins)
            number += 1
            self._count(plugin, number, self._tokens[plugin])
            self._stop.wait(chance.uniform(0, 2 * self._pause))

    def _prepare_on(self, seed: int) -> None:
        number = seed << 22
        while not self._stop.is_set():
            number += 1
            began = time.monotonic()
            try:
                token = self._prepare("quick", number)
            except (Closed, OSError, Failed, WireError, AssertionError) as error:
                self._fail(began, 0, "a PrepareConf", error)
            else:
                self._count("quick", number, token, number)
            self._stop.wait(0.05)

    def _prepare(self, plugin: str, conf: int) -> int:
        with self._lend() as pooled:
            return pooled.connection.prepare((plugin, str(conf)), key=_key_of(plugin, conf))

    def _count(self, plugin: str, number: int, token: int, conf: int = 0) -> None:
        began = time.monotonic()
        worker = 0
        try:
            for tries_left in reversed(range(self._tries)):
                try:
                    with self._lend() as pooled:
                        worker = pooled.worker
                        pooled.worker = _make_call(pooled.connection, plugin, number, token)
                        self.workers.add(pooled.worker)
                    break
                except UnknownToken:
                    if not tries_left:
                        raise
                    self._prepare(plugin, conf)
        except (Closed, OSError, Failed, WireError, AssertionError) as error:
            self._fail(began, worker, plugin, error)
        seconds = time.monotonic() - began - SLEEPS.get(plugin, 0)
        with self._lock:
            self.sent += 1
            self._worst = max(self._worst, seconds)

    def _fail(self, began: float, worker: int, what: str, error: Exception) -> None:
        lost = isinstance(error, Closed | OSError)
        text = f"{datetime.now(UTC):%H:%M:%S.%f} {what}: {type(error).__name__}: {error}"
        self.failures.append(Failure(began, time.monotonic(), lost, worker, text))

    # Its connections.

    @contextlib.contextmanager
    def _lend(self) -> Iterator[Pooled]:
        """A connection for one exchange: the one that was used last, or a new one; kept if all went well."""
        pooled = self._take() or self._connect()
        try:
            yield pooled
        except BaseException:
            pooled.connection.close()
            raise
        with self._lock:
            if len(self._idle) < KEPT_IDLE and not self._stop.is_set():
                self._idle.append(pooled)
                return
        pooled.connection.close()

    def _take(self) -> Pooled | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                pooled = self._idle.pop()
            if not pooled.is_over():
                return pooled
            pooled.connection.close()

    def _connect(self) -> Pooled:
        began = time.monotonic()
        try:
            connection = Connection(self.path)
        except OSError as error:
            raise Failed(f"no connection: {error}") from None
        connection.sock.settimeout(ANSWER_SECONDS)
        if time.monotonic() - began > CONNECT_SECONDS:
            connection.close()
            raise Failed("no connection within a second")
        return Pooled(connection)


def _key_of(plugin: str, conf: int) -> str:
    phase = "ext-plugin-post-resp" if plugin == "responds" else "ext-plugin-pre-req"
    return f"route#{plugin}-{conf}#{phase}#1"


def _make_call(connection: Connection, plugin: str, number: int, token: int) -> int:
    """Make a call and check its answer. Returns the process that gave it."""
    path = f"/{number}"
    if plugin == "responds":
        frame = connection.response_call(token, id=number, headers=[("X-Path", path)])
    else:
        frame = connection.call(token, {"remote_addr": b"127.0.0.1"}, id=number, path=path)
    if frame[0] == FrameType.ERROR:
        code = ErrorCode(decode_error(frame))
        raise (UnknownToken if code == ErrorCode.CONF_TOKEN_NOT_FOUND else Failed)(f"error {code.name}")
    if plugin == "responds":
        response = response_of(frame)
        id, said = response.id, dict(response.headers or ()).get("X-Seen") or ""
    else:
        answer = decode_http_req_call_resp(frame)
        id, said = answer.id, (answer.action.body or b"").decode() if isinstance(answer.action, Stop) else ""
    worker, _, seen = said.partition(" ")
    if (id, seen) != (number, path):
        raise Failed(f"call {number} was answered with {id} {said!r}")
    return int(worker)


def hold_idle(path: Path, count: int) -> list[socket.socket]:
    """Open connections on which nothing is said."""
    held = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        held.append(sock)
    return held


def still_open(held: Sequence[socket.socket]) -> int:
    """How many of the connections the runner has not closed."""
    poll = select.poll()
    for sock in held:
        poll.register(sock, select.POLLIN)
    return len(held) - len(poll.poll(0))
