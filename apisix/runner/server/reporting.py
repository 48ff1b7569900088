"""Reporting: what a worker tells the inspector of `apisix-runner dev` about each run of a plugin.

Rules that live here:
- Where no inspector's socket is named, nothing of this is in a call's way (watch.py).
- A plugin's run is told when it ends: what it changed, asked, logged and raised. Looking at a request asks the gateway
  for nothing, and never fails a call.
- The inspector is never waited for (reporter.py).
"""

import asyncio
import contextlib
import inspect
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from apisix.runner.http.link import Link
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.inspection import (
    MOST_LINES,
    Asked,
    Line,
    Loaded,
    PluginInfo,
    PluginRun,
    shown,
    shown_body,
)
from apisix.runner.logs.lines import NAMES
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import Step
from apisix.runner.plugin.conf import json_schema
from apisix.runner.plugin.errors import own_traceback, told
from apisix.runner.plugin.registry import Definition, Registry
from apisix.runner.server.differences import changes, seen
from apisix.runner.server.reporter import Reporter
from apisix.runner.server.watch import Watch
from apisix.runner.wire.messages import ExtraInfoReq, InfoKind

_WHAT = {InfoKind.REQ_BODY: "request body", InfoKind.RESP_BODY: "response body"}
_run_of_now: ContextVar["_Run | None"] = ContextVar("run_of_now", default=None)


def report(watch: Watch, path: str) -> Reporter:
    """Have runs of plugins, and the log, told to the inspector that listens at a path."""
    reporter = Reporter(path)
    make_step = watch.make_step

    def make_reporting_step(name: str, definition: Definition, instance: Base, phase: str) -> Step:
        step = make_step(name, definition, instance, phase)
        step.run = (_reporting_coroutine if step.coroutine else _reporting_function)(step, step.run, phase, reporter)
        return step

    watch.make_step = make_reporting_step
    logging.getLogger().addHandler(_Lines(reporter))
    return reporter


def loaded(registry: Registry, used: bool) -> Loaded:
    """What there is to tell about the plugins of a worker, and whether it serves with them."""
    plugins = [_info(definition) for definition in registry.definitions()]
    return Loaded(os.getpid(), plugins, [shown(str(problem)) for problem in registry.problems], used)


def _info(definition: Definition) -> PluginInfo:
    module = sys.modules.get(definition.plugin_class.__module__)
    about = inspect.cleandoc(definition.plugin_class.__doc__ or getattr(module, "__doc__", None) or "")
    schema: dict[str, Any] | None = None
    if definition.conf_type is not None:
        with contextlib.suppress(Exception):
            schema = json_schema(definition.conf_type)
    phases = [("async " if phase in definition.coroutine else "") + phase for phase in sorted(definition.phases)]
    declared = definition.plugin_class
    variables = [str(name) for name in declared.variables]
    file = shown(definition.origin)
    return PluginInfo(
        definition.name, file, shown(about), phases, declared.on_error, declared.timeout, variables, schema
    )


def _reporting_function(step: Step, run: Any, phase: str, reporter: Reporter) -> Any:
    def reporting(request: Request, response: Response) -> Any:
        with _told(_Run(step, phase, request, response), reporter) as told_run:
            result = run(request, response)
            told_run.returned(result)
            return result

    return reporting


def _reporting_coroutine(step: Step, run: Any, phase: str, reporter: Reporter) -> Any:
    async def reporting(request: Request, response: Response) -> Any:
        with _told(_Run(step, phase, request, response), reporter) as told_run:
            result = await run(request, response)
            told_run.returned(result)
            return result

    return reporting


@contextlib.contextmanager
def _told(told_run: "_Run", reporter: Reporter) -> Iterator["_Run"]:
    """Note what happens in a run, and tell it at its end."""
    token = _run_of_now.set(told_run)
    try:
        yield told_run
    except BaseException as error:
        told_run.raised(error)
        raise
    finally:
        _run_of_now.reset(token)
        told_run.end(reporter)


