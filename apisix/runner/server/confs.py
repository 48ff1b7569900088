"""Prepared confs and their tokens.

Rules that live here:
- A token is derived from the route key without its version and from the conf, so that the same conf has the same
  token in every worker, after every restart, for ever. It is never 0, which FlatBuffers would leave out. Should two
  confs derive the same number, the later one takes the next that is free in the store; without a store, which alone
  remembers that for the next process, it is refused.
- A conf is in the store before its token is answered. A token that this worker does not know is looked up there.
- A conf is parsed and its chain built once, at PrepareConf. Preparing it again is a look-up. A failure is remembered
  for two seconds, since the gateway asks again with every request.
- What fails in ext-plugin-post-resp becomes a conf whose calls fail: there an error would show the client the
  upstream's body (contract: "Err fails open here").
- Confs go when they were not used for twice APISIX_CONF_EXPIRE_TIME: the gateway may use a token for 1.9 times it.
"""

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from apisix.runner.logs.context import about
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import Chain, Step, build_plugins, tear_down
from apisix.runner.plugin.errors import ConfError
from apisix.runner.plugin.registry import REQUEST, RESPONSE, Definition, Registry
from apisix.runner.server.early import Habits
from apisix.runner.server.lanes import Lane
from apisix.runner.server.store import Store
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import ExtraInfoReq, InfoKind, PrepareConfReq

log = logging.getLogger("apisix.runner.confs")

POST_REQ = "ext-plugin-post-req"
POST_RESP = "ext-plugin-post-resp"
PHASE_OF_PLUGIN = {"ext-plugin-pre-req": REQUEST, POST_REQ: REQUEST, POST_RESP: RESPONSE}
REMEMBER_FAILURE = 2.0  # seconds
MakeStep = Callable[[str, Definition, Base, str], Step]
"""Makes a step from the plugin's name in the route, its class, its instance, and the phase."""


class RouteKey:
    """The key of a PrepareConf, `<type>#<id>#<plugin>#<version>`, in its parts.

    Args:
        key: as it came; None before APISIX 2.9.

    Example:
        >>> key = RouteKey("route#1#ext-plugin-pre-req#17")
        >>> key.route, key.plugin, key.identity
        ('route#1', 'ext-plugin-pre-req', 'route#1#ext-plugin-pre-req')
    """

    __slots__ = ("identity", "plugin", "route")

    def __init__(self, key: str | None) -> None:
        self.identity = (key or "").rpartition("#")[0] or (key or "")
        route, _, plugin = self.identity.rpartition("#")
        self.route = route or self.identity or "(no key)"
        self.plugin = plugin if route else ""

    @property
    def phase(self) -> str | None:
        """The phase that the calls will come from, None where the key does not tell."""
        return PHASE_OF_PLUGIN.get(self.plugin)


class PhaseChain:
    """A conf's chain in one phase, with its lane and its habits."""

    __slots__ = ("chain", "habits", "lane")

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        body = (ExtraInfoReq(InfoKind.REQ_BODY),) if chain.needs_body else ()
        self.habits = Habits((*(ExtraInfoReq(InfoKind.VAR, name) for name in chain.variables), *body))
        self.lane = Lane(True if chain.coroutine else chain.blocking)  # the loop is no lane of the poller's


