"""The examples in the docstrings of what authors and maintainers read are true."""

import doctest
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import apisix.runner.http
import apisix.runner.plugin
import apisix.runner.wire
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base, current_response
from tests.http import given

PACKAGES = (apisix.runner.wire, apisix.runner.http, apisix.runner.plugin)


class Plugin(Base):
    """The `self` of examples."""

    def audit(self, method: str, path: str) -> None: ...


def modules() -> list[ModuleType]:
    return [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for package in PACKAGES
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_")
    ]


def examples() -> list[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in modules() for test in finder.find(module) if test.examples]
    return [pytest.param(test, id=test.name.removeprefix("apisix.runner.")) for test in found]


@pytest.mark.parametrize("example", examples())
def test_an_example_gives_what_it_says(example: doctest.DocTest) -> None:
    response = Response()
    example.globs |= {"self": Plugin(), "request": given.request(), "response": response}
    report: list[str] = []
    token = current_response.set(response)
    try:
        doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    finally:
        current_response.reset(token)
    assert report == []


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_a_module_opens_with_its_rules(module: ModuleType) -> None:
    assert module.__doc__


def test_there_are_examples_in_each_package() -> None:
    packages = {example.values[0].name.split(".")[2] for example in examples()}
    assert packages == {"wire", "http", "plugin"}
