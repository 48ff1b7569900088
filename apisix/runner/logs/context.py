"""Context: from which call, and which plugin in it, a line comes.

Rules that live here: a line that is logged while a call runs tells route, request, plugin and worker, whichever logger
it comes from. They are looked up when the line is made: a call that logs nothing pays nothing. Outside of calls,
whoever knows says it with `about`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default={})  # noqa: B039  # it is never changed
_of_call: Callable[[], Mapping[str, object]] = dict


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Put fields on the lines that a ``with`` block logs.

    Example:
        >>> with about(route="route#1"):
        ...     log.info("prepared")
    """
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def look_up(of_call: Callable[[], Mapping[str, object]]) -> None:
    """Ask a function for the fields of the call that runs where a line is logged."""
    global _of_call
    _of_call = of_call


def fields() -> dict[str, object]:
    """The fields of a line that is logged now; empty outside of calls."""
    found = {**_about.get(), **_of_call()}
    return {name: value for name, value in found.items() if value != ""}
