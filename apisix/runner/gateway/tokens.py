"""Conf tokens: what the gateway remembers of PrepareConf's answers.

Rules that live here: a worker remembers eight confs for the whole expiry; behind that stands a dict that all workers
share, for nine tenths of the expiry, and one lock under which confs are prepared, for which a call waits 5 s at most;
a runner that does not know a token has everything forgotten. Old versions have neither dict nor lock. A lock whose
holder fell over a broken answer stays held until it expires. Source: `fetch_token` to `recreate_lrucache` in APISIX's
ext-plugin/init.lua, core/lrucache.lua, and lua-resty-lock's defaults.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from apisix.runner.gateway.errors import BrokenAnswer, RunnerFailure

WORKER_ITEMS = 8
LOCK_WAIT = 5.0
LOCK_EXPIRY = 30.0


class TokenCache:
    """The tokens of one gateway, which is one nginx worker.

    Args:
        expiry: seconds for which the runner promised to know a token (APISIX_CONF_EXPIRE_TIME).
        shared: whether this version has the shared dict and the lock.
    """

    def __init__(self, expiry: float, shared: bool) -> None:
        self._expiry = expiry
        self._shared = shared
        self._worker: OrderedDict[str, tuple[int, int, float]] = OrderedDict()
        self._dict: dict[str, tuple[int, float]] = {}
        self._lock = asyncio.Lock()

    async def get(self, key: str, revision: int, prepare: Callable[[], Awaitable[int]]) -> int:
        """The token of the conf `key` in its `revision`, prepared now if nobody remembers it.

        `prepare` is called with the lock held where there is one; it opens its own connection.
        """
        now = time.monotonic()
        known = self._worker.get(key)
        if known is not None and known[0] == revision and known[2] > now:
            self._worker.move_to_end(key)
            return known[1]
        token = await prepare()
        self._worker[key] = (revision, token, time.monotonic() + self._expiry)
        self._worker.move_to_end(key)
        if len(self._worker) > WORKER_ITEMS:
            self._worker.popitem(last=False)
        return token

    async def shared(self, unique: str, prepare: Callable[[], Awaitable[int]]) -> int:
        """The token that the shared dict has for `unique`, prepared under the lock if it has none."""
        if not self._shared:
            return await prepare()
        if (token := self._fetch(unique)) is not None:
            return token
        async with self._locked():
            if (token := self._fetch(unique)) is not None:
                return token
            token = await prepare()
            self._dict[unique] = (token, time.monotonic() + self._expiry * 0.9)
            return token

    def _fetch(self, unique: str) -> int | None:
        token, expires = self._dict.get(unique, (0, 0.0))
        return token if expires > time.monotonic() else None

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(LOCK_WAIT):
                await self._lock.acquire()
        except TimeoutError:
            raise RunnerFailure("failed to acquire the lock: timeout") from None
        try:
            yield
        except BrokenAnswer:
            asyncio.get_running_loop().call_later(LOCK_EXPIRY, self._lock.release)
            raise
        except BaseException:
            self._lock.release()
            raise
        self._lock.release()

    def flush(self) -> None:
        """Forget everything."""
        self._worker.clear()
        self._dict.clear()
