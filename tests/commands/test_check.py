"""`apisix-runner check`: each mistake of a plugin or a route is one line, with file and line and what to do."""

from pathlib import Path

import pytest

from tests.commands.author import HEAD, PLUGIN, run, write

GOOD = PLUGIN.format("Good")
TYPED = """
from dataclasses import dataclass
from apisix.runner.plugin.base import Base

class Typed(Base):
    @dataclass
    class Conf:
        rate: int = 1

    def setup(self):
        if self.config.rate > 100:
            raise ValueError("more than 100")

    def filter(self, request, response): ...
"""


def problems_of(folder: Path, *arguments: str) -> list[str]:
    """The lines of `check`, which finds problems, without the last one, which counts them."""
    ended = run(folder, "check", *arguments)
    assert (ended.code, ended.err) == (1, "")
    *problems, summary = ended.lines
    assert summary.endswith(f": {len(problems)} problem" + ("" if len(problems) == 1 else "s"))
    return problems


def test_what_is_right_is_exit_code_0(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "good.py", GOOD)
    ended = run(tmp_path, "check")
    assert (ended.code, ended.lines, ended.err) == (0, ["checked 1 plugin: no problems"], "")


# Plugins.


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("x = 1\ndef broken(:\n", 2, "does not import: SyntaxError: invalid syntax"),
        ("import nowhere\n", 1, "does not import: ModuleNotFoundError: No module named 'nowhere'"),
        (
            HEAD + "class Bad(Base):\n    def filter(self, request): ...\n",
            3,
            "plugin class Bad: expected filter(self, request, response), got filter(self, request)",
        ),
        (
            HEAD + "class Bad(Base):\n    def filter(self, request, response):\n        yield\n",
            3,
            "plugin class Bad: filter is a generator, which nobody would run; take its yield out",
        ),
        (
            HEAD + "\nclass Bad(Base):\n    name = 'rate limit'\n    def filter(self, request, response): ...\n",
            3,
            "plugin class Bad: a plugin's name must be without spaces, got 'rate limit'; use - or _",
        ),
        (
            GOOD + "    class Conf:\n        rate: int\n",
            2,
            "plugin class Good: Conf must be a msgspec.Struct, a dataclass, a TypedDict or a pydantic model",
        ),
        (
            "import msgspec\n" + GOOD + "    class Conf(msgspec.Struct):\n        rate: 'Rate'\n",
            5,
            "plugin class Good: Conf cannot be used: NameError: name 'Rate' is not defined",
        ),
        (
            "import pydantic\n" + GOOD + "    class Conf(pydantic.BaseModel):\n        rate: 'Rate'\n",
            5,
            "plugin class Good: Conf cannot be used: PydanticUndefinedAnnotation: name 'Rate' is not defined",
        ),
        (
            "import msgspec\n" + GOOD + "    class Conf(msgspec.Struct):\n        a: int = 1\n        b: int\n",
            5,
            "does not import: TypeError: Required field 'b' cannot follow optional fields.",
        ),
        (
            HEAD + "class Bad(Base):\n    filters = 1\n",
            2,
            "plugin class Bad: has neither filter(self, request, response) nor filter_response(self, request,",
        ),
    ],
)
def test_a_mistake_in_a_plugin_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, problem: str) -> None:
    write(tmp_path / "plugins" / "bad.py", text)
    (told,) = problems_of(tmp_path)
    assert told.startswith(f"plugins/bad.py:{line}: {problem}")


def test_a_file_that_never_ends_is_told_with_the_line_where_it_is(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "bad.py", "def turn():\n    while True: pass\n\nturn()\n")
    (told,) = problems_of(tmp_path, "--plugins-load-timeout", "0.3")
    assert told == (
        "plugins/bad.py:2: does not import: still running after 0.3 s, in turn at plugins/bad.py:2;"
        " wait and compute in setup or filter, or raise plugins.load_timeout"
    )


def test_two_plugins_of_one_name_are_told_with_both_files(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "a.py", GOOD)
    write(tmp_path / "plugins" / "b.py", GOOD)
    told = "plugins/b.py: plugin 'Good' is defined in plugins/a.py and plugins/b.py; rename one"
    assert problems_of(tmp_path) == [told]


def test_a_folder_without_any_plugin_is_told_what_one_is(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "forgot.py", "class Forgot:\n    def filter(self, request, response): ...\n")
    (told,) = problems_of(tmp_path)
    assert told == "plugins: no plugins; a plugin is a class that derives from apisix.runner.plugin.base.Base"


# Routes.


def routes(conf: str, ext_plugin: str = "ext-plugin-pre-req") -> str:
    return f"routes:\n  - id: 1\n    uri: /\n    plugins:\n      {ext_plugin}:\n        conf:\n{conf}\n#END\n"


def entry(name: str, value: str = "''") -> str:
    return f"          - name: {name}\n            value: {value}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path / "plugins" / "good.py", GOOD)
    write(tmp_path / "plugins" / "typed.py", TYPED)
    return tmp_path


