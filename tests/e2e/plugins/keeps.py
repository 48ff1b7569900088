"""Plugins that keep something: for later plugins, for the response phase, for after the answer."""

import asyncio
import urllib.request

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class KeepsUser(Base):
    """Keeps who asks, and says so where the response goes out."""

    def filter(self, request: Request, response: Response) -> None:
        if "X-User" in request.headers:
            request.context["user"] = request.headers["X-User"]

    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Was"] = request.context.get("user", "nobody")


class KeepsUserAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        request.context["user"] = request.headers["X-User"]

    async def filter_response(self, request: Request, response: Response) -> None:
        await request.read_var("request_id")
        response.headers["X-Was"] = request.context.get("user", "nobody")


class ShowsKept(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, request.context)


class TellsAfterwards(Base):
    """Calls a URL once the answer is on the wire."""

    def filter(self, request: Request, response: Response) -> None:
        self.after(tell, self.config["url"], request.path)
        self.stop(200, "answered")


class TellsAfterwardsAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        self.after(tell_async, self.config["url"], request.path)
        self.stop(200, "answered")


def tell(url: str, path: str) -> None:
    """Send a path somewhere."""
    urllib.request.urlopen(url, data=path.encode(), timeout=20).close()


async def tell_async(url: str, path: str) -> None:
    """Send a path somewhere, from a coroutine."""
    await asyncio.to_thread(tell, url, path)
