"""What turns these pages into a site (mkdocs.yml): links that lead out of this folder lead to pages, too.

Rules that live here:
- A file of the project that a page links to becomes a page below ``project/``: Markdown as it is, all else as code.
- Headings have the anchors that GitHub gives them.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
PROJECT = DOCS.parent
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
_fenced = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_link = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name headings as GitHub does."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def slug(heading: str, separator: str) -> str:
    """A heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each file outside of the folder that is linked to, from whichever page."""
    waiting = [DOCS / file.src_uri for file in files.documentation_pages()]
    known = set(waiting)
    for page in waiting:  # grows as pages are found
        for target in _targets(page):
            if target in known or not target.is_file() or target.is_relative_to(DOCS):
                continue
            known.add(target)
            files.append(_page(config, target))
            if target.suffix == ".md":
                waiting.append(target)
    return files


def _page(config: MkDocsConfig, file: Path) -> File:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":
        name = file.relative_to(PROJECT).as_posix()
        head = "---\nsearch:\n  exclude: true\n---\n\n" + f"# {file.name}\n\n`{name}`\n"
        text = f"{head}\n````{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n````\n"
    return File.generated(config, _uri(file), content=text, inclusion=InclusionLevel.NOT_IN_NAV)


def _uri(file: Path) -> str:
    """Where a file's page is in the site's sources."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    path = file.relative_to(PROJECT).as_posix()
    return f"project/{path}" if file.suffix == ".md" else f"project/{path}.md"


def _source(uri: str) -> Path:
    """The file that is a page of the site."""
    if not uri.startswith("project/"):
        return DOCS / uri
    path = PROJECT / uri.removeprefix("project/")
    return path if path.is_file() else path.with_suffix("")


def _targets(page: Path) -> Iterator[Path]:
    for part in _fenced.split(page.read_text(encoding="utf-8"))[::2]:
        for link in _link.findall(part):
            yield (page.parent / link).resolve()


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Let the links of a page lead to pages of the site."""
    source = _source(page.file.src_uri)

    def in_site(link: re.Match[str]) -> str:
        target = (source.parent / link[1]).resolve()
        if not target.is_relative_to(PROJECT):
            return link[1]
        return posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri) or ".")

    parts = _fenced.split(markdown)
    parts[::2] = [_link.sub(in_site, part) for part in parts[::2]]
    return "".join(parts)
