"""Stamps the upstream's response."""

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Stamp(Base):
    """Stamps the upstream's response."""

    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Stamp"] = str(self.config)
        response.status_code = 202
        response.body = response.body.replace(b'"method"', b'"verb"') if isinstance(response.body, bytes) else b""


class Wobbly(Base):
    """Fails, and lets the request go on."""

    on_error = "continue"

    def filter(self, request: Request, response: Response) -> None:
        raise KeyError("<b>no such key</b>")
