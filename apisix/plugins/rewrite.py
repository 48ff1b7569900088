"""Changes the request, and lets it go on to the upstream."""

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Rewrite(Base):
    def filter(self, request: Request, response: Response) -> None:
        # What is set on the request is what the upstream gets.
        request.headers["X-Resp-A6-Runner"] = "Python"
        request.args["a6_runner"] = "Python"
        request.path = "/a6/python/runner"

        # Headers of the response are added to what the upstream answers.
        response.headers["X-Rewritten-By"] = "apisix-runner"

        # The default; only here to say it.
        self.rewrite()
