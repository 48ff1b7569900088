"""Metrics of a real runner, scraped over HTTP."""

import itertools
import os
import re
import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apisix.runner.server.control import ask
from apisix.runner.wire.messages import encode_http_req_call_req
from tests.server.connections import Connection, error_of, failed_closed, stop_of
from tests.server.processes import PROJECT, Runner, Start, wait_for_death
from tests.server.scraped import METRICS, Samples, get, scrape, wait_until, wait_until_ready

PLUGINS = """
from apisix.runner.metrics import Counter, Gauge, Histogram

SEEN = Counter("seen", "Seen.", labels=("kind",))
LEFT = Gauge("left", "Left.", merge="max")
SIZE = Histogram("size_bytes", "Sizes.", bounds=(10, 100))

class Who(Base):
    def filter(self, request, response):
        SEEN.labels(kind="who").inc()
        self.stop(200, str(os.getpid()))

class Passes(Base):
    def filter(self, request, response):
        LEFT.set(int(request.args.get("left", "0")))
        SIZE.observe(50)

    def filter_response(self, request, response):
        pass

class Tags(Base):
    def filter(self, request, response):
        request.headers["X-Tag"] = "1"

    def filter_response(self, request, response):
        response.headers["X-Tag"] = "1"

class Raises(Base):
    def filter(self, request, response):
        raise ValueError("no")

    filter_response = filter

class Continues(Base):
    on_error = "continue"
    def filter(self, request, response):
        raise ValueError("no")

class Returns(Base):
    def filter(self, request, response):
        return 1

class Asks(Base):
    def filter(self, request, response):
        request.var("remote_addr")

class Awaits(Base):
    async def filter(self, request, response):
        await request.read_var("remote_addr")
        self.stop(200, "")

class Late(Base):
    timeout = 0.05
    async def filter(self, request, response):
        await asyncio.sleep(30)

class StuckAsync(Base):
    async def filter(self, request, response):
        await self.stuck_here()

    async def stuck_here(self):
        await asyncio.sleep(30)

class Sleeps(Base):
    blocking = True
    def filter(self, request, response):
        time.sleep(30)
"""
FLAGS = METRICS


def calls(samples: Samples, phase: str = "request") -> dict[str, float]:
    """Calls by outcome, without those that none had."""
    return _counts(samples, rf'apisix_runner_call_duration_seconds_count{{outcome="(\w+)",phase="{phase}"}}')


def plugin(samples: Samples, name: str, phase: str = "request") -> dict[str, float]:
    """Runs of a plugin by outcome, without those that none had."""
    of = rf'outcome="(\w+)",phase="{phase}",plugin="{name}"'
    return _counts(samples, rf"apisix_runner_plugin_duration_seconds_count{{{of}}}")


def errors(samples: Samples) -> dict[str, float]:
    """Failed calls by the kind of error, without those that none had."""
    return _counts(samples, r'apisix_runner_call_errors_total{kind="(\w+)"}')


def _counts(samples: Samples, pattern: str) -> dict[str, float]:
    found = ((re.fullmatch(pattern, name), value) for name, value in samples.items())
    return {match[1]: value for match, value in found if match is not None and value}


