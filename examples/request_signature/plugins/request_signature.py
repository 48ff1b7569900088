"""Lets in requests that were signed with a shared secret, each of them once (HMAC, RFC 2104, with SHA-256).

- Signed are the key's id, date, nonce, method, path, query, body, and the headers that the conf names, as `signed_text`
  says. Path and query are taken as they were sent, so that nothing depends on how someone decodes them.
- A request counts for `skew` seconds around its date. Redis remembers its nonce for longer, for all workers and
  gateways.
- What is cheap is checked first: the body is read of requests only whose signature is right.
- Without Redis nobody is let in.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("request_signature")

SCHEME = "HMAC-SHA256"
CREDENTIALS = re.compile(
    rf"{SCHEME} key=([\w.-]{{1,64}}),date=(\d{{1,12}}),nonce=([\w-]{{16,64}}),"
    r"body=([0-9a-f]{64}),signature=([0-9a-f]{64})",
    re.ASCII,
)
TARGET = ("real_request_uri", "request_uri")  # as it was sent: the first, or the second where APISIX has no first
CLOCKS_DIFFER = 60  # seconds, between gateways: nonces are remembered for that much longer
MOST_CONNECTIONS = 32  # to one Redis, from one worker

_clients: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Redis]]" = WeakKeyDictionary()
"""A pool of connections to each Redis. They belong to an event loop, and confs share them."""


class Refused(Exception):
    """Why a request is not let in; the client is told."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Key(msgspec.Struct, forbid_unknown_fields=True):
    """Whose a key is, and what it signs with."""

    consumer: Annotated[str, msgspec.Meta(pattern=r"^[\w.@-]+$")]
    secret: Annotated[str, msgspec.Meta(min_length=32)]


class RequestSignature(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        keys: Annotated[dict[Annotated[str, msgspec.Meta(pattern=r"^[\w.-]{1,64}$")], Key], msgspec.Meta(min_length=1)]
        headers: list[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]+$")]] = msgspec.field(
            default_factory=lambda: ["host"]
        )  # that are signed, in this order
        consumer_header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]+$")] = "X-Consumer"
        skew: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 300  # seconds that the date may be off
        max_body: Annotated[int, msgspec.Meta(ge=0, le=8 * 2**20)] = 2**20  # bytes
        redis: str = "redis://127.0.0.1:6379"
        timeout: Annotated[float, msgspec.Meta(gt=0, le=5)] = 0.5  # seconds for Redis to answer

        def __post_init__(self) -> None:
            if len(set(self.headers)) < len(self.headers) or "authorization" in self.headers:
                raise ValueError("headers: expected each once, and not authorization, which has the signature")
            if urlsplit(self.redis).scheme not in ("redis", "rediss", "unix"):
                raise ValueError("redis: expected redis://HOST:PORT, rediss://HOST:PORT or unix://PATH")

    config: Conf
    variables = TARGET

    async def filter(self, request: Request, response: Response) -> None:
        conf = self.config
        try:
            consumer = await self.signer(request)
        except Refused as refused:
            challenge = {"WWW-Authenticate": SCHEME} if refused.status == 401 else {}
            self.stop(refused.status, {"error": str(refused)}, headers=challenge)
            return
        except (RedisError, OSError, TimeoutError) as error:
            log.error("nonces cannot be checked: %s: %s", type(error).__name__, error)
            self.stop(503, {"error": "signatures cannot be checked now"}, headers={"Retry-After": "1"})
            return
        # Many upstreams take X_Consumer for X-Consumer, so neither is left.
        ours = {"authorization", conf.consumer_header.lower()}
        for name in [name for name in request.headers if name.lower().replace("_", "-") in ours]:
            del request.headers[name]
        request.headers[conf.consumer_header] = request.state.consumer = consumer

    async def signer(self, request: Request) -> str:
        """Who has signed a request.

        Raises:
            Refused: nobody has, or it cannot be used any more.
            RedisError, OSError, TimeoutError: whether it was used before cannot be told.
        """
        conf = self.config
        credentials = request.headers.getall("authorization")
        match = CREDENTIALS.fullmatch(credentials[0]) if len(credentials) == 1 else None
        if match is None:
            raise Refused(401, f"expected Authorization: {SCHEME} key=...,date=...,nonce=...,body=...,signature=...")
        key_id, date, nonce, body_digest, signature = match.groups()
        if abs(time.time() - int(date)) > conf.skew:
            raise Refused(401, f"the date is off by more than {conf.skew} seconds")
        self.check_length(request)
        key = conf.keys.get(key_id)
        targets = await request.read_vars(*TARGET)
        target = targets[TARGET[0]] or targets[TARGET[1]] or ""
        text = signed_text(
            key_id, date, nonce, request.method, target, body_digest, signed_headers(request, conf.headers)
        )
        if key is None or not hmac.compare_digest(sign(key.secret, text), signature):
            raise Refused(401, "the signature is not valid")
        async with asyncio.timeout(conf.timeout):
            memory = 2 * conf.skew + CLOCKS_DIFFER
            new = await client_of(conf.redis).set(f"request_signature:{key_id}:{nonce}", "", nx=True, ex=memory)
        if not new:
            raise Refused(401, "the nonce was used before")
        body = await request.read_body() or b""
        if len(body) > conf.max_body:
            raise Refused(413, f"the body has more than {conf.max_body} bytes")
        if not hmac.compare_digest(hashlib.sha256(body).hexdigest(), body_digest):
            raise Refused(401, "the body is not the one that was signed")
        return key.consumer

    def check_length(self, request: Request) -> None:
        """Refuse a body that is too large to be read, before it is."""
        length = request.headers.get("content-length", "0")
        if "transfer-encoding" in request.headers:
            raise Refused(411, "expected a Content-Length")
        if not (length.isascii() and length.isdecimal()) or len(length) > 9 or int(length) > self.config.max_body:
            raise Refused(413, f"the body has more than {self.config.max_body} bytes")


def signed_headers(request: Request, names: Iterable[str]) -> list[str]:
    """The lines of the headers that are signed.

    Raises:
        Refused: one stands there twice, and so might be read in two ways.
    """
    lines = []
    for name in names:
        values = request.headers.getall(name)
        if len(values) > 1:
            raise Refused(401, f"expected the header {name} once")
        lines += [f"{name}:{value.strip()}" for value in values]
    return lines


def signed_text(
    key_id: str, date: str, nonce: str, method: str, target: str, body_digest: str, headers: Iterable[str]
) -> bytes:
    """What is signed: lines with what their names say; a header that is absent has none.

    Args:
        target: path and query as they are sent.
        headers: as `name:value`.
    """
    path, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
    arguments = query.split(b"&")
    arguments.sort(key=lambda argument: argument.partition(b"=")[0])  # those of one name stay in order
    before = "\n".join((SCHEME, key_id, date, nonce, method)).encode()
    after = "\n".join((body_digest, *headers)).encode("utf-8", "surrogateescape")
    return b"\n".join((before, path, b"&".join(arguments), after))


def sign(secret: str, text: bytes) -> str:
    """The signature, as 64 hexadecimal digits."""
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def client_of(url: str) -> Redis:
    """A client of a Redis, for the loop that runs."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if url not in clients:
        pool = BlockingConnectionPool.from_url(
            url, max_connections=MOST_CONNECTIONS, timeout=None, retry=Retry(NoBackoff(), 0)
        )
        clients[url] = Redis(connection_pool=pool)
    return clients[url]
