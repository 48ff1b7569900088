"""What a plugin may do wrong: the call fails closed, the log says where, and everything else goes on."""

import re

import pytest

from apisix.runner.wire.messages import ErrorCode
from tests.server.connections import Connection, body_of, error_of, failed_closed, passes, response_of, rewrite_of
from tests.server.processes import Runner, Start

PLUGINS = """
def go_wrong(how, request, response):
    if how == "raise":
        return {}["no such key"]
    if how == "header_none":
        request.headers["X-User"] = None
    if how == "response_header_none":
        response.headers["X-User"] = None
    if how == "header_injection":
        response.headers["X-User"] = "a\\r\\nX-Admin: 1"
    if how == "header_name":
        response.headers["X User"] = "a"
    if how == "status":
        response.status_code = 9999
    if how == "status_text":
        response.status_code = "200"
    if how == "path":
        request.path = "relative"
    if how == "lone_surrogate":
        response.headers["X-User"] = "\\ud800"
    if how == "exit":
        sys.exit(1)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "cancel":
        raise asyncio.CancelledError
    if how == "recursion":
        go_wrong(how, request, response)
    if how == "unprintable":
        raise Unprintable
    if how == "returns":
        return "yes"

class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not printable either")
    __repr__ = __str__

class Wrong(Base):
    def filter(self, request, response):
        return go_wrong(self.config, request, response)

    def filter_response(self, request, response):
        return go_wrong(self.config, request, response)

class WrongAsync(Base):
    async def filter(self, request, response):
        return go_wrong(self.config, request, response)

    async def filter_response(self, request, response):
        return go_wrong(self.config, request, response)

class Forgiving(Wrong):
    on_error = "continue"

class ForgivingAsync(WrongAsync):
    on_error = "continue"

class Marks(Base):
    def filter(self, request, response):
        request.headers["X-Marked"] = "1"

class Generator(Base):
    def filter(self, request, response):
        yield self.stop(200)

class Awaitable(Base):
    def filter(self, request, response):
        return asyncio.sleep(0)

class StopsLater(Base):
    def filter(self, request, response):
        thread = threading.Thread(target=self.attempt)
        thread.start()
        thread.join()
        raise self.failure

    def attempt(self):
        try:
            self.stop(200)
        except Exception as error:
            self.failure = error

class Leaks(Base):
    def filter(self, request, response):
        raise ValueError(f"{request!r} {request.headers!r} {request.args!r}")
"""

WRONG = {
    "raise": "KeyError: 'no such key'",
    "header_none": "header 'X-User' must be set to str, got NoneType; to remove it: del headers['X-User']",
    "response_header_none": "header 'X-User' must be set to str, got NoneType",
    "header_injection": "header 'X-User' cannot hold CR, LF or NUL",
    "header_name": "'X User' cannot be a header's name",
    "status": "response.status_code must be from 100 to 599, got 9999",
    "status_text": "response.status_code must be int, got '200'",
    "exit": "SystemExit: 1",
    "interrupt": "KeyboardInterrupt",
    "cancel": "CancelledError",
    "recursion": "RecursionError",
    "unprintable": "Unprintable",
    "returns": "must return None, got str; say self.stop(...) to answer",
}
SECRETS = [("authorization", "Bearer t0p-s3cret"), ("cookie", "session=t0p-s3cret"), ("x-api-key", "t0p-s3cret")]


