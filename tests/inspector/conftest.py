"""One `dev` and one browser for the tests of a module; each test has a page of its own."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import browser as browser
from tests.inspector.browser import Dev, opened, running_dev


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    with running_dev() as running:
        yield running


@pytest.fixture
def page(browser: Browser, dev: Dev) -> Iterator[Page]:
    with opened(browser, dev) as page:
        yield page
