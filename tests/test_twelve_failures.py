"""Twelve failures that other runners had in production, each with the test that fails if it comes here.

Every test talks to a runner process over its socket, as the gateway does, and quotes the failure in its docstring.
"""

import os
import select
import signal
import stat
from collections.abc import Iterator

import pytest

from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.frame import MAX_BODY, FrameType
from apisix.runner.wire.messages import (
    ErrorCode,
    InfoKind,
    decode_http_req_call_resp,
    encode_http_req_call_req,
    encode_prepare_conf_req,
)
from tests.server.connections import (
    Connection,
    body_of,
    error_of,
    failed_closed,
    passes,
    response_of,
    rewrite_of,
    stop_of,
)
from tests.server.processes import Runner

PLUGINS = '''
from dataclasses import dataclass

class Says(Base):
    def filter(self, request, response):
        self.stop(200, self.config)

class Raises(Base):
    def filter(self, request, response):
        raise ZeroDivisionError
    def filter_response(self, request, response):
        raise ZeroDivisionError

class Typed(Base):
    @dataclass
    class Conf:
        limit: int
    def filter(self, request, response):
        pass

class Looks(Base):
    def filter(self, request, response):
        request.path, list(request.args.items()), list(request.headers.items()), list(response.headers.items())
    def filter_response(self, request, response):
        list(response.headers.items())

class SetsOneHeader(Base):
    def filter(self, request, response):
        list(request.args.items()), list(request.headers.items())
        request.headers["X-Set"] = "1"
    def filter_response(self, request, response):
        response.headers["X-Set"] = "1"

class Repeats(Base):
    """Answers with every value that it got."""
    def filter(self, request, response):
        headers = [("X-Header", value) for value in request.headers.getall("x")]
        args = [("X-Arg", value) for value in request.args.getall("a")]
        self.stop(200, request.body, headers=headers + args)

class Counts(Base):
    """Counts how often its conf is parsed and its plugins are set up."""
    parsed = set_up = 0
    @dataclass
    class Conf:
        limit: int
        def __post_init__(self):
            Counts.parsed += 1
    def setup(self):
        Counts.set_up += 1
    def teardown(self):
        print("a conf was let go", flush=True)
    def filter(self, request, response):
        self.stop(200, f"{self.parsed} {self.set_up}")

class AnswersWithBytes(Base):
    def filter(self, request, response):
        self.stop(200, b"x" * self.config)

seconds_ahead = 0
monotonic = time.monotonic
time.monotonic = lambda: monotonic() + seconds_ahead

def go_ahead(seconds):
    global seconds_ahead
    seconds_ahead += seconds

class TimePasses(Base):
    """Sets the process's clock ahead, once its call is over."""
    def filter(self, request, response):
        self.after(go_ahead, self.config)
'''

HURRY = """
import socket

settimeout = socket.socket.settimeout
socket.socket.settimeout = lambda self, seconds: settimeout(self, seconds and seconds / 1000)
"""
"""Makes every timeout of a socket a thousand times shorter in the worker."""


@pytest.fixture(scope="module")
def shared_runner() -> Iterator[Runner]:
    with Runner(PLUGINS) as runner:
        yield runner.wait_until_ready()


@pytest.fixture
def gateway(shared_runner: Runner) -> Iterator[Connection]:
    """A connection to a runner that all tests share which do not change it."""
    with shared_runner.connect() as connection:
        yield connection


RESPONSE_KEY = "route#1#ext-plugin-post-resp#1"


def test_1_an_error_has_the_type_of_errors(gateway: Connection) -> None:
    """Errors sent with the request's type, so that auth plugins were skipped silently."""
    failed = gateway.call(gateway.prepare(("raises", "")))
    assert (failed[0], error_of(failed)) == (FrameType.ERROR, ErrorCode.SERVICE_UNAVAILABLE)
    unprepared = gateway.exchange(encode_prepare_conf_req([("no_such_plugin", "")], "route#1#ext-plugin-pre-req#1"))
    assert (unprepared[0], error_of(unprepared)) == (FrameType.ERROR, ErrorCode.SERVICE_UNAVAILABLE)
    unknown = gateway.call(123456)
    assert (unknown[0], error_of(unknown)) == (FrameType.ERROR, ErrorCode.CONF_TOKEN_NOT_FOUND)


