"""One `dev` and one browser for the tests of a module; each test has a page of its own.

Not for more than a module: as long as the browser is there, its event loop runs in this thread, and the tests of
other folders could have none of their own.
"""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.inspector.browser import CHROMIUM, Dev, opened, running_browser, running_dev


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    with running_dev() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        reason = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with running_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, dev: Dev) -> Iterator[Page]:
    with opened(browser, dev) as page:
        yield page
