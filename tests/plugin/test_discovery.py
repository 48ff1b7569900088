"""Discovery: what of a folder is loaded, and how one file that does not load is told without keeping the others."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from apisix.runner.plugin.discovery import load_plugins
from apisix.runner.plugin.errors import ConfError, PluginFailure
from apisix.runner.plugin.registry import Registry
from tests.http import given as http
from tests.plugin import given

HEAD = "from apisix.runner.plugin.base import Base\n"
PLUGIN = HEAD + "class {0}(Base):\n    def filter(self, request, response): self.stop(200, {0!r})\n"


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("apisix_plugins_"):
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def names(registry: Registry) -> list[str]:
    return [definition.name for definition in registry.definitions()]


def problems(registry: Registry) -> list[str]:
    return [str(problem) for problem in registry.problems]


# What is loaded.


def test_every_file_and_package_of_a_folder_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "one.py", PLUGIN.format("One"))
    write(tmp_path / "with-dash.py", PLUGIN.format("Dash"))
    write(tmp_path / "package" / "__init__.py", PLUGIN.format("Packaged"))
    registry = load_plugins([tmp_path])
    assert names(registry) == ["Dash", "One", "Packaged"]
    assert problems(registry) == []
    assert registry.find("one").origin == str(tmp_path / "one.py")
    assert registry.find("packaged").origin == str(tmp_path / "package" / "__init__.py")


@pytest.mark.parametrize(
    "name",
    [
        "_private.py",
        "__init__.py",
        "test_one.py",
        ".hidden.py",
        "notes.txt",
        "one.pyc",
        "_package/__init__.py",
        "test_package/__init__.py",
        ".git/__init__.py",
        "folder/one.py",
        "one.py/file",
    ],
)
def test_what_is_private_a_test_or_no_python_is_not(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "raise AssertionError('imported')")
    registry = load_plugins([tmp_path])
    assert (names(registry), problems(registry)) == ([], [])


def test_several_plugins_of_one_file_are_loaded_and_helpers_are_not(tmp_path: Path) -> None:
    write(
        tmp_path / "several.py",
        HEAD
        + """
from abc import abstractmethod
from apisix.runner.plugin.core import PluginBase

class _Shared(Base):
    def filter(self, request, response): ...

class Abstract(Base):
    @abstractmethod
    def check(self): ...

import abc
class Template(Base, abc.ABC):
    @abc.abstractmethod
    def check(self): ...

