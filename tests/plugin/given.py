"""Plugins as a registry has them, and chains of them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import Chain, Step, build_plugins
from apisix.runner.plugin.registry import REQUEST, Definition, Registry
from apisix.runner.wire.flatbuf import Pair
from tests.http import given

Log = list[str]


def registry(*classes: type[Base]) -> Registry:
    """A registry of plugins, as if each came from this test's file."""
    result = Registry()
    for plugin_class in classes:
        result.add(Definition(plugin_class, origin_of(plugin_class)))
    return result


def origin_of(plugin_class: type[Base]) -> str:
    """The file in which a plugin's first method is written."""
    functions = [member for member in vars(plugin_class).values() if hasattr(member, "__code__")]
    return functions[0].__code__.co_filename if functions else "inherited.py"


def chain(*classes: type[Base], conf: Sequence[Pair] | None = None, phase: str = REQUEST) -> Chain:
    """A chain of plugins in order, each with an empty conf, or as a conf names them."""
    known = registry(*dict.fromkeys(classes))
    names = [(Definition(plugin_class, "").name, None) for plugin_class in classes]
    return Chain([Step(*plugin, phase) for plugin in build_plugins(names if conf is None else conf, known)])


def run(chain: Chain, request: Request | None = None, response: Response | None = None) -> Response:
    """Run a chain as the server does: in a thread, or on a loop where it has coroutines."""
    request, response = request or given.request(), response or Response()
    if chain.coroutine:
        asyncio.run(chain.run_async(request, response, in_thread))
    else:
        chain.run(request, response)
    return response


async def in_thread(function: Callable[[], None]) -> None:
    """Run a function in a thread that knows nothing of the coroutine."""
    await asyncio.get_running_loop().run_in_executor(None, function)


def plugin(filter: Callable[..., Any], **declared: Any) -> type[Base]:
    """A plugin class of one method."""
    return type(filter.__name__.title(), (Base,), {"filter": filter, **declared})


def chain_of(registry: Registry, *names: str, phase: str = REQUEST) -> Chain:
    """A chain of plugins that a registry has, with empty confs."""
    return Chain([Step(*plugin, phase) for plugin in build_plugins([(name, None) for name in names], registry)])
