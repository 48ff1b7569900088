"""Plugins of the response phase."""

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class ChangesResponse(Base):
    """Changes what its conf says."""

    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        status: int | None = None
        headers: dict[str, str | list[str] | None] = {}
        body: str | None = None

    config: Conf

    def filter_response(self, request: Request, response: Response) -> None:
        if self.config.status is not None:
            response.status_code = self.config.status
        for name, value in self.config.headers.items():
            response.headers.setall(name, [value] if isinstance(value, str) else value or [])
        if self.config.body is not None:
            response.body = self.config.body


class ChangesResponseAsync(Base):
    async def filter_response(self, request: Request, response: Response) -> None:
        body = await response.read_body()
        response.body = (body or b"").upper()


class RemovesAllHeaders(Base):
    def filter_response(self, request: Request, response: Response) -> None:
        response.headers.clear()


class LooksAtResponse(Base):
    """Reads everything and changes nothing."""

    def filter_response(self, request: Request, response: Response) -> None:
        assert response.status_code
        list(response.headers.items())


class KnowsTheMethod(Base):
    """Changes nothing either, and lets the runner know the method."""

    variables = ("request_method",)

    def filter_response(self, request: Request, response: Response) -> None:
        assert request.method


class DoublesTheBody(Base):
    def filter_response(self, request: Request, response: Response) -> None:
        body = response.body
        assert isinstance(body, bytes)
        response.body = body + body


class TellsTheBodysLength(Base):
    def filter_response(self, request: Request, response: Response) -> None:
        body = response.body
        response.headers["X-Length"] = str(len(body)) if isinstance(body, bytes) else "none"


class AppendsToResponse(Base):
    """Appends its conf to a header, so that the order of plugins is to be seen."""

    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Trace"] = response.headers.get("X-Trace", "") + self.config["mark"]


class ShowsTheRequest(Base):
    """Puts what it knows of the request into the response's body."""

    def filter_response(self, request: Request, response: Response) -> None:
        response.body = {
            "method": request.method,
            "path": request.path,
            "args": request.args.pairs(),
            "header": request.headers.get("X-From-Client"),
            "missing": request.headers.get("X-Missing"),
            "remote_addr": str(request.remote_addr),
        }


class ShowsTheRequestAsync(Base):
    async def filter_response(self, request: Request, response: Response) -> None:
        await request.read_vars("request_method", "uri")
        response.headers["X-Request"] = f"{request.method} {request.path}"
