"""The API reference: it is what the docstrings say, it is complete, and its examples run."""

import doctest
import re
import subprocess
import sys
from typing import Any

import pytest

from apisix.plugins.stop import Stop
from apisix.runner.http.fields import Args, Headers
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.metrics import Counter
from apisix.runner.plugin.base import Base
from apisix.runner.testing import LiveGateway, PluginClient, plugin_route
from tests.doc_pages import PROJECT, Block, blocks, name

REFERENCE = PROJECT / "docs" / "api.md"


def test_it_is_what_the_docstrings_say() -> None:
    script = PROJECT / "docs" / "api_reference.py"
    show = f"import runpy; print(runpy.run_path({str(script)!r})['page'](), end='')"
    page = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    assert page == REFERENCE.read_text(), f"run: python {script.relative_to(PROJECT)}"


def test_it_has_every_name_of_the_plugin_api() -> None:
    tables = re.findall(r"^\| (`.*?`.*?) \|", (PROJECT / "docs" / "plugin-api.md").read_text(), re.MULTILINE)
    names = {name for cell in tables for name in re.findall(r"`(?:self\.)?([a-z]\w+)", cell)}
    names -= {"del", "fields", "pop"}  # of any mapping
    reference = REFERENCE.read_text()
    assert len(names) > 35
    assert [name for name in sorted(names) if not re.search(rf"(####.*\.|`){name}\b", reference)] == []


class NeedsToken(Base):
    def filter(self, request: Request, response: Response) -> None:
        if request.headers.get("x-token") != self.config["token"]:
            self.stop(401)


class Hardened(Base):
    def filter_response(self, request: Request, response: Response) -> None:
        response.headers.pop("X-Powered-By", None)


NAMES = (Args, Base, Counter, Hardened, Headers, LiveGateway, NeedsToken, PluginClient, Request, Response, Stop)


class Example(Base):
    """Runs an example where plugins run."""

    def filter(self, request: Request, response: Response) -> None:
        text, place = self.config
        names: dict[str, Any] = {thing.__name__: thing for thing in NAMES}
        names |= {"self": self, "request": request, "response": response, "plugin_route": plugin_route}
        names["client"] = PluginClient(NeedsToken, conf={"token": "t"})
        test = doctest.DocTestParser().get_doctest(text, names, place, None, 0)
        printed: list[str] = []
        assert doctest.DocTestRunner().run(test, out=printed.append).failed == 0, "".join(printed)

    def audit(self, method: str, path: str) -> None:
        """After the answer."""


@pytest.mark.parametrize("example", blocks(REFERENCE, "pycon"), ids=name)
def test_examples_run(example: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    PluginClient(Example, conf=[example.text, example.place]).get("/")


def test_examples_that_are_wrong_fail() -> None:
    with pytest.raises(AssertionError, match="Expected:"):
        PluginClient(Example, conf=[">>> 1 + 1\n3\n", "here"]).get("/")