def test_2_a_call_with_id_0_is_a_call(gateway: Connection) -> None:
    """`id` 0 treated as "no id": the first request of nginx worker 0 skipped its plugin."""
    says = gateway.call(gateway.prepare(("says", "hello")), id=0)
    assert (body_of(says), decode_http_req_call_resp(says).id) == ("hello", 0)
    assert rewrite_of(gateway.call(gateway.prepare(("sets_one_header", "")), id=0)).headers == [("x-set", "1")]


def test_3_a_frame_may_come_in_pieces_and_an_argument_without_a_value(gateway: Connection) -> None:
    """One `recv` taken for a whole frame; an argument without value crashed the call: a 60 s hang, then 503."""
    token = gateway.prepare(("sets_one_header", ""))
    args: list[Pair] = [("bare", None), ("empty", "")]
    frame = encode_http_req_call_req(1, b"\x7f\x00\x00\x01", 0, "/", args, [("x", "1" * 70_000)], token)
    for start, end in ((0, 1), (1, 3), (3, 4), (4, 5), (5, 40_000), (40_000, len(frame))):
        assert gateway.is_silent()
        gateway.send(frame[start:end])
    assert rewrite_of(gateway.receive()).headers == [("x-set", "1")]


def test_4_a_token_means_the_same_conf_for_ever() -> None:
    """Tokens counted from 1: after a restart, another route's conf was run."""
    with Runner(PLUGINS) as first:
        with first.wait_until_ready().connect() as gateway:
            one = gateway.prepare(("says", "one"), key="route#1#ext-plugin-pre-req#1")
        first.signal(signal.SIGKILL)
        first.wait()
        with Runner(PLUGINS, socket_path=first.path) as second, second.wait_until_ready().connect() as gateway:
            two = gateway.prepare(("says", "two"), key="route#2#ext-plugin-pre-req#1")
            assert one != two
            assert body_of(gateway.call(one)) == "one"
            assert gateway.prepare(("says", "one"), key="route#1#ext-plugin-pre-req#9") == one


def test_5_an_idle_connection_stays_open() -> None:
    """Idle connections closed after 60 s, under a gateway that pools them for 180 s."""
    with (
        Runner(PLUGINS + HURRY, "--hang-timeout", "0") as runner,
        runner.wait_until_ready().connect() as gateway,
        runner.connect() as idle,
    ):
        token = idle.prepare(("says", "still here"))
        assert body_of(idle.call(token)) == "still here"
        assert passes(gateway.call(gateway.prepare(("time_passes", "179"))))
        closed, _, _ = select.select([idle.sock], [], [], 0.5)
        assert not closed
        assert body_of(idle.call(token)) == "still here"


def test_6_bytes_stay_bytes_and_repeated_entries_stay(gateway: Connection) -> None:
    """Bodies and values decoded as one character per byte; repeated headers and arguments collapsed into one."""
    body = bytes(range(256))
    wild = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    utf_8 = "größe"
    entries: list[Pair] = [("x", wild), ("x", utf_8)]
    args: list[Pair] = [("a", utf_8), ("b", "1"), ("a", wild)]
    token = gateway.prepare(("repeats", ""))
    answer = stop_of(gateway.call(token, {InfoKind.REQ_BODY: body}, headers=entries, args=args))
    assert answer.body == body
    assert answer.headers == [("X-Header", wild), ("X-Header", utf_8), ("X-Arg", utf_8), ("X-Arg", wild)]


def test_7_an_answer_says_only_what_changed(gateway: Connection) -> None:
    """Every answer repeated all headers, arguments and the path, although nothing had changed."""
    path, args, headers = "/a b", [("a", "1"), ("b", None)], [("host", "h"), ("x", "1"), ("x", "2")]
    looks, sets = gateway.prepare(("looks", "")), gateway.prepare(("sets_one_header", ""))
    assert passes(gateway.call(looks, path=path, args=args, headers=headers))
    rewrite = rewrite_of(gateway.call(sets, path=path, args=args, headers=headers))
    assert rewrite == (None, [("x-set", "1")], None, None, None)


