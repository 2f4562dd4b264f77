"""The front page: methods by tasks, filters, headline, and what differs across tasks."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from forgetbench.leaderboard.boards.matrix import MatrixView
from forgetbench.leaderboard.render import matrix as matrices
from forgetbench.leaderboard.render.rows import Interval, ShownRow
from forgetbench.leaderboard.render.significance_page import win_rates
from forgetbench.leaderboard.web.app import create_app
from forgetbench.reproduction.reference_file import reference_tasks
from forgetbench.scoring.vocabulary import Verdict


def row(method, place, verdict, distance=5.0):
    scope = "ranked" if place else ""
    return ShownRow(
        method, method, "verified", place=place, scope=scope, verdict=verdict, distance=Interval(distance, 4, 6)
    )


def column(task, **rows):
    return matrices._column(
        task, task, "erase", f"/boards/{task}", 2.0, "", {}, {item.method: item for item in rows.values()}
    )


COLUMNS = [
    column("a/cnn/x", one=row("one", "1–3", Verdict.BETTER), two=row("two", "2", Verdict.AS_NOTHING)),
    column("a/vit/x", one=row("one", "2", Verdict.AT_A_PRICE), three=row("three", "", Verdict.COLLAPSED)),
]


def test_matrix_counts_without_averaging_over_holes():
    found = matrices._matrix(COLUMNS, MatrixView())
    lines = {line.method: line for line in found.lines}
    assert [line.method for line in found.lines] == ["one", "three", "two"]
    assert (lines["one"].place, lines["two"].place) == (2.0, None)  # two was run on one task only
    assert (lines["one"].nearer, lines["one"].reaches, lines["two"].ran) == (2, 0, 1)
    assert lines["two"].cells[1] is None
    assert found.cells == 4
    assert found.headline == (
        "None of 3 methods reaches retraining on any of the 2 boards. 1 is nearer to it than doing nothing on both."
    )


def test_headline_counts_no_claims_and_nearer_no_pale_verdicts():
    claimed = replace(row("four", "C1", Verdict.REACHES_RETRAINING), tier="claimed")
    undone = replace(row("one", "1", Verdict.BETTER), flags=("recoverable",))
    found = matrices._matrix([column("a/cnn/x", four=claimed, one=undone)], MatrixView())
    lines = {line.method: line for line in found.lines}
    assert (lines["four"].reaches, lines["one"].nearer, lines["one"].judged) == (1, 0, 1)
    words = "None of 1 methods reaches retraining on this board. None is nearer to it than doing nothing on it."
    assert found.headline == words


def test_matrix_sorts_by_any_task():
    assert [line.method for line in matrices._matrix(COLUMNS, MatrixView(sort="a/vit/x")).lines] == [
        "one",
        "three",
        "two",
    ]
    assert [line.method for line in matrices._matrix(COLUMNS, MatrixView(sort="a/cnn/x")).lines] == [
        "one",
        "two",
        "three",
    ]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 30])
def test_parts_of_a_wide_matrix_have_all_columns_once(count):
    columns = [column(f"a/cnn/{number}", one=row("one", "1", Verdict.BETTER)) for number in range(count)]
    found = matrices._matrix(columns, MatrixView())
    parts = [list(range(first, last)) for first, last in found.blocks]
    assert [number for part in parts for number in part] == list(range(count))
    assert len(parts) == max(1, -(-count // matrices.MAX_COLUMNS))
    assert max(map(len, parts)) <= matrices.MAX_COLUMNS
    assert max(map(len, parts)) - min(map(len, parts)) < len(parts)  # no part of one column next to one of eight


def test_win_rates_count_ties_half_and_have_intervals():
    rates = {rate.method: rate for rate in win_rates({"x": {"a": 1.0, "b": 2.0, "c": 2.0}, "y": {"a": 1.0, "b": 3.0}})}
    assert (rates["a"].rate, rates["a"].tasks) == (Interval(1.0, 1.0, 1.0), 2)
    assert rates["c"].rate == Interval(0.25, None, None)
    assert rates["b"].rate.value == pytest.approx((0.25 + 0.0) / 2)
    assert rates["b"].rate.low == 0.0 < rates["b"].rate.high <= 1.0


def test_front_page_has_cells_references_and_filters(full):
    page = full.client.get("/").text
    own = page.partition('id="shipped"')[0]
    text = " ".join(re.sub(r"<[^>]+>", " ", own).split())
    for words in ("Retrain", "No unlearning", "does not prove", "place C", "forgot", "harm", "limit of retraining"):
        assert words in text, words
    assert "collapsed" in text
    assert full.client.get("/?images=none").text.count("No method passes these filters") >= 1
    verified = full.client.get("/?tier=ranked").text.partition("<tbody")[2]
    assert ">alpha<" not in verified  # a claim
    assert full.client.get("/?color=red").status_code == 422
    [cells] = [table for title, table in full.client.get("/boards.json").json()["tables"].items() if "Methods" in title]
    assert {"alpha", "beta", "gamma", "delta", "live+1"} <= {cell["method"] for cell in cells}


def test_method_page_joins_defaults_and_tuned(make_settings):
    with TestClient(create_app(make_settings())) as client:
        page = client.get("/methods/ssd").text
        assert "Selective Synaptic Dampening: shrink the weights" in page
        assert "In the results that ship with the package" in page
        assert re.search(r'aria-label="defaults: distance [^"]+tuned: distance', page)
        assert client.get("/methods/nonesuch").status_code == 404


def test_fresh_server_opens_with_the_shipped_results(make_settings):
    with TestClient(create_app(make_settings())) as client:
        page = client.get("/").text
        assert "Results that ship with the package" in page
        assert re.search(r"<p class=.headline.>\w+ of \d+ methods", page)
        folded = re.findall(r"scrub: </span>results on (\d+) boards</label>", page)  # in each part, on narrow screens
        assert sum(map(int, folded)) == len(reference_tasks())
        for link in set(re.findall(r'href="(/(?:shipped|methods|significance)[^"]*)"', page)):
            assert client.get(link.replace("&amp;", "&")).status_code == 200, link
        for link in set(re.findall(r'href="(/metrics/[^"]*)"', client.get("/shipped/digits/cnn/class").text)):
            assert client.get(link).status_code == 200, link


def test_front_page_shows_a_wide_matrix_in_parts(make_settings, monkeypatch):
    monkeypatch.setattr(matrices, "MAX_COLUMNS", 3)
    with TestClient(create_app(make_settings())) as client:
        page = client.get("/?sort=method").text
    titles = re.findall(r"<h3>Boards (\d+) to (\d+) of (\d+)</h3>", page)
    boards = int(titles[0][2])
    assert [int(first) for first, _, _ in titles] == [1, *(int(last) + 1 for _, last, _ in titles[:-1])]
    assert int(titles[-1][1]) == boards
    tables = re.findall(r'<table role="table" class="grid rows.*?</table>', page, re.DOTALL)
    assert len(tables) == len(titles) == -(-boards // 3)
    tasks = [
        re.findall(r'<th scope="col"[^>]*class="board".*?href="/shipped/([^"]+)"', table, re.DOTALL) for table in tables
    ]
    assert len({task for part in tasks for task in part}) == boards
    methods = [re.findall(r'href="/methods/([^"]+)"', table) for table in tables]
    assert all(part == methods[0] for part in methods)  # each part has the same rows in the same order
    assert len({table.partition("<caption")[2].partition("</caption>")[0] for table in tables}) == len(tables)
