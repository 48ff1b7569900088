"""What a call is sure to ask for is asked before it runs: declared, or learned from the calls before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.server.early import CALLS_TO_LEARN, Habits
from apisix.runner.wire.frame import FrameType
from apisix.runner.wire.messages import (
    ErrorCode,
    ExtraInfoReq,
    InfoKind,
    decode_extra_info_req,
    encode_error,
    encode_extra_info_resp,
)
from tests.server.connections import Connection, body_of, error_of, failed_closed, response_of, stop_of
from tests.server.load import Load
from tests.server.processes import Runner, Start

A = ExtraInfoReq(InfoKind.VAR, "a")
B = ExtraInfoReq(InfoKind.VAR, "b")
PLUGINS = """
class Two(Base):
    def filter(self, request, response):
        a = request.var("a")
        self.stop(200, f"{threading.current_thread().name} {a} {request.var('b')}")

class TwoAsync(Base):
    async def filter(self, request, response):
        a = await request.read_var("a")
        self.stop(200, f"loop {a} {await request.read_var('b')}")

class Body(Base):
    needs_body = True

    def filter(self, request, response):
        self.stop(200, f"{threading.current_thread().name} {len(request.body or b'')}")

class LooksFirst(Base):
    def filter(self, request, response):
        self.stop(200, f"{threading.current_thread().name} {len(request.body or b'')}")

class Maybe(Base):
    def filter(self, request, response):
        self.stop(200, request.var("a") if "x-ask" in request.headers else "not asked")

class Declares(Base):
    variables = ["a", "b"]

    def filter(self, request, response):
        self.stop(200, f"{request.var('a')} {request.var('b')}")

class Respond(Base):
    def filter_response(self, request, response):
        response.headers["X-Added"] = "yes"

class Masks(Base):
    def filter_response(self, request, response):
        response.body = response.body.replace(b"secret", b"******")
