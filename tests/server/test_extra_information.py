"""Variables and bodies: asked of the gateway while the call is open, on its own connection."""

from itertools import product

import pytest

from apisix.runner.wire.frame import FrameType
from apisix.runner.wire.messages import (
    ErrorCode,
    ExtraInfoReq,
    InfoKind,
    decode_extra_info_req,
    encode_error,
    encode_extra_info_resp,
    encode_http_req_call_resp,
)
from tests.server.connections import Connection, body_of, error_of, passes, stop_of
from tests.server.processes import Runner

PLUGINS = """
class Var(Base):
    def filter(self, request, response):
        if "x-quick" in request.headers:
            return self.stop(200, threading.current_thread().name)
        self.stop(200, ascii([request.var(name) for name in self.config]))

class VarAsync(Base):
    async def filter(self, request, response):
        self.stop(200, ascii([await request.read_var(name) for name in self.config]))

class Vars(Base):
    def filter(self, request, response):
        self.stop(200, ascii(request.vars(*self.config)))

class VarsAsync(Base):
    async def filter(self, request, response):
        self.stop(200, ascii(await request.read_vars(*self.config)))

class Gathers(Base):
    async def filter(self, request, response):
        values = await asyncio.gather(*[request.read_var(name) for name in self.config])
        self.stop(200, ascii(values))

class Declares(Base):
    variables = ["uri", "host"]

    def filter(self, request, response):
        self.stop(200, ascii([request.var("uri"), request.var("host")]))

class DeclaresAsync(Base):
    variables = ("uri", "host")

    async def filter(self, request, response):
        self.stop(200, ascii([await request.read_var("uri"), await request.read_var("host")]))

class Body(Base):
    def filter(self, request, response):
        self.stop(200, ascii(request.body if request.body == request.body else None))

class BodyAsync(Base):
    async def filter(self, request, response):
        await request.read_body()
        self.stop(200, ascii(await request.read_body()))

class Length(Base):
    def filter(self, request, response):
        self.stop(200, str(len(request.body)))

class Json(Base):
    def filter(self, request, response):
        self.stop(200, ascii(request.json()))

class AsksFirst(Base):
    def filter(self, request, response):
        request.state.seen = [request.var("a")]

class AsksSecond(Base):
    async def filter(self, request, response):
        request.state.seen.append(await request.read_var("b"))

class AsksThird(Base):
    def filter(self, request, response):
        self.stop(200, ascii([*request.state.seen, request.var("c")]))

class Untouched(Base):
    def filter(self, request, response):
        pass

class WrongColour(Base):
    async def filter(self, request, response):
        request.var("uri")

class WrongColourToo(Base):
    def filter(self, request, response):
        coroutine = request.read_var("uri")
        try:
            coroutine.send(None)
        finally:
            coroutine.close()

class Impatient(Base):
    async def filter(self, request, response):
        try:
            await asyncio.wait_for(request.read_var("late"), 0.05)
        except TimeoutError:
            self.stop(200, "gave up waiting")

class Keeps(Base):
    kept = []

    def filter(self, request, response):
        if not self.kept:
            self.kept.append(request)
            return
        try:
            self.kept.pop().var("uri")
        except GatewayError as error:
            self.stop(200, str(error))

class AsksInThreads(Base):
    def filter(self, request, response):
        failures = []

        def ask(name):
            try:
                request.var(name)
            except BaseException as error:
                failures.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.stop(200, ascii([failures, request.var("a"), request.var("b")]))
"""
FLAGS = ["--timeout", "1.5"]

BOTH = pytest.mark.parametrize("colour", ["", "_async"])


def promote(connection: Connection, token: int) -> None:
    """Call a chain, asking for nothing, until the I/O thread runs it."""
    for _ in range(1000):
        if body_of(connection.call(token, headers=[("x-quick", "1")])) == "io":
            return
    raise AssertionError("the chain is not promoted to the inline lane")


# What is answered.


@BOTH
@pytest.mark.parametrize(
    ("value", "seen"),
    [(b"/a", "['/a']"), (b"", "['']"), (None, "[None]"), ("ü".encode(), r"['\xfc']"), (b"\xff", r"['\udcff']")],
)
def test_a_variable_is_text_empty_or_none(gateway: Connection, colour: str, value: bytes | None, seen: str) -> None:
    token = gateway.prepare((f"var{colour}", '["uri"]'))
    assert body_of(gateway.call(token, {"uri": value})) == seen


@BOTH
def test_a_variable_is_asked_once_a_call(gateway: Connection, colour: str) -> None:
    token = gateway.prepare((f"var{colour}", '["a", "b", "a", "b"]'), (f"var{colour}", '["a"]'))
    for _ in range(2):
        assert body_of(gateway.call(token, {"a": b"1"})) == "['1', None, '1', None]"
    assert gateway.asked_names == ["a", "b"] * 2


