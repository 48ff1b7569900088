"""Answers the client itself: the request goes no further, the upstream is not called."""

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Stop(Base):
    def filter(self, request: Request, response: Response) -> None:
        # self.config is the value that the route gives, decoded: {"body": "hello"} in the quick start.

        # The response gets the request's headers, and one of its own.
        response.headers = request.headers
        response.headers["X-Resp-A6-Runner"] = "Python"

        response.body = "Hello, Python Runner of APISIX"
        response.status_code = 201

        # Without this, the request would go on to the upstream.
        self.stop()