class One(_Shared): ...
class Two(_Shared): ...
Other = Two
class Helper: ...
One_ = One()
""",
    )
    registry = load_plugins([tmp_path])
    assert names(registry) == ["One", "Two"]
    (problem,) = problems(registry)
    assert "plugin class Abstract: has neither filter" in problem


def test_a_package_imports_its_own_modules_relatively(tmp_path: Path) -> None:
    write(tmp_path / "auth" / "__init__.py", "from .plugin import Auth\nfrom . import tokens")
    write(tmp_path / "auth" / "plugin.py", "from .tokens import GOOD\n" + PLUGIN.format("Auth"))
    write(tmp_path / "auth" / "tokens.py", HEAD + "GOOD = 'good'\n" + PLUGIN.format("Unnamed"))
    registry = load_plugins([tmp_path])
    assert (names(registry), problems(registry)) == (["Auth"], [])
    assert registry.find("auth").origin == str(tmp_path / "auth" / "plugin.py"), "where its class is written"


@pytest.mark.parametrize("how", ["from .b import Base2", "from . import b; Base2 = b.Base2"])
def test_a_file_imports_its_neighbours_relatively_once(tmp_path: Path, how: str) -> None:
    write(tmp_path / "a.py", how + "\nclass A(Base2): ...")
    write(tmp_path / "b.py", HEAD + "class Base2(Base):\n    def filter(self, request, response): ...")
    registry = load_plugins([tmp_path])
    assert (names(registry), problems(registry)) == (["A", "Base2"], [])
    assert issubclass(registry.find("a").plugin_class, registry.find("base2").plugin_class)


def test_a_plugin_of_an_imported_class_is_of_the_file_that_defines_it(tmp_path: Path) -> None:
    write(tmp_path / "a.py", "from .b import One")
    write(tmp_path / "b.py", PLUGIN.format("One"))
    assert problems(load_plugins([tmp_path])) == []


def test_folders_with_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for folder, plugin in (("x", "One"), ("y", "Two")):
        write(tmp_path / folder / "same.py", PLUGIN.format(plugin))
    registry = load_plugins([tmp_path / "x", tmp_path / "y"])
    assert (names(registry), problems(registry)) == (["One", "Two"], [])


def test_one_name_in_two_files_names_both(tmp_path: Path) -> None:
    one = write(tmp_path / "one.py", PLUGIN.format("Same"))
    two = write(tmp_path / "two.py", PLUGIN.format("Same"))
    registry = load_plugins([tmp_path])
    assert problems(registry) == [f"{two}: plugin 'Same' is defined in {one} and {two}; rename one"]
    assert names(registry) == []


def test_a_file_and_a_package_of_one_name_are_told(tmp_path: Path) -> None:
    package = write(tmp_path / "auth" / "__init__.py", PLUGIN.format("Packaged"))
    file = write(tmp_path / "auth.py", PLUGIN.format("Filed"))
    registry = load_plugins([tmp_path])
    assert problems(registry) == [f"{file}: has the name of {package}; rename one"]
    assert names(registry) == ["Packaged"]


def test_a_folder_is_loaded_once_however_often_it_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one.py", PLUGIN.format("One"))
    first, second = load_plugins([tmp_path]), load_plugins([tmp_path])
    assert first.find("one").plugin_class is second.find("one").plugin_class


def test_a_plugin_of_the_older_runner_is_loaded_too(tmp_path: Path) -> None:
    write(
        tmp_path / "old.py",
        """
        from apisix.runner.plugin.core import PluginBase

        class Say(PluginBase):
            def name(self):
                return "say"

            def config(self, conf):
                return conf

            def filter(self, conf, request, response):
                response.set_body(conf)
        """,
    )
    registry = load_plugins([tmp_path])
    assert (names(registry), problems(registry)) == (["say"], [])


# What does not load.


def loads_beside_another(tmp_path: Path, text: str) -> str:
    """The one problem of a file, beside which another one loads."""
    write(tmp_path / "wrong.py", text)
    write(tmp_path / "zebra.py", PLUGIN.format("Zebra"))
    registry = load_plugins([tmp_path])
    assert names(registry) == ["Zebra"]
    (problem,) = problems(registry)
    prefix, _, rest = problem.partition("wrong.py")
    assert prefix == f"{tmp_path}{os.sep}"
    with pytest.raises(ConfError, match=r"these files did not load: .*wrong\.py"):
        registry.find("wrong")
    return rest


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    told = loads_beside_another(tmp_path, "x = 1\ndef broken(:\n")
    assert told == ":2: does not import: SyntaxError: invalid syntax"


def test_a_syntax_error_of_an_imported_module_is_told_with_that_file(tmp_path: Path) -> None:
    write(tmp_path / "_helper.py", "\n\nx = = 1\n")
    write(tmp_path / "one.py", "from . import _helper")
    told = problems(load_plugins([tmp_path]))
    assert told == [f"{tmp_path / '_helper.py'}:3: does not import: SyntaxError: invalid syntax"]


def test_a_syntax_error_of_a_text_is_told_with_the_line_that_compiles_it(tmp_path: Path) -> None:
    told = loads_beside_another(tmp_path, "\ncompile('x = = 1', '<template>', 'exec')\n")
    assert told == ":2: does not import: SyntaxError: invalid syntax"


def test_an_exception_is_told_with_the_last_line_of_the_file(tmp_path: Path) -> None:
    told = loads_beside_another(tmp_path, "import json\ndef read():\n    json.loads('{')\nread()\n")
    assert told.startswith(":3: does not import: JSONDecodeError: Expecting property name")


def test_a_missing_module_is_told(tmp_path: Path) -> None:
    told = loads_beside_another(tmp_path, "\nimport nowhere_to_be_found\n")
    assert told == ":2: does not import: ModuleNotFoundError: No module named 'nowhere_to_be_found'"


@pytest.mark.parametrize("text", ["import sys\nsys.exit(1)\n", "\nraise SystemExit(1)\n"])
def test_a_file_that_exits_ends_nothing(tmp_path: Path, text: str) -> None:
    assert loads_beside_another(tmp_path, text) == ":2: does not import: SystemExit: 1"


def test_an_exception_without_a_text_is_told_all_the_same(tmp_path: Path) -> None:
    text = "class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n"
    assert ":3: does not import: E (its text cannot be had: ValueError)" in loads_beside_another(tmp_path, text)


@pytest.mark.parametrize("content", [b"\x00\x01", b"\xff\xfe = 1"])
def test_a_file_that_is_no_text_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.py").write_bytes(content)
    (problem,) = problems(load_plugins([tmp_path]))
    assert problem.startswith(f"{tmp_path / 'wrong.py'}")
    assert "does not import: " in problem


def test_a_link_to_nothing_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    assert problems(load_plugins([tmp_path])) == []


def test_a_file_that_failed_is_not_left_half_imported(tmp_path: Path) -> None:
    write(tmp_path / "one.py", PLUGIN.format("One") + "raise LookupError('not yet')\n")
    assert names(load_plugins([tmp_path])) == []
    write(tmp_path / "one.py", PLUGIN.format("One") + "# now it is better than it was before\n")
    assert names(load_plugins([tmp_path])) == ["One"]


def test_a_class_that_is_no_proper_plugin_is_told_and_others_of_its_file_load(tmp_path: Path) -> None:
    path = write(tmp_path / "two.py", PLUGIN.format("Good") + "class Bad(Base):\n    def filter(self): ...\n")
    registry = load_plugins([tmp_path])
    assert names(registry) == ["Good"]
    told = "plugin class Bad: expected filter(self, request, response), got filter(self)"
    assert problems(registry) == [f"{path}:5: {told}"]


@pytest.mark.parametrize(
    "text",
    [
        "class Bad(PluginBase):\n    def __init__(self, need): ...\n    def name(self): return self.need\n",
        "class Bad(PluginBase):\n    def __init__(self): raise SystemExit\n    def name(self): return self.x\n",
        "class Meta(type):\n    def __getattribute__(cls, name):\n"
        "        if name == 'filter': raise LookupError\n        return super().__getattribute__(name)\n"
        "class Bad(Base, metaclass=Meta): ...\n",
    ],
)
def test_a_class_that_fails_when_it_is_looked_at_keeps_no_other_from_loading(tmp_path: Path, text: str) -> None:
    text = HEAD + "from apisix.runner.plugin.core import PluginBase\n" + text
    assert ": plugin class Bad: " in loads_beside_another(tmp_path, text)


def test_an_exception_in_a_helper_is_told_with_the_helpers_line(tmp_path: Path) -> None:
    helper = write(tmp_path / "auth" / "tables.py", "import json\nTABLE = json.loads('{')\n")
    write(tmp_path / "auth" / "__init__.py", "from . import tables")
    (problem,) = problems(load_plugins([tmp_path]))
    assert problem.startswith(f"{helper}:2: does not import: JSONDecodeError: ")


# What never ends.


SHORT = 0.2  # seconds
ADVICE = "wait and compute in setup or filter, or raise plugins.load_timeout"


def test_a_file_that_runs_for_ever_is_told_with_the_line_where_it_is_and_others_load(tmp_path: Path) -> None:
    path = write(tmp_path / "loops.py", "def turn():\n    while True: pass\n\nturn()\n")
    write(tmp_path / "zebra.py", PLUGIN.format("Zebra"))
    registry = load_plugins([tmp_path], limit=SHORT)
    assert problems(registry) == [
        f"{path}:2: does not import: still running after 0.2 s, in turn at {path}:2; {ADVICE}"
    ]
    assert names(registry) == ["Zebra"]


def test_a_file_that_waits_for_ever_is_told_with_its_own_line_and_where_it_waits(tmp_path: Path) -> None:
    path = write(tmp_path / "waits.py", "import threading\n\nthreading.Event().wait()\n")
    (problem,) = problems(load_plugins([tmp_path], limit=SHORT))
    assert problem.startswith(f"{path}:3: does not import: still running after 0.2 s, in wait at ")
    assert f"{os.sep}threading.py:" in problem


def test_a_file_that_catches_its_limit_is_stopped_all_the_same(tmp_path: Path) -> None:
    text = """
