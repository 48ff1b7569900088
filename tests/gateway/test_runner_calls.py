"""How the gateway talks to a runner that behaves, fails, is slow, or talks nonsense."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.gateway import Gateway, tokens
from apisix.runner.gateway.rpc import Limits
from apisix.runner.wire import messages as m
from apisix.runner.wire.frame import FrameType, pack_frame
from apisix.runner.wire.messages import ErrorCode, InfoKind, Rewrite, Stop
from tests.gateway.peers import FakeRunner, calls_with, get, in_turn, passing, stage

PASS = m.encode_http_req_call_resp(0, None)
STOP = m.encode_http_req_call_resp(0, Stop(200, None, b"stopped"))
TOKEN = m.encode_prepare_conf_resp(7)
UNKNOWN_TOKEN = m.encode_error(ErrorCode.CONF_TOKEN_NOT_FOUND)
UNAVAILABLE = m.encode_error(ErrorCode.SERVICE_UNAVAILABLE)
DEGRADING = {"ext-plugin-pre-req": {"allow_degradation": True}}
PREPARE, CALL = FrameType.PREPARE_CONF, FrameType.HTTP_REQ_CALL


def test_ids_count_from_zero_and_the_conf_is_prepared_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            for _ in range(3):
                assert (await at.get()).status == 200
            assert at.runner.types() == [PREPARE, CALL, CALL, CALL]
            assert [call.id for call in at.calls()] == [0, 1, 2]
            assert [call.conf_token for call in at.calls()] == [1, 1, 1]

    asyncio.run(scenario())


def test_connections_are_reused_and_as_many_as_calls_are_open(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(connection: int, frame: bytes) -> bytes:
        if frame[0] == CALL:
            await gate.wait()
        return await passing(connection, frame)

    async def scenario() -> None:
        async with stage(tmp_path, answer) as at:
            requests = [asyncio.create_task(at.get()) for _ in range(5)]
            while at.runner.types().count(CALL) < 5:
                await asyncio.sleep(0.001)
            gate.set()
            assert [response.status for response in await asyncio.gather(*requests)] == [200] * 5
            opened = at.runner.opened
            for _ in range(5):
                await at.get()
            assert at.runner.opened == opened

    asyncio.run(scenario())


def test_more_idle_connections_than_the_pool_holds_are_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, limits=Limits(pool=2)) as at:
            await asyncio.gather(*(at.get() for _ in range(6)))
            async with asyncio.timeout(5):
                while at.runner.open > 2:
                    await asyncio.sleep(0.001)

    asyncio.run(scenario())


def test_an_idle_connection_is_closed_when_its_time_is_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, limits=Limits(idle=0.01)) as at:
            await at.get()
            async with asyncio.timeout(5):
                while at.runner.open:
                    await asyncio.sleep(0.001)
            assert (await at.get()).status == 200

    asyncio.run(scenario())


def test_a_runner_that_closed_its_idle_connections_is_connected_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Gateway(tmp_path / "runner.sock", port=0) as gateway:
            gateway.put_route(1, {"uri": "/*", "plugins": {"ext-plugin-pre-req": {}}})
            for _ in range(2):
                async with FakeRunner(tmp_path / "runner.sock", calls_with(STOP)):
                    assert (await get(gateway.port)).text == "stopped"
                (tmp_path / "runner.sock").unlink()
                await asyncio.sleep(0)

    asyncio.run(scenario())


def test_an_unsolicited_byte_on_an_idle_connection_closes_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(TOKEN, PASS + b"\0", PASS)) as at:
            for _ in range(2):
                assert (await at.get()).status == 200
            assert at.runner.received[-1][0] != at.runner.received[-2][0]

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [0, 1, 3, 200])
@pytest.mark.parametrize("phase", ["prepare", "call"])
def test_an_error_is_a_503_and_ends_its_connection(tmp_path: Path, code: int, phase: str) -> None:
    error = m.encode_error(code)

    async def scenario() -> None:
        async with stage(tmp_path, in_turn(error) if phase == "prepare" else in_turn(TOKEN, error)) as at:
            response = await at.get()
            assert response.status == 503
            assert b"503 Service Temporarily Unavailable" in response.body
            assert at.upstream.seen == []

    asyncio.run(scenario())


@pytest.mark.parametrize("answers", [[None], [UNAVAILABLE], [TOKEN, UNAVAILABLE], [TOKEN, None], [TOKEN, TOKEN]])
def test_degradation_lets_a_failed_call_pass(tmp_path: Path, answers: list[bytes | None]) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(*answers), DEGRADING) as at:
            assert (await at.get()).text == "up"

    asyncio.run(scenario())


def test_an_old_version_knows_no_degradation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(None), DEGRADING, version="2.11.0") as at:
            assert (await at.get()).status == 503

    asyncio.run(scenario())


def test_nobody_listening_is_a_503(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Gateway(tmp_path / "nobody.sock", port=0) as gateway:
            gateway.put_route(1, {"uri": "/*", "plugins": {"ext-plugin-pre-req": {}}})
            assert (await get(gateway.port)).status == 503

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "answers", "types", "status"),
    [
        ("3.18.0", [TOKEN, UNKNOWN_TOKEN, TOKEN, UNKNOWN_TOKEN, TOKEN, STOP], [1, 2, 1, 2, 1, 2], 200),
        ("3.18.0", [TOKEN, UNKNOWN_TOKEN] * 3, [1, 2, 1, 2, 1, 2], 503),
        ("3.18.0", [UNKNOWN_TOKEN, TOKEN, STOP], [1, 1, 2], 200),
        ("2.7", [TOKEN, UNKNOWN_TOKEN, TOKEN, STOP], [1, 2, 1, 2], 200),
        ("2.6", [TOKEN, UNKNOWN_TOKEN], [1, 2], 503),
    ],
)
def test_an_unknown_token_is_prepared_again(
    tmp_path: Path, version: str, answers: list[bytes], types: list[int], status: int
) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(*answers), version=version) as at:
            assert (await at.get()).status == status
            assert at.runner.types() == types

    asyncio.run(scenario())


def test_an_unknown_token_has_every_token_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, in_turn(TOKEN, STOP, TOKEN, UNKNOWN_TOKEN, TOKEN, STOP, TOKEN, STOP)) as at:
            at.gateway.put_route("other", {"uri": "/other", "plugins": {"ext-plugin-pre-req": {}}})
            for target in ("/", "/other", "/"):
                assert (await at.get(target)).text == "stopped"
            assert at.runner.types() == [1, 2, 1, 2, 1, 2, 1, 2]

    asyncio.run(scenario())


def keys(runner: FakeRunner) -> list[str | None]:
    return [m.decode_prepare_conf_req(frame).key for _, frame in runner.received if frame[0] == PREPARE]


def test_the_key_names_route_phase_and_revision_and_changes_with_the_route(tmp_path: Path) -> None:
    plugins: dict[str, Any] = {"ext-plugin-pre-req": {}, "ext-plugin-post-req": {}}

    async def scenario() -> None:
        async with stage(tmp_path, plugins=plugins) as at:
            await at.get()
            at.gateway.put_route("r", {"uri": "/*", "plugins": {"ext-plugin-pre-req": {}}})
            await at.get()
            pre, post, changed = keys(at.runner)
            assert pre is not None
            assert post is not None
            revision = pre.rpartition("#")[2]
            assert (pre, post) == (
                f"route#r#ext-plugin-pre-req#{revision}",
                f"route#r#ext-plugin-post-req#{revision}",
            )
            assert changed is not None
            assert changed.startswith("route#r#ext-plugin-pre-req#")
            assert changed != pre

    asyncio.run(scenario())


def test_an_old_version_sends_no_key_and_shares_a_token_between_phases(tmp_path: Path) -> None:
    plugins: dict[str, Any] = {"ext-plugin-pre-req": {}, "ext-plugin-post-req": {}}

    async def scenario() -> None:
        async with stage(tmp_path, plugins=plugins, version="2.6") as at:
            await at.get()
            assert keys(at.runner) == [None]
            assert at.runner.types() == [PREPARE, CALL, CALL]

    asyncio.run(scenario())


@pytest.mark.parametrize(("version", "prepared"), [("2.10.0", 18), ("2.11.0", 9)])
def test_a_worker_remembers_eight_tokens_and_the_shared_dict_all(tmp_path: Path, version: str, prepared: int) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, version=version) as at:
            for number in range(9):
                at.gateway.put_route(number, {"uri": f"/{number}", "plugins": {"ext-plugin-pre-req": {}}})
            for number in [*range(9)] * 2:
                await at.get(f"/{number}")
            assert at.runner.types().count(PREPARE) == prepared

    asyncio.run(scenario())


def test_a_token_is_not_used_for_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, conf_expiry=0.0) as at:
            await at.get()
            await at.get()
            assert at.runner.types() == [PREPARE, CALL, PREPARE, CALL]

    asyncio.run(scenario())


def test_concurrent_calls_prepare_once_and_pool_the_connections_that_carried_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(connection: int, frame: bytes) -> bytes:
        if frame[0] == PREPARE:
            await gate.wait()
        return await passing(connection, frame)

    async def scenario() -> None:
        async with stage(tmp_path, answer) as at:
            requests = [asyncio.create_task(at.get()) for _ in range(4)]
            while at.runner.opened < 8:
                await asyncio.sleep(0.001)
            gate.set()
            await asyncio.gather(*requests)
            assert at.runner.types() == [PREPARE, CALL, CALL, CALL, CALL]
            assert at.runner.open == 8

    asyncio.run(scenario())


def test_who_waits_too_long_for_the_lock_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LOCK_WAIT", 0.02)
    gate = asyncio.Event()

    async def answer(connection: int, frame: bytes) -> bytes:
        if frame[0] == PREPARE:
            await gate.wait()
        return await passing(connection, frame)

    async def scenario() -> None:
        async with stage(tmp_path, answer) as at:
            first = asyncio.create_task(at.get())
            while not at.runner.received:
                await asyncio.sleep(0.001)
            assert (await at.get()).status == 503
            gate.set()
            assert (await first).status == 200

    asyncio.run(scenario())


def test_a_broken_answer_to_prepare_leaves_the_lock_held_until_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LOCK_WAIT", 0.02)
    monkeypatch.setattr(tokens, "LOCK_EXPIRY", 0.1)

    async def scenario() -> None:
        async with stage(tmp_path, in_turn(pack_frame(PREPARE, b""), TOKEN, PASS)) as at:
            assert [(await at.get()).status for _ in range(2)] == [500, 503]
            monkeypatch.setattr(tokens, "LOCK_WAIT", 5)
            assert (await at.get()).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("version", ["2.7", "3.18.0"])
@pytest.mark.parametrize("silent", ["prepare", "call"])
def test_a_runner_that_says_nothing_is_a_503(tmp_path: Path, silent: str, version: str) -> None:
    async def answer(connection: int, frame: bytes) -> bytes:
        if frame[0] == (PREPARE if silent == "prepare" else CALL):
            await asyncio.Event().wait()
        return await passing(connection, frame)

    async def scenario() -> None:
        async with stage(tmp_path, answer, version=version, limits=Limits(read=0.03)) as at:
            assert (await at.get()).status == 503

    asyncio.run(scenario())


def test_each_piece_of_an_answer_has_its_own_time(tmp_path: Path) -> None:
    """Served piece by piece by hand: a frame whose pieces come 0.05 s apart outlives a limit of 0.2 s per read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while header := await reader.read(4):
                await reader.readexactly(int.from_bytes(header[1:], "big"))
                frame = TOKEN if header[0] == PREPARE else STOP
                pieces = [frame[:1], frame[1:5], frame[5:20], frame[20:-1], frame[-1:]]
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.05 if header[0] == CALL else 0)
        finally:
            writer.close()

    async def scenario() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "slow.sock")
        async with Gateway(tmp_path / "slow.sock", port=0, limits=Limits(read=0.2)) as gateway:
            gateway.put_route(1, {"uri": "/*", "plugins": {"ext-plugin-pre-req": {}}})
            assert (await get(gateway.port)).text == "stopped"
        server.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "garbage",
    [
        pack_frame(CALL, b""),
        pack_frame(CALL, b"\xff" * 16),
        pack_frame(FrameType.ERROR, b""),
        pack_frame(FrameType.EXTRA_INFO, b"\0" * 8),
        STOP[:4] + bytes(len(STOP) - 4),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_500_even_with_degradation(tmp_path: Path, garbage: bytes) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(garbage, PASS), DEGRADING) as at:
            assert (await at.get()).status == 500
            assert (await at.get()).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("frame", [pack_frame(9, b""), TOKEN, m.encode_http_resp_call_resp(0, 0, None, None)])
