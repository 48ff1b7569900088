"""The fixtures, as a project that has apisix-runner installed meets them."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

PLUGIN = """
from apisix.runner.plugin.base import Base

class Gate(Base):
    def filter(self, request, response):
        self.stop(self.config["status"])

    def teardown(self):
        print("torn down")
"""
ROUTES = """
routes:
  - uri: /*
    plugins:
      ext-plugin-pre-req:
        conf:
          - {name: gate, value: '{"status": 418}'}
#END
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a plugin, a route to it, and a folder for its tests."""
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (pytester.mkdir("plugins") / "gate.py").write_text(PLUGIN)
    (pytester.path / "apisix.yaml").write_text(ROUTES)
    pytester.mkdir("tests")
    return pytester


def run(project: pytest.Pytester, test: str) -> pytest.RunResult:
    (project.path / "tests" / "test_gate.py").write_text(test)
    return project.runpytest_subprocess("-s")


def test_a_client_is_torn_down_after_its_test(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
from plugins.gate import Gate

def test_it(plugin_client):
    assert plugin_client(Gate, conf={"status": 401}).get("/").status == 401
    assert plugin_client(Gate, conf={"status": 403}).get("/").status == 403
    print("tested")
""",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*tested", "*torn down", "torn down"])


def test_a_gateway_takes_the_projects_plugins_and_routes(project: pytest.Pytester) -> None:
    result = run(project, "def test_it(gateway):\n    assert gateway().get('/x').status == 418\n")
    result.assert_outcomes(passed=1)


def test_a_gateway_takes_other_plugins_and_routes(project: pytest.Pytester) -> None:
    (project.path / "plugins").rename(project.path / "others")
    result = run(
        project,
        """
from apisix.runner.testing import plugin_route

def test_it(gateway):
    assert gateway([plugin_route("gate", {"status": 410})], plugins="others").get("/").status == 410
""",
    )
    result.assert_outcomes(passed=1)


def test_the_log_of_a_gateway_is_shown_where_a_test_fails(project: pytest.Pytester) -> None:
    (project.path / "tests" / "test_gate.py").write_text(
        "def test_it(gateway):\n    gateway().get()\n    assert False\n"
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Captured stderr teardown*", "*accepting*plugins: Gate"])


@pytest.mark.parametrize(("lost", "argument"), [("plugins", "plugins"), ("apisix.yaml", "routes")])
def test_a_gateway_says_what_it_does_not_find(project: pytest.Pytester, lost: str, argument: str) -> None:
    (project.path / lost).rename(project.path / "elsewhere")
    result = run(project, "def test_it(gateway):\n    gateway()\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*expected {lost} beside *or above it; make one, or call gateway({argument}=...)"])


def test_only_a_gateway_needs_its_extra(project: pytest.Pytester) -> None:
    (project.path / "conftest.py").write_text("import sys\nsys.modules['aiohttp'] = None\n")
    result = run(
        project,
        """
from plugins.gate import Gate

def test_client(plugin_client):
    assert plugin_client(Gate, conf={"status": 401}).get("/").status == 401

def test_gateway(gateway):
    gateway()
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*gateway needs aiohttp; install it: pip install 'apisix-runner[[]gateway[]]'"])


def test_projects_that_do_not_use_the_fixtures_import_nothing() -> None:
    code = "import sys; before = set(sys.modules); import pytest; after = set(sys.modules)\n"
    code += "import apisix.runner.pytest_plugin; print(*sorted(set(sys.modules) - after))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert loaded == ["apisix", "apisix.runner", "apisix.runner.pytest_plugin"]
