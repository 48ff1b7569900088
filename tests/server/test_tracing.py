"""Tracing with the SDK of OpenTelemetry, which a plugin's file, or the environment, has set up."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.server.connections import Connection, error_of
from tests.server.processes import PROJECT, Runner, Start

PLUGINS = """
import json, logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

class Print(SpanExporter):
    def export(self, spans):
        for span in spans:
            print("SPAN", json.dumps({
                "name": span.name,
                "trace": f"{span.context.trace_id:032x}",
                "id": f"{span.context.span_id:016x}",
                "parent": span.parent and f"{span.parent.span_id:016x}",
                "status": span.status.status_code.name,
                "attributes": dict(span.attributes),
                "events": [event.name for event in span.events],
            }))
        return SpanExportResult.SUCCESS

trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(Print()))
tracer = trace.get_tracer("test")

class Works(Base):
    def filter(self, request, response):
        with tracer.start_as_current_span("inside"):
            pass

    def filter_response(self, request, response):
        response.status_code = 418

class Awaits(Base):
    async def filter(self, request, response):
        await asyncio.sleep(0)
        with tracer.start_as_current_span("inside"):
            self.stop(402)

class Raises(Base):
    def filter(self, request, response):
        raise ValueError("no")

class Sleeps(Base):
    blocking = True
    def filter(self, request, response):
        time.sleep(30)