def test_an_answer_of_another_type_is_a_503(tmp_path: Path, frame: bytes) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, calls_with(frame)) as at:
            assert (await at.get()).status == 503

    asyncio.run(scenario())


def asking(*questions: bytes) -> Any:
    """A runner that asks for extra information and stops with what it got, piece after piece."""
    rest = list(questions)
    got: list[bytes | None] = []

    async def answer(connection: int, frame: bytes) -> bytes:
        if frame[0] == PREPARE:
            return TOKEN
        if frame[0] == FrameType.EXTRA_INFO:
            got.append(m.decode_extra_info_resp(frame))
        if rest:
            return rest.pop(0)
        return m.encode_http_req_call_resp(0, Stop(200, None, repr(got).encode()))

    return answer


def variable(name: str) -> bytes:
    return m.encode_extra_info_req(InfoKind.VAR, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_method", b"POST"),
        ("uri", b"/a b"),
        ("request_uri", b"/a b?x=%20y&bare&x=2"),
        ("args", b"x=%20y&bare&x=2"),
        ("query_string", b"x=%20y&bare&x=2"),
        ("is_args", b"?"),
        ("arg_x", b" y"),
        ("arg_bare", b"true"),
        ("arg_none", None),
        ("host", b"example.test"),
        ("http_x_one", b"1"),
        ("http_X-One", b"1"),
        ("http_x_two", b"a, b"),
        ("http_none", None),
        ("cookie_c", b"d=e"),
        ("cookie_none", None),
        ("post_arg_f", b"g h"),
        ("remote_addr", b"127.0.0.1"),
        ("scheme", b"http"),
        ("content_type", b"application/x-www-form-urlencoded"),
        ("content_length", b"5"),
        ("upstream_uri", b""),
        ("route_id", b"r"),
        ("route_name", b""),
        ("request_body", b"f=g+h"),
        ("balancer_ip", None),
        ("no_such_variable", None),
    ],
)
def test_a_variable_is_told(tmp_path: Path, name: str, value: bytes | None) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, asking(variable(name))) as at:
            response = await at.get(
                "/a%20b?x=%20y&bare&x=2",
                "X-One: 1",
                "X-Two: a",
                "X-Two: b",
                "Cookie: a=b; c=d=e",
                "Content-Type: application/x-www-form-urlencoded",
                method="POST",
                body=b"f=g+h",
            )
            assert response.body == repr([value]).encode()

    asyncio.run(scenario())


