"""The server's calls, with a gateway that is known beforehand.

Rules that live here: what the gateway is asked for is answered from what the test gave; a failure is kept, to be raised
in the test; what runs after the answer has run when the call returns; coroutines share one loop.
"""

import asyncio
import atexit
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

import msgspec

from apisix.runner.http.answer import Version
from apisix.runner.http.link import KNOWN_SINCE, GatewayError
from apisix.runner.plugin.errors import PluginFailure
from apisix.runner.server.connection import Connection
from apisix.runner.server.contexts import Contexts
from apisix.runner.server.request_call import RequestCall
from apisix.runner.server.response_call import ResponseCall
from apisix.runner.wire.messages import (
    ExtraInfoReq,
    InfoKind,
)

T = TypeVar("T")


class ContextsInMemory(Contexts):
    """What plugins keep between the phases, for one client."""

    def __init__(self) -> None:
        super().__init__(None)
        self._kept: dict[str, bytes] = {}

    def keep(self, request_id: str, context: Mapping[str, Any]) -> None:
        self._kept[request_id] = msgspec.json.encode(context)

    def read(self, request_id: str) -> bytes | None:
        return self._kept.get(request_id)


class Knowledge:
    """What the gateway knows about a call."""

    def __init__(
        self,
        version: Version,
        response_phase: bool,
        variables: Mapping[str, str | None],
        body: bytes | None,
        response_body: bytes | None,
    ) -> None:
        self._version = version
        self._response_phase = response_phase
        self._variables = variables
        self._body = body
        self._response_body = response_body

    def answer(self, ask: ExtraInfoReq) -> bytes | None:
        """What it answers to one ask."""
        since = "3.0" if self._response_phase else KNOWN_SINCE[ask.kind]
        if self._version < tuple(map(int, since.split("."))):
            raise GatewayError(f"the gateway closes the connection: it answers {ask.kind.name} from {since} on")
        if ask.kind is InfoKind.REQ_BODY:
            return self._body
        if ask.kind is InfoKind.RESP_BODY:
            return self._response_body
        value = self._variables.get(ask.name or "")
        return None if value is None else value.encode("utf-8", "surrogateescape")


class _Tested:
    """What makes a call of the server one of a test: the gateway is known, and failures are raised."""

    known: Knowledge
    failure: BaseException | None = None

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Answer at once."""
        return [self.known.answer(ask) for ask in asks]

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        """Answer at once."""
        return self.ask(asks)

    def failed(self, error: BaseException) -> bytes:
        """Keep what is to be raised in the test."""
        self.failure = error.cause if isinstance(error, PluginFailure) else error
        return b""


class TestedRequest(_Tested, RequestCall):
    """A call in the request phase."""


class TestedResponse(_Tested, ResponseCall):
    """A call in the response phase."""


def run(call: TestedRequest | TestedResponse) -> bytes:
    """Run a call to its end, what it does after its answer included. Returns the answer's frame.

    Raises:
        Exception: what the plugin raised.
    """
    chain = call.phase_chain.chain
    answer = _awaited(call.run_async(_in_thread)) if chain.coroutine else call.run()
    call.connection.close()
    if call.failure is not None:
        raise call.failure
    for function, args in call.response.after or ():
        result = function(*args)
        if asyncio.iscoroutine(result):
            _awaited(result)
    return answer


@cache
def _loop() -> asyncio.Runner:
    """One loop for all calls, as a worker has: what a plugin opened on it in one call serves it in the next."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


def _awaited(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where a loop runs in this one."""
    context = copy_context()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _loop().run(coroutine, context=context)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: _loop().run(coroutine, context=context)).result()


async def _in_thread(function: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function)


def connection() -> Connection:
    """A connection that leads nowhere, for a call to have one."""
    return Connection(socket.socket(socket.AF_UNIX))
