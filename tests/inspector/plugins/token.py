"""Lets in who has a token, and tells the upstream who it is."""

import logging
from typing import Annotated

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("shop.token")


class Token(Base):
    """Lets in who has a token, and tells the upstream who it is."""

    class Conf(msgspec.Struct):
        """Tokens and their users."""

        users: dict[str, str]
        header: Annotated[str, msgspec.Meta(min_length=1, description="where the token stands")] = "x-token"

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        user = self.config.users.get(request.headers.get(self.config.header) or "")
        log.info("request %s is from %s", request.var("request_id"), user or "nobody")
        if user is None:
            self.stop(401, {"error": "no token", "expected": self.config.header})
            return
        del request.headers[self.config.header]
        request.headers["X-User"] = user
        request.args["seen"] = "1"
        response.headers["X-Checked"] = "yes"
