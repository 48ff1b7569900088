"""What `apisix-runner new` writes: a plugin, its test, and a route.

Rules that live here: each file is as its author would write it, formatted, typed, and small enough to be read; NAME,
CLASS and what else is in capitals is replaced.
"""

PLUGIN = '''"""NAME: SUMMARY"""

import msgspec
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base


class CLASS(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        """What a route says in the plugin's value; checked before the first request."""

        greeting: str = "hello"

    config: Conf

METHOD'''

REQUEST = '''    DEFfilter(self, request: Request, response: Response) -> None:
        """Runs before the upstream is called."""
        if request.headers.get("X-Name") == "nobody":
            self.stop(403, {"error": "nobody is not let in"})
            return
ASK        request.headers["X-Greeting"] = GREETING
'''

RESPONSE = '''    DEFfilter_response(self, request: Request, response: Response) -> None:
        """Runs when the upstream has answered, before the client gets its response."""
ASK        response.headers["X-Greeting"] = GREETING
'''

ASK = """        address = await request.read_var("remote_addr")
"""

TEST_HEAD = '''"""NAME, run in the test's own process by the same code as in a runner."""

import pytest
from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import PluginClient

from plugins.NAME import CLASS

'''

REQUEST_TESTS = """
def test_the_upstream_gets_the_greeting() -> None:
    result = PluginClient(CLASS, conf={"greeting": "welcome"}).get("/")
    assert result.upstream is not None
    assert result.upstream.headers["X-Greeting"] == "welcomeSEEN"


def test_nobody_is_not_let_in() -> None:
    result = PluginClient(CLASS).get("/", headers={"X-Name": "nobody"})
    assert (result.stopped, result.status) == (True, 403)
    assert result.json() == {"error": "nobody is not let in"}
"""

RESPONSE_TESTS = """
def test_the_client_gets_the_greeting_with_the_upstreams_response() -> None:
    result = PluginClient(CLASS, conf={"greeting": "welcome"}).respond(200, {"Server": "shop"}, "books")
    assert (result.status, result.text) == (200, "books")
    assert result.headers["X-Greeting"] == "welcomeSEEN"
"""

CONF_TEST = """

def test_a_conf_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfError, match="expected str, got int"):
        PluginClient(CLASS, conf={"greeting": 5})
"""

ROUTE = """  - id: NAME
    uri: /NAME
    plugins:
      EXT_PLUGIN:
        conf:
          - name: NAME
            value: '{"greeting": "hello"}'
    upstream:
      nodes: {"127.0.0.1:1980": 1}
"""

ROUTES = f"""# Routes in APISIX's standalone format. 127.0.0.1:1980 is the upstream that apisix-runner dev starts.
routes:
{ROUTE}#END
"""


def plugin(name: str, class_name: str, *, is_async: bool, response: bool) -> str:
    """The plugin's file."""
    method = (RESPONSE if response else REQUEST).replace("DEF", "async def " if is_async else "def ")
    method = method.replace("ASK", ASK if is_async else "")
    method = method.replace("GREETING", 'f"{self.config.greeting}, {address}"' if is_async else "self.config.greeting")
    summary = "greets the client in a header of the response." if response else "greets the upstream in a header."
    return (
        PLUGIN.replace("METHOD", method).replace("SUMMARY", summary).replace("CLASS", class_name).replace("NAME", name)
    )


def test(name: str, class_name: str, *, is_async: bool, response: bool) -> str:
    """The test's file."""
    text = TEST_HEAD + (RESPONSE_TESTS if response else REQUEST_TESTS) + CONF_TEST
    return text.replace("SEEN", ", 127.0.0.1" if is_async else "").replace("CLASS", class_name).replace("NAME", name)


def route(name: str, *, response: bool) -> str:
    """A route, as an entry of a list of routes."""
    ext_plugin = "ext-plugin-post-resp" if response else "ext-plugin-pre-req"
    return ROUTE.replace("NAME", name).replace("EXT_PLUGIN", ext_plugin)


def routes(name: str, *, response: bool) -> str:
    """A whole file of routes."""
    return ROUTES.replace(ROUTE, route(name, response=response))
