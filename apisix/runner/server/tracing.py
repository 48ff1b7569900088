"""Tracing: a span for each call that belongs to a trace, and one for each plugin in it, with OpenTelemetry.

Rules that live here:
- A call belongs to a trace if its request says so: by ``traceparent``, or what OTEL_PROPAGATORS names in the request
  phase. Other calls have no span.
- Spans go where the SDK is told to: by OTEL_TRACES_EXPORTER and its like, or by a plugin's file that sets a tracer
  provider. The SDK is set up in the worker, since its threads would not survive a fork.
- Tracing changes no answer. In the response phase the header is asked of the gateway, where that is known to answer.
- Without the setting none of this is imported.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, TypeVar

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from apisix.runner import __version__
from apisix.runner.http.link import GatewayError
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import InThread, Step
from apisix.runner.plugin.errors import PluginFailure, told
from apisix.runner.plugin.registry import REQUEST, RESPONSE, Definition
from apisix.runner.server.call import Call
from apisix.runner.server.confs import MakeStep
from apisix.runner.server.watch import Watch
from apisix.runner.wire.frame import WireError

log = logging.getLogger("apisix.runner.tracing")

SERVICE_NAME = "apisix-runner"
"""What spans say they are of, where OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES do not say it."""

FLUSH_SECONDS = 2.0
"""Seconds that a worker waits at its end for spans to be exported."""

C = TypeVar("C", bound=Call)
tracer = trace.get_tracer("apisix.runner", __version__)


def trace_calls(watch: Watch) -> None:
    """Have calls and plugins traced.

    Args:
        watch: that is chosen from.
    """
    _set_up_sdk()
    watch.request_call = _traced(watch.request_call, REQUEST)
    watch.response_call = _traced(watch.response_call, RESPONSE)
    watch.make_step = _TracedSteps(watch.make_step)
    watch.at_end.append(_flush)


# The SDK.


def _set_up_sdk() -> None:
    """As OTEL_TRACES_EXPORTER says, unless somebody else has done it, or is to: a plugin's file."""
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    names = [name for name in names if name not in ("", "none")]
    if not names or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    if find_spec("opentelemetry.sdk") is None:
        log.error("OTEL_TRACES_EXPORTER is set, but opentelemetry-sdk is not installed: spans go nowhere")
        return
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE_NAME)
    provider = TracerProvider()
    for name in names:
        try:
            provider.add_span_processor(BatchSpanProcessor(_make_exporter(name)))
        except Exception as error:  # of an exporter that does not like its settings
            log.error("OTEL_TRACES_EXPORTER %s cannot be used: %s; its spans go nowhere", name, told(error))
    trace.set_tracer_provider(provider)


def _make_exporter(name: str) -> Any:
    """The exporter of that name, as packages register them."""
    wanted = [name]
    if name == "otlp":
        is_http = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").startswith("http")
        wanted += ["otlp_proto_http", "otlp_proto_grpc"] if is_http else ["otlp_proto_grpc", "otlp_proto_http"]
    known = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter")}
    for one in wanted:
        if one in known:
            return known[one].load()()
    raise LookupError(f"no package that is installed has it, there are {', '.join(sorted(known)) or 'none'}")


