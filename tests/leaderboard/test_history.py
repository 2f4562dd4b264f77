"""The past of boards: places as of a date, the best distance over time, the log, and what other sites may show."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import update

from forgetbench.leaderboard.boards import history
from forgetbench.leaderboard.db.models import Board, PastPlacing, utc_now
from forgetbench.reporting.figures.style import LIGHT


@pytest.fixture
def past(site, world, tmp_path):
    """A board with a first row of ten days ago, a better one of five days ago, and one that was withdrawn since."""
    headers = site.token("submit", "run", name="Lab")
    today = utc_now().date()
    ids = {}
    for name, memory, days in (("far", 1.2, 10), ("near", 0.1, 5), ("secret-name", 0.4, 3)):
        run = world.write_run(tmp_path / name, name, start=300 + 20 * len(ids), memory=memory)
        ids[name] = site.post(run, headers).json()["id"]
        site.work()
        with site.database.write_session() as session:
            day = today - timedelta(days=days)
            session.execute(update(PastPlacing).where(PastPlacing.day == today).values(day=day))
            session.execute(update(Board).values(installed_at=utc_now() - timedelta(days=12)))
    assert site.change_state(ids["secret-name"], "withdrawn", headers).status_code == 200
    site.work()
    return site, ids, today


def places(site, task, day):
    rows = site.client.get(f"/boards/{task}.json?as-of={day}").json()["tables"]
    [table] = rows.values()
    return {row["entry"]: (row["rank_low"], row["rank_low_now"]) for row in table}


def test_board_as_of_a_date_keeps_places(past, world):
    site, ids, today = past
    assert places(site, world.task, today - timedelta(days=11)) == {}
    assert set(places(site, world.task, today - timedelta(days=10))) == {"far"}
    assert set(places(site, world.task, today - timedelta(days=5))) == {"far", "near"}
    assert set(places(site, world.task, today - timedelta(days=3))) == {"far", "near", "no longer public"}
    assert set(places(site, world.task, today)) == {"far", "near"}
    page = site.client.get(f"/boards/{world.task}?as-of={today - timedelta(days=3)}").text
    assert "no longer public" in page
    assert "secret-name" not in page
    assert ids["secret-name"] not in page


@pytest.mark.parametrize(
    ("shift", "words"), [(-20, "did not exist on"), (2, "is in the future"), (None, "There is no board")]
)
def test_board_as_of_an_impossible_date_is_not_found(past, world, shift, words):
    site, _, today = past
    task, day = (world.task, today + timedelta(days=shift)) if shift is not None else ("a/b/c", today)
    answer = site.client.get(f"/boards/{task}?as-of={day}")
    assert (answer.status_code, words in answer.text) == (404, True)
    assert site.client.get(f"/boards/{world.task}?as-of=yesterday").status_code == 422


def test_best_distance_over_time_follows_the_leader(past, world):
    site, ids, today = past
    with site.database.read_session() as session:
        board = session.get_one(Board, 1)
        steps = history.best_over_time(session, board)
        assert [step.label for step in steps] == ["far", "near"]
        assert [step.day for step in steps] == [today - timedelta(days=10), today - timedelta(days=5)]
        assert steps[0].distance > steps[1].distance
        assert history.chart(steps, today, 2.0, 9.0, LIGHT)["layer"]
    page = site.client.get(f"/history/{world.task}").text
    assert f'href="/entries/{ids["near"]}"' in page
    assert "<svg" in page
    rows = site.client.get(f"/history/{world.task}.json").json()["tables"]
    assert [row["entry"] for row in rows["Best distance among ranked rows"]] == ["far", "near"]


def test_chart_of_nothing_is_left_out():
    assert history.chart([], date(2026, 1, 1), None, None, LIGHT) is None


def test_log_names_only_what_is_public(past):
    site, ids, _ = past
    page = site.client.get("/history").text
    assert "was listed as reference" in page
    assert "An entry was withdrawn" in page
    assert "secret-name" not in page
    assert ids["secret-name"] not in page
    [changes] = site.client.get("/history.json").json()["tables"].values()
    assert {change["id"] for change in changes} == {ids["far"], ids["near"], ""}
    assert not [change for change in changes if "received" in change["change"] or "scoring" in change["change"]]


def test_waiting_submission_is_not_in_the_log(site, world, tmp_path):
    site.post(world.write_run(tmp_path / "run", "unseen", memory=0.1), site.token())
    assert "unseen" not in site.client.get("/history").text


def test_other_sites_may_show_embeds_and_nothing_else(past, world):
    site, ids, _ = past
    framed = site.client.get(f"/embed/boards/{world.task}?rows=1")
    assert "frame-ancestors *" in framed.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in framed.headers
    assert "<script" not in framed.text
    assert "<form" not in framed.text
    assert framed.text.count('href="/entries/') == 3  # one row, Retrain and No unlearning
    shown = [
        f"/embed/boards/{world.task}",
        f"/embed/charts/{world.task}.svg",
        f"/embed/history/{world.task}.svg",
        f"/boards/{world.task}.svg",
        f"/boards/{world.task}.csv",
        f"/badges/{ids['near']}.svg",
    ]
    for path in shown:
        answer = site.client.get(path, headers={"Origin": "https://example.org"})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*"), path
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin", path
        assert "Set-Cookie" not in answer.headers
    for path in ("/", f"/boards/{world.task}", f"/entries/{ids['near']}", "/moderate", "/api/v1/boards"):
        headers = site.client.get(path).headers
        assert "Access-Control-Allow-Origin" not in headers, path
        assert headers["X-Frame-Options"] == "DENY", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
    assert site.client.post(f"/embed/boards/{world.task}").status_code == 405


def test_badge_has_tier_verdict_and_place(past):
    site, ids, _ = past
    badge = site.client.get(f"/badges/{ids['far']}.svg").text
    entry = site.entry(ids["far"])["row"]
    assert entry["verdict"]
    assert f"reference: {entry['verdict']}, rank" in badge