"""
FLAGS = ("--timeout", "1.5", "--gateway-version", "3.18.0", "--limits-pending-bytes", "1MiB")
ANSWERS: dict[str | InfoKind, bytes | None] = {"a": b"1", "b": b"2", "request_method": b"GET"}
LEARNED = CALLS_TO_LEARN + 10  # calls after which a quick chain that asks is inline too


def learn(gateway: Connection, name: str, answers: dict[str | InfoKind, bytes | None] = ANSWERS) -> int:
    """Prepare a conf of a plugin and make its calls a habit. Returns the token."""
    token = gateway.prepare((name, ""), key=f"route#{name}#ext-plugin-pre-req#1")
    for _ in range(LEARNED):
        gateway.call(token, answers)
    gateway.asked.clear()
    return token


def asked_at_once(gateway: Connection) -> list[ExtraInfoReq]:
    """What the runner asks before it has an answer to anything."""
    return [decode_extra_info_req(gateway.receive()), decode_extra_info_req(gateway.receive())]


# Habits.


def test_what_is_asked_four_times_in_a_row_is_a_habit() -> None:
    habits = Habits()
    for _ in range(3):
        habits.told([A], [])
        assert not habits.asks
    habits.told([A], [])
    assert habits.asks == (A,)


def test_a_call_that_does_not_ask_breaks_the_row() -> None:
    habits = Habits()
    for _ in range(3):
        habits.told([A], [])
    habits.told([], [])
    habits.told([A], [])
    assert not habits.asks


def test_a_habit_that_goes_unread_is_given_up_and_takes_longer_to_come_back() -> None:
    habits = Habits()
    for _ in range(4):
        habits.told([A], [])
    for _ in range(3):
        habits.told([], [A])
    assert not habits.asks
    for _ in range(15):
        habits.told([A], [])
        assert not habits.asks
    habits.told([A], [])
    assert habits.asks == (A,)


def test_a_habit_that_seldom_goes_unread_is_kept() -> None:
    habits = Habits()
    for _ in range(4):
        habits.told([A], [])
    for call in range(1000):
        habits.told([], [A] if call % 6 == 0 else [])
        assert habits.asks == (A,)


def test_what_is_declared_is_never_given_up() -> None:
    habits = Habits((A,))
    for _ in range(100):
        habits.told([], [A])
    assert habits.asks == (A,)


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_whatever_calls_do_each_ask_stands_once_and_the_declared_first(calls: list[tuple[bool, bool]]) -> None:
    habits = Habits((A,))
    for late, unread in calls:
        learned = B in habits.asks
        habits.told([B] if late and not learned else [], [B] if unread and learned else [])
        assert habits.asks in ((A,), (A, B))
        assert habits.awake >= (len(habits.asks) > 1)


# Calls.


@pytest.mark.parametrize("name", ["two", "two_async", "declares"])
def test_both_are_asked_in_one_round_trip(gateway: Connection, name: str) -> None:
    token = learn(gateway, name)
    gateway.start_call(token)
    assert asked_at_once(gateway) == [A, B]
    gateway.send(encode_extra_info_resp(b"3") + encode_extra_info_resp(None))
    assert body_of(gateway.receive()).endswith("3 None")


def test_the_plugin_runs_on_the_thread_that_polls(gateway: Connection) -> None:
    token = learn(gateway, "two")
    assert body_of(gateway.call(token, ANSWERS)) == "io 1 2"


def test_a_body_in_pieces_is_told_too(gateway: Connection) -> None:
    token = learn(gateway, "body", {InfoKind.REQ_BODY: b"x" * 1000})
    gateway.start_call(token)
    assert decode_extra_info_req(gateway.receive()).kind == InfoKind.REQ_BODY
    told = encode_extra_info_resp(b"x" * 300_000)
    for start in range(0, len(told), 100_000):
        gateway.send(told[start : start + 100_000])
    assert body_of(gateway.receive()) == "io 300000"


def test_a_requests_body_is_not_learned(gateway: Connection) -> None:
    token = learn(gateway, "looks_first", {InfoKind.REQ_BODY: b"x"})
    assert not body_of(gateway.call(token, {InfoKind.REQ_BODY: b"x"})).startswith("io")


def test_a_body_that_cannot_be_carried_is_not_asked_for(gateway: Connection) -> None:
    token = learn(gateway, "body", {InfoKind.REQ_BODY: b"x"})
    frame = gateway.call(token, headers=[("content-length", str(1 << 24))])
    assert error_of(frame) == ErrorCode.SERVICE_UNAVAILABLE
    assert gateway.asked == []


def test_what_calls_do_not_read_any_more_is_not_asked_any_more(gateway: Connection) -> None:
    token = gateway.prepare(("maybe", ""))
    for _ in range(LEARNED):
        assert body_of(gateway.call(token, ANSWERS, headers=[("x-ask", "")])) == "1"
    for _ in range(5):
        assert body_of(gateway.call(token, ANSWERS)) == "not asked"
    gateway.asked.clear()
    assert body_of(gateway.call(token, ANSWERS)) == "not asked"
    assert gateway.asked == []
    assert body_of(gateway.call(token, ANSWERS, headers=[("x-ask", "")])) == "1"


def test_the_method_of_a_response_is_asked_before(gateway: Connection) -> None:
    token = gateway.prepare(("respond", ""), key="route#1#ext-plugin-post-resp#1")
    for _ in range(LEARNED):
        answer = response_of(gateway.response_call(token, ANSWERS))
        assert dict(answer.headers or ()) == {"X-Upstream": "yes", "X-Added": "yes"}
    assert {ask.name for ask in gateway.asked} == {"request_method"}


def test_the_body_of_a_response_is_asked_once(gateway: Connection) -> None:
    token = gateway.prepare(("masks", ""), key="route#1#ext-plugin-post-resp#1")
    for _ in range(LEARNED):
        gateway.asked.clear()
        answer = response_of(gateway.response_call(token, {InfoKind.RESP_BODY: b"a secret"}))
        assert answer.body == b"a ******"
        assert [ask.kind for ask in gateway.asked] == [InfoKind.RESP_BODY]


# What goes wrong.


def test_a_gateway_that_does_not_answer_costs_the_call_at_its_deadline(runner: Runner, gateway: Connection) -> None:
    token = learn(gateway, "two")
    since = len(runner.log)
    gateway.start_call(token, id=31)
    assert asked_at_once(gateway) == [A, B]
    assert error_of(gateway.receive()) == ErrorCode.SERVICE_UNAVAILABLE
    assert gateway.gets_closed()
    line = runner.log.wait_for("request 31", since)
    assert "before plugin 'two' ran: the gateway did not answer extra information before the call's deadline" in line


def test_a_gateway_that_goes_away_costs_the_call(runner: Runner, gateway: Connection) -> None:
    token = learn(gateway, "two")
    since = len(runner.log)
    gateway.start_call(token, id=32)
    gateway.receive()
    gateway.close()
    assert "closed the connection when asked for variable 'a'" in runner.log.wait_for("request 32", since)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (encode_error(ErrorCode.BAD_REQUEST), "with a frame of type 0, not 3"),
        (encode_extra_info_resp(b"") * 3, "bytes more than it was asked for"),
        (bytes([FrameType.EXTRA_INFO, 0, 0, 4, 255, 255, 255, 255]), "with a malformed frame"),
    ],
)
def test_an_answer_that_is_none_costs_the_call_and_its_connection(
    runner: Runner, gateway: Connection, told: bytes, problem: str
) -> None:
    token = learn(gateway, "two")
    since = len(runner.log)
    gateway.start_call(token, id=33)
    assert asked_at_once(gateway) == [A, B]
    gateway.send(told)
    assert error_of(gateway.receive()) == ErrorCode.SERVICE_UNAVAILABLE
    assert gateway.gets_closed()
    assert problem in runner.log.wait_for("request 33", since)


def test_in_the_response_phase_it_fails_closed(gateway: Connection) -> None:
    token = gateway.prepare(("masks", ""), key="route#2#ext-plugin-post-resp#1")
    for _ in range(LEARNED):
        gateway.response_call(token, {InfoKind.RESP_BODY: b"a secret"})
    gateway.start_response_call(token)
    gateway.receive()
    gateway.send(encode_error(ErrorCode.BAD_REQUEST))
    assert failed_closed(gateway.receive())


def test_bodies_that_are_not_whole_count_as_held(runner: Runner, gateway: Connection) -> None:
    token = learn(gateway, "body", {InfoKind.REQ_BODY: b"x"})
    since = len(runner.log)
    gateway.start_call(token, id=34)
    gateway.receive()
    gateway.send_while_open(encode_extra_info_resp(b"x" * (4 << 20)))
    assert error_of(gateway.receive()) == ErrorCode.SERVICE_UNAVAILABLE
    assert "limits.pending_bytes" in runner.log.wait_for("request 34", since)
    with runner.connect() as other:
        assert body_of(other.call(token, {InfoKind.REQ_BODY: b"x" * 900_000})) == "io 900000", (
            "nothing is held any more"
        )


@pytest.mark.parametrize("way", ["reload", "stop"])
def test_a_call_that_waits_to_be_told_is_answered_over_a_reload_and_a_stop(start: Start, way: str) -> None:
    runner = start(PLUGINS)
    with runner.connect() as gateway:
        token = learn(gateway, "two")
        gateway.start_call(token)
        assert asked_at_once(gateway) == [A, B]
        runner.signal(1 if way == "reload" else 15)
        runner.log.wait_for("draining: 1 connections, 1 open calls")
        gateway.send(encode_extra_info_resp(b"1") + encode_extra_info_resp(b"2"))
        assert stop_of(gateway.receive()).body == b"io 1 2"


def test_a_load_of_calls_that_ask_is_answered_over_reloads(start: Start) -> None:
    runner = start(PLUGINS)
    with runner.connect() as gateway:
        learn(gateway, "declares")
    with Load(runner.path, ("declares", ""), connections=8) as load:
        for _ in range(3):
            since = len(runner.log)
            runner.signal(1)
            runner.log.wait_for("reloaded: generation", since)
            load.wait_for_more()
    assert load.failures == []
