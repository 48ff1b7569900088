"""What a gateway gets for a conf and a call, on a real socket from a real process."""

import threading

import pytest

from apisix.runner.wire.messages import (
    ErrorCode,
    decode_http_req_call_resp,
    encode_http_req_call_req,
    encode_prepare_conf_req,
)
from tests.server.connections import Connection, body_of, error_of, passes, rewrite_of, stop_of
from tests.server.processes import Runner

PLUGINS = """
class Hello(Base):
    def filter(self, request, response):
        response.headers["X-Hello"] = "there"
        self.stop(201, f"hello {self.config}")

class Looks(Base):
    def filter(self, request, response):
        list(request.headers.items()), list(request.args.items()), request.path, request.method, request.remote_addr

class Marks(Base):
    def filter(self, request, response):
        request.headers["X-Marks"] = request.headers.get("x-marks", "") + self.config

class Shows(Base):
    def filter(self, request, response):
        self.stop(200, f"{request.id} {request.method} {request.path} {request.args!r} {request.headers!r}")

class Asks(Base):
    def filter(self, request, response):
        self.stop(200, request.var("uri"))

class Rejects(Base):
    from dataclasses import dataclass

    @dataclass
    class Conf:
        rate: int

    def filter(self, request, response):
        pass

class Unready(Base):
    def setup(self):
        raise OSError("no such database: inventory")

    def filter(self, request, response):
        pass

class Unborn(Base):
    name = "unborn"

    def __init__(self):
        raise KeyError("missing")

    def filter(self, request, response):
        pass

class OnlyResponse(Base):
    def filter_response(self, request, response):
        pass
"""


def test_a_prepared_conf_answers_calls(gateway: Connection) -> None:
    token = gateway.prepare(("hello", '"world"'))
    stop = stop_of(gateway.call(token))
    assert (stop.status, stop.headers, stop.body) == (201, [("X-Hello", "there")], b"hello world")


@pytest.mark.parametrize("id", [0, 1, 2**32 - 1])
def test_the_answer_has_the_id_of_the_call(gateway: Connection, id: int) -> None:
    token = gateway.prepare(("looks", ""))
    assert decode_http_req_call_resp(gateway.call(token, id=id)).id == id


def test_a_call_that_changes_nothing_has_no_action(gateway: Connection) -> None:
    token = gateway.prepare(("looks", ""))
    assert passes(gateway.call(token, args=[("a", "1"), ("flag", None)], headers=[("x", "1"), ("x", "2")]))


def test_a_conf_without_plugins_lets_requests_pass(gateway: Connection) -> None:
    assert passes(gateway.call(gateway.prepare()))


def test_plugins_run_in_order_and_see_what_earlier_ones_changed(gateway: Connection) -> None:
    token = gateway.prepare(("marks", "a"), ("marks", "b"))
    assert rewrite_of(gateway.call(token)).headers == [("x-marks", "ab")]


def test_the_first_stop_ends_the_chain(gateway: Connection) -> None:
    token = gateway.prepare(("marks", "a"), ("hello", "1"), ("hello", "2"))
    assert body_of(gateway.call(token)) == "hello 1"


def test_everything_in_a_call_reaches_the_plugin(gateway: Connection) -> None:
    token = gateway.prepare(("shows", ""))
    answer = gateway.call(
        token, id=0, method="PATCH", path="/a/\udce9", args=[("q", "ü"), ("flag", None)], headers=[("x", "\udcff")]
    )
    body = stop_of(answer).body or b""
    assert body == b"0 PATCH /a/\xe9 <Args q=\xc3\xbc, flag=> <Headers x: \xff>"


def test_one_connection_serves_calls_of_different_confs(gateway: Connection) -> None:
    tokens = [gateway.prepare(("hello", name), key=f"route#{name}#ext-plugin-pre-req#1") for name in ("a", "b")]
    bodies = [body_of(gateway.call(token)) for token in tokens * 2]
    assert bodies == ["hello a", "hello b"] * 2


def test_the_same_conf_has_the_same_token_on_every_connection(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("hello", "1"), key="route#1#ext-plugin-pre-req#17")
    with runner.connect() as other:
        assert other.prepare(("hello", "1"), key="route#1#ext-plugin-pre-req#18") == token != 0


def test_a_conf_of_a_gateway_without_keys_is_prepared(gateway: Connection) -> None:
    assert body_of(gateway.call(gateway.prepare(("hello", "2.7"), key=None))) == "hello 2.7"


