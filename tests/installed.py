"""Programs that tests run and that need not be there."""

import os
import shutil

import pytest


def needed(*names: str) -> str:
    """The path of a program of .ci/packages, by the first of its names that is there.

    Where there is none the test is skipped, but never in CI.
    """
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        message = f"{names[0]} is not installed (.ci/packages)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
