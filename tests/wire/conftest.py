"""Both codecs pass the same tests."""

import os

import pytest

from tests.wire.codec import COMPILED, PURE, WHY_NOT_COMPILED, Codec


@pytest.fixture(scope="session", params=["pure", "compiled"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """One codec after the other. `APISIX_RUNNER_PURE=0` fails where there is no compiled one."""
    return PURE if request.param == "pure" else compiled_or_skip()


@pytest.fixture(scope="session")
def compiled() -> Codec:
    """The compiled codec."""
    return compiled_or_skip()


def compiled_or_skip() -> Codec:
    """The compiled codec; without one the test is skipped."""
    if COMPILED is None:
        if os.environ.get("APISIX_RUNNER_PURE") == "0":
            pytest.fail(WHY_NOT_COMPILED)
        pytest.skip(WHY_NOT_COMPILED)
    return COMPILED