def test_an_unknown_token_is_error_2_and_the_connection_goes_on(gateway: Connection) -> None:
    assert error_of(gateway.call(12345)) is ErrorCode.CONF_TOKEN_NOT_FOUND
    assert passes(gateway.call(gateway.prepare()))


def test_a_connection_that_carried_no_frame_is_as_good_as_any(runner: Runner, gateway: Connection) -> None:
    with runner.connect() as idle:
        token = gateway.prepare(("hello", "1"))
        assert body_of(idle.call(token)) == "hello 1"


def test_a_conf_is_prepared_while_a_call_waits_on_another_connection(runner: Runner, gateway: Connection) -> None:
    gateway.start_call(gateway.prepare(("asks", "")))
    with runner.connect() as other:
        assert passes(other.call(other.prepare()))
    assert body_of(gateway.finish({"uri": b"/late"})) == "/late"


def test_connections_are_served_side_by_side(runner: Runner) -> None:
    failures: list[str] = []

    def converse(name: str) -> None:
        with runner.connect() as connection:
            token = connection.prepare(("hello", name))
            for _ in range(50):
                body = body_of(connection.call(token))
                if body != f"hello {name}":
                    failures.append(body)

    threads = [threading.Thread(target=converse, args=(f"n{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("nobody", "", "plugin 'nobody': unknown plugin, loaded are: Asks, Hello,"),
        ("helo", "", "did you mean 'Hello'?"),
        ("rejects", '{"rate": "high"}', "plugin 'rejects': conf $.rate: expected int, got str"),
        ("rejects", "rate: 1", "plugin 'rejects': conf $: expected a JSON object, got text that is not JSON"),
        ("unready", "", "plugin 'unready': setup failed: OSError: no such database: inventory"),
        ("unborn", "", "plugin 'unborn': plugin class Unborn: __init__ failed: KeyError: 'missing'"),
        ("only_response", "", "plugin 'only_response': has no filter: it cannot run in ext-plugin-pre-req"),
    ],
)
def test_a_conf_that_cannot_be_prepared_is_an_error_and_one_line_that_says_why(
    runner: Runner, gateway: Connection, name: str, value: str, problem: str
) -> None:
    since = len(runner.log)
    key = f"route#{name}{len(value)}#ext-plugin-pre-req#1"
    assert error_of(gateway.exchange(encode_prepare_conf_req([(name, value)], key))) is ErrorCode.SERVICE_UNAVAILABLE
    line = runner.log.wait_for(f"route#{name}{len(value)}", since)
    assert "ERROR" in line
    assert problem in line
    assert passes(gateway.call(gateway.prepare())), "the connection goes on"
    assert runner.log.text(since).count(f"route#{name}{len(value)}") == 1


def test_a_setup_that_failed_is_not_tried_again_for_each_request(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    frame = encode_prepare_conf_req([("unready", "often")], "route#often#ext-plugin-pre-req#1")
    for _ in range(5):
        assert error_of(gateway.exchange(frame)) is ErrorCode.SERVICE_UNAVAILABLE
    assert runner.log.text(since).count("setup failed: OSError") == 1


def test_a_conf_value_may_be_any_bytes(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("hello", "\udce9\udcff"))
    assert stop_of(gateway.call(token)).body == b"hello \xe9\xff"
    answer = gateway.exchange(
        encode_prepare_conf_req([("rejects", '{"rate": "\udce9"}')], "route#bytes#ext-plugin-pre-req#1")
    )
    assert error_of(answer) is ErrorCode.SERVICE_UNAVAILABLE
    assert "plugin 'rejects': conf $" in runner.log.wait_for("route#bytes")


def test_conf_values_are_not_logged(runner: Runner, gateway: Connection) -> None:
    gateway.exchange(encode_prepare_conf_req([("rejects", '{"rate": "s3cret"}')], "route#x#ext-plugin-pre-req#1"))
    gateway.call(gateway.prepare(("hello", '"s3cret"')))
    runner.log.wait_for("route#x")
    assert "s3cret" not in runner.log.text()


def test_calls_of_a_method_that_has_no_name_are_refused(gateway: Connection) -> None:
    token = gateway.prepare(("shows", ""))
    frame = encode_http_req_call_req(7, b"\x7f\x00\x00\x01", 99, "/", [], [], token)
    assert error_of(gateway.exchange(frame)) is ErrorCode.BAD_REQUEST
