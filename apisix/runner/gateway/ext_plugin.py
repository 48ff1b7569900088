"""The runner's side of a route: what APISIX's ext-plugin-* plugins do.

Rules that live here: a call needs the conf's token, prepared on a second connection; an unknown token has all tokens
forgotten and the call tried again; what a failure means (503, or a pass); what the runner may ask for while a call is
open. What an answer does to the request is in `answers`. Source: APISIX's ext-plugin/init.lua, 2.6 to 3.18.
"""

import logging
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from apisix.runner.gateway import answers
from apisix.runner.gateway.answers import Exit
from apisix.runner.gateway.errors import BrokenAnswer, RunnerFailure, UnknownToken
from apisix.runner.gateway.exchange import Exchange
from apisix.runner.gateway.record import Asked, RunnerCall
from apisix.runner.gateway.rpc import Connection, Limits, Pool
from apisix.runner.gateway.tokens import TokenCache
from apisix.runner.gateway.uri import to_bytes
from apisix.runner.gateway.versions import Feature, Version
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.frame import FrameType, WireError
from apisix.runner.wire.messages import (
    METHODS,
    InfoKind,
    decode_extra_info_req,
    decode_http_req_call_resp,
    decode_http_resp_call_resp,
    decode_prepare_conf_resp,
    encode_extra_info_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
    encode_prepare_conf_req,
)

log = logging.getLogger(__name__)

TRIES = 3
ID_LIMIT = 1 << 22
RESPONSE_PLUGIN = "ext-plugin-post-resp"


class Conf(NamedTuple):
    """A route's conf of one ext-plugin."""

    route_id: str
    revision: int
    plugin: str
    conf: list[Pair] | None
    allow_degradation: bool

    @classmethod
    def of(cls, exchange: Exchange, plugin: str, given: dict[str, Any]) -> "Conf":
        """The conf of `plugin` in the exchange's route."""
        assert exchange.route is not None
        entries = given.get("conf")
        pairs: list[Pair] | None = None if entries is None else [(each["name"], each["value"]) for each in entries]
        degrade = bool(given.get("allow_degradation")) and exchange.version.has(Feature.DEGRADATION)
        return cls(exchange.route.id, exchange.route.revision, plugin, pairs, degrade)


