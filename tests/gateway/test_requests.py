"""What a request becomes on its way to the upstream, and a response on its way back."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.gateway import Gateway
from apisix.runner.wire import messages as m
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.messages import Rewrite, Stop
from tests.gateway.peers import Message, calls_with, get, listening, plain, read_message, send_raw, stage

PASS = m.encode_http_req_call_resp(0, None)
POST_REQ: dict[str, Any] = {"ext-plugin-post-req": {}}
BOTH: dict[str, Any] = {"ext-plugin-pre-req": {}, "ext-plugin-post-req": {}}
NO_PLUGIN: dict[str, Any] = {"proxy-rewrite": {"headers": {"set": {"X-Route": "r"}}}}


def rewriting(**fields: Any) -> bytes:
    return m.encode_http_req_call_resp(0, Rewrite(**fields))


def stopping(status: int, headers: list[Pair] | None = None, body: bytes | None = None) -> bytes:
    return m.encode_http_req_call_resp(0, Stop(status, headers, body))


# To the upstream


def test_any_header_byte_reaches_the_upstream_and_comes_back(tmp_path: Path) -> None:
    def respond(request: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\nX-Back: \xff\xe9 caf\xc3\xa9\r\nContent-Length: 0\r\n\r\n"

    async def scenario() -> None:
        async with stage(tmp_path, respond=respond) as at:
            request = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Bytes: \xff\x80 caf\xc3\xa9\r\n\r\n"
            response = await send_raw(at.gateway.port, request)
            assert at.upstream.seen[0].get("X-Bytes") == "\xff\x80 caf\xc3\xa9"
            assert response.get("X-Back") == "\xff\xe9 caf\xc3\xa9"

    asyncio.run(scenario())


@pytest.mark.parametrize("target", ["/a%20b//c/../d?x=%zz&&y", "/?", "/%E4%BD%A0?q=%FF", "/a;b=c/@x"])
def test_an_untouched_target_reaches_the_upstream_as_it_is(tmp_path: Path, target: str) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            await at.get(target)
            assert at.upstream.seen[0].start == f"GET {target} HTTP/1.1"

    asyncio.run(scenario())


def test_changed_args_are_written_anew_behind_the_normalised_path(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewriting(args=[("b", "&=é"), ("c", "")]))) as at:
            await at.get("/a%20b//c?a=1&b=2&bare")
            assert at.upstream.seen[0].start.split()[1] == "/a%20b/c?a=1&b=%26%3D%C3%A9&bare&c="

    asyncio.run(scenario())


def test_deleting_the_last_argument_leaves_no_question_mark(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewriting(args=[("a", None)]))) as at:
            await at.get("/p?a=1")
            assert at.upstream.seen[0].start.split()[1] == "/p"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "rewrite", "target"),
    [
        ("3.16.0", rewriting(path="/n"), "/n?a=1"),
        ("3.15.0", rewriting(path="/n"), "/n"),
        ("3.15.0", rewriting(path="/n", args=[("b", "2")]), "/n?a=1&b=2"),
        ("3.16.0", rewriting(path="/n", args=[("a", None)]), "/n"),
        ("3.15.0", rewriting(path="/n", args=[("a", None)]), "/n?"),
    ],
)
def test_what_a_new_path_does_to_the_query_depends_on_the_version(
    tmp_path: Path, version: str, rewrite: bytes, target: str
) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewrite), version=version) as at:
            await at.get("/p?a=1")
            assert at.upstream.seen[0].start.split()[1] == target

    asyncio.run(scenario())


def test_post_req_sees_the_encoded_path_that_pre_req_set_and_its_query(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewriting(path="/n ü", args=[("b", "2")]), PASS), BOTH) as at:
            await at.get("/p?a=1")
            second = at.calls()[1]
            assert (second.path, second.args) == ("/n%20%C3%BC", [("a", "1"), ("b", "2")])

    asyncio.run(scenario())


def test_args_without_a_path_are_lost_in_post_req_once_the_path_was_rewritten(tmp_path: Path) -> None:
    answers = calls_with(rewriting(path="/n"), rewriting(args=[("lost", "1")]))

    async def scenario() -> None:
        async with stage(tmp_path, answers, BOTH) as at:
            await at.get("/p?a=1")
            assert at.upstream.seen[0].start.split()[1] == "/n?a=1"

    asyncio.run(scenario())


def test_proxy_rewrite_discards_the_path_of_pre_req(tmp_path: Path) -> None:
    plugins: dict[str, Any] = {"ext-plugin-pre-req": {}, "proxy-rewrite": {"uri": "/final"}}

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewriting(path="/lost", args=[("b", "2")])), plugins) as at:
            await at.get("/p?a=1")
            assert at.upstream.seen[0].start.split()[1] == "/final?a=1&b=2"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "expected"),
    [("3.17.0", [("X-B", "new"), ("x-b", "old")]), ("3.18.0", [("x-b", "new")])],
)
def test_post_req_sees_a_rewritten_header_as_the_version_caches_it(
    tmp_path: Path, version: str, expected: list[Pair]
) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewriting(headers=[("X-B", "new")]), PASS), BOTH, version=version) as at:
            await at.get("/", "X-B: old")
            second = at.calls()[1]
            assert sorted(pair for pair in second.headers or [] if pair[0].lower() == "x-b") == expected
            assert [value for name, value in at.upstream.seen[0].headers if name.lower() == "x-b"] == ["new"]

    asyncio.run(scenario())


def test_a_header_that_a_runner_sets_cannot_break_a_line(tmp_path: Path) -> None:
    rewrite = rewriting(headers=[("X-A\r\nX-Evil", "1\r\nX-Evil: 2")], resp_headers=[("X-R", "1\r\nX-Evil: 2")])

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewrite)) as at:
            response = await at.get()
            assert at.upstream.seen[0].get("X-A%0D%0AX-Evil") == "1%0D%0AX-Evil: 2"
            assert response.get("x-r") == "1%0D%0AX-Evil: 2"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "header", "forwarded"),
    [
        ("3.18.0", "X-Forwarded-For: 10.0.0.1", ("10.0.0.1, 127.0.0.1", "http", "h:81", "81")),
        ("3.18.0", "X-Forwarded-Proto: https", ("127.0.0.1", "http", "h:81", "81")),
        ("3.17.0", "X-Forwarded-For: 10.0.0.1", ("127.0.0.1", "http", "h:81", "81")),
        ("3.13.0", "X-Forwarded-For: 10.0.0.1", ("10.0.0.1, 127.0.0.1", "http", "h", None)),
        ("3.13.0", "X-Forwarded-Host: f", ("127.0.0.1", "http", "f", None)),
        ("2.7", "X-Forwarded-Proto: https", ("127.0.0.1", "https", "h", None)),
    ],
)
def test_where_a_request_came_from_is_told_as_the_version_trusts_it(
    tmp_path: Path, version: str, header: str, forwarded: tuple[str | None, ...]
) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, plugins=NO_PLUGIN, version=version) as at:
            lines = ["GET / HTTP/1.1", "Host: h:81", "Connection: close", header, "", ""]
            await send_raw(at.gateway.port, "\r\n".join(lines).encode())
            names = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port")
            port = forwarded[3] or str(at.gateway.port)
            assert tuple(at.upstream.seen[0].get(name) for name in names) == (*forwarded[:3], port)
            assert at.upstream.seen[0].get("Host") == "h:81"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fields", "host"),
    [({}, "example.test"), ({"pass_host": "node"}, None), ({"pass_host": "rewrite", "upstream_host": "w"}, "w")],
)
def test_the_upstream_gets_the_host_that_pass_host_says(
    tmp_path: Path, fields: dict[str, str], host: str | None
) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, plugins=NO_PLUGIN) as at:
            upstream = {"nodes": {at.upstream.node: 1}, **fields}
            at.gateway.put_route("r", {"uri": "/*", "plugins": {}, "upstream": upstream})
            await at.get()
            assert at.upstream.seen[0].get("Host") == (host or at.upstream.node)

    asyncio.run(scenario())


def test_a_body_in_chunks_is_passed_on_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            await send_raw(at.gateway.port, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            [seen] = at.upstream.seen
            assert (seen.body, seen.get("Content-Length"), seen.get("Transfer-Encoding")) == (b"abcde", "5", None)

    asyncio.run(scenario())


def test_a_compressed_body_is_passed_on_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            await at.get("/", "Content-Encoding: gzip", method="POST", body=b"not gzip at all")
            assert at.upstream.seen[0].body == b"not gzip at all"

    asyncio.run(scenario())


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.gateway.port)
            writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"abc")
            assert (await read_message(reader)).status == 200
            assert (at.upstream.seen[0].body, at.upstream.seen[0].get("Expect")) == (b"abc", None)
            writer.close()

    asyncio.run(scenario())


# Back to the client


def test_a_connection_serves_many_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.gateway.port)
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                response = await read_message(reader)
                assert (response.body, response.get("Connection")) == (b"up", "keep-alive")
            writer.close()

    asyncio.run(scenario())


def test_an_http_1_0_client_gets_no_chunks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(200, None, b"body"))) as at:
            response = await send_raw(at.gateway.port, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            assert (response.body, response.get("Transfer-Encoding"), response.get("Connection")) == (
                b"body",
                None,
                "close",
            )

    asyncio.run(scenario())


def test_a_response_in_chunks_arrives_as_it_comes(tmp_path: Path) -> None:
    """The second chunk is only sent when the client has the first."""

    async def scenario() -> None:
        got_first = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_message(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            await got_first.wait()
            writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with Gateway(port=0) as gateway:
            gateway.put_route(1, {"uri": "/*", "upstream": {"nodes": {f"127.0.0.1:{port}": 1}}})
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"5\r\nfirst\r\n")
            got_first.set()
            assert await reader.readuntil(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"
            writer.close()
        server.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "page"),
    [(200, None), (202, None), (300, None), (301, "301 Moved Permanently"), (304, None), (306, None), (308, "308 Per"),
     (400, "400 Bad Request"), (401, "401 Authorization Required"), (403, "403 Forbidden"), (405, "405 Not Allowed"),
     (418, None), (429, "429 Too Many Requests"), (500, "500 Internal"), (504, "504 Gateway Time-out"), (599, None)],
)  # fmt: skip
def test_a_stop_without_a_body_is_a_page_of_nginx_or_nothing(tmp_path: Path, status: int, page: str | None) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(status))) as at:
            response = await at.get()
            assert response.status == status
            assert f"<title>{page}" in response.text if page else response.body == b""

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [1, 99, 199, 600, 65535])
def test_a_status_that_is_none_is_a_500(tmp_path: Path, status: int) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(status, None, b"body"))) as at:
            assert (await at.get()).status == 500

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "headers", "expected"),
    [
        ("3.18.0", [("X-A", "1"), ("x-a", "2"), ("X-B", "3")], [("x-a", "1"), ("x-a", "2"), ("x-b", "3")]),
        ("2.13", [("X-A", "1"), ("x-a", "2"), ("X-B", "3")], [("X-A", "2"), ("X-B", "3")]),
    ],
)
def test_repeated_headers_of_a_stop_add_up_or_the_last_wins(
    tmp_path: Path, version: str, headers: list[Pair], expected: list[Pair]
) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(200, headers, b"x")), version=version) as at:
            response = await at.get()
            assert [pair for pair in response.headers if pair[0].lower() in ("x-a", "x-b")] == expected

    asyncio.run(scenario())


def test_a_head_request_gets_no_body_of_a_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(403))) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.gateway.port)
            writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            head, end, rest = (await reader.read()).partition(b"\r\n\r\n")
            assert (head.split(b"\r\n")[0], end, rest) == (b"HTTP/1.1 403 Forbidden", b"\r\n\r\n", b"")
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("text/html", "text/html; charset=utf-8"),
        ("text/plain; charset=latin-1", "text/plain; charset=latin-1"),
        ("application/json", "application/json"),
        ("application/javascript", "application/javascript; charset=utf-8"),
    ],
)
def test_text_types_get_a_charset(tmp_path: Path, kind: str, shown: str) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(200, [("Content-Type", kind)], b"x"))) as at:
            assert (await at.get()).get("Content-Type") == shown

    asyncio.run(scenario())


def test_a_stop_that_announces_its_length_is_sent_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(200, [("Content-Length", "4")], b"body"))) as at:
            response = await at.get()
            assert (response.body, response.get("Transfer-Encoding")) == (b"body", None)

    asyncio.run(scenario())


def test_a_stop_that_announces_more_than_it_has_ends_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(stopping(200, [("Content-Length", "9")], b"body"))) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.gateway.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\nbody")
            writer.close()

    asyncio.run(scenario())


def test_headers_that_belong_to_nginx_are_not_passed_on(tmp_path: Path) -> None:
    def respond(request: Message) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\nServer: up\r\nX-Accel-Limit-Rate: 1\r\nX-Pad: x\r\nKeep-Alive: x\r\nVia: v\r\n"
            b"Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"
        )

    async def scenario() -> None:
        async with stage(tmp_path, respond=respond) as at:
            response = await at.get()
            names = [name for name, _ in response.headers]
            assert not {"X-Accel-Limit-Rate", "X-Pad", "Keep-Alive"} & set(names)
            assert (response.get("Server"), response.get("Via"), names.count("Set-Cookie")) == ("APISIX/3.18.0", "v", 2)

    asyncio.run(scenario())


# When there is no upstream, or a bad one


def route_to(*ports: int, **upstream: Any) -> dict[str, Any]:
    nodes = [{"host": "127.0.0.1", "port": port, "weight": 10 - index} for index, port in enumerate(ports)]
    return {"uri": "/*", "upstream": {"nodes": nodes, **upstream}}


async def free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


def test_no_route_is_a_404() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            response = await get(gateway.port)
            assert (response.status, response.text) == (404, '{"error_msg":"404 Route Not Found"}\n')

    asyncio.run(scenario())


def test_a_route_without_an_upstream_is_a_503(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            gateway.put_route(1, {"uri": "/*", "plugins": NO_PLUGIN})
            assert (await get(gateway.port)).status == 503

    asyncio.run(scenario())


def test_an_upstream_that_refuses_is_a_502_that_says_so() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(await free_port()))
            response = await get(gateway.port)
            assert (response.status, response.get("X-APISIX-Upstream-Status")) == (502, "502")
            assert "<title>502 Bad Gateway</title>" in response.text

    asyncio.run(scenario())


def test_the_next_node_is_tried_when_one_refuses() -> None:
    async def scenario() -> None:
        async with listening(lambda _: plain(Message("", [], b""))) as port, Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(await free_port(), port))
            assert (await get(gateway.port)).text == "up"
            gateway.put_route(1, route_to(await free_port(), port, retries=0))
            assert (await get(gateway.port)).status == 502

    asyncio.run(scenario())


def test_an_upstream_that_is_too_slow_is_a_504() -> None:
    async def scenario() -> None:
        async with listening(lambda _: None) as port, Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(port, timeout={"read": 0.02}))
            response = await get(gateway.port)
            assert (response.status, response.get("X-APISIX-Upstream-Status")) == (504, "504")
            gateway.put_route(2, {**route_to(port), "timeout": {"read": 0.02}})
            assert (await get(gateway.port)).status == 504

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\nA b\r\n\r\n"]
)
def test_an_upstream_that_does_not_speak_http_is_a_502(answer: bytes) -> None:
    async def scenario() -> None:
        async with listening(lambda _: answer) as port, Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(port))
            assert (await get(gateway.port)).status == 502

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_response_that_breaks_off_breaks_off_at_the_client(answer: bytes) -> None:
    async def scenario() -> None:
        async with listening(lambda _: answer) as port, Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(port))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await get(gateway.port)

    asyncio.run(scenario())


def test_an_error_of_the_upstream_is_passed_on_and_marked(tmp_path: Path) -> None:
    def respond(request: Message) -> bytes:
        return b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"

    async def scenario() -> None:
        async with stage(tmp_path, respond=respond) as at:
            response = await at.get()
            assert (response.status, response.text, response.get("X-APISIX-Upstream-Status")) == (503, "busy", "503")

    asyncio.run(scenario())


# Requests that are none


@pytest.mark.parametrize(
    "request_line", [b"GET /%zz HTTP/1.1", b"GET /.. HTTP/1.1", b"GET /%00 HTTP/1.1", b"OPTIONS * HTTP/1.1"]
)
def test_a_target_that_nginx_refuses_is_a_400(request_line: bytes) -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            response = await send_raw(gateway.port, request_line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (response.status, response.get("Server")) == (400, "APISIX/3.18.0")

    asyncio.run(scenario())


def test_http_1_1_without_a_host_is_a_400() -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            assert (await send_raw(gateway.port, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")).status == 400

    asyncio.run(scenario())


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET /\xe9 HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_a_400_and_one_line_of_the_log(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Gateway(port=0) as gateway:
            assert (await send_raw(gateway.port, nonsense)).status == 400
            assert (await get(gateway.port)).status == 404

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    [line] = [record for record in caplog.records if record.name.startswith("apisix.runner.gateway")]
    assert (line.levelname, line.exc_info) == ("INFO", None)
    assert line.getMessage().startswith("bad request: 400, message: ")


def test_a_client_that_vanishes_in_its_body_leaves_no_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            _, writer = await asyncio.open_connection("127.0.0.1", at.gateway.port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert (await at.get()).status == 200
            assert len(at.upstream.seen) == 1

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_an_upstream_that_answers_before_it_has_the_body_is_heard(tmp_path: Path) -> None:
    """It takes the head, answers and closes; megabytes of body are still on their way."""

    def too_large(_: bytes) -> bytes:
        return b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"

    async def scenario() -> None:
        async with listening(too_large) as port, Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(port))
            response = await get(gateway.port, method="POST", body=bytes(8 << 20))
            assert response.status in (413, 502)  # the kernel may drop the answer with the reset

    asyncio.run(scenario())


def test_an_upstream_that_does_not_take_the_request_is_a_504() -> None:
    async def scenario(port: int) -> None:
        async with Gateway(port=0) as gateway:
            gateway.put_route(1, route_to(port, timeout={"send": 0.05}))
            assert (await get(gateway.port, method="POST", body=bytes(32 << 20))).status == 504

    with socket.create_server(("127.0.0.1", 0)) as never_accepts:
        asyncio.run(scenario(never_accepts.getsockname()[1]))