import time
for _ in range(2):
    try:
        time.sleep(60)
    except BaseException: pass
time.sleep(60)
"""
    path = write(tmp_path / "stubborn.py", text)
    (problem,) = problems(load_plugins([tmp_path], limit=SHORT))
    assert problem.startswith(f"{path}:7: does not import: still running after 0.2 s")


def test_an_init_that_runs_for_ever_is_told_and_other_classes_load(tmp_path: Path) -> None:
    text = PLUGIN.format("Waits") + "    def __init__(self):\n        import time; time.sleep(60)\n"
    path = write(tmp_path / "waits.py", text + PLUGIN.format("Zebra"))
    registry = load_plugins([tmp_path], limit=SHORT)
    (problem,) = problems(registry)
    assert problem.startswith(f"{path}:5: plugin class Waits: still running after 0.2 s")
    assert names(registry) == ["Zebra"]


def test_what_ends_in_time_is_not_interrupted_later(tmp_path: Path) -> None:
    write(tmp_path / "one.py", PLUGIN.format("One"))
    before = signal.getsignal(signal.SIGALRM)
    assert problems(load_plugins([tmp_path], limit=60)) == []
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_code_that_nothing_interrupts_ends_its_process_with_the_stack(tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.py", "import time\nsum(iter(int, 1))\n")
    code = f"""
