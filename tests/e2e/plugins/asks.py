"""Plugins that ask the gateway for variables and bodies, and answer with them."""

import hashlib
from typing import Any

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class AsksVar(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"value": request.var(self.config["name"])})


class AsksVarAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"value": await request.read_var(self.config["name"])})


class AsksVars(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, request.vars(*self.config["names"]))


class DeclaresVariables(Base):
    variables = ("request_method", "uri")

    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, request.vars("request_method", "uri"))


class AsksBody(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, describe(request.body))


class AsksBodyAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        self.stop(200, describe(await request.read_body()))


class AsksJson(Base):
    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"got": request.json()})


class AsksJsonAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"got": await request.read_json()})


class AsksAsSyncInAsync(Base):
    async def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"value": request.var("uri")})


def describe(body: bytes | None) -> dict[str, Any]:
    """A body as JSON can hold it."""
    if body is None:
        return {"body": None}
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