@pytest.mark.parametrize(
    ("conf", "line", "problem"),
    [
        (entry("god"), 7, "plugin 'god': unknown plugin, loaded are: Good, Typed; did you mean 'Good'?"),
        (entry("typed", '\'{"rate": "5"}\''), 7, "plugin 'typed': conf $.rate: expected int, got str"),
        (
            entry("good") + "\n" + entry("typed", "'{\"rate\": 101}'"),
            9,
            "plugin 'typed': setup failed: ValueError: more than 100 (at plugins/typed.py:12)",
        ),
    ],
)
def test_a_plugin_that_a_route_cannot_use_is_told(project: Path, conf: str, line: int, problem: str) -> None:
    write(project / "apisix.yaml", routes(conf))
    assert problems_of(project) == [f"apisix.yaml:{line}: routes/1, ext-plugin-pre-req: {problem}"]


def test_a_plugin_in_a_phase_that_it_lacks_is_told(project: Path) -> None:
    write(project / "apisix.yaml", routes(entry("good"), "ext-plugin-post-resp"))
    told = "plugin 'good': expected filter_response for the response phase, but it has only filter"
    assert problems_of(project) == [f"apisix.yaml:7: routes/1, ext-plugin-post-resp: {told}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            routes(entry("good"), "ext-plugin-pre-rq"),
            "5: routes/1: unknown plugin ext-plugin-pre-rq; did you mean ext-",
        ),
        (
            routes(entry("typed", "{rate: 5}")),
            "8: expected a text as value of routes/1, ext-plugin-pre-req, typed, such as '{\"rate\": 5}' in quotes,",
        ),
        (
            routes("          - name: typed"),
            "7: routes/1, ext-plugin-pre-req, typed: expected a value, got none",
        ),
        (routes("          good"), "7: expected a list of name and value as conf of routes/1, ext-plugin-pre-req, got"),
        (routes(entry("good")).removesuffix("#END\n"), "9: the last line must be #END"),
        ("routes: {}\n#END\n", "1: expected a list of routes, got a mapping"),
        ("routes:\n- a: [\n#END\n", "4: not YAML: "),
        ("- 1\n#END\n", "1: expected a mapping with routes, got a list"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_with_its_line(project: Path, text: str, problem: str) -> None:
    write(project / "apisix.yaml", text)
    (told,) = problems_of(project)
    assert told.startswith(f"apisix.yaml:{problem}")


@pytest.mark.parametrize("section", ["services", "plugin_configs", "consumers", "consumer_groups", "global_rules"])
def test_plugins_are_looked_for_wherever_apisix_takes_them(project: Path, section: str) -> None:
    write(project / "apisix.yaml", routes(entry("nobody")).replace("routes:", f"{section}:"))
    (told,) = problems_of(project)
    assert told.startswith(f"apisix.yaml:7: {section}/1, ext-plugin-pre-req: plugin 'nobody': unknown plugin")


def test_what_is_apisixs_own_is_left_to_it(project: Path) -> None:
    text = "upstreams: [{id: 1}]\nssls: []\nroutes:\n- {id: 1, uri: /, plugins: {limit-count: {count: 1}}}\n#END\n"
    write(project / "apisix.yaml", text)
    assert run(project, "check").code == 0


def test_a_resource_of_the_admin_api_is_checked_too(project: Path) -> None:
    text = '{"uri": "/", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "nobody", "value": ""}]}}}'
    write(project / "route.json", text)
    (told,) = problems_of(project, "route.json")
    assert told.startswith("route.json:1: the resource, ext-plugin-pre-req: plugin 'nobody': unknown plugin")


def test_setup_may_be_left_out(project: Path) -> None:
    write(project / "apisix.yaml", routes(entry("typed", "'{\"rate\": 101}'")))
    assert run(project, "check", "--no-setup").code == 0


def test_a_setup_that_never_ends_is_told(project: Path) -> None:
    setup = "    def setup(self):\n        while True: pass\n"
    write(project / "plugins" / "slow.py", PLUGIN.format("Slow") + setup)
    write(project / "apisix.yaml", routes(entry("slow")))
    (told,) = problems_of(project)
    assert "plugin 'slow': its setup is still running after 2.5 s; " in told
    assert told.endswith(" (at plugins/slow.py:5)")


# What is checked.


@pytest.mark.parametrize("path", [".", "plugins", "apisix.yaml"])
def test_a_project_its_plugins_or_its_routes_are_checked(project: Path, path: str) -> None:
    write(project / "apisix.yaml", routes(entry("good")))
    ended = run(project, "check", path)
    assert ended.code == 0
    assert ended.lines[0].startswith("checked 2 plugins")
    assert ("apisix.yaml" in ended.lines[0]) is (path != "plugins")


def test_a_project_elsewhere_is_checked_with_its_own_plugins(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert run(elsewhere, "check", str(project)).lines == ["checked 2 plugins: no problems"]


@pytest.mark.parametrize(("path", "told"), [("nowhere", "there is none"), ("plugins/good.py", "expected a folder of")])
def test_another_path_is_refused(project: Path, path: str, told: str) -> None:
    ended = run(project, "check", path)
    assert (ended.code, len(ended.err.splitlines())) == (3, 1)
    assert f"{path}: {told}" in ended.err
