"""Writes api.md from the docstrings of what plugins and their tests use: `python docs/api_reference.py`."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parent / "api.md"
sys.path.insert(0, str(PAGE.parent.parent))
os.environ["APISIX_RUNNER_PURE"] = "1"  # what is compiled does not tell its signatures

from apisix.runner.http.fields import Args, Headers  # noqa: E402
from apisix.runner.http.link import GatewayError, WrongColour  # noqa: E402
from apisix.runner.http.request import Request  # noqa: E402
from apisix.runner.http.response import Response  # noqa: E402
from apisix.runner.metrics import Counter, Gauge, Histogram  # noqa: E402
from apisix.runner.plugin.base import Base  # noqa: E402
from apisix.runner.plugin.errors import ConfError, LoadError  # noqa: E402
from apisix.runner.testing import (  # noqa: E402
    LiveGateway,
    PluginClient,
    RequestResult,
    ResponseResult,
    Upstream,
    plugin_route,
)

HEAD = """# API reference

Written from the docstrings by `docs/api_reference.py`. The same at a glance: [Plugin API](plugin-api.md).
"""


class Entry(NamedTuple):
    """A class or function of the reference, with those of its members that are for users."""

    thing: type | Callable[..., object]
    members: str = ""
    is_made_by_users: bool = False


FIELDS = "get getall pairs add setall replace update clear changed"
ENTRIES = {
    "For plugins": [
        Entry(Base, "stop rewrite after setup teardown filter filter_response"),
        Entry(
            Request,
            "id conf_token remote_addr method path args headers state context body json var vars"
            " read_body read_json read_var read_vars",
        ),
        Entry(Response, "status_code headers body read_body"),
        Entry(Headers, FIELDS, is_made_by_users=True),
        Entry(Args, is_made_by_users=True),
        Entry(GatewayError),
        Entry(WrongColour),
    ],
    "Metrics of plugins": [
        Entry(Counter, "labels inc value", is_made_by_users=True),
        Entry(Gauge, "labels set inc dec value", is_made_by_users=True),
        Entry(Histogram, "labels observe time count sum", is_made_by_users=True),
    ],
    "For their tests": [
        Entry(PluginClient, "get post request respond close", is_made_by_users=True),
        Entry(RequestResult, "text json"),
        Entry(ResponseResult, "text json"),
        Entry(Upstream),
        Entry(
            LiveGateway, "get post request received answer put_route log wait_for_log start stop", is_made_by_users=True
        ),
        Entry(plugin_route),
        Entry(ConfError),
        Entry(LoadError),
    ],
}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, entries in ENTRIES.items():
        parts.append(f"## {title}\n")
        for entry in entries:
            parts += _entry(entry)
    return "\n".join(parts)


def _entry(entry: Entry) -> Iterator[str]:
    thing = entry.thing
    name = thing.__name__
    yield f"### {name}\n"
    if isinstance(thing, type):
        yield f"`from {_module(thing)} import {name}`\n"
        if entry.is_made_by_users:
            yield f"`{name}{_signature(thing)}`\n"
        yield _markdown(thing, leave_out=() if entry.is_made_by_users else ("Args",))
    else:
        yield f"`from {_module(thing)} import {name}`\n\n`{name}{_signature(thing)}`\n"
        yield _markdown(thing)
    for member in entry.members.split():
        value = inspect.getattr_static(thing, member)
        if isinstance(value, property):
            assert value.fget is not None
            type_ = _signature(value.fget).partition("-> ")[2]
            declared = f"{member}: {type_}"
        else:
            kind = "async " if inspect.iscoroutinefunction(value) else ""
            declared = f"{kind}{member}{_signature(value)}"
        yield f"#### {name}.{member}\n\n`{declared}`\n"
        yield _markdown(value)


def _module(thing: type | Callable[..., object]) -> str:
    """Where its users import it from: the package, if that exports it."""
    package = thing.__module__.rpartition(".")[0]
    return package if thing.__name__ in getattr(sys.modules[package], "__all__", ()) else thing.__module__


def _signature(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    text = str(signature.replace(parameters=parameters)).replace("'", "") if parameters else str(signature)
    text = text.replace("(self)", "()").replace(" -> ~S", "")
    return re.sub(r"(?<![\w.\"])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):\n((?:(?: {4}.*)?\n)*)", re.MULTILINE)


def _markdown(thing: object, leave_out: tuple[str, ...] = ()) -> str:
    """A docstring as Markdown."""
    doc = (inspect.getdoc(thing) or "").replace("``", "`") + "\n"

    def section(match: re.Match[str]) -> str:
        title, body = match[1], inspect.cleandoc(match[2])
        if title in leave_out:
            return ""
        if title == "Example":
            return f"```pycon\n{body}\n```\n\n"
        if title == "Returns":
            return f"Returns: {body}\n\n"
        items = re.sub(r"^(\S[^:\n]*): ", lambda item: f"- `{item[1]}`: ", body, flags=re.MULTILINE)
        return f"{title}:\n\n" + re.sub(r"^ {4}", "  ", items, flags=re.MULTILINE) + "\n\n"

    return re.sub(r"\n{3,}", "\n\n", SECTION.sub(section, doc)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