@BOTH
def test_several_variables_travel_in_one_round_trip(gateway: Connection, colour: str) -> None:
    token = gateway.prepare((f"vars{colour}", '["a", "b", "a"]'))
    gateway.start_call(token)
    asks = [decode_extra_info_req(gateway.receive()) for _ in range(2)]
    assert [ask.name for ask in asks] == ["a", "b"]
    gateway.send(encode_extra_info_resp(b"1") + encode_extra_info_resp(None))
    assert body_of(gateway.receive()) == "{'a': '1', 'b': None}"


def test_coroutines_may_ask_side_by_side(gateway: Connection) -> None:
    token = gateway.prepare(("gathers", '["a", "b", "c"]'))
    for _ in range(3):
        assert body_of(gateway.call(token, {"a": b"1", "b": b"2", "c": b"3"})) == "['1', '2', '3']"


@BOTH
def test_declared_variables_are_asked_before_the_plugin_runs(gateway: Connection, colour: str) -> None:
    gateway.start_call(gateway.prepare((f"declares{colour}", "")))
    assert [decode_extra_info_req(gateway.receive()).name for _ in range(2)] == ["uri", "host"]
    gateway.send(encode_extra_info_resp(b"/") + encode_extra_info_resp(b"h"))
    assert body_of(gateway.receive()) == "['/', 'h']"


@BOTH
@pytest.mark.parametrize("body", [b"text", b"", None, bytes(range(256))])
def test_a_body_is_any_bytes_empty_or_none_and_asked_once(gateway: Connection, colour: str, body: bytes | None) -> None:
    token = gateway.prepare((f"body{colour}", ""))
    assert body_of(gateway.call(token, {InfoKind.REQ_BODY: body})) == ascii(body)
    assert gateway.asked == [ExtraInfoReq(InfoKind.REQ_BODY)]


@pytest.mark.parametrize("size", [70_000, 5 << 20])
def test_a_large_body_is_read_whole(gateway: Connection, size: int) -> None:
    assert body_of(gateway.call(gateway.prepare(("length", "")), {InfoKind.REQ_BODY: bytes(size)})) == str(size)


def test_a_json_body_is_decoded(gateway: Connection) -> None:
    token = gateway.prepare(("json", ""))
    assert body_of(gateway.call(token, {InfoKind.REQ_BODY: b'{"a": [1]}'})) == "{'a': [1]}"


def test_what_is_not_used_is_not_asked(gateway: Connection) -> None:
    assert passes(gateway.call(gateway.prepare(("untouched", ""))))
    assert gateway.asked == []


def test_an_answer_may_come_byte_by_byte(gateway: Connection) -> None:
    gateway.start_call(gateway.prepare(("vars", '["a", "b"]')))
    gateway.receive(), gateway.receive()
    for byte in encode_extra_info_resp(b"1") + encode_extra_info_resp(b"2"):
        gateway.send(bytes([byte]))
    assert body_of(gateway.receive()) == "{'a': '1', 'b': '2'}"


def test_plugins_of_both_colours_ask_in_one_chain(gateway: Connection) -> None:
    token = gateway.prepare(("asks_first", ""), ("asks_second", ""), ("asks_third", ""))
    assert body_of(gateway.call(token, {"a": b"1", "b": b"2", "c": b"3"})) == "['1', '2', '3']"


@pytest.mark.parametrize(("plugin", "instead"), [("wrong_colour", "await"), ("wrong_colour_too", "request.var")])
def test_the_wrong_colour_of_a_call_is_an_error_that_names_the_right_one(
    runner: Runner, gateway: Connection, plugin: str, instead: str
) -> None:
    since = len(runner.log)
    assert error_of(gateway.call(gateway.prepare((plugin, "")))) is ErrorCode.SERVICE_UNAVAILABLE
    assert instead in runner.log.event("WrongColour", since)
    assert gateway.asked == []


