"""Plugins that change while the page is open."""

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.inspector.browser import opened, running_dev

GOOD = '''"""{about}"""

from apisix.runner.plugin.base import Base


class Token(Base):
    def filter(self, request, response):
        self.stop(200, "{about}")
'''


def save(file: Path, text: str) -> None:
    """Write a file as an editor does it: whole, under its name at once."""
    temporary = file.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(file)


def test_new_code_is_shown_and_code_that_does_not_load_is_told(browser: Browser, tmp_path: Path) -> None:
    plugin = tmp_path / "token.py"
    save(plugin, GOOD.format(about="First."))
    with running_dev(plugins=tmp_path) as dev, opened(browser, dev, place="#/plugins/Token") as page:
        expect(page.locator(".about")).to_have_text("First.")
        save(plugin, GOOD.format(about="Second, and better."))
        expect(page.locator(".about")).to_have_text("Second, and better.", timeout=15_000)

        save(plugin, "class Token(:\n")
        trouble = page.get_by_role("link", name="1 plugin file does not load")
        expect(trouble).to_be_visible(timeout=15_000)
        expect(page.locator("#list .problem")).to_contain_text("token.py")
        expect(page.locator(".about")).to_have_text("Second, and better.")  # which goes on

        save(plugin, GOOD.format(about="Third."))
        expect(trouble).to_be_hidden(timeout=15_000)
        expect(page.locator(".about")).to_have_text("Third.")