@pytest.mark.parametrize("plugin", ["wrong", "wrong_async"])
@pytest.mark.parametrize("how", WRONG)
def test_a_plugin_that_goes_wrong_fails_the_call_and_nothing_else(
    runner: Runner, gateway: Connection, how: str, plugin: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((plugin, f'"{how}"'), key=f"route#{how}#ext-plugin-pre-req#1")
    answer = gateway.call(token, id=4711, path="/orders/5", args=[("key", "t0p-s3cret")], headers=SECRETS)
    assert error_of(answer) is ErrorCode.SERVICE_UNAVAILABLE
    assert passes(gateway.call(gateway.prepare())), "the connection goes on"
    event = runner.log.event("request 4711", since)
    head = event.splitlines()[0]
    assert f"route#{how}" in head
    assert f"plugin '{plugin}'" in head
    assert "'/orders/5'" in head
    assert WRONG[how] in event
    assert "t0p-s3cret" not in runner.log.text(since)


@pytest.mark.parametrize("how", [how for how in WRONG if how != "returns"])
@pytest.mark.parametrize("plugin", ["wrong", "wrong_async"])
def test_the_traceback_begins_in_the_plugins_file(runner: Runner, gateway: Connection, how: str, plugin: str) -> None:
    since = len(runner.log)
    gateway.call(gateway.prepare((plugin, f'"{how}"'), key=None), id=99)
    event = runner.log.event("request 99", since)
    files = re.findall(r'File "(.+)", line \d+, in (\w+)', event)
    assert files[0] == (str(runner.folder / "plugins.py"), "filter")


@pytest.mark.parametrize("plugin", ["wrong", "wrong_async"])
def test_a_wrong_path_fails_at_the_line_that_sets_it(runner: Runner, gateway: Connection, plugin: str) -> None:
    since = len(runner.log)
    assert error_of(gateway.call(gateway.prepare((plugin, '"path"')))) is ErrorCode.SERVICE_UNAVAILABLE
    assert "request.path must begin with '/', got 'relative'" in runner.log.event("the call fails", since)


@pytest.mark.parametrize("plugin", ["wrong", "wrong_async"])
def test_text_that_no_encoding_has_fails_the_call_and_names_the_plugin(
    runner: Runner, gateway: Connection, plugin: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((plugin, '"lone_surrogate"'))
    assert error_of(gateway.call(token)) is ErrorCode.SERVICE_UNAVAILABLE
    assert plugin in runner.log.event("the call fails", since)
    assert passes(gateway.call(gateway.prepare()))


@pytest.mark.parametrize("plugin", ["wrong", "wrong_async"])
@pytest.mark.parametrize("how", ["raise", "response_header_none", "status", "exit", "recursion", "returns"])
def test_in_the_response_phase_a_failure_is_a_whole_response_and_never_an_error(
    runner: Runner, gateway: Connection, how: str, plugin: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((plugin, f'"{how}"'), key="route#1#ext-plugin-post-resp#1")
    answer = gateway.response_call(token, id=4712)
    assert failed_closed(answer)
    assert response_of(answer).id == 4712
    assert f"plugin '{plugin}'" in runner.log.event("request 4712", since)
    assert failed_closed(gateway.response_call(token)), "the connection goes on"


@pytest.mark.parametrize("name", ["unknown", "marks", "generator"])
def test_in_the_response_phase_a_conf_that_cannot_be_prepared_fails_its_calls(
    runner: Runner, gateway: Connection, name: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((name, ""), key=f"route#{name}#ext-plugin-post-resp#1")
    assert failed_closed(gateway.response_call(token))
    assert f"plugin '{name}'" in runner.log.wait_for(f"route#{name}", since)
    assert error_of(gateway.call(token)) is ErrorCode.SERVICE_UNAVAILABLE, "in the other phase it protects too"


def test_in_the_response_phase_an_unknown_token_is_prepared_again(gateway: Connection) -> None:
    assert error_of(gateway.response_call(4711)) is ErrorCode.CONF_TOKEN_NOT_FOUND


@pytest.mark.parametrize("plugin", ["forgiving", "forgiving_async"])
@pytest.mark.parametrize("how", ["raise", "header_none", "exit", "returns"])
def test_a_plugin_that_says_so_lets_the_request_go_on(
    runner: Runner, gateway: Connection, how: str, plugin: str
) -> None:
    since = len(runner.log)
    token = gateway.prepare((plugin, f'"{how}"'), ("marks", ""))
    assert rewrite_of(gateway.call(token)).headers == [("x-marked", "1")]
    event = runner.log.event("the request goes on, as its on_error says", since)
    assert f"plugin '{plugin}'" in event
    assert WRONG[how] in event


def test_a_filter_that_is_never_run_does_not_count_as_a_pass(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    assert error_of(gateway.call(gateway.prepare(("awaitable", "")))) is ErrorCode.SERVICE_UNAVAILABLE
    assert "filter must return None, got" in runner.log.event("the call fails", since)


def test_stop_from_another_thread_is_an_error(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    assert error_of(gateway.call(gateway.prepare(("stops_later", "")))) is ErrorCode.SERVICE_UNAVAILABLE
    assert "self.stop() acts on the call that runs" in runner.log.event("the call fails", since)


def test_printing_request_and_headers_prints_no_secrets(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    token = gateway.prepare(("leaks", ""))
    assert error_of(gateway.call(token, headers=[*SECRETS, ("x-plain", "shown")])) is ErrorCode.SERVICE_UNAVAILABLE
    event = runner.log.event("the call fails", since)
    assert "x-plain: shown" in event
    assert "t0p-s3cret" not in runner.log.text(since)


def test_failures_keep_no_plugin_from_the_fast_lane(gateway: Connection) -> None:
    token = gateway.prepare(("wrong", '"raise"'))
    for _ in range(100):
        assert error_of(gateway.call(token)) is ErrorCode.SERVICE_UNAVAILABLE


def test_a_failure_leaves_nothing_behind_for_the_next_call(gateway: Connection) -> None:
    wrong, right = gateway.prepare(("wrong", '"raise"')), gateway.prepare(("marks", ""))
    for _ in range(20):
        assert error_of(gateway.call(wrong)) is ErrorCode.SERVICE_UNAVAILABLE
        assert rewrite_of(gateway.call(right)).headers == [("x-marked", "1")]


def test_a_plugin_file_that_does_not_load_fails_only_the_routes_that_use_it(start: Start) -> None:
    runner = start("class Good(Base):\n    def filter(self, request, response):\n        self.stop(200, 'good')\n")
    runner.write("import no_such_module\n", "broken.py")
    runner.write("class Good2(Base:\n", "unparsable.py")
    with Runner(runner.folder) as second, second.wait_until_ready().connect() as connection:
        log = second.log.text()
        assert "broken.py:7: does not import: ModuleNotFoundError: No module named 'no_such_module'" in log
        assert "unparsable.py:7: does not import: SyntaxError" in log
        assert body_of(connection.call(connection.prepare(("good", "")))) == "good"