def test_a_body_larger_than_any_frame_is_not_asked_for(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    answer = gateway.call(gateway.prepare(("body", "")), headers=[("content-length", str(1 << 24))])
    assert error_of(answer) is ErrorCode.SERVICE_UNAVAILABLE
    assert "look at the content-length header before you ask for a body" in runner.log.event("request 7", since)
    assert gateway.asked == []


# What is not answered.

NONSENSE = {
    "a frame of type 2": encode_http_req_call_resp(1, None),
    "a frame of type 0": encode_error(1),
    "a malformed frame": bytes([FrameType.EXTRA_INFO, 0, 0, 4]) + b"\xff" * 4,
}


@BOTH
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_costs_that_call_and_its_connection(
    runner: Runner, gateway: Connection, colour: str, what: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((f"var{colour}", '["uri"]'))
    gateway.start_call(token)
    gateway.receive()
    assert error_of(gateway.exchange(NONSENSE[what])) is ErrorCode.SERVICE_UNAVAILABLE
    assert gateway.gets_closed()
    assert f"answered extra information with {what}" in runner.log.event("request 7", since)
    with runner.connect() as other:
        assert body_of(other.call(token, {"uri": b"/"})) == "['/']"


@BOTH
def test_more_answers_than_asked_for_cost_that_call_and_its_connection(
    runner: Runner, gateway: Connection, colour: str
) -> None:
    since = len(runner.log)
    gateway.start_call(gateway.prepare((f"var{colour}", '["uri"]')))
    gateway.receive()
    assert error_of(gateway.exchange(encode_extra_info_resp(b"1") * 2)) is ErrorCode.SERVICE_UNAVAILABLE
    assert gateway.gets_closed()
    assert "more than it was asked for" in runner.log.event("request 7", since)


@BOTH
def test_a_gateway_that_closes_the_connection_is_told_to_be_too_old(
    runner: Runner, gateway: Connection, colour: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((f"var{colour}", '["uri"]'))
    gateway.start_call(token, id=2007)
    gateway.receive()
    gateway.close()
    event = runner.log.event("request 2007", since)
    assert "closed the connection when asked for variable 'uri': APISIX answers that from 2.9 on" in event
    assert f"plugin 'var{colour}'" in event
    with runner.connect() as other:
        assert body_of(other.call(token, {"uri": b"/"})) == "['/']"


def test_a_gateway_that_does_not_know_bodies_is_told_to_be_too_old(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    gateway.start_call(gateway.prepare(("body", "")), id=2011)
    gateway.receive()
    gateway.close()
    assert "asked for the request's body: APISIX answers that from 2.12 on" in runner.log.event("request 2011", since)


def test_silence_costs_each_call_when_its_deadline_has_passed(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    silent: list[Connection] = []
    for name, beginning in product(("var", "var_async"), (b"", b"\x03", b"\x03\xff\xff\xff")):
        connection = runner.connect()
        connection.start_call(connection.prepare((name, '["uri"]')), id=60 + len(silent))
        connection.receive()
        connection.send(beginning)
        silent.append(connection)
    promote(gateway, gateway.prepare(("var", '["inline"]')))
    gateway.start_call(gateway.prepare(("var", '["inline"]')), id=60 + len(silent))
    gateway.receive()
    silent.append(gateway)
    with runner.connect() as other:
        for name in ("var", "var_async"):
            assert body_of(other.call(other.prepare((name, '["uri"]')), {"uri": b"/"})) == "['/']", "others go on"
    for number, connection in enumerate(silent):
        assert error_of(connection.receive()) is ErrorCode.SERVICE_UNAVAILABLE
        assert connection.gets_closed()
        assert "deadline" in runner.log.event(f"request {60 + number}", since)
        connection.close()


# In the inline lane.


def test_a_call_in_the_inline_lane_gives_up_the_lead_while_it_waits(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("var", '["uri"]'))
    promote(gateway, token)
    gateway.start_call(token)
    gateway.receive()
    with runner.connect() as other:
        for _ in range(50):
            assert passes(other.call(other.prepare(("untouched", ""))))
        assert body_of(other.call(token, {"uri": b"/other"})) == "['/other']"
    gateway.send(encode_extra_info_resp(b"/late"))
    assert body_of(gateway.finish()) == "['/late']"
    assert body_of(gateway.call(token, {"uri": b"/again"})) == "['/again']", "the connection goes on"


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_in_the_inline_lane_costs_that_call_alone(runner: Runner, gateway: Connection, what: str) -> None:
    token = gateway.prepare(("var", '["uri"]'))
    promote(gateway, token)
    gateway.start_call(token)
    gateway.receive()
    assert error_of(gateway.exchange(NONSENSE[what])) is ErrorCode.SERVICE_UNAVAILABLE
    assert gateway.gets_closed()
    with runner.connect() as other:
        assert body_of(other.call(token, {"uri": b"/"})) == "['/']"


def test_a_connection_closed_in_the_inline_lane_costs_that_call_alone(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    token = gateway.prepare(("var", '["uri"]'))
    promote(gateway, token)
    gateway.start_call(token, id=207)
    gateway.receive()
    gateway.close()
    assert "APISIX answers that from 2.9 on" in runner.log.event("request 207", since)
    with runner.connect() as other:
        assert body_of(other.call(token, {"uri": b"/"})) == "['/']"


# Answers that come when nobody waits for them.


def test_an_answer_that_a_plugin_did_not_wait_for_reaches_no_other_call(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("impatient", ""))
    gateway.start_call(token)
    gateway.receive()
    assert body_of(gateway.receive()) == "gave up waiting"
    gateway.send_while_open(encode_extra_info_resp(b"late"))
    assert gateway.gets_closed(), "the next call would read what is left of this one"


def test_a_request_that_a_plugin_keeps_cannot_ask_when_its_call_is_answered(
    runner: Runner, gateway: Connection
) -> None:
    token = gateway.prepare(("keeps", ""))
    assert passes(gateway.call(token))
    with runner.connect() as other:
        assert "the call is answered" in body_of(other.call(token))
    assert gateway.is_silent()


def test_threads_of_a_plugin_that_ask_at_once_do_not_read_each_others_answers(gateway: Connection) -> None:
    token = gateway.prepare(("asks_in_threads", ""))
    for _ in range(20):
        assert body_of(gateway.call(token, {"a": b"1", "b": b"2"})) == "[[], '1', '2']"
    assert stop_of(gateway.call(token, {"a": b"1", "b": b"2"})).status == 200
