"""Reads the order in the body, and fails where there is none."""

import asyncio
import logging

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class Order(Base):
    """Reads the order in the body."""

    async def filter(self, request: Request, response: Response) -> None:
        order = await request.read_json()
        logging.warning("an order of %d", order["count"])
        await asyncio.sleep(0.002)
        request.body = {**order, "price": 12 * order["count"]}