class _Run:
    """One run of a plugin, as it is told when it ends."""

    def __init__(self, step: Step, phase: str, request: Request, response: Response) -> None:
        self._step = step
        self._request = request
        self._response = response
        self._phase = phase
        self.lines: list[Line] = []
        self.asked: list[Asked] = []
        self.has_ended = False
        self._error = self._traceback = ""
        self._before = seen(phase, request, response)
        self._links = request.link, response.link
        request.link = _Noting(request.link, self)
        if response.link is not None:
            response.link = _Noting(response.link, self)
        self._unread = {*(request.unread or ()), *(response.unread or ())}
        self._started = time.time()
        self._clock = time.perf_counter()

    def returned(self, result: object) -> None:
        if result is not None:
            self._error = f"it returned {type(result).__name__}; {self._step.method} must return None"

    def raised(self, error: BaseException) -> None:
        timeout = self._step.timeout
        if isinstance(error, asyncio.CancelledError) and timeout is not None and self._seconds() > 0.9 * timeout:
            self._error = f"TimeoutError: it took longer than its timeout of {timeout:g} s"
        else:
            self._error = shown(told(error))
        with contextlib.suppress(Exception):
            self._traceback = shown(own_traceback(error, self._step.definition.origin), 16 * 1024)

    def _seconds(self) -> float:
        return time.perf_counter() - self._clock

    def end(self, reporter: Reporter) -> None:
        seconds = self._seconds()
        self.has_ended = True
        self._request.link, self._response.link = self._links
        with contextlib.suppress(Exception):  # what a plugin left behind may be anything
            self._note_what_was_asked_early()
            after = seen(self._phase, self._request, self._response)
            run = PluginRun(
                call=self._request.id,
                phase=self._phase,
                name=shown(self._step.name),
                file=shown(self._step.definition.origin),
                started=self._started,
                seconds=seconds,
                changes=changes(self._before, after),
                asked=self.asked,
                lines=self.lines,
                stopped=self._response.stopped,
                error=self._error,
                traceback=self._traceback,
                continues=self._step.may_continue and bool(self._error),
            )
            reporter.tell(run)

    def _note_what_was_asked_early(self) -> None:
        """What the call was told before it ran is noted by the plugin that reads it first."""
        request, response = self._request, self._response
        for what in self._unread - {*(request.unread or ()), *(response.unread or ())}:
            if isinstance(what, str):
                value = (request._vars or {}).get(what)
            else:
                value = ((request._body if what is InfoKind.REQ_BODY else response._upstream_body) or (None,))[0]
            self.asked.append(_asked(what, value, 0.0))


def _asked(what: str | InfoKind, value: bytes | None, seconds: float) -> Asked:
    named = f"variable {shown(what)}" if isinstance(what, str) else _WHAT[what]
    return Asked(named, None if value is None else shown_body(value), seconds)


class _Noting:
    """A call's way to the gateway that notes what is asked."""

    def __init__(self, link: Link, run: _Run) -> None:
        self._link = link
        self._run = run

    def __getattr__(self, name: str) -> Any:
        """What else a call tells of itself: its fields in the log, its place in a trace."""
        return getattr(self._link, name)

    def ask(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        started = time.perf_counter()
        results = self._link.ask(asks)
        self._note(asks, results, time.perf_counter() - started)
        return results

    async def ask_async(self, asks: Sequence[ExtraInfoReq]) -> list[bytes | None]:
        started = time.perf_counter()
        results = await self._link.ask_async(asks)
        self._note(asks, results, time.perf_counter() - started)
        return results

    def kept_context(self, request_id: str) -> bytes | None:
        return self._link.kept_context(request_id)

    def _note(self, asks: Sequence[ExtraInfoReq], results: Sequence[bytes | None], seconds: float) -> None:
        for (kind, name), result in zip(asks, results, strict=True):
            if len(self._run.asked) < MOST_LINES:
                self._run.asked.append(_asked(name or kind, result, seconds))


class _Lines(logging.Handler):
    """Notes what a plugin logs while it runs, and tells the rest as it comes."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = _line(record)
            run = _run_of_now.get()
            if run is None or run.has_ended:  # which a task of its own may not know
                self._reporter.tell(line)
            elif len(run.lines) < MOST_LINES:
                run.lines.append(line)
        except Exception:  # logging must not fail a plugin
            pass


def _line(record: logging.LogRecord) -> Line:
    trace = ""
    if record.exc_info and record.exc_info[0]:
        trace = shown(logging.Formatter().formatException(record.exc_info), 16 * 1024)
    text, _, rest = record.getMessage().partition("\n")
    level = NAMES.get(record.levelno) or record.levelname.lower()
    return Line(
        record.created, level, record.name, shown(text), "\n".join(part for part in (shown(rest), trace) if part)
    )
