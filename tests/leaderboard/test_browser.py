"""The site in Chromium, with and without scripts."""

from __future__ import annotations

import csv
import json
import socket
import threading
import time

import pytest
import uvicorn
from support.concurrency import wait_until

from forgetbench.evidence.run import CostRecord
from forgetbench.leaderboard.render import vega
from forgetbench.leaderboard.web.app import create_app

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


CUT = """width => [...document.querySelectorAll("main *:not(thead *)")]
    .filter(part => part.getBoundingClientRect().right > width + 1 && !part.closest(".scroll, pre, svg, thead"))
    .map(part => part.outerHTML.slice(0, 100))"""
"""Parts of a page that begin or end outside of the window, and not in a box that scrolls."""


@pytest.fixture
def address(site, world, tmp_path):
    """The site on a port, with a few rows."""
    headers = site.token("submit", "run", name="Vision lab, University of Somewhere")
    rows = [
        ("tuner", 1.2, 0.0),
        ("scrubber", 0.1, 0.0),
        ("saliency:epochs=10,lr=0.013", 0.05, 0.0),
        ("collapse", -2.0, 4.0),
    ]
    for place, (name, memory, damage) in enumerate(rows):
        site.post(
            world.write_run(
                tmp_path / str(place),
                name.partition(":")[0],
                start=300 + 20 * place,
                memory=memory,
                damage=damage,
                cost=CostRecord(flops=(place + 1) * 1e10, retrain_flops=1e12),
                method={"label": name, "source": "class Scrub:\n    pass\n"},
            ),
            headers,
        )
    site.work()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(site.settings), port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def open_page(chromium):
    """Opens a page; fails the test if the page logs a message or loads anything from another site."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        messages = []

        def open_page(url, **options):
            context = browser.new_context(**options)
            page = context.new_page()
            page.on("console", lambda message: messages.append(message.text))
            page.on(
                "request", lambda request: None if request.url.startswith(url[:22]) else messages.append(request.url)
            )
            page.goto(url)
            return page

        yield open_page
        browser.close()
        assert not messages


@pytest.mark.parametrize("scripts", [True, False])
def test_sort_filter_open_and_share_a_board(scripts, address, open_page, world):
    page = open_page(f"{address}/", java_script_enabled=scripts)
    page.get_by_role("columnheader").get_by_role("link", name=world.task, exact=True).click()
    shown = page.locator("tr.ranked th.method > a")
    before = shown.all_inner_texts()
    page.get_by_role("link", name="Tier and method", exact=True).click()
    assert shown.all_inner_texts() == sorted(before)
    page.get_by_role("searchbox").fill("scrub")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**q=scrub**")
    assert shown.all_inner_texts() == ["scrubber"]
    shared = open_page(page.url, java_script_enabled=scripts)
    assert shared.locator("tr.ranked th.method > a").all_inner_texts() == ["scrubber"]
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [row["label"] for row in rows] == ["Retrain", "No unlearning", "scrubber"]
    page.get_by_role("link", name="scrubber", exact=True).click()
    assert page.locator("h1").inner_text() == "reference scrubber"
    page.locator("summary", has_text="as submitted").click()
    assert "class Scrub" in page.locator("pre.source").inner_text()
    page.goto(f"{address}/boards/{world.task}")
    for name in ("scrubber", "tuner"):
        page.get_by_role("checkbox", name=f"Choose {name} for comparing").check()
    page.get_by_role("button", name="Compare chosen rows").click()
    assert page.locator("h1").inner_text() == "2 entries compared"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 1440])
def test_pages_fit_the_window(width, scheme, address, open_page, world, tmp_path):
    page = open_page(f"{address}/", viewport={"width": width, "height": 800}, color_scheme=scheme)
    paths = ["/", f"/boards/{world.task}", f"/boards/{world.task}?columns=all"]
    page.goto(f"{address}{paths[1]}")
    paths.append(page.locator("tr.ranked th.method > a").first.get_attribute("href"))
    paths += ["/metrics", "/methods", "/submitters/Vision lab, University of Somewhere", f"/tasks/{world.task}"]
    for place, path in enumerate(paths):
        page.goto(f"{address}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(CUT, width) == [], path
        picture = page.screenshot(path=tmp_path / f"{place}.png", full_page=True)
        assert len(picture) > 5000


def test_axe_reports_no_violations(address, open_page, world):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(f"{address}/boards/{world.task}")
    links = page.locator("tr.ranked th.method > a").all()
    first, second = (link.get_attribute("href") for link in links[:2])
    ids = f"{first},{second}".replace("/entries/", "")
    paths = [
        "/",
        f"/boards/{world.task}?columns=all&q=s",
        first,
        f"/compare?ids={ids}",
        "/methods",
        "/methods/scrubber",
    ]
    paths += ["/metrics", "/metrics/lira.forget", f"/tasks/{world.task}", "/submit", "/api", "/tasks/digits/cnn/class"]
    paths += ["/submitters/Vision lab, University of Somewhere"]
    for scheme in ("light", "dark"):
        page = open_page(f"{address}/", color_scheme=scheme)
        for path in paths:
            page.goto(f"{address}{path}")
            found = Axe().run(page).response["violations"]
            assert not found, [
                (path, scheme, item["id"], [node["html"] for node in item["nodes"]][:3]) for item in found
            ]


def test_narrow_pages_fold_lists_and_say_what_scrolls(address, open_page, world):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(f"{address}/boards/{world.task}?columns=all", viewport={"width": 360, "height": 800})
    entry = page.locator("tr.ranked th.method > a").first.get_attribute("href")
    box = page.locator(".scroll.wide")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert box.evaluate("box => parseFloat(getComputedStyle(box, '::before').height)") > 15  # the hint is shown
    box.focus()
    page.keyboard.press("ArrowRight")
    wait_until(lambda: box.evaluate("box => box.scrollLeft > 0"), "scrolling by keyboard")
    for path in (entry, "/metrics", "/methods", f"/boards/{world.task}?columns=all"):
        page.goto(f"{address}{path}")
        for table in page.locator(".scroll > .stack:visible").all():
            assert table.evaluate("table => table.parentElement.scrollWidth <= table.parentElement.clientWidth"), path
        found = Axe().run(page).response["violations"]
        assert not found, [(path, item["id"], [node["html"] for node in item["nodes"]][:3]) for item in found]


def test_chart_becomes_interactive_under_the_strict_policy(address, site, open_page, world):
    vega.write_program(site.settings)
    page = open_page(f"{address}/boards/{world.task}?x=gap.retain&y=distance")
    figure = page.locator("figure").first
    assert figure.locator("svg.chart a").count() == 6
    figure.get_by_role("button", name="Make it interactive").click()
    figure.locator("canvas").wait_for()
    box = figure.locator("canvas").bounding_box()
    assert box["width"] > 300
    assert box["height"] > 300
    assert figure.get_by_role("button").count() == 0
    colors = page.evaluate(
        "() => { const c = document.querySelector('figure canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const s = new Set();"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) s.add(`${d[i]},${d[i + 1]},${d[i + 2]}`);"
        "return s.size; }"
    )
    assert colors > 10  # points, bands and letters are drawn
    page.get_by_label("Upward").select_option("gap.test")
    page.wait_for_url("**y=gap.test**")
    assert "gap.test against gap.retain" in page.locator("figcaption").first.inner_text()


def test_api_page_opens_routes_with_parameters(address, open_page, world):
    page = open_page(f"{address}/api")
    form = page.get_by_role("form", name="Open /api/v1/boards/{task}", exact=True)
    form.get_by_label("task").fill(world.task)
    form.get_by_label("columns").select_option("cost")
    form.get_by_label("limit").fill("2")
    form.get_by_role("button", name="Open").click()
    page.wait_for_url(f"**/api/v1/boards/{world.task}?**limit=2**")
    found = json.loads(page.locator("pre").inner_text())
    assert (found["task"], len(found["rows"])) == (world.task, 2)
    without = open_page(f"{address}/api", java_script_enabled=False)
    assert without.get_by_role("form", name="Open /api/v1/boards/{task}", exact=True).count() == 0
    form = without.get_by_role("form", name="Open /api/v1/boards", exact=True)
    form.get_by_label("superseded").select_option("true")
    form.get_by_role("button", name="Open").click()
    without.wait_for_url("**/api/v1/boards?superseded=true")
