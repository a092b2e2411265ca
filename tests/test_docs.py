"""The documentation's pages: links lead somewhere, the site's menu has every page, the README is short."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """Return the anchors of a page's headings, as MkDocs and GitHub name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_pages_link_to_pages_only():
    """What lies outside docs/ isn't on the site."""
    outside = [(page.name, link) for page in PAGES for link in LINK.findall(page.read_text()) if link.startswith("../")]
    assert outside == []


def test_the_menu_has_every_page_once():
    (nav,) = re.findall(r"^nav:\n.*", (ROOT / "mkdocs.yml").read_text(), re.DOTALL | re.MULTILINE)
    named = re.findall(r"(\S+\.md)$", yaml.safe_dump(yaml.safe_load(nav), width=1000), re.MULTILINE)
    assert sorted(named) == [page.name for page in PAGES]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100