def test_questions_are_answered_in_order_and_the_response_has_no_body_yet(tmp_path: Path) -> None:
    questions = (
        variable("args"),
        m.encode_extra_info_req(InfoKind.REQ_BODY),
        m.encode_extra_info_req(InfoKind.RESP_BODY),
        m.encode_extra_info_req(InfoKind.REQ_BODY),
    )

    async def scenario() -> None:
        async with stage(tmp_path, asking(*questions)) as at:
            response = await at.get(method="POST", body=b"\xff\0")
            assert response.body == repr([b"", b"\xff\0", None, b"\xff\0"]).encode()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "question"),
    [
        ("2.7", variable("uri")),
        ("2.11.0", m.encode_extra_info_req(InfoKind.REQ_BODY)),
        ("2.15", m.encode_extra_info_req(InfoKind.RESP_BODY)),
        ("3.18.0", m.encode_extra_info_req(InfoKind.REQ_BODY).replace(b"\xff\x02\0\0\0", b"\xff\x09\0\0\0")),
    ],
)
def test_a_question_that_the_version_does_not_know_is_a_503(tmp_path: Path, version: str, question: bytes) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, asking(question), version=version) as at:
            assert (await at.get()).status == 503
            async with asyncio.timeout(5):
                while at.runner.open > 1:
                    await asyncio.sleep(0.001)

    asyncio.run(scenario())