def added(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was counted meanwhile."""
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key)}


class TestCalls:
    @pytest.mark.parametrize(
        ("name", "outcome", "ran"),
        [
            ("who", "stopped", "stopped"),
            ("passes", "passed", "passed"),
            ("tags", "rewritten", "passed"),
            ("raises", "failed", "failed"),
            ("returns", "failed", "failed"),
            ("continues", "passed", "failed"),
            ("asks", "passed", "passed"),
            ("awaits", "stopped", "stopped"),
        ],
    )
    def test_a_call_is_counted_by_what_became_of_it(
        self, runner: Runner, gateway: Connection, name: str, outcome: str, ran: str
    ) -> None:
        before = scrape(runner)
        token = gateway.prepare((name, ""))
        for _ in range(20):  # in the pool first, then where it has earned to run
            gateway.call(token)
        after = scrape(runner)
        assert added(calls(before), calls(after)) == {outcome: 20}
        title = name.capitalize()
        assert added(plugin(before, title), plugin(after, title)) == {ran: 20}

    @pytest.mark.parametrize(("name", "outcome"), [("passes", "passed"), ("tags", "rewritten"), ("raises", "failed")])
    def test_and_so_is_one_of_the_response_phase(
        self, runner: Runner, gateway: Connection, name: str, outcome: str
    ) -> None:
        before = scrape(runner)
        gateway.response_call(gateway.prepare((name, ""), key="route#1#ext-plugin-post-resp#1"))
        after = scrape(runner)
        assert added(calls(before, "response"), calls(after, "response")) == {outcome: 1}

    def test_the_time_that_calls_wait_for_the_gateway_is_counted(self, runner: Runner, gateway: Connection) -> None:
        before = scrape(runner)
        gateway.call(gateway.prepare(("asks", "waits")))
        gateway.call(gateway.prepare(("awaits", "waits")))
        name = 'apisix_runner_gateway_wait_seconds_count{phase="request"}'
        assert scrape(runner)[name] - before[name] == 2

    def test_the_time_that_calls_wait_for_a_thread_is_counted(self, runner: Runner, gateway: Connection) -> None:
        token = gateway.prepare(("who", "waits"))
        before = scrape(runner)
        for _ in range(50):
            gateway.call(token)
        name = "apisix_runner_queue_wait_seconds_count"
        assert 8 <= scrape(runner)[name] - before[name] < 50  # until it has earned to run on the spot

    def test_the_ranges_of_a_histogram_add_up(self, runner: Runner, gateway: Connection) -> None:
        gateway.call(gateway.prepare(("passes", "")))
        samples = scrape(runner)
        of = 'outcome="passed",phase="request"'
        name = "apisix_runner_call_duration_seconds"
        assert samples[f'{name}_bucket{{le="+Inf",{of}}}'] == samples[f"{name}_count{{{of}}}"]
        assert 0 < samples[f"{name}_sum{{{of}}}"] < 30


class TestErrors:
    @pytest.mark.parametrize(("name", "kind"), [("raises", "plugin"), ("returns", "plugin"), ("late", "timeout")])
    def test_a_failed_call_is_counted_by_the_kind_of_error(
        self, runner: Runner, gateway: Connection, name: str, kind: str
    ) -> None:
        before = scrape(runner)
        error_of(gateway.call(gateway.prepare((name, ""))))
        assert added(errors(before), errors(scrape(runner))) == {kind: 1}

    def test_a_gateway_that_does_not_answer(self, runner: Runner, gateway: Connection) -> None:
        before = scrape(runner)
        gateway.start_call(gateway.prepare(("asks", "")))
        gateway.receive()
        gateway.close()
        runner.log.wait_for("the gateway closed the connection when asked for")
        assert added(errors(before), errors(scrape(runner))) == {"gateway": 1}

    def test_a_conf_that_failed_in_the_response_phase(self, runner: Runner, gateway: Connection) -> None:
        before = scrape(runner)
        token = gateway.prepare(("nobody", ""), key="route#1#ext-plugin-post-resp#1")
        assert failed_closed(gateway.response_call(token))
        assert added(errors(before), errors(scrape(runner))) == {"conf": 1}

    def test_a_call_that_is_given_up_on_is_counted_once(self, start: Start) -> None:
        runner = start(PLUGINS, *METRICS, "--timeout", "0.2")
        with runner.connect() as gateway:
            error_of(gateway.call(gateway.prepare(("sleeps", ""))))
            samples = scrape(runner)
        assert (errors(samples), calls(samples)) == ({"deadline": 1}, {"failed": 1})

    def test_the_stack_of_a_coroutine_that_is_given_up_on_is_told_all_the_same(self, start: Start) -> None:
        runner = start(PLUGINS, *METRICS, "--timeout", "0.2")
        with runner.connect() as gateway:
            gateway.start_call(gateway.prepare(("stuck_async", "")), id=1001)
            error_of(gateway.receive())
        assert "in stuck_here" in runner.log.event("request 1001")

    def test_frames_that_are_refused_are_counted_by_reason(self, runner: Runner, gateway: Connection) -> None:
        before = scrape(runner)
        error_of(gateway.call(12345))
        with runner.connect() as broken:
            broken.send_while_open(b"\x09\0\0\x04abcd")
            broken.receive()
        with runner.connect() as broken:
            frame = encode_http_req_call_req(1, b"", 0, "/", [], [], 0)
            broken.exchange(frame[:4] + b"\xff" * (len(frame) - 4))
        reasons = r'apisix_runner_frames_refused_total{reason="(\w+)"}'
        refused = added(_counts(before, reasons), _counts(scrape(runner), reasons))
        assert refused == {"unknown_token": 1, "malformed": 2}


def test_calls_and_plugins_are_counted_over_all_workers(start: Start) -> None:
    runner = start(PLUGINS, *METRICS, "--workers", "2")
    runner.worker(2)
    served: set[bytes | None] = set()
    connections: list[Connection] = []
    while len(served) < 2:
        connections.append(runner.connect())
        served.add(stop_of(connections[-1].call(connections[-1].prepare(("who", "")))).body)
    samples = scrape(runner)
    assert calls(samples) == plugin(samples, "Who") == {"stopped": len(connections)}
    assert samples["apisix_runner_workers_wanted"] == 2
    open_ones = [samples[f'apisix_runner_connections{{worker="{number}"}}'] for number in (0, 1)]
    assert sum(open_ones) == len(connections)
    for connection in connections:
        connection.close()


def test_nothing_falls_when_a_worker_is_killed_and_when_code_is_reloaded(start: Start) -> None:
    runner = start(PLUGINS, *METRICS)
    seen = [scrape(runner)]
    with runner.connect() as gateway:
        token = gateway.prepare(("who", ""))
        for _ in range(10):
            gateway.call(token)
        seen.append(scrape(runner))
        os.kill(runner.worker(), signal.SIGKILL)
        assert gateway.gets_closed()
    wait_for_death(runner.worker())
    seen.append(scrape(runner))
    runner.worker(2)
    with runner.connect() as gateway:
        gateway.call(token)
    assert ask(runner.path, "reload").ok
    wait_for_death(runner.worker(2))
    seen.append(scrape(runner))
    with runner.connect() as gateway:
        gateway.call(token)
    seen.append(scrape(runner))
    counters = [name for name in seen[0] if re.search("_total|_count|_sum|_bucket", name)]
    for before, after in itertools.pairwise(seen):
        assert [name for name in counters if after[name] < before[name]] == []
    assert [plugin(samples, "Who").get("stopped", 0) for samples in seen] == [0, 10, 10, 11, 12]
    assert seen[-1]['seen_total{kind="who"}'] == 12
    assert seen[-1]["apisix_runner_worker_restarts_total"] == 1
    assert seen[-1]['apisix_runner_reloads_total{outcome="done"}'] == seen[-1]["apisix_runner_generation"] == 1


def test_a_plugins_own_metrics_are_scraped(start: Start) -> None:
    runner = start(PLUGINS, *METRICS, "--workers", "2")
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("passes", "")), args=[("left", "7")])
    samples = scrape(runner)
    assert samples["left"] == 7  # the larger of two workers' values, as it says
    assert samples['size_bytes_bucket{le="100"}'] == samples["size_bytes_count"] == 1
    assert samples["size_bytes_sum"] == 50


def test_readiness_is_told_over_http(start: Start) -> None:
    runner = start(PLUGINS, *METRICS)
    assert get(runner, "/healthz") == (200, "ok\n")
    wait_until_ready(runner)
    assert scrape(runner)['apisix_runner_workers{state="ready"}'] == 1
    with runner.connect() as gateway:
        token = gateway.prepare(("sleeps", ""))
        gateway.start_call(token)
        runner.signal(signal.SIGTERM)
        runner.log.wait_for("stopping on SIGTERM")
        assert get(runner, "/healthz") == (200, "ok\n")
        assert get(runner, "/readyz") == (503, "not ready: the runner is stopping\n")


def test_a_runner_whose_workers_die_is_not_ready(start: Start) -> None:
    runner = start("", *METRICS)
    os.kill(runner.worker(), signal.SIGKILL)
    runner.log.wait_for("the next starts in")
    wait_until(runner, "/readyz", 503, "not ready: none of 1 workers accepts\n")


def test_the_page_of_the_documentation_is_what_is_scraped(runner: Runner, gateway: Connection) -> None:
    gateway.call(gateway.prepare(("passes", "")))
    page = (Path(PROJECT) / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(apisix_runner_\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", page, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels)), help) for name, kind, labels, help in rows}
    scraped = {}
    for family in text_string_to_metric_families(get(runner, "/metrics")[1]):
        if family.name.startswith("apisix_runner_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            scraped[name] = (family.type, labels, family.documentation)
    assert documented == scraped
    assert list(documented) == sorted(documented)
