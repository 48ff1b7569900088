"""What an author calls on `self`: stop, rewrite, after, whichever call runs, in whichever thread or task."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base, current_response
from apisix.runner.plugin.chain import Chain
from tests.http import given as http
from tests.plugin import given


def test_stop_without_anything_only_stops() -> None:
    class Plain(Base):
        def filter(self, request: Request, response: Response) -> None:
            response.headers["x-a"] = "1"
            self.stop()

    response = given.run(given.chain(Plain))
    assert response.stopped
    assert (response.new_status, response.raw_body, response.headers.pairs()) == (0, None, [("x-a", "1")])


def test_stop_sets_what_it_is_given_besides_what_is_there() -> None:
    class Full(Base):
        def filter(self, request: Request, response: Response) -> None:
            response.status_code = 500
            response.headers = {"x-a": "1", "x-b": "1"}
            self.stop(401, {"error": "no token"}, headers={"X-B": "2", "X-C": "3"})

    response = given.run(given.chain(Full))
    assert (response.new_status, response.raw_body) == (401, b'{"error":"no token"}')
    pairs = [("x-a", "1"), ("X-B", "2"), ("X-C", "3"), ("Content-Type", "application/json")]
    assert response.headers.pairs() == pairs


def test_stop_takes_repeated_headers() -> None:
    class Cookies(Base):
        def filter(self, request: Request, response: Response) -> None:
            response.headers["set-cookie"] = "old=1"
            self.stop(200, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    assert given.run(given.chain(Cookies)).headers.getall("set-cookie") == ["a=1", "b=2"]


def test_the_content_type_of_stops_headers_is_kept() -> None:
    class Problem(Base):
        def filter(self, request: Request, response: Response) -> None:
            self.stop(400, {"title": "no"}, headers={"content-type": "application/problem+json"})

    assert given.run(given.chain(Problem)).headers.pairs() == [("content-type", "application/problem+json")]


@pytest.mark.parametrize(
    ("given_to_stop", "error"),
    [
        ({"status": 9999}, ValueError),
        ({"status": "403"}, TypeError),
        ({"body": 5}, TypeError),
        ({"headers": {"x-a": None}}, TypeError),
        ({"headers": {"x a": "1"}}, ValueError),
        ({"headers": "x-a: 1"}, TypeError),
    ],
)
def test_a_stop_that_cannot_be_sent_raises_there_and_does_not_stop(
    given_to_stop: dict[str, Any], error: type[Exception]
) -> None:
    class Wrong(Base):
        def filter(self, request: Request, response: Response) -> None:
            with pytest.raises(error):
                self.stop(**given_to_stop)

    assert not given.run(given.chain(Wrong)).stopped


def test_rewrite_is_the_default_and_takes_a_stop_of_this_plugin_back() -> None:
    class Hesitates(Base):
        def filter(self, request: Request, response: Response) -> None:
            self.stop(403, "no")
            self.rewrite()

    assert not given.run(given.chain(Hesitates)).stopped


def test_after_keeps_functions_in_order_for_the_time_after_the_answer() -> None:
    ran: list[str] = []

    class Audits(Base):
        def filter(self, request: Request, response: Response) -> None:
            self.after(ran.append, request.path)
            self.after(ran.append, "second")

    response = given.run(given.chain(Audits))
    assert ran == []
    assert response.after == [(ran.append, ("/get",)), (ran.append, ("second",))]
    assert Response().after is None


@pytest.mark.parametrize("act", [lambda it: it.stop(403), lambda it: it.rewrite(), lambda it: it.after(print)])
def test_outside_of_a_call_there_is_nothing_to_act_on(act: Any) -> None:
    with pytest.raises(RuntimeError, match="acts on the call that runs; call it from filter, not from another thread"):
        act(Base())


def test_a_thread_that_a_plugin_starts_does_not_act_on_its_call() -> None:
    problems = []

    class Threads(Base):
        def filter(self, request: Request, response: Response) -> None:
            def work() -> None:
                try:
                    self.stop(403)
                except RuntimeError as error:
                    problems.append(str(error))

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    assert not given.run(given.chain(Threads)).stopped
    assert problems == ["self.stop() acts on the call that runs; call it from filter, not from another thread"]


def test_tasks_and_threads_that_a_coroutine_awaits_act_on_its_call() -> None:
    class Gathers(Base):
        async def filter(self, request: Request, response: Response) -> None:
            await asyncio.gather(self.look(), asyncio.to_thread(self.after, print))

        async def look(self) -> None:
            self.stop(403)

    response = given.run(given.chain(Gathers))
    assert (response.new_status, response.after) == (403, [(print, ())])


# Calls of one instance at the same time.


def test_calls_in_threads_at_the_same_time_never_mix() -> None:
    calls = 8
    meet = threading.Barrier(calls)

    class Shared(Base):
        def filter(self, request: Request, response: Response) -> None:
            number = int(request.headers["x-number"])
            request.state.number = number
            meet.wait(10)
            if number % 2:
                self.stop(200 + number, f"{number}")
                meet.wait(10)
            else:
                meet.wait(10)
                self.after(print, number)
                self.rewrite()
            assert request.state.number == number

    chain = given.chain(Shared)

    def call(number: int) -> Response:
        return given.run(chain, http.request(headers=[("x-number", str(number))]))

    with ThreadPoolExecutor(calls) as pool:
        responses = list(pool.map(call, range(calls)))
    for number, response in enumerate(responses):
        if number % 2:
            assert (response.stopped, response.new_status, response.raw_body) == (True, 200 + number, b"%d" % number)
            assert response.after is None
        else:
            assert (response.stopped, response.new_status, response.raw_body) == (False, 0, None)
            assert response.after == [(print, (number,))]


def test_calls_in_tasks_at_the_same_time_never_mix() -> None:
    class Shared(Base):
        async def filter(self, request: Request, response: Response) -> None:
            number = int(request.headers["x-number"])
            request.state.number = number
            await asyncio.sleep(0)
            if number % 2:
                self.stop(200 + number)
            await asyncio.sleep(0)
            self.after(print, request.state.number)

    async def call(chain: Chain, number: int) -> Response:
        response = Response()
        await chain.run_async(http.request(headers=[("x-number", str(number))]), response, given.in_thread)
        return response

    async def calls() -> list[Response]:
        chain = given.chain(Shared)
        return await asyncio.gather(*(call(chain, number) for number in range(8)))

    for number, response in enumerate(asyncio.run(calls())):
        assert (response.stopped, response.new_status) == (bool(number % 2), number % 2 and 200 + number)
        assert response.after == [(print, (number,))]


@pytest.mark.parametrize("raises", [False, True])
def test_after_a_call_nothing_of_it_is_left_in_its_thread(raises: bool) -> None:
    class Once(Base):
        on_error = "continue"

        def filter(self, request: Request, response: Response) -> None:
            self.stop(403)
            if raises:
                raise RuntimeError

    given.run(given.chain(Once))
    assert current_response.get() is None
    with pytest.raises(RuntimeError, match="acts on the call that runs"):
        Once().stop()


def test_a_task_that_outlives_its_call_acts_on_no_other() -> None:
    left: list[asyncio.Task[None]] = []

    class Leaves(Base):
        async def filter(self, request: Request, response: Response) -> None:
            if "x-first" in request.headers:
                left.append(asyncio.create_task(self.late()))
            else:
                late.set()
                await left[0]

        async def late(self) -> None:
            await late.wait()
            self.stop(403)

    async def calls() -> tuple[Response, Response]:
        chain = given.chain(Leaves)
        first, second = Response(), Response()
        await chain.run_async(http.request(headers=[("x-first", "1")]), first, given.in_thread)
        await chain.run_async(http.request(), second, given.in_thread)
        return first, second

    late = asyncio.Event()
    first, second = asyncio.run(calls())
    assert left[0].done()
    assert not second.stopped
    assert first.stopped, "only its own, whose answer is out already"


# Names and defaults.


def test_a_name_given_to_init_is_the_instances() -> None:
    assert Base("mine").name == "mine"
    assert Base().name == ""


def test_a_class_with_a_name_keeps_it() -> None:
    class Named(Base):
        name = "own"

    assert Named("other").name == "own"


@pytest.mark.parametrize("method", ["filter", "filter_response"])
def test_a_phase_that_a_plugin_does_not_have_says_so(method: str) -> None:
    class Bare(Base):
        pass

    with pytest.raises(NotImplementedError, match=f"Bare has no {method}: it does not run in the"):
        getattr(Bare(), method)(http.request(), Response())


def test_setup_and_teardown_need_not_be_there() -> None:
    plugin = Base()
    plugin.setup()
    plugin.teardown()
    assert plugin.config is None
