"""The plugins that are measured: each does one thing that plugins do, the same in every runner of a comparison."""

import asyncio
import time

from apisix.plugins import rewrite, stop
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Stop(Base):
    """Answers: a status, a header, a body."""

    def filter(self, request: Request, response: Response) -> None:
        response.headers["X-Resp-A6-Runner"] = "Python"
        self.stop(201, "Hello, Python Runner of APISIX")


class Rewrite(Base):
    """Lets the request go on with another header, argument and path."""

    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Resp-A6-Runner"] = "Python"
        request.args["a6_runner"] = "Python"
        request.path = "/a6/python/runner"


class Echo(Base):
    """Reads all headers of the request and answers with them, and one more."""

    def filter(self, request: Request, response: Response) -> None:
        for name, value in request.headers.items():
            response.headers[name] = value
        response.headers["X-Resp-A6-Runner"] = "Python"
        self.stop(200, "Hello, Python Runner of APISIX")


class Var(Base):
    """Asks the gateway for one variable."""

    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Remote-Addr"] = request.var("remote_addr") or ""


class Body(Base):
    """Reads the request's body."""

    needs_body = True

    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Body-Length"] = str(len(request.body or b""))


class Blocking(Base):
    """Waits two milliseconds, as for a database, and holds its thread."""

    def filter(self, request: Request, response: Response) -> None:
        time.sleep(0.002)


class Async(Base):
    """Waits two milliseconds on the event loop."""

    async def filter(self, request: Request, response: Response) -> None:
        await asyncio.sleep(0.002)


class Respond(Base):
    """Changes a header of the upstream's response."""

    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Resp-A6-Runner"] = "Python"


class ExampleStop(stop.Stop):
    """The example that the package brings, which also copies the request's headers."""

    name = "example-stop"


class ExampleRewrite(rewrite.Rewrite):
    """The example that the package brings, which also adds a header to the response."""

    name = "example-rewrite"
