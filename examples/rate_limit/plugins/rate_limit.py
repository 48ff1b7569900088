"""Lets a client make so many requests in so much time, however many gateways, workers and connections it uses.

- The window slides: at no time have more than `limit` requests been let in during the last `window` seconds. Those that
  are refused do not count.
- Redis counts, in one script, which nothing can come between; and by its own clock.
- Without Redis nobody is let in, unless the conf says otherwise.
"""

import asyncio
import hashlib
import ipaddress
import logging
import math
import secrets
import time
from typing import Annotated, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("rate_limit")

MOST_CONNECTIONS = 32  # to one Redis, from one worker
LOG_EVERY = 10.0  # seconds between two lines about a Redis that is not there

# A sorted set has the requests that were let in, by their time in microseconds.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used = redis.call('ZCARD', KEYS[1])
local allowed = 0
if used < limit then
  redis.call('ZADD', KEYS[1], now, ARGV[3])
  redis.call('PEXPIRE', KEYS[1], window / 1000)
  allowed, used = 1, used + 1
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {allowed, math.max(limit - used, 0), oldest[2] + window - now}
"""

_scripts: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncScript]]" = WeakKeyDictionary()
"""The script on each Redis, with a pool of connections. They belong to an event loop, and confs share them."""


class RateLimit(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        name: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]+$")]  # limits of one name count together
        limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
        window: Annotated[int, msgspec.Meta(ge=1, le=86_400)]  # seconds
        by: Literal["ip", "header", "consumer"] = "ip"
        header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]*$")] = ""  # where by is "header"
        redis: str = "redis://127.0.0.1:6379"
        timeout: Annotated[float, msgspec.Meta(gt=0, le=5)] = 0.5  # seconds for Redis to answer
        without_redis: Literal["refuse", "continue"] = "refuse"

        def __post_init__(self) -> None:
            if (self.by == "header") != bool(self.header):
                raise ValueError('header: expected a name with "by": "header", and only there')
            if urlsplit(self.redis).scheme not in ("redis", "rediss", "unix"):
                raise ValueError("redis: expected redis://HOST:PORT, rediss://HOST:PORT or unix://PATH")

    config: Conf

    def setup(self) -> None:
        self.next_line = -math.inf

    async def filter(self, request: Request, response: Response) -> None:
        conf = self.config
        who = hashlib.sha256((await self.who(request)).encode("utf-8", "surrogateescape")).hexdigest()
        arguments: list[int | str] = [conf.window * 1_000_000, conf.limit, secrets.token_hex(8)]
        try:
            async with asyncio.timeout(conf.timeout):
                script = script_on(conf.redis)
                allowed, remaining, microseconds = await script([f"rate_limit:{conf.name}:{who}"], arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self.without_redis(error)
            return
        seconds = str(max(1, math.ceil(microseconds / 1_000_000)))
        response.headers["RateLimit-Limit"] = str(conf.limit)
        response.headers["RateLimit-Remaining"] = str(remaining)
        response.headers["RateLimit-Reset"] = seconds
        if not allowed:
            self.stop(429, {"error": "too many requests"}, headers={"Retry-After": seconds})

    async def who(self, request: Request) -> str:
        """Whom a request is counted for. One that lacks what is counted by is counted by its address."""
        if self.config.by == "header":
            values = request.headers.getall(self.config.header)
            if values:
                return "header " + "\n".join(values)
        if self.config.by == "consumer":
            consumer = getattr(request.state, "consumer", None) or await request.read_var("consumer_name")
            if consumer:
                return f"consumer {consumer}"
        address = request.remote_addr
        if address.version == 6 and address.ipv4_mapped is None:
            return f"ip {ipaddress.ip_network((address, 64), strict=False)}"  # one client has as many as it likes
        return f"ip {getattr(address, 'ipv4_mapped', None) or address}"

    def without_redis(self, error: Exception) -> None:
        """What happens while requests cannot be counted."""
        if time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + LOG_EVERY
            log.error("%s: requests cannot be counted: %s: %s", self.config.name, type(error).__name__, error)
        if self.config.without_redis == "refuse":
            self.stop(503, {"error": "requests cannot be counted now"}, headers={"Retry-After": "1"})


def script_on(url: str) -> AsyncScript:
    """The script on a Redis, for the loop that runs."""
    scripts = _scripts.setdefault(asyncio.get_running_loop(), {})
    if url not in scripts:
        pool = BlockingConnectionPool.from_url(
            url, max_connections=MOST_CONNECTIONS, timeout=None, retry=Retry(NoBackoff(), 1)
        )
        scripts[url] = Redis(connection_pool=pool).register_script(SCRIPT)
    return scripts[url]