"""
FLAGS = ("--tracing-enabled", "true", "--gateway-version", "3.18.0")
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACED = [("traceparent", f"00-{TRACE}-{CALLER}-01")]

Spans = list[dict[str, Any]]


def spans(runner: Runner, since: int, last: str) -> Spans:
    """The spans that were exported, up to one of a name."""
    runner.log.wait_for(f'SPAN {{"name": "{last}"', since)
    lines = runner.log.text(since).splitlines()
    return [json.loads(line.removeprefix("SPAN ")) for line in lines if line.startswith("SPAN ")]


def below(found: Spans, parent: str) -> list[str]:
    """The names of the spans right below one."""
    (id,) = [span["id"] for span in found if span["name"] == parent]
    return [span["name"] for span in found if span["parent"] == id]


def test_a_call_and_its_plugins_have_spans_in_the_trace_of_the_request(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    gateway.call(gateway.prepare(("works", ""), ("awaits", "")), headers=TRACED)
    found = spans(runner, since, "apisix-runner request")
    assert {span["trace"] for span in found} == {TRACE}
    call = found[-1]
    assert (call["parent"], call["status"]) == (CALLER, "UNSET")
    assert call["attributes"] == {
        "apisix.phase": "request",
        "apisix.route": "route#1",
        "apisix.request": 7,
        "apisix.outcome": "stopped",
    }
    assert below(found, "apisix-runner request") == ["plugin Works", "plugin Awaits"]


@pytest.mark.parametrize("plugin", ["works", "awaits"])
def test_what_a_plugin_traces_itself_is_below_it(runner: Runner, gateway: Connection, plugin: str) -> None:
    since = len(runner.log)
    gateway.call(gateway.prepare((plugin, "")), headers=TRACED)
    found = spans(runner, since, "apisix-runner request")
    assert below(found, f"plugin {plugin.capitalize()}") == ["inside"]


def test_so_it_is_in_the_inline_lane(runner: Runner, gateway: Connection) -> None:
    token = gateway.prepare(("works", "inline"))
    for _ in range(30):
        gateway.call(token)
    since = len(runner.log)
    gateway.call(token, headers=TRACED)
    found = spans(runner, since, "apisix-runner request")
    assert below(found, "plugin Works") == ["inside"]


def test_a_failure_is_in_both_spans(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    error_of(gateway.call(gateway.prepare(("raises", "")), headers=TRACED))
    plugin, call = spans(runner, since, "apisix-runner request")
    assert (plugin["name"], plugin["status"], plugin["events"]) == ("plugin Raises", "ERROR", ["exception"])
    assert (call["status"], call["events"], call["attributes"]["apisix.outcome"]) == ("ERROR", ["exception"], "failed")


@pytest.mark.parametrize("headers", [[], [("traceparent", "nonsense")], [("traceparent", "00-0-0-01")]])
def test_a_call_of_no_trace_has_no_span(
    runner: Runner, gateway: Connection, headers: list[tuple[str, str | None]]
) -> None:
    token = gateway.prepare(("raises", "none"))
    since = len(runner.log)
    error_of(gateway.call(token, headers=headers))
    gateway.call(gateway.prepare(("works", "")), headers=TRACED)
    found = spans(runner, since, "apisix-runner request")
    assert [span["name"] for span in found] == ["inside", "plugin Works", "apisix-runner request"]


def test_in_the_response_phase_the_gateway_is_asked(runner: Runner, gateway: Connection) -> None:
    since = len(runner.log)
    token = gateway.prepare(("works", ""), key="route#1#ext-plugin-post-resp#1")
    gateway.response_call(token, {"http_traceparent": TRACED[0][1].encode()})
    assert gateway.asked_names[:2] == ["http_traceparent", "http_tracestate"]
    plugin, call = spans(runner, since, "apisix-runner response")
    assert (plugin["parent"], call["parent"], call["trace"]) == (call["id"], CALLER, TRACE)
    assert call["attributes"]["apisix.outcome"] == "rewritten"


def test_a_gateway_that_is_not_known_to_answer_there_is_not_asked(start: Start) -> None:
    runner = start(PLUGINS, "--tracing-enabled", "true", "--gateway-version", "2.15.3")
    with runner.connect() as gateway:
        gateway.response_call(gateway.prepare(("works", ""), key="route#1#ext-plugin-post-resp#1"))
        assert gateway.asked_names == []


def test_a_call_that_is_given_up_on_has_a_span_that_ended(start: Start) -> None:
    runner = start(PLUGINS, *FLAGS, "--timeout", "0.2")
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("sleeps", "")), headers=TRACED)
        (call,) = spans(runner, 0, "apisix-runner request")
    assert (call["status"], call["attributes"]["apisix.outcome"]) == ("ERROR", "failed")


def test_the_environment_says_where_spans_go(start: Start) -> None:
    plugins = PLUGINS.partition("class Print")[0] + "class Works" + PLUGINS.partition("class Works")[2]
    plugins = plugins.replace("tracer.start", 'trace.get_tracer("test").start')
    runner = start(plugins, *FLAGS, environ={"OTEL_TRACES_EXPORTER": "console"})
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("works", "")), headers=TRACED)
    runner.signal(2)
    assert runner.wait() == 0
    runner.log.wait_for_end()
    assert re.findall(r'"name": "(.*)",', runner.log.text()) == ["inside", "plugin Works", "apisix-runner request"]
    assert '"service.name": "apisix-runner"' in runner.log.text()


def test_an_exporter_that_is_not_there_is_told_and_calls_are_served(start: Start) -> None:
    runner = start("class Passes(Base):\n    def filter(self, request, response): pass\n", *FLAGS,
                   environ={"OTEL_TRACES_EXPORTER": "nowhere"})  # fmt: skip
    assert "its spans go nowhere" in runner.log.wait_for("OTEL_TRACES_EXPORTER nowhere cannot be used")
    with runner.connect() as gateway:
        gateway.call(gateway.prepare(("passes", "")), headers=TRACED)


def test_without_the_setting_opentelemetry_is_not_imported(start: Start) -> None:
    source = """
class Tells(Base):
    def filter(self, request, response):
        self.stop(200, str(any(name.startswith("opentelemetry") for name in sys.modules)))
"""
    runner = start(source)
    with runner.connect() as gateway:
        assert b"False" in gateway.call(gateway.prepare(("tells", "")))


def test_without_the_package_the_runner_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import importlib.util; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'opentelemetry' else real(name, *rest)\n"
        "from apisix.runner import cli\n"
        "cli.main(['start', '--socket', '/nowhere/x.sock', '--tracing-enabled', 'true'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'apisix-runner[tracing]'" in done.stderr