class PreparedConf:
    """One conf, ready for calls."""

    __slots__ = ("_plugins", "failure", "key", "post_req", "request", "response", "token", "used", "warned")

    def __init__(
        self, token: int, key: RouteKey, conf: Sequence[Pair], registry: Registry, make_step: MakeStep = Step
    ) -> None:
        self.token = token
        self.key = key
        self.post_req = key.plugin == POST_REQ
        self.used = time.monotonic()
        self.warned: set[str] = set()
        self.failure: ConfError | None = None
        self._plugins = build_plugins(conf, registry)
        for name, definition, _ in self._plugins:
            if key.phase is not None and key.phase not in definition.phases:
                tear_down(self._plugins)
                method = "filter" if key.phase == REQUEST else "filter_response"
                raise ConfError(name, f"has no {method}: it cannot run in {key.plugin}; it is in {definition.origin}")
        self.request = self._chain(REQUEST, make_step)
        self.response = self._chain(RESPONSE, make_step)

    def _chain(self, phase: str, make_step: MakeStep) -> PhaseChain:
        return PhaseChain(Chain([make_step(*plugin, phase) for plugin in self._plugins]))

    @property
    def outdated(self) -> bool:
        """Whether preparing it again may come out differently."""
        return self.failure is not None and time.monotonic() - self.used > REMEMBER_FAILURE

    @property
    def is_special(self) -> bool:
        """Whether there is more to a call than its plugins: in post-req, or where it could not be prepared."""
        return self.post_req or self.failure is not None

    def teardown(self) -> None:
        """Tell the plugins that the conf goes."""
        tear_down(self._plugins)


class FailedConf(PreparedConf):
    """A conf that could not be prepared, in a phase where only an answered call fails closed."""

    __slots__ = ()

    def __init__(self, token: int, key: RouteKey, failure: ConfError, registry: Registry) -> None:
        super().__init__(token, RouteKey(None), (), registry)
        self.key = key
        self.failure = failure