def test_extra_information_that_is_larger_than_a_frame_fails_the_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, asking(m.encode_extra_info_req(InfoKind.REQ_BODY))) as at:
            assert (await at.get(method="POST", body=bytes(2**24))).status == 503

    asyncio.run(scenario())


def test_extra_information_almost_as_large_as_a_frame_is_told(tmp_path: Path) -> None:
    body = bytes(2**24 - 100)

    async def scenario() -> None:
        async with stage(tmp_path, in_turn(TOKEN, m.encode_extra_info_req(InfoKind.REQ_BODY), STOP)) as at:
            assert (await at.get(method="POST", body=body)).text == "stopped"
            assert m.decode_extra_info_resp(at.runner.received[-1][1]) == body

    asyncio.run(scenario())


def test_a_runner_that_takes_nothing_is_a_503(tmp_path: Path) -> None:
    large = {"ext-plugin-pre-req": {"conf": [{"name": "x", "value": "v" * (8 << 20)}]}}

    async def scenario() -> None:
        async with Gateway(tmp_path / "deaf.sock", port=0, limits=Limits(send=0.05)) as gateway:
            gateway.put_route(1, {"uri": "/*", "plugins": large})
            assert (await get(gateway.port)).status == 503

    with socket.socket(socket.AF_UNIX) as never_accepts:
        never_accepts.bind(str(tmp_path / "deaf.sock"))
        never_accepts.listen()
        asyncio.run(scenario())