from pathlib import Path
from apisix.runner.plugin import limit
from apisix.runner.plugin.discovery import load_plugins
limit.GRACE = 0.3
load_plugins([Path({str(tmp_path)!r})], limit=0.1)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f'File "{path}", line 2 in <module>' in ended.stderr


# Modules that are named, and installed distributions.


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, as the one that distributions are installed into."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "acme":
            del sys.modules[name]


def install(site: Path, name: str, entry_points: str) -> None:
    """Install a distribution, as far as its metadata goes."""
    write(site / f"{name}-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(site / f"{name}-1.0.dist-info" / "entry_points.txt", f"[apisix.plugins]\n{entry_points}\n")


def test_a_named_class_is_loaded_and_its_neighbours_are_not(site: Path) -> None:
    path = write(site / "acme" / "auth.py", PLUGIN.format("One") + PLUGIN.format("Two"))
    registry = load_plugins([], ["acme.auth:Two"])
    assert (names(registry), problems(registry)) == (["Two"], [])
    assert registry.find("two").origin == str(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere:One", "nowhere does not import: ModuleNotFoundError: No module named 'nowhere'"),
        ("acme:On", "there is no On in acme; did you mean One?"),
        ("acme:Zebra", "there is no Zebra in acme; plugins there are: One"),
        ("acme:VALUE", "expected a class that derives from Base, got VALUE = 5"),
        ("acme:Base.stop", "expected a class that derives from Base, got Base.stop = <function Base.stop at "),
    ],
)
def test_a_named_class_that_is_none_is_told_with_the_setting(site: Path, name: str, told: str) -> None:
    write(site / "acme.py", PLUGIN.format("One") + "VALUE = 5\n")
    (problem,) = problems(load_plugins([], [name]))
    assert problem.startswith(f"plugins.classes, {name}: {told}")


def test_a_named_module_that_fails_is_told_with_its_line(site: Path) -> None:
    path = write(site / "acme" / "tables.py", "\n1 / 0\n")
    write(site / "acme" / "__init__.py", "from . import tables")
    (problem,) = problems(load_plugins([], ["acme:One"]))
    assert problem == f"{path}:2: acme does not import: ZeroDivisionError: division by zero"


def test_an_installed_distribution_offers_a_class_or_all_plugins_of_a_module(site: Path) -> None:
    write(site / "acme" / "auth.py", PLUGIN.format("One") + PLUGIN.format("Unnamed"))
    write(site / "acme" / "more.py", PLUGIN.format("Two") + PLUGIN.format("Three"))
    install(site, "acme-plugins", "one = acme.auth:One\nmore = acme.more")
    registry = load_plugins([], installed=True)
    assert (names(registry), problems(registry)) == (["One", "Three", "Two"], [])
    assert registry.find("one").source == f"{site / 'acme' / 'auth.py'} (acme-plugins 1.0)"


