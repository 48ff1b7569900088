"""The test kit: what a plugin's author sees of a call in a test."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from apisix.plugins.rewrite import Rewrite
from apisix.plugins.stop import Stop
from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.core import PluginBase
from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import PluginClient


class Echo(Base):
    """Answers with what it was given."""

    class Conf(msgspec.Struct):
        limit: int = 3

    config: Conf

    async def filter(self, request: Request, response: Response) -> None:
        found = {
            "limit": self.config.limit,
            "method": request.method,
            "path": request.path,
            "args": request.args.pairs(),
            "from": str(request.remote_addr),
            "consumer": await request.read_var("consumer_name"),
            "body": (await request.read_body() or b"").decode(),
        }
        self.stop(200, found)


class Harden(Base):
    def filter(self, request: Request, response: Response) -> None:
        request.context["seen"] = request.path

    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Seen"] = request.context.get("seen", "no")
        response.headers["X-Method"] = request.method
        response.body = (response.body or b"").upper() if isinstance(response.body, bytes) else ""


class Boom(Base):
    def filter(self, request: Request, response: Response) -> None:
        raise KeyError("mine")


class Audit(Base):
    seen: list[str] = []  # noqa: RUF012 -- shared on purpose

    def filter(self, request: Request, response: Response) -> None:
        self.after(self.seen.append, request.path)


class Old(PluginBase):
    def name(self) -> str:
        return "old"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        response.set_body(f"{conf} {request.get_header('x-a')}")


@pytest.fixture
def echo() -> Iterator[PluginClient]:
    with PluginClient(Echo, conf={"limit": 5}) as client:
        yield client


def test_a_stop_tells_status_headers_and_body() -> None:
    result = PluginClient(Stop, conf={"body": "hello"}).get("/get", headers={"X-A": "1"})
    assert (result.stopped, result.status, result.text) == (True, 201, "Hello, Python Runner of APISIX")
    assert (result.headers["X-Resp-A6-Runner"], result.headers["x-a"]) == ("Python", "1")
    assert result.upstream is None


def test_a_rewrite_tells_what_the_upstream_gets() -> None:
    result = PluginClient(Rewrite).get("/get?a=1&b=2&b=3", headers={"X-A": "1"})
    assert result.upstream is not None
    assert result.upstream.path == "/a6/python/runner"
    assert result.upstream.args.pairs() == [("a", "1"), ("b", "2"), ("b", "3"), ("a6_runner", "Python")]
    assert result.upstream.headers["x-a"] == "1"
    assert result.headers["X-Rewritten-By"] == "apisix-runner"


def test_everything_of_a_request_can_be_given(echo: PluginClient) -> None:
    found = echo.post(
        "/caf%C3%A9?q=a+b&flag", {"n": 1}, vars={"consumer_name": "jack"}, remote_addr="2001:db8::1"
    ).json()
    assert found == {
        "limit": 5,
        "method": "POST",
        "path": "/café",
        "args": [["q", "a b"], ["flag", ""]],
        "from": "2001:db8::1",
        "consumer": "jack",
        "body": '{"n":1}',
    }


def test_what_is_not_given_is_not_set(echo: PluginClient) -> None:
    assert echo.get().json()["consumer"] is None


def test_an_older_gateway_does_not_answer() -> None:
    with pytest.raises(GatewayError, match=r"VAR from 2\.9 on"):
        PluginClient(Echo, version="2.7").get()


def test_a_response_tells_what_the_client_gets() -> None:
    client = PluginClient(Harden)
    client.get("/here")
    result = client.respond(200, {"Content-Type": "text/plain"}, "hi")
    assert (result.status, result.text) == (200, "HI")
    assert result.headers["content-type"] == "text/plain"
    assert (result.headers["x-seen"], result.headers["x-method"]) == ("/here", "GET")


def test_a_plugins_exception_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        PluginClient(Boom).get()


def test_a_conf_that_the_plugin_rejects_is_raised() -> None:
    with pytest.raises(ConfError, match=r"conf \$\.limit: expected int, got str"):
        PluginClient(Echo, conf={"limit": "many"})


def test_each_request_has_a_context_of_its_own() -> None:
    client = PluginClient(Harden)
    client.get("/first")
    client.get("/second")
    assert client.respond(200, {}, "hi").headers["x-seen"] == "/second"


class RemembersSome(Base):
    """Keeps a context for one path only."""

    def filter(self, request: Request, response: Response) -> None:
        if request.path == "/kept":
            request.context["path"] = request.path

    def filter_response(self, request: Request, response: Response) -> None:
        response.headers["X-Kept"] = request.context.get("path", "none")


def test_a_request_does_not_find_the_context_of_an_earlier_one() -> None:
    client = PluginClient(RemembersSome)
    client.get("/kept")
    client.get("/other")
    assert client.respond().headers["x-kept"] == "none"


class Variables(Base):
    def filter(self, request: Request, response: Response) -> None:
        names = request.json()
        self.stop(200, dict(request.vars(*names)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arg_a", "1"),
        ("arg_flag", "true"),
        ("arg_none", None),
        ("args", "a=1&a=2&flag"),
        ("cookie_session", "s1"),
        ("http_cookie", "theme=dark; session=s1"),
        ("http_x_twice", "1, 2"),
        ("uri", "/a b"),
        ("request_uri", "/a%20b?a=1&a=2&flag"),
        ("consumer_name", None),
    ],
)
def test_a_request_makes_variables_as_nginx_does(name: str, value: str | None) -> None:
    headers = [("Cookie", "theme=dark; session=s1"), ("X-Twice", "1"), ("X-Twice", "2")]
    result = PluginClient(Variables).post("/a%20b?a=1&a=2&flag", [name], headers=headers)
    assert result.json() == {name: value}


def test_a_plugin_may_stand_in_a_chain_twice() -> None:
    result = PluginClient([(Rewrite, None), (Rewrite, None), (Stop, None)]).get("/x")
    assert result.stopped


def test_a_chain_runs_in_order() -> None:
    result = PluginClient([(Rewrite, None), (Echo, {"limit": 1})]).get("/x")
    assert result.json()["path"] == "/a6/python/runner"


def test_what_runs_after_the_answer_has_run() -> None:
    PluginClient(Audit).get("/audited")
    assert Audit.seen == ["/audited"]


def test_plugins_of_the_older_runner_are_tested_alike() -> None:
    assert PluginClient(Old, conf="c").get(headers={"X-A": "1"}).text == "c 1"


def test_it_works_inside_a_running_loop() -> None:
    async def inside() -> int:
        return PluginClient(Stop).get().status

    assert asyncio.run(inside()) == 201


@pytest.mark.parametrize(("method", "target"), [("FETCH", "/"), ("GET", "no-slash")])
def test_what_is_no_request_is_refused(echo: PluginClient, method: str, target: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        echo.request(method, target)


class Remembers(Base):
    """Keeps what belongs to a loop from its first call on, as a client of a database does."""

    opened: "asyncio.Future[int] | None" = None

    async def filter(self, request: Request, response: Response) -> None:
        if self.opened is None:
            self.opened = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.01, self.opened.set_result, 7)
            self.stop(200, "opened")
        else:
            self.stop(200, str(await self.opened))


def test_calls_share_one_loop_so_that_what_a_plugin_opened_on_it_goes_on() -> None:
    with PluginClient(Remembers) as client:
        assert client.get("/").body == b"opened"
        assert client.get("/").body == b"7"
