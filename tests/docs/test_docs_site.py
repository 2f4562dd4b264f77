"""The site is built strictly, and asks for nothing from elsewhere."""

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
    """The built site; strict: a link or an anchor that leads nowhere is an error."""
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


def test_every_page_is_in_the_navigation_and_built(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"command-line"}
    assert pages <= {path.stem for path in site.glob("*.html")}


def test_every_command_is_on_the_page_of_commands(site: Path) -> None:
    from forgetbench.cli import make_app

    text = (site / "command-line.html").read_text(encoding="utf-8")
    for name in make_app():
        if not name.startswith("-"):
            assert f'id="forgetbench-{name}"' in text, name


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]*)\"", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preload|preconnect|icon)\"[^>]*href=\"([^\"]*)\"", text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], path.name


def test_a_browser_asks_for_nothing_from_elsewhere(site: Path, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "reports", "methods"):
            page.goto(f"file://{site}/{name}.html")
            page.wait_for_load_state("networkidle")
            assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)"), name
        browser.close()
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
