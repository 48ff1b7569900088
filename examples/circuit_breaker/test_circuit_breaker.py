"""circuit_breaker: what lets a request through, when the circuit opens and closes, and what is remembered."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, LiveGateway, PluginClient, PluginClientFactory
from examples.circuit_breaker.plugins.circuit_breaker import Circuit, CircuitBreaker, Decision, Decisions
from examples.circuit_breaker.services import PORT, PolicyService, service

ANNA = {"Authorization": "Bearer anna"}
HERE = Path(__file__).parent


@pytest.fixture
def policy() -> Iterator[PolicyService]:
    with service() as running:
        yield running


@pytest.fixture
def client(plugin_client: PluginClientFactory, policy: PolicyService) -> PluginClient:
    return plugin_client(CircuitBreaker, {"url": f"http://{policy.address}/decide", "failures": 3, "timeout": 5})


# Decisions


def test_the_service_decides(client: PluginClient, policy: PolicyService) -> None:
    assert not client.get("/a?b=1", headers=ANNA).stopped
    denied = client.post("/a", headers={"Authorization": "Bearer bob"})
    assert (denied.status, denied.json()) == (403, {"error": "bob may only read"})
    assert policy.asked == [
        {"method": "GET", "path": "/a", "headers": {"authorization": ["Bearer anna"]}},
        {"method": "POST", "path": "/a", "headers": {"authorization": ["Bearer bob"]}},
    ]


def test_each_value_of_a_header_is_told(client: PluginClient, policy: PolicyService) -> None:
    assert client.get(headers=[("Authorization", "Bearer anna"), ("Authorization", "Bearer eve")]).status == 403
    assert client.get().status == 403
    assert [asked["headers"]["authorization"] for asked in policy.asked] == [["Bearer anna", "Bearer eve"], []]


def test_the_same_question_is_asked_once(client: PluginClient, policy: PolicyService) -> None:
    for _ in range(3):
        assert client.get("/a?any=thing", headers=ANNA).status == 0
        assert client.get("/a").status == 403
    assert len(policy.asked) == 2


@pytest.mark.parametrize("target", ["/%ff", "/%ed%a0%80"])
def test_what_is_not_utf8_is_refused_unasked(client: PluginClient, policy: PolicyService, target: str) -> None:
    assert client.get(target, headers=ANNA).status == 400
    assert client.get("/", headers={"Authorization": "\udcff"}).status == 400
    assert policy.asked == []


STRANGE = [(200, b""), (200, b"yes"), (200, b'{"allow": 1}'), (200, b"{}"), (200, b"x" * 100_000), (204, b"")]
STRANGE += [(302, b'{"allow": true}'), (400, b'{"allow": true}'), (404, b"not found")]


@pytest.mark.parametrize("answer", STRANGE)
def test_a_strange_answer_lets_nobody_through_and_is_not_kept(
    client: PluginClient, policy: PolicyService, answer: tuple[int, bytes]
) -> None:
    policy.answer = lambda _: answer
    for _ in range(2):
        result = client.get(headers=ANNA)
        assert (result.status, result.json()) == (503, {"error": "nobody can say whether this is allowed"})
    assert len(policy.asked) == 2


@pytest.mark.parametrize("status", [400, 404, 422])
def test_requests_that_the_service_does_not_like_do_not_open_the_circuit(
    client: PluginClient, policy: PolicyService, status: int
) -> None:
    policy.answer = lambda _: (status, b"")
    for _ in range(10):
        assert "Retry-After" not in client.get().headers
    assert len(policy.asked) == 10


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_of_the_service_open_it(client: PluginClient, policy: PolicyService, status: int) -> None:
    policy.answer = lambda _: (status, b"")
    for _ in range(10):
        result = client.get()
        assert result.status == 503
    assert len(policy.asked) == 3
    assert result.headers["Retry-After"] == "10"


def test_so_does_a_service_that_is_not_there(plugin_client: PluginClientFactory, policy: PolicyService) -> None:
    with service() as gone:
        pass
    client = plugin_client(CircuitBreaker, {"url": f"http://{gone.address}", "failures": 1})
    assert client.get().headers["Retry-After"] == "10"


def test_and_one_that_does_not_answer_in_time(plugin_client: PluginClientFactory, policy: PolicyService) -> None:
    released = threading.Event()

    def wait(_: dict[str, Any]) -> tuple[int, bytes]:
        released.wait()
        return 200, b'{"allow": true}'

    policy.answer = wait
    conf = {"url": f"http://{policy.address}", "failures": 1, "timeout": 0.05}
    assert plugin_client(CircuitBreaker, conf).get().headers["Retry-After"] == "10"
    released.set()


def test_a_call_that_is_cancelled_is_not_under_way_for_ever(policy: PolicyService) -> None:
    plugin = CircuitBreaker()
    plugin.config = CircuitBreaker.Conf(f"http://{policy.address}", failures=1, timeout=30)
    plugin.setup()
    arrived, released = threading.Event(), threading.Event()

    def hold(_: dict[str, Any]) -> tuple[int, bytes]:
        arrived.set()
        released.wait()
        return 200, b""

    async def cancel() -> None:
        asking = asyncio.create_task(plugin.ask(b"{}"))
        await asyncio.to_thread(arrived.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await plugin.client.aclose()

    policy.answer = hold
    asyncio.run(cancel())
    released.set()
    assert plugin.circuit.is_open


# The circuit


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(2, 10, clock)


def call(circuit: Circuit, is_well: bool) -> None:
    entered = circuit.enter()
    assert entered is not None
    circuit.leave(entered, is_well)


def test_it_opens_after_failures_in_a_row(circuit: Circuit) -> None:
    for is_well in (False, True, False):
        call(circuit, is_well)
        assert not circuit.is_open
    call(circuit, False)
    assert circuit.is_open
    assert circuit.enter() is None


@pytest.mark.parametrize("is_well", [True, False])
def test_one_probe_decides(circuit: Circuit, clock: Clock, is_well: bool) -> None:
    call(circuit, False)
    call(circuit, False)
    clock.now += 9.9
    assert circuit.enter() is None
    clock.now += 0.1
    probe = circuit.enter()
    assert probe is not None
    assert circuit.enter() is None
    circuit.leave(probe, is_well)
    assert circuit.is_open is not is_well
    assert circuit.seconds_left() == (0 if is_well else 10)


@pytest.mark.parametrize("is_well", [True, False])
def test_what_began_before_says_nothing(circuit: Circuit, clock: Clock, is_well: bool) -> None:
    late = circuit.enter()
    assert late is not None
    call(circuit, False)
    call(circuit, False)
    circuit.leave(late, is_well)
    assert circuit.is_open
    clock.now += 10
    probe = circuit.enter()
    circuit.leave(late, is_well)
    assert circuit.is_open
    assert circuit.is_probing
    assert probe is not None


@given(st.lists(st.tuples(st.sampled_from(["enter", "well", "ill", "wait"]), st.integers(0, 20))))
def test_whatever_happens_an_open_circuit_has_one_call_at_most(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    circuit = Circuit(2, 10, clock)
    under_way: list[tuple[int, bool]] = []
    for step, number in steps:
        if step == "enter":
            was_open = circuit.is_open
            entered = circuit.enter()
            assert was_open or entered is not None
            if entered is not None:
                under_way.append((entered, was_open))
        elif step == "wait":
            clock.now += number
        elif under_way:
            entered, _ = under_way.pop(number % len(under_way))
            circuit.leave(entered, step == "well")
        assert sum(is_probe for _, is_probe in under_way) <= 1
        assert circuit.is_probing <= circuit.is_open


# What is remembered


def test_decisions_are_good_for_a_while(clock: Clock) -> None:
    decisions = Decisions(5, 10, clock)
    decisions.put(b"a", Decision(True))
    clock.now += 4.9
    assert decisions.get(b"a") == Decision(True)
    clock.now += 0.1
    assert decisions.get(b"a") is None


def test_only_so_many_are_kept_and_those_in_use_longest(clock: Clock) -> None:
    decisions = Decisions(5, 2, clock)
    decisions.put(b"a", Decision(True))
    decisions.put(b"b", Decision(False))
    decisions.get(b"a")
    decisions.put(b"c", Decision(True))
    assert [decisions.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_zero_seconds_keep_nothing(clock: Clock) -> None:
    decisions = Decisions(0, 2, clock)
    decisions.put(b"a", Decision(True))
    assert decisions.get(b"a") is None


# Confs


@pytest.mark.parametrize(
    ("conf", "problem"),
    [
        ({}, "missing required field url"),
        ({"url": "127.0.0.1:8181"}, "url: expected one that begins with http:// or https://"),
        ({"url": "http://"}, "url: expected one that begins with http:// or https://"),
        ({"url": "http://a:x/"}, "url: expected one that begins with http:// or https://"),
        ({"url": "http://a", "timeout": 0}, "timeout"),
        ({"url": "http://a", "headers": ["a b"]}, "cannot be a header's name"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, conf: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(CircuitBreaker, conf)


# Behind a gateway


@pytest.fixture
def start(gateway: GatewayFactory, policy: PolicyService, tmp_path: Path) -> Callable[..., LiveGateway]:
    def started(**conf: float) -> LiveGateway:
        text = (HERE / "apisix.yaml").read_text().replace(f"127.0.0.1:{PORT}", policy.address)
        for name, value in {"cache_seconds": 0, **conf}.items():
            before, _, after = text.partition(f'"{name}": ')
            text = f'{before}"{name}": {value},{after.partition(",")[2]}'
        (tmp_path / "apisix.yaml").write_text(text)
        return gateway(tmp_path / "apisix.yaml", plugins=HERE / "plugins", flags=("--workers", "1"))

    return started


def test_behind_a_gateway(start: Callable[..., LiveGateway], policy: PolicyService) -> None:
    live = start()
    assert live.get("/guarded/a", headers=ANNA).status == 200
    assert live.get("/guarded/a").status == 403
    policy.answer = lambda _: (500, b"")
    for _ in range(5):
        assert live.get("/guarded/a", headers=ANNA).status == 503
    assert len(policy.asked) == 4
    assert len(live.received) == 1
    live.wait_for_log("the circuit is open for 30 s")


def test_only_the_probe_waits_for_the_service(start: Callable[..., LiveGateway], policy: PolicyService) -> None:
    live = start(failures=1, open_seconds=0.001, timeout=30)
    policy.answer = lambda _: (500, b"")
    assert live.get("/guarded/a").status == 503
    arrived, released = threading.Event(), threading.Event()

    def hold(_: dict[str, Any]) -> tuple[int, bytes]:
        arrived.set()
        released.wait()
        return 200, b'{"allow": true}'

    policy.answer = hold
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(live.get, "/guarded/a")
        assert arrived.wait(10)
        assert [live.get("/guarded/a").status for _ in range(3)] == [503, 503, 503]
        assert len(policy.asked) == 2
        released.set()
        assert probe.result().status == 200
    live.wait_for_log("the circuit is closed again")
    assert live.get("/guarded/a").status == 200
