"""The Redis that remembers nonces."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from examples.redis_server import redis_server


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """Starts one; gives what stands for its address in the routes."""
    with redis_server() as server:
        yield {"redis://127.0.0.1:6379": server.url}
