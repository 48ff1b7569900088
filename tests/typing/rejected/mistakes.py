"""Mistakes that a type checker finds. Each line says the error that mypy and pyright must give there."""

import msgspec

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.testing import PluginClient


class Limit(Base):
    class Conf(msgspec.Struct):
        rate: int

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        per_minute: str = self.config.rate  # error: assignment, reportAssignmentType
        burst = self.config.burst  # error: attr-defined, reportAttributeAccessIssue
        self.stop(429, f"{per_minute} {burst}")

    def teardown(self) -> None:
        self.config.rate = "none"  # error: assignment, reportAttributeAccessIssue


class Stops(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop("401")  # error: arg-type, reportArgumentType
        self.stop(401, 3.14)  # error: arg-type, reportArgumentType
        self.stop(401, headers={"Retry-After": 5})  # error: arg-type, reportArgumentType
        self.stop(code=401)  # error: call-arg, reportCallIssue
        response.status_code = "401"  # error: assignment, reportAttributeAccessIssue
        response.statuscode = 401  # error: attr-defined, reportAttributeAccessIssue
        response.body = 401  # error: assignment, reportAttributeAccessIssue


class Reads(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.headers.get("x-token").lower()  # error: union-attr, reportOptionalMemberAccess
        request.headers["X-Count"] = 1  # error: index|assignment, reportArgumentType
        request.args["page"] = None  # error: index|assignment, reportArgumentType
        request.path = b"/raw"  # error: assignment, reportAttributeAccessIssue
        request.body.decode()  # error: union-attr, reportOptionalMemberAccess
        request.var("uri").lower()  # error: union-attr, reportOptionalMemberAccess
        request.remote_addr.startswith("10.")  # error: union-attr, reportAttributeAccessIssue
        request.method = "PUT"  # error: misc, reportAttributeAccessIssue


class Forgets(Base):
    async def filter(self, request: Request, response: Response) -> None:
        request.read_body().decode()  # error: attr-defined, reportAttributeAccessIssue
        self.after("not a function")  # error: arg-type, reportArgumentType


class Declares(Base):
    on_error = "ignore"  # error: assignment, reportAssignmentType
    timeout = "1s"  # error: assignment, reportAssignmentType
    blocking = "yes"  # error: assignment, reportAssignmentType

    def filter(self, request: Response, response: Request) -> None:  # error: override, reportIncompatibleMethodOverride
        """Takes the two the wrong way round."""

    async def setup(self) -> None:  # error: override, reportIncompatibleMethodOverride
        """Nobody would await it."""


def test_limit() -> None:
    client = PluginClient(Limit, conf={"rate": 5})
    PluginClient(Limit(), conf={"rate": 5})  # error: arg-type, reportArgumentType
    PluginClient(Limit, version=(3, 18, 0))  # error: arg-type, reportArgumentType
    print(client.get("/").upstream.path)  # error: union-attr, reportOptionalMemberAccess
    client.get("/", body="a GET has none")  # error: call-arg, reportCallIssue
