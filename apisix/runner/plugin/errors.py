"""What can be wrong with plugins, each as one error that says where and what to do."""

import traceback
from types import TracebackType

_RUNNER = "apisix.runner."


class LoadError(Exception):
    """A plugin's file cannot be used: it does not import, or a class in it is not a proper plugin.

    Args:
        origin: the file, with a line where one is known.
        problem: what was expected and what came.
    """

    def __init__(self, origin: str, problem: str) -> None:
        super().__init__(origin, problem)
        self.origin = origin
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.origin}: {self.problem}"


class ConfError(Exception):
    """A conf cannot be prepared: an unknown plugin, or a value that its plugin rejects.

    Args:
        plugin: the plugin's name in the route.
        problem: path, expected, got.
    """

    def __init__(self, plugin: str, problem: str) -> None:
        super().__init__(plugin, problem)
        self.plugin = plugin
        self.problem = problem

    def __str__(self) -> str:
        return f"plugin {self.plugin!r}: {self.problem}"


class PluginFailure(Exception):
    """A plugin failed in a call.

    Args:
        plugin: its name in the route.
        file: where its class is defined; the traceback that is logged begins there.
        cause: what it raised.
    """

    def __init__(self, plugin: str, file: str, cause: BaseException) -> None:
        super().__init__(plugin, cause)
        self.plugin = plugin
        self.file = file
        self.cause = cause

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} failed: {told(self.cause)}"

    def traceback(self) -> str:
        """The plugin's own traceback: from the plugin's file on, without the runner's frames before it."""
        return own_traceback(self.cause, self.file)


def told(error: BaseException) -> str:
    """An exception's class and text, whatever its author made of `__str__`."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as another:
        return f"{type(error).__name__} (its text cannot be had: {type(another).__name__})"


def own_traceback(cause: BaseException, file: str) -> str:
    """A traceback that begins in a file; where the file does not occur in it, behind the runner's own frames.

    A plugin's method may be inherited from a class in another file.
    """
    entry = cause.__traceback__
    while entry is not None and _file_of(entry) != file:
        entry = entry.tb_next
    if entry is None:
        entry = cause.__traceback__
        while entry is not None and entry.tb_frame.f_globals.get("__name__", "").startswith(_RUNNER):
            entry = entry.tb_next
    if entry is None:
        return "".join(traceback.format_exception_only(cause)).rstrip()
    return "".join(traceback.format_exception(type(cause), cause, entry)).rstrip()


def _file_of(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename
