"""Lets in those who send a key that stands in a file, and tells the upstream whose it is.

- A key is `ID.SECRET`. The file has a line for each: its id, its consumer, and the SHA-256 of the whole key. No secret
  stands there; but secrets must be random, as those of `openssl rand -hex 24` are.
- The file is looked at again while requests run. One that cannot be used changes nothing, and is told in the log.
- Neither the key nor a consumer's name that the client makes up reaches the upstream.
"""

import hashlib
import hmac
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("api_keys")

LONGEST_KEY = 256
LARGEST_FILE = 4 * 2**20
LINE = re.compile(r"([A-Za-z0-9_-]+)\s+([A-Za-z0-9_.@-]+)\s+([0-9a-f]{64})", re.ASCII)

HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]+$")]
Stamp = tuple[int, int, int]


class Known(NamedTuple):
    """What the file says of a key."""

    consumer: str
    digest: bytes


NOBODY = Known("", bytes(32))  # compared with where an id is unknown, so that this takes as long


class ApiKeys(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        file: str  # an absolute path
        header: HeaderName = "X-API-Key"  # where the client sends the key
        consumer_header: HeaderName = "X-Consumer"  # where the upstream finds whose it is
        look_every: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 1.0  # seconds between two looks at the file

        def __post_init__(self) -> None:
            if not os.path.isabs(self.file):
                raise ValueError("file: expected an absolute path: the runner is started who knows where")
            if self.header.lower() == self.consumer_header.lower():
                raise ValueError("consumer_header: expected another header than that of the key")

    config: Conf
    blocking = False

    def setup(self) -> None:
        self.path = Path(self.config.file)
        self.stamp = stamp_of(self.path)
        self.keys = read_keys(self.path)
        self.next_look = time.monotonic() + self.config.look_every
        self.looking = threading.Lock()
        self.ours = {self.config.header.lower(), self.config.consumer_header.lower()}

    def filter(self, request: Request, response: Response) -> None:
        self.look()
        given = request.headers.getall(self.config.header)
        # Many upstreams take X_Consumer for X-Consumer, so neither is left.
        for name in [name for name in request.headers if name.lower().replace("_", "-") in self.ours]:
            del request.headers[name]
        consumer = self.consumer_of(given[0]) if len(given) == 1 else None
        if consumer is None:
            error = f"expected one valid key in {self.config.header}"
            self.stop(401, {"error": error}, headers={"WWW-Authenticate": "ApiKey"})
        else:
            request.headers[self.config.consumer_header] = request.state.consumer = consumer

    def consumer_of(self, key: str) -> str | None:
        """Whose key it is; None where it is nobody's."""
        if len(key) > LONGEST_KEY or not key.isascii():
            return None
        known = self.keys.get(key.partition(".")[0], NOBODY)
        same = hmac.compare_digest(hashlib.sha256(key.encode()).digest(), known.digest)
        return known.consumer if same and known is not NOBODY else None

    def look(self) -> None:
        """Read the file again where it is another one; one thread at a time, the others go on with what they have."""
        if time.monotonic() < self.next_look or not self.looking.acquire(blocking=False):
            return
        try:
            self.next_look = time.monotonic() + self.config.look_every
            stamp = stamp_of(self.path)
            if stamp == self.stamp:
                return
            self.stamp = stamp  # first of all: a file that cannot be used is told once
            self.keys = read_keys(self.path)
            log.info("%s: read again, %d keys", self.path, len(self.keys))
        except (OSError, ValueError) as error:
            log.error("the keys of before stay in use: %s", error)
        finally:
            self.looking.release()


def stamp_of(path: Path) -> Stamp | None:
    """What differs as soon as a file is another one; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read_keys(path: Path) -> dict[str, Known]:
    """The keys of a file, by id.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not as expected; the text says where.
    """
    with path.open("rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise ValueError(f"{path}: expected at most {LARGEST_FILE} bytes")
    keys: dict[str, Known] = {}
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path}, line {number}: expected an id, a consumer, and a SHA-256 as 64 digits in lower case"
            )
        if match[1] in keys:
            raise ValueError(f"{path}, line {number}: the id {match[1]} stands there twice")
        keys[match[1]] = Known(match[2], bytes.fromhex(match[3]))
    if not keys:
        raise ValueError(f"{path}: expected at least one key, got none")
    return keys