def test_distributions_are_not_asked_unless_told_to(site: Path) -> None:
    write(site / "acme.py", "raise AssertionError('imported')")
    install(site, "acme-plugins", "one = acme:One")
    assert problems(load_plugins([])) == []


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("one = gone:One", "gone does not import: ModuleNotFoundError: No module named 'gone'"),
        ("one = acme", "expected plugins in acme, found none; name one, as module:Class"),
    ],
)
def test_a_distribution_that_offers_nothing_is_told_with_its_entry_point(site: Path, entry: str, told: str) -> None:
    write(site / "acme.py", "VALUE = 5")
    install(site, "acme-plugins", entry)
    assert problems(load_plugins([], installed=True)) == [f"entry point {entry} of acme-plugins 1.0: {told}"]


def test_a_class_that_is_found_twice_is_one_plugin(site: Path, tmp_path: Path) -> None:
    write(site / "acme.py", PLUGIN.format("One"))
    install(site, "acme-plugins", "one = acme:One")
    folder = tmp_path / "plugins"
    write(folder / "own.py", PLUGIN.format("Own"))
    registry = load_plugins([folder, folder], ["acme:One"], installed=True)
    assert (names(registry), problems(registry)) == (["One", "Own"], [])


def test_a_duplicate_names_both_origins_and_the_distribution(site: Path, tmp_path: Path) -> None:
    offered = write(site / "acme.py", PLUGIN.format("Same"))
    install(site, "acme-plugins", "same = acme:Same")
    own = write(tmp_path / "plugins" / "own.py", PLUGIN.format("Same"))
    registry = load_plugins([tmp_path / "plugins"], installed=True)
    both = f"{own} and {offered} (acme-plugins 1.0)"
    assert problems(registry) == [f"{offered}: plugin 'Same' is defined in {both}; rename one"]
    assert names(registry) == []


# Folders.


def test_a_folder_that_is_not_there_is_a_problem_and_others_are_loaded(tmp_path: Path) -> None:
    write(tmp_path / "here" / "one.py", PLUGIN.format("One"))
    registry = load_plugins([tmp_path / "gone", tmp_path / "here"])
    assert problems(registry) == [f"{tmp_path / 'gone'}: expected a folder of plugins: there is none"]
    assert names(registry) == ["One"]


def test_a_folder_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    file = write(tmp_path / "plugins", "")
    assert problems(load_plugins([file])) == [f"{file}: expected a folder of plugins: Not a directory"]


def test_an_empty_folder_is_none(tmp_path: Path) -> None:
    registry = load_plugins([tmp_path])
    assert (names(registry), problems(registry)) == ([], [])


# Tracebacks of what was loaded.


def test_the_traceback_of_a_plugin_begins_in_its_own_file_also_where_a_package_or_a_base_class_has_it(
    tmp_path: Path,
) -> None:
    fails = HEAD + "class {}(Base):\n    def filter(self, request, response): raise LookupError\n"
    write(tmp_path / "packed" / "__init__.py", "from .inner import Packed")
    inner = write(tmp_path / "packed" / "inner.py", fails.format("Packed"))
    common = write(tmp_path / "_common.py", fails.format("Common"))
    write(tmp_path / "derived.py", "from ._common import Common\nclass Derived(Common): ...")
    registry = load_plugins([tmp_path])
    for name, file in (("packed", inner), ("derived", common)):
        definition = registry.find(name)
        with pytest.raises(PluginFailure) as failure:
            given.run(given.chain_of(registry, name), http.request())
        assert failure.value.file == definition.origin
        lines = failure.value.traceback().splitlines()
        assert lines[:2] == ["Traceback (most recent call last):", f'  File "{file}", line 3, in filter']


def test_a_file_can_be_imported_by_others_under_its_name(tmp_path: Path) -> None:
    write(tmp_path / "a.py", PLUGIN.format("A"))
    write(tmp_path / "b.py", "from . import a\nimport sys\nassert sys.modules[__package__].a is a")
    assert problems(load_plugins([tmp_path])) == []
