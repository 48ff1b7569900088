"""Takes its time."""

import time

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Hangs(Base):
    """Takes its time."""

    blocking = True

    def filter(self, request: Request, response: Response) -> None:
        time.sleep(1.2)
        self.stop(200)
