"""Plugins that do something wrong."""

import time
from typing import Any

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Raises(Base):
    def filter(self, request: Request, response: Response) -> None:
        raise ZeroDivisionError

    def filter_response(self, request: Request, response: Response) -> None:
        raise ZeroDivisionError


class RaisesAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        raise ZeroDivisionError


class RaisesAndContinues(Base):
    on_error = "continue"

    def filter(self, request: Request, response: Response) -> None:
        raise ZeroDivisionError

    def filter_response(self, request: Request, response: Response) -> None:
        raise ZeroDivisionError


class ReturnsSomething(Base):
    def filter(self, request: Request, response: Response) -> Any:
        return "something"


class SmugglesAHeader(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Fine"] = "fine\r\nX-Smuggled: yes"


class EndsTheProcess(Base):
    def filter(self, request: Request, response: Response) -> None:
        raise SystemExit(1)


class Hangs(Base):
    """Takes longer than it may."""

    timeout = 0.2

    def filter(self, request: Request, response: Response) -> None:
        time.sleep(3)


class ForTheResponsePhase(Base):
    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Response-Phase"] = "yes"


class SetupFails(Base):
    def setup(self) -> None:
        raise OSError("there is no database")

    def filter(self, request: Request, response: Response) -> None:
        pass
