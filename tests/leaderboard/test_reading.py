"""Pages other than boards, and files of all pages."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from forgetbench.leaderboard.boards.compare import difference, student_975
from forgetbench.leaderboard.db.models import Entry
from forgetbench.reporting.table_writer import escape_formula, escape_latex
from forgetbench.scoring.vocabulary import COMES_BACK, Verdict


def export(site, ending, query=""):
    answer = site.client.get(f"/boards/{site.world.task}.{ending}{query}")
    assert answer.status_code == 200
    assert f'.{ending}"' in answer.headers["Content-Disposition"]
    return answer.text


def test_csv_has_the_rows_and_columns_in_full_precision(full):
    rows = list(csv.DictReader(io.StringIO(export(full, "csv", "?sort=-distance"))))
    api = full.client.get(f"/api/v1/boards/{full.world.task}?sort=-distance").json()
    assert [row["id"] for row in rows] == [row["id"] for row in api["references"] + api["rows"]]
    for mine, theirs in zip(rows, api["references"] + api["rows"], strict=True):
        assert float(mine["distance [oracle sd]"]) == theirs["distance"]
        assert float(mine["lira.forget [AUC]"]) == theirs["values"]["lira.forget"]["value"]
        assert float(mine["gap.test [share]"]) == theirs["values"]["gap.test"]["value"]
    assert {"gap.forget_low", "gap.forget_z"} <= set(rows[0])
    assert not any(column.startswith("accuracy") for column in rows[0])


def test_exports_apply_filters_and_column_sets(full):
    rows = list(csv.DictReader(io.StringIO(export(full, "csv", "?q=gamma&columns=utility"))))
    assert [row["label"] for row in rows] == ["Retrain", "No unlearning", "gamma"]
    assert "accuracy.test [share]" in rows[0]


def test_csv_cells_are_never_formulas(full):
    text = export(full, "csv")
    assert "'=HYPERLINK" in text
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not cell.startswith(("=", "@", "+"))
            assert not cell.startswith("-") or float(cell) <= 0


@given(st.text())
def test_escape_formula_leaves_no_formula(text):
    shown = escape_formula(text)
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert shown.endswith(text)


def test_board_json_is_the_document_of_the_api(full):
    document = json.loads(export(full, "json"))
    api = full.client.get(f"/api/v1/boards/{full.world.task}").json()
    assert {key: document[key] for key in api} == api


def test_markdown_stays_a_table_for_any_name(full):
    lines = [line for line in export(full, "md").splitlines() if line.startswith("|")]
    assert len(lines) == 9
    assert len({line.replace("\\|", "").count("|") for line in lines[:7]}) == 1
    assert "=HYPERLINK(1)\\|x\\_$" in "\n".join(lines)


def test_latex_rows_have_equal_columns(full):
    text = export(full, "tex")
    assert r"=HYPERLINK(1)|x\_\$" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
    if shutil.which("pdflatex"):
        subprocess.run(["pdflatex", "--version"], check=True, capture_output=True)


@given(st.text(alphabet="ab\\{}$&#_%~^ "))
def test_escape_latex_leaves_no_command(text):
    shown = escape_latex(text)
    for character in "&%$#_":
        assert shown.count(character) == shown.count("\\" + character)


def test_student_975_agrees_with_scipy():
    assert np.allclose([student_975(n) for n in range(1, 200)], stats.t.ppf(0.975, np.arange(1, 200)), rtol=1e-12)


def test_paired_difference_agrees_with_the_paired_t_test():
    generator = np.random.default_rng(3)
    left, right = generator.normal(1, 1, 8), generator.normal(0, 1, 8)
    found = difference(
        {"value": left.mean(), "pseudo_values": list(left)}, {"value": right.mean(), "pseudo_values": list(right)}
    )
    expected = stats.ttest_rel(left, right).confidence_interval()
    assert np.allclose([found.low, found.high], [expected.low, expected.high])
    assert found.clear == (expected.low > 0 or expected.high < 0)


def test_compare_shows_differences_and_configuration(full):
    rows = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"]
    ids = [row["id"] for row in rows if row["label"] in {"alpha", "beta", "gamma"}]
    page = full.client.get("/compare", params={"ids": ids})
    assert page.status_code == 200
    assert page.text.count('class="differs"') == 3  # method, source and epochs; not lr
    assert "z out" in page.text
    assert full.client.get("/compare", params={"ids": ",".join(ids)}).status_code == 200


@pytest.mark.parametrize("count", [0, 1, 7])
def test_compare_accepts_two_to_six(full, count):
    assert full.client.get("/compare", params={"ids": ["x"] * 7 if count == 7 else ["x"] * count}).status_code in {
        404,
        422,
    }


def test_methods_metrics_tasks_and_submitters_have_pages(full):
    for path, words in (
        ("/methods", "alpha"),
        ("/methods/alpha", full.world.task),
        ("/methods/live+1", "=HYPERLINK(1)|x_$"),
        ("/metrics", "retain drift"),
        ("/metrics/lira.forget", "Carlini"),
        (f"/tasks/{full.world.task}", "CC0-1.0"),
        ("/submitters/Ada Lovelace", "5 listed"),
        ("/submit", "forgetbench pack pull"),
        ("/submit", "The cost."),
    ):
        answer = full.client.get(path)
        assert (answer.status_code, words in answer.text) == (200, True), (path, answer.text[:2000])


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/methods/none-such",
            "/metrics/none",
            "/tasks/none",
            "/submitters/nobody",
            "/boards/none",
            "/boards/none.csv",
        ),
        *(
            "/entries/none",
            "/entries/%00",
            "/methods/%00",
            "/boards/%00",
            "/submitters/%00",
            "/metrics/%00",
            "/tasks/%00",
        ),
    ],
)
def test_unknown_pages_give_404(full, path):
    answer = full.client.get(path, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


def views(full):
    """Every page with files, and a text that the files have."""
    rows = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"]
    ids = [row["id"] for row in rows if row["label"] in {"alpha", "gamma"}]
    return {
        "/boards": full.world.task,
        "/methods": "alpha",
        "/methods/alpha": full.world.task,
        "/metrics": "lira.forget",
        "/metrics/lira.forget": full.world.task,
        f"/tasks/{full.world.task}": "CC0-1.0",
        "/submitters/Ada Lovelace": "alpha",
        "/submit": "task_key",
        f"/entries/{ids[0]}": "gap.retain",
        f"/compare?ids={','.join(ids)}": "gamma",
    }


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_every_page_is_available_as_a_file(full, ending):
    for path, text in views(full).items():
        start, _, query = path.partition("?")
        answer = full.client.get(f"{start}.{ending}" + (f"?{query}" if query else ""))
        assert answer.status_code == 200, (path, answer.text[:500])
        shown = answer.text.replace("\\_", "_").replace("\\", "")
        assert text in shown, (path, shown[:500])
        assert f".{ending}" in answer.headers["content-disposition"]
        page = full.client.get("/" if path == "/boards" else path)
        assert f'href="{start.replace(" ", "%20")}.{ending}' in page.text, path
    for unknown in ("xls", "md", "tex"):
        assert full.client.get(f"/methods.{unknown}").status_code == 404


def test_files_have_full_precision_and_no_formula(full):
    rows = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"]
    alpha = next(row for row in rows if row["label"] == "alpha")
    table = full.client.get(f"/entries/{alpha['id']}.json").json()["tables"]["Metrics"]
    found = {line["metric"]: line["value"] for line in table}
    assert {name: found[name] for name in alpha["values"]} == {
        name: value["value"] for name, value in alpha["values"].items()
    }
    lines = list(csv.reader(full.client.get("/methods.csv").text.splitlines()))
    assert "'=SUM(1)" in [line[1] for line in lines]
    lines = list(csv.reader(full.client.get("/methods/live+1.csv").text.splitlines()))
    assert "'=HYPERLINK(1)|x_$" in lines[-1]
    tables = full.client.get("/boards.json").json()["tables"]
    [board] = tables["Boards"]
    own = [cell for cell in tables["Methods by tasks"] if cell["tier"] != "shipped"]
    assert (board["entries"], len(own), {cell["tier"] for cell in own}) == (5, 5, {"claimed"})


def test_api_page_names_all_routes_parameters_documents(full):
    document = full.client.get("/api/v1/openapi.json").json()
    page = full.client.get("/api").text
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page
            for parameter in operation.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in page
    for name in document["components"]["schemas"]:
        assert f"<summary>{name}</summary>" in page
    assert "Which metrics are shown." in page  # a parameter's meaning
    assert "stays as it is" in page  # the promise
    assert '<script src="/static/' in page
    assert page.count("<script") == 1


def test_feed_is_atom_with_the_newest_entries(full):
    answer = full.client.get("/feed.atom")
    assert answer.headers["content-type"] == "application/atom+xml"
    space = "{http://www.w3.org/2005/Atom}"
    feed = ET.fromstring(answer.content)  # noqa: S314 - our own feed
    titles = {item.findtext(f"{space}title") for item in feed.iter(f"{space}entry")}
    assert titles == {
        f"[claimed] {name} on {full.world.task}" for name in ("alpha", "beta", "gamma", "delta", "=HYPERLINK(1)|x_$")
    }
    updated = [item.findtext(f"{space}updated") for item in feed.iter(f"{space}entry")]
    assert updated == sorted(updated, reverse=True)


def test_badge_shows_rank_and_tier(full):
    row = next(
        row for row in full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"] if row["label"] == "gamma"
    )
    picture = ET.fromstring(full.client.get(f"/badges/{row['id']}.svg").content)  # noqa: S314 - our own picture
    words = " ".join(picture.itertext())
    low, high = row["rank"]["low"], row["rank"]["high"]
    assert f"claimed: {row['verdict']}, rank C{low if low == high else f'{low}–{high}'} of 4 claims" in words
    assert full.client.get("/badges/none.svg").status_code == 404


def test_badge_says_what_the_verdict_hides(full_site):
    entry_id = full_site.client.get(f"/api/v1/boards/{full_site.world.task}").json()["rows"][0]["id"]
    with full_site.database.write_session() as session:
        entry = session.get_one(Entry, entry_id)
        entry.verdict, entry.flags = Verdict.BETTER, ["recoverable"]
    assert f"{Verdict.BETTER}, {COMES_BACK}, rank" in full_site.client.get(f"/badges/{entry_id}.svg").text


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/api/v1/boards/nope", "/api/v1/boards list all"),
        ("GET", "/api/v1/boards/{task}?pack=deadbeef", "never had a pack whose hash begins with deadbeef"),
        ("GET", "/api/v1/boards/{task}?complete=maybe", "Input should be true or false"),
        ("GET", "/api/v1/boards/{task}?limit=ten", "Input should be a whole number"),
        ("GET", "/boards/{task}?as-of=yesterday", "Input should be a date such as 2026-11-30"),
        ("GET", "/history?page=999", "There is no page 999"),
        ("DELETE", "/api/v1/boards/{task}", "is not supported at /api/v1/boards/tiny/cnn/random-10; use GET"),
    ],
)
def test_refusals_say_how_to_ask_rightly(full, method, path, message):
    answer = full.client.request(method, path.format(task=full.world.task))
    assert 400 <= answer.status_code < 500
    assert message in answer.text


def test_badge_may_be_shown_on_other_sites(full):
    row = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"][0]
    badge = full.client.get(f"/badges/{row['id']}.svg")
    assert badge.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert full.client.get("/").headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/methods/alpha", "/submitters/Ada Lovelace"])
def test_long_lists_have_pages_and_complete_files(full, path, monkeypatch):
    monkeypatch.setitem(full.settings.__dict__, "page_rows", 2)
    identities = re.compile(r'href="/entries/([a-z0-9]+)"')
    total = 1 if "alpha" in path else 5
    found, address = [], path
    while address:
        page = full.client.get(address)
        found += identities.findall(page.text.partition('<h2 id="entries">')[2] or page.text)  # below the profile
        following = re.search(r'rel="next" href="([^"]+)"', page.text)
        address = path + following[1] if following else None
    assert len(found) == len(set(found)) == total
    table = full.client.get(f"{path}.json").json()["tables"]["Entries"]
    assert [line["id"] for line in table] == found
    beyond = full.client.get(f"{path}?page=50", headers={"Accept": "text/html"})
    assert beyond.status_code == 404
    assert f'href="?page={-(-total // 2)}"' in beyond.text


def test_evidence_is_streamed_without_leftovers(full):
    row = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"][0]
    answer = full.client.get(f"/api/v1/entries/{row['id']}/evidence")
    folder = full.settings.evidence / row["id"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }
    assert not list(full.settings.incoming.iterdir())
