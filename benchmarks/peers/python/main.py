"""The older Python runner, 0.2, with plugins of the same effect as those in benchmarks/plugins.

    python main.py CHECKOUT start

CHECKOUT is a checkout of that runner; the interpreter needs what its requirements.txt names.
"""

import runpy
import sys
import time
from pathlib import Path
from typing import Any

checkout = Path(sys.argv.pop(1))
sys.path.insert(0, str(checkout))

from apisix.runner.plugin.core import PluginBase  # noqa: E402

HEADER = "X-Resp-A6-Runner"
VALUE = "Python"
BODY = "Hello, Python Runner of APISIX"


class Stop(PluginBase):
    """Answers: a status, a header, a body."""

    def name(self) -> str:
        """In routes."""
        return "stop"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """What it does."""
        response.set_header(HEADER, VALUE)
        response.set_body(BODY)
        response.set_status_code(201)


class Rewrite(PluginBase):
    """Lets the request go on with another header, argument and path."""

    def name(self) -> str:
        """In routes."""
        return "rewrite"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """What it does."""
        request.set_header(HEADER, VALUE)
        request.set_arg("a6_runner", VALUE)
        request.set_uri("/a6/python/runner")


class Echo(PluginBase):
    """Reads all headers of the request and answers with them, and one more."""

    def name(self) -> str:
        """In routes."""
        return "echo"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """What it does."""
        for name, value in request.get_headers().items():
            response.set_header(name, value)
        response.set_header(HEADER, VALUE)
        response.set_body(BODY)
        response.set_status_code(200)


class Var(PluginBase):
    """Asks the gateway for one variable."""

    def name(self) -> str:
        """In routes."""
        return "var"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """What it does."""
        request.set_header("X-Remote-Addr", request.get_var("remote_addr"))


class Body(PluginBase):
    """Reads the request's body."""

    def name(self) -> str:
        """In routes."""
        return "body"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """What it does."""
        request.set_header("X-Body-Length", str(len(request.get_body())))


class Blocking(PluginBase):
    """Waits two milliseconds, as for a database, and holds its thread."""

    def name(self) -> str:
        """In routes."""
        return "blocking"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        """What it does."""
        time.sleep(0.002)


if __name__ == "__main__":
    # The first plugin of a name wins there: these are taken, not the checkout's own examples.
    sys.argv[0] = str(checkout / "bin" / "py-runner")
    runpy.run_path(sys.argv[0], run_name="__main__")
