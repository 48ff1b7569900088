"""The documentation as a site: it builds without a warning, and shows itself without fetching anything."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, check=False, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert (run.returncode, "WARNING" in run.stderr) == (0, False), run.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    docs = PROJECT / "docs"
    pages = [page.relative_to(docs).with_suffix(".html") for page in docs.rglob("*.md")]
    assert [page for page in pages if not (site / page).is_file()] == []
    assert not [file for file in site.rglob("*") if file.suffix in (".py", ".pyc")]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe|link(?![^>]*rel="?canonical))[^>]*?(?:src|href)=["']?(?:https?:)?//"""
    )
    pages = [file.relative_to(site) for file in site.rglob("*.html") if fetched.search(file.read_text())]
    assert pages == []
    in_styles = re.compile(r"""url\(["']?(?:https?:)?//|@import ["'](?:https?:)?//""")
    assert [file.name for file in site.rglob("*.css") if in_styles.search(file.read_text())] == []
    assert not [file for file in site.rglob("*.html") if 'class="mermaid"' in file.read_text()]  # its script is remote


def test_it_can_be_searched(site: Path) -> None:
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {entry["location"].partition("#")[0] for entry in entries if "X-Forwarded-For" in entry["text"]}
    assert "examples/ip_allow_deny.html" in found


@pytest.mark.parametrize(
    ("page", "link", "shows"),
    [
        ("index.html", "project/index.html", "Two commands"),
        ("project/index.html", "../tutorial.html", "Tutorial"),
        ("project/index.html", "apisix/plugins/stop.py.html", "class"),
        (
            "examples/ip_allow_deny.html",
            "../project/examples/ip_allow_deny/plugins/ip_allow_deny.py.html",
            "IpAllowDeny",
        ),
    ],
)
def test_links_out_of_the_folder_lead_to_pages(site: Path, page: str, link: str, shows: str) -> None:
    assert f'href="{link}"' in (site / page).read_text()
    assert shows in ((site / page).parent / link).read_text()