class Confs:
    """All prepared confs of a worker.

    Args:
        registry: the plugins there are.
        expire: seconds that the gateway keeps a token.
        store: shared with other workers; None keeps everything in this one.
        make_step: makes the steps of chains.
    """

    def __init__(
        self, registry: Registry, expire: float, store: Store | None = None, make_step: MakeStep = Step
    ) -> None:
        self._make_step = make_step
        self._registry = registry
        self._keep = 2 * expire
        self._store = store
        self._confs: dict[int, PreparedConf] = {}
        self._contents: dict[int, bytes] = {}
        self._failures: dict[int, tuple[float, ConfError]] = {}
        self._in_setup: set[int] = set()
        self._lock = threading.Lock()
        self.get = self._confs.get

    def __len__(self) -> int:
        return len(self._confs)

    def all(self) -> list[PreparedConf]:
        """The prepared confs."""
        return list(self._confs.values())

    @property
    def plugin_files(self) -> set[str]:
        """The files of all plugins."""
        return {definition.origin for definition in self._registry.definitions()}

    def is_stored(self, token: int) -> bool:
        """Whether a token that is not prepared here can be."""
        return self._store is not None and self._store.has(token)

    def prepare(self, request: PrepareConfReq) -> int:
        """The token of a conf, prepared if it is not yet.

        Args:
            request: as the gateway sent it.

        Raises:
            ConfError: the conf cannot be prepared; logged.
        """
        key = RouteKey(request.key)
        conf = request.conf or []
        content = canonical(key.identity, conf)
        with self._lock:
            token = self._known_token(content)
        if token is None:
            token = self._new_token(content, key)
        self._prepare(token, key, conf, content)
        return token

    def give_up(self, request: PrepareConfReq, problem: str) -> int:
        """Say that preparing a conf takes too long. It goes on, and the conf is there should it ever end.

        Args:
            request: as the gateway sent it.
            problem: for the log.

        Returns:
            The token of a conf whose calls fail, where only that fails closed.

        Raises:
            ConfError: elsewhere.
        """
        key = RouteKey(request.key)
        conf = request.conf or []
        names = ", ".join(name for name, _ in conf)
        error = ConfError(names, f"setup {problem}")
        log.error("%s: %s", key.route, error)
        if key.phase != RESPONSE:
            raise error
        content = canonical(key.identity, conf)
        token = self._new_token(content, key)
        with self._lock:
            self._contents[token] = content
            self._confs.setdefault(token, FailedConf(token, key, error, self._registry))
        return token

    def restore(self, token: int) -> bool:
        """Prepare a conf that another worker, or an earlier runner, has stored.

        Returns:
            Whether there was one.

        Raises:
            ConfError: its plugins reject it now; logged.
        """
        content = self._store.read(token) if self._store is not None else None
        if content is None:
            return False
        identity, conf = from_canonical(content)
        self._prepare(token, RouteKey(f"{identity}#" if identity else None), conf, content)
        return True

    def _prepare(self, token: int, key: RouteKey, conf: Sequence[Pair], content: bytes) -> None:
        with self._lock:
            known = self._confs.get(token)
            if known is not None and not known.outdated:
                return
            failed = self._failures.get(token)
            if failed is not None and time.monotonic() - failed[0] < REMEMBER_FAILURE:
                raise failed[1]
            if token in self._in_setup:
                names = ", ".join(name for name, _ in conf)
                raise ConfError(names, "an earlier setup of the same conf has not ended")
            self._in_setup.add(token)
        # Not under the lock: a setup that hangs must not keep other confs from being prepared.
        try:
            with about(route=key.route):
                prepared = self._build(token, key, conf)
        finally:
            with self._lock:
                self._in_setup.discard(token)
        with self._lock:
            self._contents[token] = content
            self._confs[token] = prepared
        names = ", ".join(name for name, _ in conf)
        if prepared.failure is None:
            log.info("%s: prepared for %s: %s", key.route, key.plugin or "any phase", names or "no plugins")

    def _build(self, token: int, key: RouteKey, conf: Sequence[Pair]) -> PreparedConf:
        try:
            return PreparedConf(token, key, conf, self._registry, self._make_step)
        except ConfError as error:
            log.error("%s: %s", key.route, error)
            if key.phase == RESPONSE:
                return FailedConf(token, key, error, self._registry)
            with self._lock:
                self._failures[token] = (time.monotonic(), error)
            raise

    def _known_token(self, content: bytes) -> int | None:
        token = first_token(content)
        while (known := self._contents.get(token)) is not None:
            if known == content:
                return token
            token = next_token(token)
        return None

    def _new_token(self, content: bytes, key: RouteKey) -> int:
        """The token of a content that this worker has not prepared, stored under it."""
        token = first_token(content)
        try:
            while self._store is not None and not self._store.write(token, content):
                token = next_token(token)
        except OSError:
            pass  # from memory, then; the store has told
        if self._contents.get(token, content) != content:
            problem = "its conf token is taken by another conf, and there is no store to remember another one"
            log.error("%s: %s", key.route, problem)
            raise ConfError(key.route, problem)
        return token

    def expire(self) -> list[PreparedConf]:
        """Forget the confs that were not used for long, and return them to be torn down."""
        now = time.monotonic()
        with self._lock:
            gone = [conf for conf in self._confs.values() if now - conf.used > self._keep]
            for conf in gone:
                del self._confs[conf.token], self._contents[conf.token]
            self._failures = {t: f for t, f in self._failures.items() if now - f[0] < REMEMBER_FAILURE}
            used = [conf.token for conf in self._confs.values() if now - conf.used < self._keep / 8]
        if self._store is not None:
            for token in used:
                self._store.touch(token)
            self._store.sweep(self._keep)
        return gone

    def look(self) -> None:
        """Store all again, if somebody has removed the store: other workers and the next runner need it too."""
        store = self._store
        if store is not None and store.was_removed():
            with contextlib.suppress(OSError):  # told by the store
                for token, content in list(self._contents.items()):
                    store.write(token, content)


def canonical(identity: str, conf: Sequence[Pair]) -> bytes:
    """The bytes that a token is derived from: every part with its length, so that no two confs read the same."""
    parts = [identity]
    for name, value in conf:
        parts += (name, value or "")
    raw = [part.encode("utf-8", "surrogateescape") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in raw)


def from_canonical(content: bytes) -> tuple[str, list[Pair]]:
    """What `canonical` was made of: the identity and the conf."""
    parts = []
    at = 0
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "big")
        parts.append(content[at + 4 : end].decode("utf-8", "surrogateescape"))
        at = end
    return parts[0], list(zip(parts[1::2], parts[2::2], strict=True))


def next_token(token: int) -> int:
    """The number to try after one that is taken."""
    return token % 0xFFFFFFFF + 1


def first_token(content: bytes) -> int:
    """The number that a conf's content derives: 1 to 2^32-1."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=4).digest(), "big") or 1