def _flush() -> None:
    """Export what has not been exported, but do not wait long for a collector that is not there."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        thread = threading.Thread(target=shutdown, name="tracing", daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)


# Calls.


def _traced(base: type[C], phase: str) -> type[C]:
    base_run = base.run

    class TracedCall(base):  # type: ignore[valid-type, misc]
        __slots__ = ("span", "trace_context")

        def run(self) -> bytes:
            parent = self.parent()
            if parent is None:
                self.span = self.trace_context = None
                return base_run(self)
            with started(self, parent) as span:
                answer = base_run(self)
                span.set_attribute("apisix.outcome", self.outcome(answer))
                return answer

        async def run_async(self, in_thread: InThread) -> bytes:
            parent = await self.parent_async()
            if parent is None:
                self.span = self.trace_context = None
                return await self.run_base_async(in_thread)
            with started(self, parent) as span:
                answer = await self.run_base_async(in_thread)
                span.set_attribute("apisix.outcome", self.outcome(answer))
                return answer

        async def run_base_async(self, in_thread: InThread) -> bytes:
            answer: bytes = await super().run_async(in_thread)
            return answer

        def parent(self) -> Context | None:
            try:
                if phase == REQUEST:
                    return _extract(self.request.headers)
                return _extract(_carrier(self.request.vars(*_ASKED))) if self.gateway.has_answered else None
            except (GatewayError, WireError):
                return None  # the call fails for the same reason, if it needs what is amiss

        async def parent_async(self) -> Context | None:
            if phase == REQUEST:
                return self.parent()
            try:
                self.request.in_coroutine = True
                return _extract(_carrier(await self.request.read_vars(*_ASKED))) if self.gateway.has_answered else None
            except GatewayError:
                return None
            finally:
                self.request.in_coroutine = False

        def failed(self, error: BaseException) -> bytes:
            span = getattr(self, "span", None)
            if span is not None:
                cause = error.cause if isinstance(error, PluginFailure) else error
                span.record_exception(cause)
                span.set_status(Status(StatusCode.ERROR, told(cause)))
            answer: bytes = super().failed(error)
            return answer

        def given_up(self) -> None:
            span = getattr(self, "span", None)
            if span is not None:
                span.set_attribute("apisix.outcome", "failed")
                span.set_status(Status(StatusCode.ERROR, "given up on"))
                span.end()
            super().given_up()

    @contextmanager
    def started(call: Any, parent: Context) -> Iterator[Span]:
        attributes = {"apisix.phase": phase, "apisix.route": call.conf.key.route, "apisix.request": call.id}
        span = tracer.start_span(f"apisix-runner {phase}", parent, SpanKind.SERVER, attributes)
        call.span = span
        call.trace_context = trace.set_span_in_context(span, parent)
        token = contexts.attach(call.trace_context)
        try:
            yield span
        finally:
            contexts.detach(token)
            if span.is_recording():  # else it was given up on, or is not sampled
                span.end()

    return TracedCall


_ASKED = ("http_traceparent", "http_tracestate")


def _carrier(variables: Mapping[str, str | None]) -> dict[str, str]:
    """The headers of a request that were asked as variables."""
    return {name.removeprefix("http_"): value for name, value in variables.items() if value}


def _extract(headers: Mapping[str, str]) -> Context | None:
    """The context of a request's trace, None where it has none."""
    context = propagate.extract(headers)
    return context if trace.get_current_span(context).get_span_context().is_valid else None


# Plugins.


class _TracedSteps:
    """Makes steps that run in a span of their own, where their call has one."""

    def __init__(self, make_step: MakeStep) -> None:
        self._make_step = make_step

    def __call__(self, name: str, definition: Definition, instance: Base, phase: str) -> Step:
        step = self._make_step(name, definition, instance, phase)
        if phase in definition.phases:
            traced = _traced_coroutine if step.coroutine else _traced_function
            step.run = traced(step.run, definition.name)
        return step


def _traced_function(run: Any, plugin: str) -> Any:
    def traced(request: Request, response: Response) -> Any:
        parent = getattr(response.link, "trace_context", None)
        if parent is None:
            return run(request, response)
        with tracer.start_as_current_span(f"plugin {plugin}", parent, attributes={"apisix.plugin": plugin}):
            return run(request, response)

    return traced


def _traced_coroutine(run: Any, plugin: str) -> Any:
    async def traced(request: Request, response: Response) -> Any:
        parent = getattr(response.link, "trace_context", None)
        if parent is None:
            return await run(request, response)
        with tracer.start_as_current_span(f"plugin {plugin}", parent, attributes={"apisix.plugin": plugin}):
            return await run(request, response)

    return traced