def test_a_method_that_the_protocol_has_no_number_for_is_a_500(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as at:
            assert (await at.get(method="PURGE")).status == 500

    asyncio.run(scenario())


def test_a_hundred_headers_at_most_are_shown_on_some_versions(tmp_path: Path) -> None:
    headers = [f"X-{number}: 1" for number in range(150)]

    async def scenario(version: str, shown: int) -> None:
        async with stage(tmp_path / version, version=version) as at:
            await at.get("/", *headers)
            [call] = at.calls()
            assert call.headers is not None
            assert len(call.headers) == shown

    for version, shown in (("3.10.0", 100), ("3.9.1", 152)):
        (tmp_path / version).mkdir()
        asyncio.run(scenario(version, shown))


def test_a_client_that_goes_away_costs_nothing_but_its_own_call(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(connection: int, frame: bytes) -> bytes:
        if frame[0] == CALL:
            await gate.wait()
        return await passing(connection, frame)

    async def scenario() -> None:
        async with stage(tmp_path, answer) as at:
            _, writer = await asyncio.open_connection("127.0.0.1", at.gateway.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while CALL not in at.runner.types():
                await asyncio.sleep(0.001)
            writer.close()
            gate.set()
            assert (await at.get()).status == 200

    asyncio.run(scenario())


def test_the_response_headers_of_a_rewrite_are_there_when_the_next_plugin_stops(tmp_path: Path) -> None:
    plugins: dict[str, Any] = {"ext-plugin-pre-req": {}, "ext-plugin-post-req": {}}
    rewrite = m.encode_http_req_call_resp(0, Rewrite(resp_headers=[("X-First", "1")]))

    async def scenario() -> None:
        async with stage(tmp_path, calls_with(rewrite, STOP), plugins) as at:
            response = await at.get()
            assert (response.text, response.get("x-first")) == ("stopped", "1")

    asyncio.run(scenario())
