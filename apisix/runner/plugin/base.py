"""What a plugin author writes: a subclass of `Base`.

Rules that live here:
- One instance a prepared conf, shared by concurrent calls: what belongs to a call lives on `request.state`.
- `stop` and `rewrite` act on the call that runs, whichever thread or task that is.
- `filter` runs in the request phase, `filter_response` in the response phase; either may be ``async def``.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

from apisix.runner.http.fields import FieldsLike, pairs_of
from apisix.runner.http.request import Request
from apisix.runner.http.response import Body, Response

current_response: ContextVar[Response | None] = ContextVar("current_response", default=None)
"""The response of the call that runs; the chain sets it."""

current_setup: ContextVar[str] = ContextVar("current_setup", default="")
"""The name of the plugin whose `setup` or `teardown` runs."""


class Base:
    """A plugin.

    Attributes:
        name: what routes call it; where it is not set: what ``super().__init__`` was given, else the class's name.
            Case and underscores do not count.
        config: the conf's value in the route: an instance of ``Conf`` where the class has one, else what its JSON
            decodes to, else the text itself. Set before `setup`.
        on_error: ``"fail"``: an exception fails the call (503); ``"continue"``: it is logged and the request goes on.
        blocking: True where `filter` waits or computes for more than a millisecond, False where it never does; None
            lets the runner find out.
        variables: names of variables that are asked in one round trip before this plugin's chain runs.
        needs_body: True where `filter` reads the body of every request, which is then asked for before the chain runs.
        timeout: seconds for one run of this plugin, below the setting ``timeout``; None leaves it at that.

    Example:
        >>> class NeedsToken(Base):
        ...     def filter(self, request: Request, response: Response) -> None:
        ...         if request.headers.get("x-token") != self.config["token"]:
        ...             self.stop(401, {"error": "no token"})
    """

    name: str = ""
    config: Any = None
    on_error: ClassVar[Literal["fail", "continue"]] = "fail"
    blocking: ClassVar[bool | None] = None
    timeout: ClassVar[float | None] = None
    variables: ClassVar[Sequence[str]] = ()
    needs_body: ClassVar[bool] = False

    def __init__(self, name: str = "") -> None:
        if name and not type(self).name:
            self.name = name

    def setup(self) -> None:
        """Called once for each prepared conf, before its first call. An exception makes the conf fail."""

    def teardown(self) -> None:
        """Called once when the prepared conf goes."""

    def filter(self, request: Request, response: Response) -> Any:
        """The request phase (ext-plugin-pre-req, ext-plugin-post-req). Returns nothing; may be ``async def``."""
        raise NotImplementedError(f"{type(self).__name__} has no filter: it does not run in the request phase")

    def filter_response(self, request: Request, response: Response) -> Any:
        """The response phase (ext-plugin-post-resp). Returns nothing; may be ``async def``."""
        raise NotImplementedError(
            f"{type(self).__name__} has no filter_response: it does not run in the response phase"
        )

    def stop(
        self,
        status: int | None = None,
        body: Body = None,
        headers: FieldsLike | None = None,
    ) -> None:
        """Answer the client now: later plugins of the conf do not run, the upstream is not called.

        What is not given stays as the plugin set it on `response`; with no status at all it is 200.

        Args:
            status: 100 to 599.
            body: bytes, str, or a dict or list (sent as JSON).
            headers: set on the response, besides those that are there.

        Raises:
            TypeError, ValueError: as the fields of `response`.
            RuntimeError: no call runs in this thread.

        Example:
            >>> self.stop(401, {"error": "no token"}, headers={"WWW-Authenticate": "Bearer"})
        """
        response = current_response.get()
        if response is None:
            raise _no_call("stop")
        if status is not None:
            response.set_status(status)
        if headers is not None:
            _set_all(response, headers)
        if body is not None:
            response.set_body(body)
        response.stopped = True

    def rewrite(self) -> None:
        """Let the request go on, with what was changed: the default, and it takes a `stop` of this plugin back.

        Raises:
            RuntimeError: no call runs in this thread.
        """
        response = current_response.get()
        if response is None:
            raise _no_call("rewrite")
        response.stopped = False

    def after(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function once the answer is on the wire: a ``def`` in a thread, an ``async def`` on the loop.

        It cannot change the answer any more. Its failures are logged; at a shutdown it is waited for.

        Args:
            function: called with `args`.

        Raises:
            RuntimeError: no call runs in this thread.

        Example:
            >>> self.after(self.audit, request.method, request.path)
        """
        response = current_response.get()
        if response is None:
            raise _no_call("after")
        if response.after is None:
            response.after = []
        response.after.append((function, args))


def _no_call(method: str) -> RuntimeError:
    return RuntimeError(f"self.{method}() acts on the call that runs; call it from filter, not from another thread")


def _set_all(response: Response, headers: FieldsLike) -> None:
    named: dict[str, list[str]] = {}
    for name, value in pairs_of(headers):
        named.setdefault(name, []).append(value)
    for name, values in named.items():
        response.headers.setall(name, values)
