"""The documentation builds without a warning, and its links lead somewhere."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import urllib.parse

import pytest
from doc_pages import PAGES, ROOT, links

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E", "-d", str(out / "trees")]
    result = subprocess.run(
        [*command, str(ROOT / "docs"), str(out / "html")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "html"


def test_every_page_is_in_the_contents(site: pathlib.Path) -> None:
    index = (site / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists()
        assert page.stem == "index" or f'href="{page.stem}.html"' in index


def test_needs_no_network(site: pathlib.Path) -> None:
    """No page loads anything from elsewhere."""
    for page in site.glob("*.html"):
        for tag in ("<script src=", '<link rel="stylesheet" type="text/css" href=', "<img src="):
            for loaded in page.read_text().split(tag)[1:]:
                assert not loaded.lstrip('"').startswith(("http:", "https:", "//")), f"{page.name}: {loaded[:80]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links(page: pathlib.Path, site: pathlib.Path) -> None:
    """Files that are linked exist, with their headings; addresses elsewhere are whole (they are not called)."""
    for link in links(page):
        parts = urllib.parse.urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" and "." in parts.netloc and " " not in link, f"{page.name}: {link}"
        elif parts.path:
            target = page.parent / parts.path
            assert target.exists(), f"{page.name}: {link}"
            if parts.fragment:
                html = site / f"{target.stem}.html"
                assert f'id="{parts.fragment}"' in html.read_text(), f"{page.name}: {link}"
