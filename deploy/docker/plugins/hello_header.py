"""A plugin to see that it all works; your own files go here, or are mounted here."""

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class HelloHeader(Base):
    class Conf(msgspec.Struct):
        value: str = "hello"

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Hello"] = self.config.value
