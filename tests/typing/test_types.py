"""What type checkers say of plugins: mypy --strict and pyright, in its strict mode but for the examples.

Rules that live here: the programs in `accepted`, the documentation's plugins and the examples' have no error; the
programs in `rejected` have those that their comments name, and no others. A comment ``# error: a|b, c`` means a or b of
mypy, and c of pyright. basedpyright stands for pyright, since its package holds all that it runs: nothing is fetched.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.doc_pages import EXAMPLE_PAGES, PAGES, PLUGIN_BLOCKS, PROJECT, blocks
from tests.test_projects import PROJECT_PAGES

HERE = Path(__file__).parent
REJECTED = sorted((HERE / "rejected").glob("*.py"))
CHECKERS = ("mypy", "pyright")

Errors = dict[tuple[str, int], set[str]]
"""What a checker finds: by file and line, the rules that are broken."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all programs, the documentation's plugins among them."""
    folder = tmp_path_factory.mktemp("programs")
    for file in [*(HERE / "accepted").glob("*.py"), *REJECTED]:
        (folder / file.name).write_text(file.read_text())
    for block in PLUGIN_BLOCKS:
        stem = block.page.stem.replace("-", "_").replace(".", "_")
        (folder / f"{stem}_line_{block.line}.py").write_text(block.text)
    for page in PROJECT_PAGES:
        for block in blocks(page, "python"):
            if block.file is not None and not block.plugin_file and page.name != "tutorial.md":
                shown = folder / block.file
                shown.parent.mkdir(exist_ok=True)
                shown.write_text(block.text)
    for file in (PROJECT / "examples").glob("*/plugins/*.py"):
        copy = folder / file.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    return folder


@pytest.fixture(scope="module", params=CHECKERS)
def errors(request: pytest.FixtureRequest, programs: Path) -> Errors:
    """What a checker finds in all of them."""
    return (mypy if request.param == "mypy" else pyright)(programs)


def mypy(folder: Path) -> Errors:
    flags = ["--config-file=", "--strict", "--explicit-package-bases", "--output=json"]
    command = [sys.executable, "-m", "mypy", *flags, "--cache-dir", str(PROJECT / ".mypy_cache" / "typing"), "."]
    environment = {"MYPYPATH": str(PROJECT)}
    run = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    assert not run.stderr
    found: Errors = defaultdict(set)
    for line in run.stdout.splitlines():
        error = json.loads(line)
        if error["severity"] == "error":
            found[error["file"], error["line"]].add(error["code"])
    return found


def pyright(folder: Path) -> Errors:
    strict = ["*.py", "plugins", "tests"]
    settings = {"typeCheckingMode": "standard", "strict": strict, "extraPaths": [str(PROJECT)]}
    settings["reportPossiblyUnbound"] = "warning"  # as in pyright; basedpyright has made it an error
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    found: Errors = defaultdict(set)
    for error in json.loads(run.stdout)["generalDiagnostics"]:
        if error["severity"] == "error":
            place = str(Path(error["file"]).relative_to(folder)), error["range"]["start"]["line"] + 1
            found[place].add(error["rule"])
    return found


def test_what_is_right_is_accepted(errors: Errors, programs: Path) -> None:
    rejected = {file.name for file in REJECTED}
    assert {place: rules for place, rules in errors.items() if place[0] not in rejected} == {}
    assert len(list(programs.glob("*_line_*.py"))) == len(PLUGIN_BLOCKS) > (len(PAGES) - len(EXAMPLE_PAGES)) // 2


@pytest.mark.parametrize("file", REJECTED, ids=lambda file: file.name)
def test_what_is_wrong_is_rejected(errors: Errors, file: Path, request: pytest.FixtureRequest) -> None:
    index = CHECKERS.index(request.node.callspec.params["errors"])
    expected = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        comment = re.search(r"# error: ([\w|-]+), (\w+)$", line)
        if comment:
            expected[number] = set(comment[index + 1].split("|"))
    found = {line: rules for (name, line), rules in errors.items() if name == file.name}
    assert expected
    assert found.keys() == expected.keys()
    assert {line: rules for line, rules in found.items() if not rules & expected[line]} == {}
