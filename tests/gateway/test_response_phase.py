"""ext-plugin-post-resp, with the quirks that a runner has to live with."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.wire import messages as m
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.frame import FrameType
from apisix.runner.wire.messages import ErrorCode, InfoKind, Rewrite
from tests.gateway.peers import Message, Stage, calls_with, in_turn, stage

PLUGINS: dict[str, Any] = {"ext-plugin-post-resp": {}}
TOKEN = m.encode_prepare_conf_resp(1)
BODY = m.encode_extra_info_req(InfoKind.RESP_BODY)
UNCHANGED = m.encode_http_resp_call_resp(0, 0, None, None)


def answering(status: int = 0, headers: list[Pair] | None = None, body: bytes | None = None) -> bytes:
    return m.encode_http_resp_call_resp(0, status, headers, body)


def page(request: Message) -> bytes:
    """An upstream with headers of every kind."""
    return (
        b"HTTP/1.1 200 OK\r\nServer: up\r\nContent-Type: text/css\r\nContent-Language: de\r\nLocation: /l\r\n"
        b"X-Up: 1\r\nx-up: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nup"
    )


def response_calls(at: Stage) -> list[m.HTTPRespCallReq]:
    frames = [frame for _, frame in at.runner.received]
    return [m.decode_http_resp_call_req(frame) for frame in frames if frame[0] == FrameType.HTTP_RESP_CALL]


def values(response: Message, name: str) -> list[str]:
    return [value for key, value in response.headers if key.lower() == name]


def test_the_runner_sees_status_and_all_headers_as_they_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(UNCHANGED), PLUGINS, page) as at:
            await at.get()
            [call] = response_calls(at)
            assert call.status == 200
            assert call.headers == [
                ("Server", "up"),
                ("Content-Type", "text/css"),
                ("Content-Language", "de"),
                ("Location", "/l"),
                ("X-Up", "1"),
                ("X-Up", "2"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Content-Length", "2"),
            ]

    asyncio.run(scenario())


def test_an_unchanged_response_loses_the_ten_reserved_headers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(UNCHANGED), PLUGINS, page) as at:
            response = await at.get()
            assert (response.status, response.text, response.get("Content-Type")) == (
                200,
                "up",
                "text/plain; charset=utf-8",
            )
            assert values(response, "x-up") == ["1", "2"]
            assert values(response, "set-cookie") == ["a=1", "b=2"]
            assert values(response, "location") + values(response, "content-language") == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("version", "kind"), [("3.2.0", "text/css"), ("3.1.0", "text/plain; charset=utf-8")])
def test_headers_of_an_answer_are_all_there_is(tmp_path: Path, version: str, kind: str) -> None:
    answer = answering(headers=[("Content-Type", "text/css"), ("X-A", "1"), ("x-a", "2")])

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(answer), PLUGINS, page, version=version) as at:
            response = await at.get()
            assert (response.text, response.get("Content-Type")) == ("up", kind)
            assert [pair for pair in response.headers if pair[0].lower() == "x-a"] == [("x-a", "1"), ("x-a", "2")]
            assert values(response, "x-up") + values(response, "set-cookie") == []

    asyncio.run(scenario())


def test_an_answer_that_returns_all_headers_keeps_the_length(tmp_path: Path) -> None:
    answer = answering(headers=[("content-length", "2"), ("content-type", "text/css")])

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(answer), PLUGINS, page) as at:
            response = await at.get()
            assert (response.text, response.get("Content-Length"), response.get("Transfer-Encoding")) == (
                "up",
                "2",
                None,
            )

    asyncio.run(scenario())


def test_a_body_alone_keeps_the_status_of_the_upstream(tmp_path: Path) -> None:
    def created(request: Message) -> bytes:
        return b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nup"

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(answering(body=b"new")), PLUGINS, created) as at:
            response = await at.get()
            assert (response.status, response.text) == (201, "new")

    asyncio.run(scenario())


def test_the_body_is_handed_out_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(TOKEN, BODY, BODY, answering(body=b"done")), PLUGINS, page) as at:
            assert (await at.get()).text == "done"
            replies = [frame for _, frame in at.runner.received if frame[0] == FrameType.EXTRA_INFO]
            assert [m.decode_extra_info_resp(reply) for reply in replies] == [b"up", None]

    asyncio.run(scenario())


def test_a_body_that_was_read_still_reaches_the_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(TOKEN, BODY, UNCHANGED), PLUGINS, page) as at:
            assert (await at.get()).text == "up"

    asyncio.run(scenario())


def empty_chunks(request: Message) -> bytes:
    return b"HTTP/1.1 200 OK\r\nX-Up: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


def no_content(request: Message) -> bytes:
    return b"HTTP/1.1 204 No Content\r\nX-Up: 1\r\n\r\n"


def not_modified(request: Message) -> bytes:
    return b"HTTP/1.1 304 Not Modified\r\nX-Up: 1\r\n\r\n"


@pytest.mark.parametrize("respond", [empty_chunks, no_content, not_modified])
def test_a_response_without_a_body_has_the_upstream_called_again(tmp_path: Path, respond: Any) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(answering(status=418, headers=[("X-A", "1")])), PLUGINS, respond) as at:
            response = await at.get()
            assert len(at.upstream.seen) == 2
            assert response.start == respond(Message("", [], b"")).split(b"\r\n")[0].decode()
            assert (values(response, "x-a"), values(response, "x-up")) == (["1"], ["1"])

    asyncio.run(scenario())


def test_a_head_request_has_the_upstream_called_again(tmp_path: Path) -> None:
    def respond(request: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(UNCHANGED), PLUGINS, respond) as at:
            response = await at.get(method="HEAD")
            assert [seen.start for seen in at.upstream.seen] == ["HEAD / HTTP/1.1"] * 2
            assert (response.status, response.get("Content-Length")) == (200, "2")

    asyncio.run(scenario())


def test_an_empty_body_with_a_length_does_not_have_the_upstream_called_again(tmp_path: Path) -> None:
    def respond(request: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(answering(status=418)), PLUGINS, respond) as at:
            response = await at.get()
            assert (response.status, response.body, len(at.upstream.seen)) == (418, b"", 1)

    asyncio.run(scenario())


def test_an_answer_with_a_body_avoids_the_second_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(answering(status=200, body=b"x")), PLUGINS, no_content) as at:
            response = await at.get()
            assert (response.status, response.text, len(at.upstream.seen)) == (200, "x", 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(("degrading", "status"), [(False, 503), (True, 200)])
def test_an_error_fails_open(tmp_path: Path, degrading: bool, status: int) -> None:
    plugins = {"ext-plugin-post-resp": {"allow_degradation": degrading}}
    error = m.encode_error(ErrorCode.SERVICE_UNAVAILABLE)

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(error), plugins, page) as at:
            response = await at.get()
            assert (response.status, response.text, values(response, "x-up")) == (status, "up", [])

    asyncio.run(scenario())


def test_an_error_on_a_response_without_a_body_shows_the_second_response(tmp_path: Path) -> None:
    error = m.encode_error(ErrorCode.SERVICE_UNAVAILABLE)

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(error), PLUGINS, no_content) as at:
            assert (await at.get()).status == 204
            assert len(at.upstream.seen) == 2

    asyncio.run(scenario())


def test_an_unreachable_upstream_is_a_502_and_the_runner_is_not_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(UNCHANGED), PLUGINS, lambda _: b"") as at:
            assert (await at.get()).status == 502
            assert at.runner.received == []

    asyncio.run(scenario())


def test_the_upstream_gets_what_the_request_phase_made_of_the_request(tmp_path: Path) -> None:
    plugins: dict[str, Any] = {"ext-plugin-pre-req": {}, "ext-plugin-post-resp": {}}
    rewrite = Rewrite(path="/n", headers=[("x-new", "1"), ("host", "other.test")], args=[("b", "2")], body=b"longer")

    async def scenario() -> None:
        answers = in_turn(TOKEN, m.encode_http_req_call_resp(0, rewrite), TOKEN, UNCHANGED)
        async with stage(tmp_path, answers, plugins) as at:
            await at.get("/p?a=1", "X-Old: o", method="POST", body=b"abc")
            [seen] = at.upstream.seen
            assert (seen.start, seen.body) == ("POST /n?a=1&b=2 HTTP/1.1", b"longer")
            expected = {"host": "other.test", "x-new": "1", "x-old": "o", "content-length": "6"}
            assert {name: seen.get(name) for name in expected} == expected

    asyncio.run(scenario())


def test_variables_are_told_in_the_response_phase(tmp_path: Path) -> None:
    question = m.encode_extra_info_req(InfoKind.VAR, "balancer_port")

    async def scenario() -> None:
        async with stage(tmp_path, in_turn(TOKEN, question, UNCHANGED), PLUGINS, page) as at:
            await at.get()
            assert m.decode_extra_info_resp(at.runner.received[-1][1]) == str(at.upstream.port).encode()

    asyncio.run(scenario())
