"""Plugins that show their conf."""

import itertools
from dataclasses import dataclass, field

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class ShowsConf(Base):
    """Without a type: what the JSON holds, else the text."""

    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"config": self.config})


class ShowsTypedConf(Base):
    @dataclass
    class Conf:
        limit: int
        unit: str = "minute"
        names: list[str] = field(default_factory=lambda: ["everyone"])

    config: Conf

    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"limit": self.config.limit, "unit": self.config.unit, "names": self.config.names})


class CountsItsSetups(Base):
    """Answers with the number of its instance and how often that one was set up."""

    instances = itertools.count()

    def __init__(self) -> None:
        super().__init__("counts_its_setups")
        self.number = next(self.instances)
        self.setups = 0

    def setup(self) -> None:
        self.setups += 1

    def filter(self, request: Request, response: Response) -> None:
        self.stop(200, {"instance": self.number, "setups": self.setups})
