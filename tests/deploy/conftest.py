"""What the tests of the recipes share: the folder, and programs that need not be there."""

import os
import shutil
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
DEPLOY = PROJECT / "deploy"


def needed(program: str) -> str:
    """The path of a program of .ci/packages; where it is absent the test is skipped, but never in CI."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed (.ci/packages)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
