"""What the tests of the recipes share: the folder, and a browser."""

from pathlib import Path

from tests.browser import browser as browser

PROJECT = Path(__file__).parent.parent.parent
DEPLOY = PROJECT / "deploy"
