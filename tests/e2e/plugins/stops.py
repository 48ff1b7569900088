"""Plugins that answer the client."""

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Stops(Base):
    """Answers with what its conf says."""

    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        status: int | None = None
        body: str | None = None
        headers: list[tuple[str, str]] = []

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        self.stop(self.config.status, self.config.body, headers=self.config.headers)


class StopsWithJson(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(403, {"error": "no token", "hint": "größer"})


class StopsWithBytes(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, bytes(range(256)), headers={"Content-Type": "application/octet-stream"})


class StopsWithAMegabyte(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, b"y" * 2**20)


class StopsWithFields(Base):
    """Sets fields of the response first."""

    def filter(self, request: Request, response: Response) -> None:
        response.status_code = 201
        response.headers["X-Made-By"] = "plugin"
        response.body = "made here"
        self.stop()


class TakesItsStopBack(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(403, "no")
        self.rewrite()


class AnswersWithWhatItSees(Base):
    """Answers with the request as JSON."""

    def filter(self, request: Request, response: Response) -> None:
        self.stop(
            200,
            {
                "method": request.method,
                "path": request.path,
                "args": request.args.pairs(),
                "headers": [(name.lower(), value) for name, value in request.headers.pairs()],
                "remote_addr": str(request.remote_addr),
            },
        )
