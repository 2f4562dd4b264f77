"""The documentation site builds strictly, documents everything, and loads nothing from other servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strict: a broken link or anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in (ROOT / "docs").rglob("*.md")}
    built = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")}
    assert pages | {"command-line", "methods", "metrics", "python-api"} <= built


def test_every_command_is_documented(site: Path) -> None:
    from forgetbench.cli import make_app

    text = (site / "command-line.html").read_text(encoding="utf-8")
    for name in make_app():
        if not name.startswith("-"):
            assert f'id="forgetbench-{name}"' in text, name


def test_every_public_name_is_documented(site: Path) -> None:
    import forgetbench

    text = (site / "python-api.html").read_text(encoding="utf-8")
    assert [name for name in forgetbench.__all__ if f'id="{name.lower()}"' not in text] == ["__version__"]


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]*)\"", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preload|preconnect|icon)\"[^>]*href=\"([^\"]*)\"", text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], path.name


def test_browser_requests_nothing_from_other_servers(site: Path, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        for name in ("index", "reports", "methods"):
            page.goto(f"file://{site}/{name}.html")
            page.wait_for_load_state("networkidle")
            assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)"), name
        browser.close()
    assert requests
    assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