def test_8_a_conf_is_parsed_once_and_not_kept_for_ever() -> None:
    """The conf parsed again for every request; confs kept for ever."""
    with Runner(PLUGINS, "--hang-timeout", "0") as runner, runner.wait_until_ready().connect() as gateway:
        conf = ("counts", '{"limit": 1}')
        token = gateway.prepare(conf)
        assert {body_of(gateway.call(token)) for _ in range(20)} == {"1 1"}
        assert gateway.prepare(conf, key="route#1#ext-plugin-pre-req#2") == token
        assert body_of(gateway.call(token)) == "1 1"
        assert passes(gateway.call(gateway.prepare(("time_passes", str(2 * 3600 + 1)))))
        assert runner.log.wait_for("a conf was let go")


@pytest.mark.parametrize(
    "conf",
    [
        ("raises", ""),
        ("no_such_plugin", ""),
        ("typed", '{"limit": "many"}'),
        ("typed", "{"),
        ("looks", "", "raises", ""),
    ],
    ids=["a plugin fails", "an unknown plugin", "an invalid conf", "no JSON", "one of two fails"],
)
@pytest.mark.parametrize("key", ["route#1#ext-plugin-pre-req#1", None], ids=["key", "no key"])
def test_9_a_failure_does_not_let_the_request_through(
    gateway: Connection, conf: tuple[str, ...], key: str | None
) -> None:
    """A plugin's failure, an unknown plugin or an invalid conf let the request through."""
    pairs: list[Pair] = list(zip(conf[::2], conf[1::2], strict=True))
    prepared = gateway.exchange(encode_prepare_conf_req(pairs, key))
    if prepared[0] == FrameType.PREPARE_CONF:
        prepared = gateway.call(gateway.prepare(*pairs, key=key))
    assert error_of(prepared) == ErrorCode.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("plugin", ["raises", "no_such_plugin"])
def test_9_nor_does_it_show_a_response(gateway: Connection, plugin: str) -> None:
    """A plugin's failure, an unknown plugin or an invalid conf let the request through."""
    assert failed_closed(gateway.response_call(gateway.prepare((plugin, ""), key=RESPONSE_KEY)))


@pytest.mark.parametrize("plugin", ["looks", "sets_one_header"])
def test_10_a_changed_response_keeps_its_headers(gateway: Connection, plugin: str) -> None:
    """Response headers lost when one of them was changed."""
    upstreams = [("Content-Type", "text/html"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Location", "/")]
    token = gateway.prepare((plugin, ""), key=RESPONSE_KEY)
    answer = response_of(gateway.response_call(token, {"request_method": b"GET"}, headers=upstreams))
    assert [pair for pair in answer.headers or () if pair[0] != "X-Set"] == upstreams


def test_11_what_no_frame_can_carry_is_an_error(gateway: Connection) -> None:
    """The frame limit taken as 2^25 - 1 or not checked, which corrupts the type byte."""
    largest = MAX_BODY - 1024
    assert len(stop_of(gateway.call(gateway.prepare(("answers_with_bytes", str(largest))))).body or b"") == largest
    for size in (MAX_BODY, MAX_BODY + 1, 2 * MAX_BODY):
        answer = gateway.call(gateway.prepare(("answers_with_bytes", str(size))))
        assert error_of(answer) == ErrorCode.SERVICE_UNAVAILABLE
    assert body_of(gateway.call(gateway.prepare(("says", "next")))) == "next"


def test_12_the_workers_of_the_gateway_may_connect() -> None:
    """Socket mode wrong for the workers' user; socket removed under the successor on reload."""
    umask = os.umask(0o077)
    try:
        runner = Runner(PLUGINS)
    finally:
        os.umask(umask)
    with runner:
        assert stat.S_IMODE(runner.wait_until_ready().path.stat().st_mode) == 0o666


@pytest.mark.parametrize("told_first", [True, False], ids=["told before it starts", "told after"])
@pytest.mark.parametrize("managed", [True, False], ids=["started by the gateway", "started by hand"])
def test_12_the_successors_socket_stays(managed: bool, told_first: bool) -> None:
    """Socket mode wrong for the workers' user; socket removed under the successor on reload."""
    with Runner(PLUGINS, managed=managed) as old:
        old.wait_until_ready()
        if told_first:
            old.signal(signal.SIGTERM)
        with Runner(PLUGINS, socket_path=old.path, managed=True) as new:
            new.wait_until_ready()
            if not told_first:
                new.log.wait_for("took over")
                old.signal(signal.SIGTERM)
            assert old.wait() == 0
            with new.connect() as gateway:
                assert body_of(gateway.call(gateway.prepare(("says", "the new one")))) == "the new one"
