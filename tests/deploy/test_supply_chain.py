"""What the project is made from: locked with hashes, in step with pyproject.toml, under licences that fit."""

import re
import runpy
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.conftest import PROJECT

PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
OURS = "apisix-runner"


def extras(*names: str) -> list[str]:
    """The requirements of extras, and of the extras that they name."""
    found = []
    for text in (text for name in names for text in EXTRAS[name]):
        requirement = Requirement(text)
        found += extras(*requirement.extras) if requirement.name == OURS else [text]
    return found


LOCKS: dict[str, list[str]] = {
    "requirements.lock": PYPROJECT["project"]["dependencies"] + extras("title", "uvloop"),
    "requirements-build.lock": PYPROJECT["build-system"]["requires"],
    "requirements-dev.lock": PYPROJECT["project"]["dependencies"] + extras("dev", "bench", "release"),
}


def entries(lock: str) -> list[str]:
    """What a lock file says of each package: the requirement and its hashes."""
    lines = [line for line in (PROJECT / lock).read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def locked(lock: str) -> dict[str, list[Version]]:
    """The versions of a lock file; several where they depend on the Python."""
    found: dict[str, list[Version]] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.partition("\\")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        found.setdefault(canonicalize_name(requirement.name), []).append(Version(pin.version))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_agrees_with_pyproject(lock: str) -> None:
    versions = locked(lock)
    wanted = [Requirement(text) for text in LOCKS[lock]]
    wrong = [
        str(one)
        for one in wanted
        if not (found := versions.get(canonicalize_name(one.name)))
        or not all(one.specifier.contains(version) for version in found)
    ]
    assert wrong == [], "run: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_hashes(lock: str) -> None:
    assert [entry for entry in entries(lock) if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_place_to_fetch_from(lock: str) -> None:
    assert not re.search(r"://|--index|--find-links|--extra-index| @ ", (PROJECT / lock).read_text())


class TestLicences:
    SCRIPT = PROJECT / ".ci" / "licences.py"

    def test_those_of_what_users_install_fit(self) -> None:
        done = subprocess.run([sys.executable, str(self.SCRIPT)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_what_users_install_is_looked_at(self) -> None:
        script = runpy.run_path(str(self.SCRIPT))
        found: dict[str, object] = {}
        script["dependencies"](OURS, script["FOR_USERS"], found)
        needed = {canonicalize_name(Requirement(text).name) for text in extras(*script["FOR_USERS"])}
        assert needed | {"click", "msgspec", "pyyaml"} <= set(found)
        assert "multidict" in found  # what a dependency needs

    @pytest.mark.parametrize(
        ("licence", "fits"),
        [
            ("MIT", True),
            ("Apache-2.0 AND MIT", True),
            ("(GPL-3.0-only OR BSD-3-Clause)", True),
            ("Mozilla Public License 2.0 (MPL 2.0)", True),
            ("GPL-3.0-only", False),
            ("MIT AND GPL-3.0-only", False),
            ("GNU Affero General Public License v3", False),
            ("none", False),
        ],
    )
    def test_which_fit(self, licence: str, fits: bool) -> None:
        assert runpy.run_path(str(self.SCRIPT))["permitted"](licence) == fits
