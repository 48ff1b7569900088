"""The way back to the gateway while a call is open: variables and bodies.

Rules that live here: what a call may ask, and the errors when it cannot be had. The runner's server implements `Link`
over the call's own connection, the test kit from given values.
"""

from collections.abc import Sequence
from typing import Protocol

from apisix.runner.wire.messages import ExtraInfoReq, InfoKind

KNOWN_SINCE = {InfoKind.VAR: "2.9", InfoKind.REQ_BODY: "2.12", InfoKind.RESP_BODY: "3.0"}
"""First APISIX version that answers each kind; in the response phase every kind needs 3.0."""


class GatewayError(Exception):
    """The gateway did not give what was asked for. Uncaught, it fails the call, as any exception of a plugin."""


class WrongColour(RuntimeError):
    """A waiting call in an ``async def`` plugin, or an awaitable one in a ``def`` plugin."""


class Link(Protocol):
    """Asks the gateway on behalf of one call."""

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Ask and wait; several asks travel in one round trip. None is "not set".

        Raises:
            GatewayError: the gateway closed the connection, did not answer in time or answered nonsense.
        """
        ...

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """The same for coroutines."""
        ...

    def kept_context(self, request_id: str) -> bytes | None:
        """What `request.context` held in the request phase of a request; None where it was empty.

        Args:
            request_id: the gateway's variable of that name.
        """
        ...
