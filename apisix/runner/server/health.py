"""Health: what a check over the socket is answered (`apisix-runner health`).

Rules that live here:
- A check goes the way of the gateway: a PrepareConf, then a call on another connection, of a plugin of the runner's
  own.
- It leaves nothing behind: its conf is known by a key and a token of its own, and neither stored, counted nor logged.
- It needs no thread of the pool: a runner whose plugins keep all of them waiting is busy, and not ill.
"""

from functools import lru_cache

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server.confs import PreparedConf, RouteKey, canonical, first_token

KEY = "apisix-runner#health#ext-plugin-pre-req#0"
"""No route has such a key: APISIX knows nothing of that type."""

NAME = "apisix_runner_health"
HEADER = "x-check"
"""Its value is what a check is answered with."""

TOKEN = first_token(canonical(RouteKey(KEY).identity, [(NAME, "")]))


class _Health(Base):
    name = NAME

    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, request.headers.get(HEADER, ""))


@lru_cache(1)
def health_conf() -> PreparedConf:
    """The conf of checks."""
    registry = Registry()
    registry.add(Definition(_Health, __file__))
    return PreparedConf(TOKEN, RouteKey(KEY), [(NAME, "")], registry)
