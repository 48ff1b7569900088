"""Plugins that change what the upstream gets."""

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Rewrites(Base):
    """Changes what its conf says."""

    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        path: str | None = None
        args: dict[str, str | list[str] | None] = {}
        headers: dict[str, str | list[str] | None] = {}
        body: str | None = None
        response_headers: list[tuple[str, str]] = []

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        if self.config.path is not None:
            request.path = self.config.path
        for fields, changes in ((request.args, self.config.args), (request.headers, self.config.headers)):
            for name, value in changes.items():
                fields.setall(name, [value] if isinstance(value, str) else value or [])
        if self.config.body is not None:
            request.body = self.config.body
        for name, header in self.config.response_headers:
            response.headers.add(name, header)


class CopiesAHeader(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Copy"] = request.headers["X-Original"]


class Prefixes(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.path = self.config["prefix"] + request.path


class LooksOnly(Base):
    """Reads everything and changes nothing."""

    def filter(self, request: Request, response: Response) -> None:
        assert request.path
        assert request.method
        list(request.headers.items())
        list(request.args.items())


class Appends(Base):
    """Appends its conf to a header, so that the order of plugins is to be seen."""

    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Trace"] = request.headers.get("X-Trace", "") + self.config["mark"]


class AppendsAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Trace"] = request.headers.get("X-Trace", "") + self.config["mark"]


class TellsTheNext(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.state.told = "by an earlier plugin"


class WasTold(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Told"] = request.state.told
