"""Plugins of the older runner 0.2: what their authors meant happens here too."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apisix.runner.http.fields import Headers
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.core import PluginBase
from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing.client import PluginClient
from apisix.runner.testing.results import RequestResult, Upstream

Action = Callable[[Any, Any], Any]
"""What a plugin of 0.2 does with a request and a response."""


def does(action: Action, called: str = "old") -> type[PluginBase]:
    """A plugin of 0.2 that does something."""

    class Old(PluginBase):
        def name(self) -> str:
            return called

        def config(self, conf: Any) -> Any:
            return conf

        def filter(self, conf: Any, request: Any, response: Any) -> None:
            action(request, response)

    return Old


def run(action: Action, target: str = "/get", **request: Any) -> RequestResult:
    """What becomes of a request that a plugin of 0.2 does something with."""
    method = request.pop("method", "GET")
    return PluginClient(does(action)).request(method, target, **request)


def upstream(result: RequestResult) -> Upstream:
    """What the upstream gets, without the host that every request has."""
    assert result.upstream is not None
    headers = Headers(pair for pair in result.upstream.headers.pairs() if pair[0] != "host")
    return result.upstream._replace(headers=headers)


def found(look: Callable[[Any], Any], target: str = "/get", **request: Any) -> Any:
    """What a plugin of 0.2 finds on a request."""
    seen: list[Any] = []
    run(lambda old, _: seen.append(look(old)), target, **request)
    return seen[0]


class LikeTheStopExample(PluginBase):
    """Does what the example `stop` of 0.2 did."""

    def name(self) -> str:
        return "stop"

    def config(self, conf: Any) -> Any:
        return conf

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        print(conf, request.get_var("host"), request.get_body())
        response.set_header("X-Resp-A6-Runner", "Python")
        response.set_body("Hello, Python Runner of APISIX")
        response.set_status_code(201)


class LikeTheRewriteExample(PluginBase):
    """Does what the example `rewrite` of 0.2 did."""

    def name(self) -> str:
        return "rewrite"

    def config(self, conf: Any) -> Any:
        return conf

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        print(conf, request.get_var("host"), request.get_body())
        request.set_header("X-Resp-A6-Runner", "Python")
        request.set_arg("a6_runner", "Python")
        request.set_uri("/a6/python/runner")


class TestTheTwoExamples:
    def test_stop_answers_the_client(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = PluginClient(LikeTheStopExample, '{"body":"hello"}').post("/get", "sent", vars={"host": "h.test"})
        assert (result.stopped, result.status, result.text) == (True, 201, "Hello, Python Runner of APISIX")
        assert result.headers.pairs() == [("X-Resp-A6-Runner", "Python")]
        assert capsys.readouterr().out == '{"body":"hello"} h.test sent\n'

    def test_rewrite_changes_what_the_upstream_gets(self) -> None:
        result = PluginClient(LikeTheRewriteExample, "conf").get("/get?a=1", headers={"x": "y"}, vars={"host": "h"})
        assert upstream(result).path == "/a6/python/runner"
        assert upstream(result).args.pairs() == [("a", "1"), ("a6_runner", "Python")]
        assert upstream(result).headers.pairs() == [("x", "y"), ("x-resp-a6-runner", "Python")]


class TestRequestHeaders:
    def test_a_header_is_found_whatever_its_case(self) -> None:
        assert found(lambda request: request.get_header("X-ToKeN"), headers={"x-token": "t"}) == "t"

    def test_a_header_that_is_not_there_is_none(self) -> None:
        assert found(lambda request: request.get_header("x-token")) is None

    def test_of_a_repeated_header_the_last_is_found(self) -> None:
        assert found(lambda request: request.get_header("x"), headers=[("x", "1"), ("x", "2")]) == "2"

    def test_a_header_that_is_set_reaches_the_upstream(self) -> None:
        result = run(lambda request, _: request.set_header("X-New", "1"), headers={"x-old": "2"})
        assert upstream(result).headers.pairs() == [("x-old", "2"), ("x-new", "1")]

    def test_a_header_that_is_set_is_found(self) -> None:
        def set_and_get(request: Any) -> list[Any]:
            request.set_header("X-New", "1")
            return [request.get_header("x-new"), request.get_headers()["X-New"]]

        assert found(set_and_get) == ["1", "1"]

    def test_all_headers_are_a_dict(self) -> None:
        headers = {"host": "h", "x": "1"}
        assert found(lambda request: dict(request.get_headers()), headers=headers) == headers

    def test_headers_that_are_left_out_of_set_headers_stay_for_the_upstream(self) -> None:
        result = run(lambda request, _: request.set_headers({"x-new": "1"}), headers={"x-old": "2"})
        assert upstream(result).headers.pairs() == [("x-old", "2"), ("x-new", "1")]

    def test_after_set_headers_only_those_are_found(self) -> None:
        def set_and_get(request: Any) -> list[Any]:
            request.set_headers({"X-New": "1"})
            return [request.get_headers(), request.get_header("x-old"), request.get_header("X-New")]

        assert found(set_and_get, headers={"x-old": "2"}) == [{"X-New": "1"}, None, "1"]

    def test_all_headers_can_be_taken_changed_and_set_again(self) -> None:
        def change(request: Any, _: Any) -> None:
            headers = dict(request.get_headers())
            headers["x-new"] = "1"
            request.set_headers(headers)

        sent = [("content-length", "2"), ("connection", "close"), ("x", "1"), ("x", "2")]
        result = run(change, method="POST", headers=sent, body="ab")
        assert upstream(result).headers.pairs() == [*sent, ("x-new", "1")]


class TestArguments:
    def test_an_argument_is_found(self) -> None:
        assert found(lambda request: request.get_arg("a"), "/?a=1&b=2") == "1"

    def test_an_argument_that_is_not_there_is_none(self) -> None:
        assert found(lambda request: request.get_arg("a"), "/?b=2") is None

    def test_an_argument_without_a_value_is_empty(self) -> None:
        assert found(lambda request: request.get_arg("a"), "/?a") == ""

    def test_of_a_repeated_argument_the_last_is_found(self) -> None:
        assert found(lambda request: request.get_arg("a"), "/?a=1&a=2") == "2"

    def test_an_argument_that_is_set_reaches_the_upstream(self) -> None:
        result = run(lambda request, _: request.set_arg("a", "new"), "/?a=1&b=2")
        assert upstream(result).args.pairs() == [("a", "new"), ("b", "2")]

    def test_all_arguments_are_a_dict(self) -> None:
        assert found(lambda request: dict(request.get_args()), "/?a=1&b=2") == {"a": "1", "b": "2"}

    def test_arguments_that_are_left_out_of_set_args_stay_for_the_upstream(self) -> None:
        result = run(lambda request, _: request.set_args({"c": "3"}), "/?a=1&a=2")
        assert upstream(result).args.pairs() == [("a", "1"), ("a", "2"), ("c", "3")]

    def test_after_set_args_only_those_are_found(self) -> None:
        def set_and_get(request: Any) -> list[Any]:
            request.set_args({"c": "3"})
            return [request.get_args(), request.get_arg("a")]

        assert found(set_and_get, "/?a=1") == [{"c": "3"}, None]


Change = Callable[[dict[str, str]], object]

CHANGES: list[tuple[Change, dict[str, str]]] = [
    (lambda args: args.__setitem__("c", "3"), {"a": "1", "b": "2", "c": "3"}),
    (lambda args: args.__delitem__("a"), {"b": "2"}),
    (lambda args: args.update(b="9", c="3"), {"a": "1", "b": "9", "c": "3"}),
    (lambda args: args.update({"b": "9"}), {"a": "1", "b": "9"}),
    (lambda args: args.__ior__({"c": "3"}), {"a": "1", "b": "2", "c": "3"}),
    (lambda args: args.pop("a"), {"b": "2"}),
    (lambda args: args.pop("z", None), {"a": "1", "b": "2"}),
    (lambda args: args.popitem(), {"a": "1"}),
    (lambda args: args.setdefault("a", "9"), {"a": "1", "b": "2"}),
    (lambda args: args.setdefault("c", "3"), {"a": "1", "b": "2", "c": "3"}),
    (lambda args: args.clear(), {}),
]


class TestTheDictsOfHeadersAndArguments:
    @pytest.mark.parametrize(("change", "expected"), CHANGES)
    def test_a_change_of_the_dict_is_a_change_of_the_request(self, change: Change, expected: dict[str, str]) -> None:
        shown: list[dict[str, str]] = []

        def act(request: Any, _: Any) -> None:
            change(request.get_args())
            shown.append(dict(request.get_args()))

        result = run(act, "/?a=1&b=2")
        assert dict(upstream(result).args) == shown[0] == expected

    def test_a_header_that_is_taken_out_does_not_reach_the_upstream(self) -> None:
        result = run(lambda request, _: request.get_headers().pop("x"), headers={"x": "1", "y": "2"})
        assert upstream(result).headers.pairs() == [("y", "2")]

    def test_what_is_not_in_the_dict_cannot_be_taken_out(self) -> None:
        with pytest.raises(KeyError):
            run(lambda request, _: request.get_args().pop("z"))

    def test_a_change_of_the_responses_dict_answers_the_client(self) -> None:
        result = run(lambda _, response: response.get_headers().update({"X-New": "1"}))
        assert (result.stopped, result.headers.pairs()) == (True, [("X-New", "1")])


class TestTheRestOfTheRequest:
    def test_the_path_is_found(self) -> None:
        assert found(lambda request: request.get_uri(), "/a%20b?c=1") == "/a b"

    def test_the_path_is_set(self) -> None:
        result = run(lambda request, _: request.set_uri("/new"), "/old?a=1")
        assert (upstream(result).path, upstream(result).args.pairs()) == ("/new", [("a", "1")])

    def test_a_variable_is_asked_for(self) -> None:
        assert found(lambda request: request.get_var("server_name"), vars={"server_name": "s"}) == "s"

    def test_a_variable_that_is_not_set_is_empty(self) -> None:
        assert found(lambda request: request.get_var("server_name")) == ""

    def test_a_variable_that_was_set_is_found(self) -> None:
        def set_and_get(request: Any) -> Any:
            request.set_var("server_name", "mine")
            return request.get_var("server_name")

        assert found(set_and_get, vars={"server_name": "s"}) == "mine"

    def test_the_body_is_text(self) -> None:
        assert found(lambda request: request.get_body(), method="POST", body="größe".encode()) == "größe"

    def test_a_body_that_is_not_there_is_empty(self) -> None:
        assert found(lambda request: request.get_body()) == ""

    def test_a_body_that_is_set_reaches_the_upstream(self) -> None:
        result = run(lambda request, _: request.set_body("größe"), method="POST", body="old")
        assert upstream(result).body == "größe".encode()

    @pytest.mark.parametrize("address", ["192.0.2.1", "2001:0db8:0000:0000:0000:0000:0000:0001"])
    def test_the_clients_address_is_found(self, address: str) -> None:
        assert found(lambda request: request.get_remote_addr(), remote_addr=address) == address

    def test_the_method_is_found(self) -> None:
        assert found(lambda request: request.get_method(), method="PATCH") == "PATCH"

    def test_the_calls_number_and_token_are_found(self) -> None:
        assert found(lambda request: [request.get_id(), request.get_conf_token()]) == [0, 1]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("remote_addr", "192.0.2.9"), ("method", "delete"), ("id", 9), ("conf_token", 8)],
    )
    def test_what_the_protocol_cannot_change_is_set_for_the_getters(self, name: str, value: Any) -> None:
        def set_and_get(request: Any) -> Any:
            return [getattr(request, f"set_{name}")(value), getattr(request, f"get_{name}")()]

        assert found(set_and_get) == [True, value]

    def test_values_are_kept(self) -> None:
        def keep(request: Any) -> list[Any]:
            results = [request.get_config("a"), request.set_config("a", ""), request.get_config("a")]
            return [*results, request.set_configs({"b": "1"}), request.get_configs()]

        assert found(keep) == [None, True, "", True, {"b": "1"}]

    def test_a_request_is_checked(self) -> None:
        assert found(lambda request: request.checked()) is True


NOTHING: list[tuple[str, tuple[Any, ...]]] = [
    ("set_header", ("", "v")),
    ("set_header", ("k", "")),
    ("set_headers", ({},)),
    ("set_arg", ("", "v")),
    ("set_arg", ("k", "")),
    ("set_args", ({},)),
    ("set_uri", ("",)),
    ("set_uri", ("no/slash",)),
    ("set_var", ("", "v")),
    ("set_var", ("k", "")),
    ("set_body", ("",)),
    ("set_remote_addr", ("",)),
    ("set_method", ("",)),
    ("set_method", ("PROPFIND",)),
    ("set_id", (0,)),
    ("set_conf_token", (0,)),
    ("set_config", ("", "v")),
    ("set_configs", ({},)),
]


@pytest.mark.parametrize(("method", "args"), NOTHING)
def test_a_setter_of_the_request_refuses_nothing(method: str, args: tuple[Any, ...]) -> None:
    answered: list[bool] = []
    result = run(lambda request, _: answered.append(getattr(request, method)(*args)), "/get?a=1", headers={"x": "y"})
    assert answered == [False]
    assert (upstream(result).path, upstream(result).args.pairs()) == ("/get", [("a", "1")])
    assert (upstream(result).headers.pairs(), upstream(result).body) == ([("x", "y")], None)


class TestResponse:
    def test_nothing_set_lets_the_request_go_on(self) -> None:
        assert not run(lambda _, response: response.get_headers()).stopped

    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            (lambda _, response: response.set_status_code(403), (403, [], None)),
            (lambda _, response: response.set_header("X-A", "1"), (200, [("X-A", "1")], None)),
            (lambda _, response: response.set_headers({"X-A": "1"}), (200, [("X-A", "1")], None)),
            (lambda _, response: response.set_body("größe"), (200, [], "größe".encode())),
        ],
        ids=["status", "header", "headers", "body"],
    )
    def test_anything_set_answers_the_client(self, action: Action, expected: tuple[Any, ...]) -> None:
        result = run(action)
        assert result.stopped
        assert (result.status, result.headers.pairs(), result.body) == expected

    def test_what_is_set_is_found(self) -> None:
        seen: list[Any] = []

        def act(_: Any, response: Any) -> None:
            seen.extend([response.get_status_code(), response.get_body(), response.get_header("x-a")])
            response.set_status_code(404)
            response.set_body("gone")
            response.set_headers({"X-Old": "0"})
            response.set_headers({"X-A": "1"})
            seen.extend([response.get_status_code(), response.get_body(), response.get_header("x-a")])
            seen.append(response.get_headers())

        assert run(act).headers.pairs() == [("X-A", "1")]
        assert seen == [200, "", None, 404, "gone", "1", {"X-A": "1"}]

    def test_the_calls_number_is_kept(self) -> None:
        seen: list[Any] = []

        def act(request: Any, response: Any) -> None:
            seen.extend([response.get_req_id(), response.set_req_id(0), response.set_req_id(9), response.get_req_id()])

        assert not run(act).stopped
        assert seen == [0, False, True, 9]

    @pytest.mark.parametrize(
        ("method", "args"),
        [
            ("set_header", ("", "v")),
            ("set_header", ("k", "")),
            ("set_headers", ({},)),
            ("set_body", ("",)),
            ("set_status_code", (0,)),
            ("set_status_code", (99,)),
            ("set_status_code", (600,)),
        ],
    )
    def test_a_setter_refuses_nothing_and_the_request_goes_on(self, method: str, args: tuple[Any, ...]) -> None:
        answered: list[bool] = []
        result = run(lambda _, response: answered.append(getattr(response, method)(*args)))
        assert (answered, result.stopped) == ([False], False)


class TestSeveralInAChain:
    def test_a_later_one_sees_what_an_earlier_one_changed(self) -> None:
        seen: list[Any] = []

        def first(request: Any, _: Any) -> None:
            request.set_header("X-First", "1")
            request.set_arg("first", "1")
            request.set_uri("/first")
            request.set_var("mine", "1")
            request.set_remote_addr("192.0.2.9")
            request.set_config("k", "v")

        def second(request: Any, _: Any) -> None:
            seen.extend([request.get_header("x-first"), request.get_arg("first"), request.get_uri()])
            seen.extend([request.get_var("mine"), request.get_remote_addr(), request.get_config("k")])

        PluginClient([(does(first, "first"), None), (does(second, "second"), None)]).get()
        assert seen == ["1", "1", "/first", "1", "192.0.2.9", "v"]

    def test_the_first_that_sets_a_response_ends_it(self) -> None:
        ran: list[str] = []
        chain: list[tuple[type[PluginBase], object]] = [
            (does(lambda *_: ran.append("first"), "first"), None),
            (does(lambda _, response: response.set_status_code(403), "second"), None),
            (does(lambda *_: ran.append("third"), "third"), None),
        ]
        assert (PluginClient(chain).get().status, ran) == (403, ["first"])

    def test_it_mixes_with_plugins_of_today(self) -> None:
        class Today(Base):
            def filter(self, request: Request, response: Response) -> None:
                request.headers["X-Today"] = request.headers["X-Old"] + "!"
                response.headers["X-Added"] = "1"

        seen: list[Any] = []
        chain: list[tuple[type[PluginBase] | type[Base], object]] = [
            (does(lambda request, _: request.set_header("X-Old", "1"), "first"), None),
            (Today, None),
            (does(lambda request, _: seen.append(request.get_header("X-Today")), "last"), None),
        ]
        result = PluginClient(chain).get()
        assert (seen, result.stopped, result.headers.pairs()) == (["1!"], False, [("X-Added", "1")])

    def test_setting_what_an_earlier_plugin_of_today_set_answers_the_client_all_the_same(self) -> None:
        class Today(Base):
            def filter(self, request: Request, response: Response) -> None:
                response.status_code = 403

        chain = [(Today, None), (does(lambda _, response: response.set_status_code(403)), None)]
        result = PluginClient(chain).get()
        assert (result.stopped, result.status) == (True, 403)


class Counting(PluginBase):
    """Keeps things everywhere where a plugin of 0.2 could."""

    configured = 0

    def __init__(self) -> None:
        self.calls: list[str] = []

    def name(self) -> str:
        return "counting"

    def config(self, conf: Any) -> Any:
        type(self).configured += 1
        self.limit = json.loads(conf)["limit"]
        return {"limit": self.limit, "seen": [], "set": set()}

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        user = request.get_arg("user")
        self.user = user
        self.calls.append(user)
        conf["seen"].append(user)
        conf["set"].add(user)
        meeting.wait(10)
        response.set_body(json.dumps([self.user, self.calls, conf["seen"], list(conf["set"]), self.limit]))


meeting = threading.Barrier(4)


class TestOneInstanceForManyCalls:
    def test_the_conf_is_parsed_once_a_prepared_conf(self) -> None:
        meeting.reset()
        before = Counting.configured
        client = PluginClient(Counting, {"limit": 3})
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda user: client.get(f"/?user={user}"), "abcd"))
        assert Counting.configured - before == 1

    def test_concurrent_calls_do_not_see_what_others_keep(self) -> None:
        meeting.reset()
        client = PluginClient(Counting, {"limit": 3})
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda user: client.get(f"/?user={user}").json(), "abcd"))
        assert results == [[user, [user], [user], [user], 3] for user in "abcd"]

    def test_a_conf_that_cannot_be_parsed_is_an_error_when_it_is_prepared(self) -> None:
        with pytest.raises(ConfError, match="plugin 'counting': setup failed: JSONDecodeError"):
            PluginClient(Counting, "{not json")


class TestNamesAndDefaults:
    def test_without_a_name_it_is_the_classs(self) -> None:
        class Nameless(PluginBase):
            def filter(self, conf: Any, request: Any, response: Any) -> None:
                response.set_body(self.name())

        assert PluginClient(Nameless).get().text == "Nameless"

    def test_a_name_that_needs_an_instance(self) -> None:
        class Configured(PluginBase):
            def __init__(self) -> None:
                self.called = "by_instance"

            def name(self) -> str:
                return self.called

            def filter(self, conf: Any, request: Any, response: Any) -> None:
                response.set_body(self.name())

        assert PluginClient(Configured).get().text == "by_instance"

    def test_without_config_the_conf_is_the_text(self) -> None:
        class Shows(PluginBase):
            def filter(self, conf: Any, request: Any, response: Any) -> None:
                response.set_body(conf)

        assert PluginClient(Shows, '{"a": 1}').get().text == '{"a": 1}'

    def test_without_filter_it_fails(self) -> None:
        class Empty(PluginBase):
            pass

        with pytest.raises(NotImplementedError, match="Empty has no filter"):
            PluginClient(Empty).get()
