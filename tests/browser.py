"""A real browser, for tests of pages and for the documentation's images.

The fixture is imported by the conftest.py of the folders that need it. It is not for more than a module: as long as the
browser is there, its event loop runs in this thread, and the tests of other folders could have none of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.installed import needed

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
MILLISECONDS = 15_000
expect.set_options(timeout=MILLISECONDS)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium, as the system has it."""
    with sync_playwright() as playwright:
        program = needed("chromium", "chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@contextmanager
def opened_page(
    browser: Browser, address: str, width: int = 1280, height: int = 860, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    """A page; whatever it logs as an error, or throws, fails the test."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if _is_problem(message) else None)
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
    assert not problems, problems


def _is_problem(message: ConsoleMessage) -> bool:
    """Not that a server has refused something (status 4xx), which the browser tells, too."""
    return message.type == "error" and "responded with a status of 4" not in message.text
