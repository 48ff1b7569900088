"""The chain: the plugins of one prepared conf, run in order.

Rules that live here:
- Each plugin sees what the earlier ones changed; the first `stop` ends the chain.
- A plugin that raises, or returns something, fails the call, unless it declares ``on_error = "continue"``. So does
  anything that is raised on purpose to end a process.
- A malformed frame fails the call whatever a plugin declares: it is the gateway's, not the plugin's. So does a plugin
  in a phase that it does not have.
- ``async def`` plugins are awaited on the loop; ``def`` plugins between them run in a thread.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base, current_response, current_setup
from apisix.runner.plugin.conf import parse_conf
from apisix.runner.plugin.errors import ConfError, LoadError, PluginFailure, own_traceback, told
from apisix.runner.plugin.registry import METHODS, Definition, Registry
from apisix.runner.wire.flatbuf import Pair
from apisix.runner.wire.frame import WireError

log = logging.getLogger("apisix.runner.plugin")

InThread = Callable[[Callable[[], None]], Awaitable[None]]


class Step:
    """One plugin of a chain, ready to run in one phase."""

    __slots__ = ("coroutine", "definition", "instance", "may_continue", "method", "name", "run", "timeout")

    def __init__(self, name: str, definition: Definition, instance: Base, phase: str) -> None:
        self.name = name
        self.definition = definition
        self.instance = instance
        self.method = METHODS[phase]
        self.run: Callable[[Request, Response], Any] = getattr(instance, self.method)
        self.coroutine = phase in definition.coroutine
        self.may_continue = instance.on_error == "continue" and phase in definition.phases
        self.timeout = instance.timeout

    def failed(self, cause: BaseException) -> PluginFailure | None:
        """What a failure means: an error for the call, or None (logged) where the author said to continue."""
        failure = PluginFailure(self.name, self.definition.origin, cause)
        if not self.may_continue or isinstance(cause, WireError):
            return failure
        log.error("%s; the request goes on, as its on_error says\n%s", failure, failure.traceback())
        return None

    def returned(self, result: object) -> PluginFailure | None:
        """The failure of a plugin that returned something."""
        if inspect.iscoroutine(result):
            result.close()
            instead = f"nobody awaits it: write async def {self.method}, and await in it"
        else:
            instead = "say self.stop(...) to answer"
        return self.failed(TypeError(f"{self.method} must return None, got {type(result).__name__}; {instead}"))


class Chain:
    """The plugins of one conf, in one phase.

    Args:
        steps: in order of execution.
    """

    __slots__ = ("blocking", "coroutine", "needs_body", "steps", "timed", "variables")

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.coroutine = any(step.coroutine for step in steps)
        self.timed = any(step.timeout is not None for step in steps)
        self.variables = tuple(dict.fromkeys(name for step in steps for name in step.instance.variables))
        self.needs_body = any(step.instance.needs_body for step in steps)
        declared = {step.instance.blocking for step in steps}
        self.blocking: bool | None = True if True in declared else False if declared <= {False} else None

    def run(self, request: Request, response: Response) -> None:
        """Run a chain without coroutines in this thread.

        Raises:
            PluginFailure: a plugin failed the call.
        """
        current_response.set(response)
        timed = self.timed
        try:
            for step in self.steps:
                if timed:
                    response.running = (step.name, step.timeout, time.monotonic())
                response.plugin = step.name
                try:
                    result = step.run(request, response)
                except BaseException as cause:
                    failure = step.failed(cause)
                    if failure is not None:
                        raise failure from cause
                    result = None
                if result is not None:
                    failure = step.returned(result)
                    if failure is not None:
                        raise failure
                if response.stopped:
                    break
        finally:
            current_response.set(None)
            if timed:
                response.running = None

    async def run_async(self, request: Request, response: Response, in_thread: InThread) -> None:
        """Run a chain on the loop.

        Args:
            request: the call's.
            response: the call's.
            in_thread: runs a function in a thread, for ``def`` plugins among the coroutines.

        Raises:
            PluginFailure: a plugin failed the call.
        """
        for step in self.steps:
            if not step.coroutine:
                request.in_coroutine = response.in_coroutine = False
                await in_thread(lambda step=step: Chain((step,)).run(request, response))  # type: ignore[misc]
            else:
                failure = await self._await(step, request, response)
                if failure is not None:
                    raise failure
            if response.stopped:
                break

    async def _await(self, step: Step, request: Request, response: Response) -> PluginFailure | None:
        token = current_response.set(response)
        request.in_coroutine = response.in_coroutine = True
        response.plugin = step.name
        try:
            async with asyncio.timeout(step.timeout) as limit:
                response.coroutine = step.run(request, response)
                result = await response.coroutine
        except TimeoutError as cause:
            late = TimeoutError(f"it took longer than its timeout of {step.timeout:g} s") if limit.expired() else cause
            return step.failed(late)
        except asyncio.CancelledError as cause:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return step.failed(cause)
        except BaseException as cause:
            return step.failed(cause)
        finally:
            request.in_coroutine = response.in_coroutine = False
            response.coroutine = None
            current_response.reset(token)
        return None if result is None else step.returned(result)


def build_plugins(conf: Sequence[Pair], registry: Registry) -> list[tuple[str, Definition, Base]]:
    """Create and set up the plugins of a conf.

    Args:
        conf: names and values, in order of execution.
        registry: the plugins there are.

    Raises:
        ConfError: a plugin is unknown, rejects its conf, or its `setup` fails.
    """
    plugins: list[tuple[str, Definition, Base]] = []
    try:
        for name, value in conf:
            definition = registry.find(name)
            plugins.append((name, definition, _build(name, value, definition)))
    except ConfError:
        tear_down(plugins)
        raise
    return plugins


def tear_down(plugins: Sequence[tuple[str, Definition, Base]]) -> None:
    """Call the `teardown` of plugins whose conf goes. A failure is logged, and the others are called."""
    for name, definition, instance in plugins:
        token = current_setup.set(name)
        try:
            instance.teardown()
        except (Exception, SystemExit) as error:
            log.error("plugin %r: teardown failed\n%s", name, own_traceback(error, definition.origin))
        finally:
            current_setup.reset(token)


def _build(name: str, value: str | None, definition: Definition) -> Base:
    token = current_setup.set(name)
    try:
        return _set_up(name, value, definition)
    finally:
        current_setup.reset(token)


def _set_up(name: str, value: str | None, definition: Definition) -> Base:
    config = value if definition.raw_conf else parse_conf(name, value or "", definition.conf_type)
    try:
        instance = definition.create()
    except LoadError as error:
        raise ConfError(name, error.problem) from error
    try:
        instance.config = config
        instance.setup()
    except (Exception, SystemExit) as error:
        log.error("plugin %r: setup failed\n%s", name, own_traceback(error, definition.origin))
        raise ConfError(name, f"setup failed: {told(error)}") from error
    try:
        definition.check_declarations(instance)
    except LoadError as error:
        tear_down([(name, definition, instance)])
        raise ConfError(name, error.problem) from error
    return instance
