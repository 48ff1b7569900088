"""Plugins as the documentation writes them, in every form that the types have to allow."""

from dataclasses import dataclass
from typing import Literal, TypedDict

import msgspec
import pydantic

from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class WithoutConf(Base):
    """`self.config` is whatever the JSON says."""

    def filter(self, request: Request, response: Response) -> None:
        name: str = self.config["name"]
        self.stop(200, {"hello": name, "tags": ["a", 1, None]}, headers={"X-A": "1"})


class WithInit(Base):
    def __init__(self) -> None:
        super().__init__(self.__class__.__name__)
        self.seen = 0

    def filter(self, request: Request, response: Response) -> None:
        self.seen += 1
        self.rewrite()


class WithStruct(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        rate: int
        per: Literal["minute", "hour"] = "minute"
        paths: list[str] = []

    config: Conf
    name = "with_struct"
    on_error = "continue"
    timeout = 0.5
    blocking = True
    variables = ("consumer_name", "route_id")

    def setup(self) -> None:
        self.limit: int = self.config.rate * 2

    def filter(self, request: Request, response: Response) -> None:
        if request.path in self.config.paths:
            self.stop(429, f"{self.limit} per {self.config.per}", headers=[("Set-Cookie", "a"), ("Set-Cookie", "b")])


class WithDataclass(Base):
    @dataclass
    class Conf:
        token: str

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        if request.headers.get("x-token") != self.config.token:
            self.stop(401)


class WithTypedDict(Base):
    class Conf(TypedDict):
        token: str

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        request.headers["X-Token"] = self.config["token"]


class WithModel(Base):
    class Conf(pydantic.BaseModel):
        token: str = pydantic.Field(min_length=1)

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        response.headers["X-Length"] = str(len(self.config.token))


class Everything(Base):
    """All that a request and a response have, with the types that they have."""

    def filter(self, request: Request, response: Response) -> None:
        first: str | None = request.headers.get("accept")
        every: list[str] = request.headers.getall("accept")
        pairs: list[tuple[str, str]] = request.args.pairs()
        consumer: str | None = request.var("consumer_name")
        several: dict[str, str | None] = request.vars("uri", "args")
        body: bytes | None = request.body
        address: str = str(request.remote_addr)
        number: int = request.id + request.conf_token
        request.args["page"] = request.args.get("page", "1")
        request.args.setall("tag", ["a", "b"])
        request.headers.add("X-A", f"{first}{every}{pairs}{consumer}{several}{body!r}{address}{number}")
        del request.headers["X-B"]
        request.path = request.path.removeprefix("/api") + request.method
        request.body = {"a": [1, 2]}
        request.state.started = 1.0
        request.context["seen"] = True
        response.status_code = 201
        response.body = "text"
        self.after(print, "done")

    def filter_response(self, request: Request, response: Response) -> None:
        if response.status_code >= 500 and isinstance(response.body, bytes):
            response.body = response.body.upper()
        response.headers["X-Seen"] = str(request.context.get("seen"))


class Awaits(Base):
    async def filter(self, request: Request, response: Response) -> None:
        try:
            consumer: str | None = await request.read_var("consumer_name")
            several: dict[str, str | None] = await request.read_vars("uri", "args")
        except GatewayError:
            self.stop(502)
            return
        body: bytes | None = await request.read_body()
        self.after(self.audit, consumer)
        request.headers["X-Found"] = f"{several}{body!r}"

    async def filter_response(self, request: Request, response: Response) -> None:
        body: bytes | None = await response.read_body()
        response.body = body

    async def audit(self, consumer: str | None) -> None:
        """After the answer."""
