"""The workflows and forms of .github: their schemas, and the rules for what they may do."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import PROJECT

FOLDER = PROJECT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-issue-forms": [FOLDER / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "idea.yml")],
    "vendor.github-issue-config": [FOLDER / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [FOLDER / "dependabot.yml"],
}
RIGHTS = {("release.yml", "pypi"): {"id-token": "write"}, ("release.yml", "github"): {"contents": "write"}}
"""The jobs that may do more than read the code."""


def workflow(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


@pytest.mark.parametrize("schema", SCHEMAS)
def test_github_understands_it(schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, SCHEMAS[schema])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
class TestWorkflow:
    def test_actions_are_pinned_to_a_major_version(self, file: Path) -> None:
        used = re.findall(r"uses: (\S+)", file.read_text())
        assert used
        assert [action for action in used if not re.search(r"@(v\d+|release/v\d+)$", action)] == []

    def test_jobs_have_no_rights_that_they_do_not_need(self, file: Path) -> None:
        read = workflow(file)
        assert read["permissions"] == {"contents": "read"}
        given = {(file.name, name): job["permissions"] for name, job in read["jobs"].items() if "permissions" in job}
        assert given == {key: rights for key, rights in RIGHTS.items() if key[0] == file.name}

    def test_the_code_is_checked_out_without_credentials(self, file: Path) -> None:
        steps = [step for job in workflow(file)["jobs"].values() for step in job["steps"]]
        checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
        assert checkouts
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)

    def test_nothing_that_others_can_write_becomes_a_command(self, file: Path) -> None:
        """A title or a branch's name in a `run` is code of whoever wrote it."""
        runs = [step["run"] for job in workflow(file)["jobs"].values() for step in job["steps"] if "run" in step]
        assert [text for text in runs if "${{" in text] == []

    def test_make_has_the_targets_that_are_called(self, file: Path) -> None:
        makefile = (PROJECT / "Makefile").read_text()
        called = re.findall(r"\bmake (.*)", file.read_text())
        targets = {word for line in called for word in line.split() if "=" not in word}
        assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_only_a_release_that_someone_approved_is_published() -> None:
    job = workflow(FOLDER / "workflows" / "release.yml")["jobs"]["pypi"]
    assert job["environment"] == "pypi"
    assert not re.search(r"password|api-token|secrets\.", (FOLDER / "workflows" / "release.yml").read_text())