class Runner:
    """A plugin runner as APISIX talks to it.

    Args:
        socket: where the runner listens.
        version: the APISIX to be.
        limits: timeouts and the pool's size; those of the version by default.
        conf_expiry: seconds after which a token is not used any more (APISIX_CONF_EXPIRE_TIME).
    """

    def __init__(self, socket: Path, version: Version, limits: Limits | None = None, conf_expiry: float = 3600) -> None:
        self.socket = socket
        self._version = version
        self._pool = Pool(socket, limits or Limits.of(version))
        self._tokens = TokenCache(conf_expiry, shared=version.has(Feature.SHARED_TOKENS))
        self._calls = 0

    async def call(self, exchange: Exchange, plugin: str, given: dict[str, Any]) -> Exit | None:
        """Run the plugins of one ext-plugin conf.

        Returns:
            what to answer the client now, or None to go on.

        Raises:
            BrokenAnswer: the runner's answer cannot be read.
        """
        conf = Conf.of(exchange, plugin, given)
        for _ in range(TRIES):
            record = RunnerCall(plugin, conf.conf or ())
            exchange.record.runner.append(record)
            try:
                if plugin == RESPONSE_PLUGIN:
                    return await self._response_call(exchange, conf, record)
                return await self._request_call(exchange, conf, record)
            except RunnerFailure as error:
                failure = error
            except WireError as error:  # of a frame to send; those that came are read where they came
                failure = RunnerFailure(f"failed to send: {error}")
            except BrokenAnswer as error:
                record.failure = str(error)
                raise
            finally:
                record.end()
            record.failure = str(failure)
            if not isinstance(failure, UnknownToken) or not self._version.has(Feature.UNKNOWN_TOKEN_RETRY):
                break
            log.warning("refresh cache and try again")
            self.flush()
        log.error("route %s, %s: %s", conf.route_id, plugin, failure)
        if conf.allow_degradation:
            log.warning("route %s, %s: the runner is wrong, allow degradation", conf.route_id, plugin)
            return None
        return Exit(503, None)

    def flush(self) -> None:
        """Forget every token, as APISIX does when its runner has died."""
        self._tokens.flush()

    def close(self) -> None:
        """Close every idle connection."""
        self._pool.close()

    async def _request_call(self, exchange: Exchange, conf: Conf, record: RunnerCall) -> Exit | None:
        async with self._pool.connection() as connection:
            token = await self._token(conf)
            path = _path_and_query(exchange)
            record.id = self._next_id()
            request = encode_http_req_call_req(
                record.id,
                ip_address(exchange.arrival.remote[0]).packed,
                _method_number(exchange.method),
                path,
                [(name, value) for name, values in exchange.args().items() for value in values],
                _header_pairs(exchange, exchange.header_cache().items()),
                token,
            )
            may_ask = self._version.has(Feature.ASK_VARIABLE)
            answer = await self._converse(connection, exchange, request, FrameType.HTTP_REQ_CALL, may_ask, record)
            try:
                record.answer = action = decode_http_req_call_resp(answer).action
            except WireError as error:
                raise BrokenAnswer(f"route {conf.route_id}, {conf.plugin}: {error}") from None
            return answers.apply_action(exchange, action)

    async def _response_call(self, exchange: Exchange, conf: Conf, record: RunnerCall) -> Exit | None:
        upstream = exchange.upstream_response
        assert upstream is not None
        async with self._pool.connection() as connection:
            token = await self._token(conf)
            headers = _header_pairs(exchange, answers.grouped(upstream.headers).items())
            record.id = self._next_id()
            request = encode_http_resp_call_req(record.id, upstream.status, headers, token)
            may_ask = self._version.has(Feature.ASK_IN_RESPONSE_PHASE)
            answer = await self._converse(connection, exchange, request, FrameType.HTTP_RESP_CALL, may_ask, record)
            try:
                record.answer = response = decode_http_resp_call_resp(answer)
            except WireError as error:
                raise BrokenAnswer(f"route {conf.route_id}, {conf.plugin}: {error}") from None
            return answers.apply_response(exchange, response)

    async def _converse(
        self,
        connection: Connection,
        exchange: Exchange,
        request: bytes,
        type: FrameType,
        may_ask: bool,
        record: RunnerCall,
    ) -> bytes:
        """Send `request`, give extra information as long as it is asked for, and return the answer."""
        name = f"RPC_{type.name}"
        await connection.send(request, name)
        while True:
            answer = await connection.receive(name)
            if answer[0] != FrameType.EXTRA_INFO or not may_ask:
                break
            result = self._extra_info(exchange, answer, record)
            try:
                reply = encode_extra_info_resp(result)
            except WireError as error:
                raise RunnerFailure(f"failed to reply RPC_EXTRA_INFO: {error}") from None
            await connection.send(reply, "RPC_EXTRA_INFO")
        if answer[0] != type:
            raise RunnerFailure(f"failed to receive {name}: unexpected type {answer[0]}")
        return answer

    def _extra_info(self, exchange: Exchange, frame: bytes, record: RunnerCall) -> bytes | None:
        try:
            kind, variable = decode_extra_info_req(frame)
        except WireError as error:
            if error.field == "ExtraInfo.Req.info_type":
                raise RunnerFailure(f"failed to handle RPC_EXTRA_INFO: unsupported info type: {error}") from None
            raise BrokenAnswer(str(error)) from None
        if kind is InfoKind.VAR:
            value = exchange.variable(variable or "")
            asked = Asked(f"variable {variable}", None if value is None else to_bytes(value))
        elif kind is InfoKind.REQ_BODY and self._version.has(Feature.ASK_REQUEST_BODY):
            asked = Asked("request body", exchange.body or None)
        elif kind is InfoKind.RESP_BODY and self._version.has(Feature.ASK_IN_RESPONSE_PHASE):
            asked = Asked("response body", _response_body(exchange))
        else:
            raise RunnerFailure(f"failed to handle RPC_EXTRA_INFO: unsupported info type: {kind.value}")
        record.asked.append(asked)
        return asked.value

    async def _token(self, conf: Conf) -> int:
        key = f"route#{conf.route_id}"
        if self._version.has(Feature.TOKEN_PER_PHASE):
            key = f"{key}#{conf.plugin}"
        unique = f"{key}#{conf.revision}"

        async def prepare() -> int:
            async with self._pool.connection() as connection:
                return await self._tokens.shared(unique, lambda: self._prepare(connection, conf, unique))

        return await self._tokens.get(key, conf.revision, prepare)

    async def _prepare(self, connection: Connection, conf: Conf, unique: str) -> int:
        key = unique if self._version.has(Feature.CONF_KEY) else None
        answer = await connection.call(encode_prepare_conf_req(conf.conf, key), FrameType.PREPARE_CONF)
        try:
            return decode_prepare_conf_resp(answer)
        except WireError as error:
            raise BrokenAnswer(f"route {conf.route_id}, {conf.plugin}: {error}") from None

    def _next_id(self) -> int:
        """The call's id: the nginx worker's number (always 0 here) and a counter from 0."""
        id = self._calls % ID_LIMIT
        self._calls += 1
        return id


def _path_and_query(exchange: Exchange) -> str:
    """The path that the runner sees; a path that was rewritten before brings its own query with it."""
    if not exchange.upstream_uri:
        return exchange.path
    path, mark, query = exchange.upstream_uri.partition("?")
    if mark:
        exchange.set_args(query)
    return path


def _method_number(method: str) -> int:
    if method not in METHODS:
        raise BrokenAnswer(f"the protocol has no number for the method {method}")
    return METHODS.index(method)


def _header_pairs(exchange: Exchange, headers: Iterable[tuple[str, list[str]]]) -> list[Pair]:
    return [(name, exchange.upstream_host if name == "host" else value) for name, values in headers for value in values]


def _response_body(exchange: Exchange) -> bytes | None:
    response = exchange.upstream_response
    if response is None or (response.read and not response.bodyless):
        return None
    response.read = True
    return b"".join(response.chunks)
