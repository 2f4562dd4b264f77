"""Changes of state by submitters and moderators, and files that a state makes public."""

from __future__ import annotations

import io
import zipfile

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from forgetbench.leaderboard.db.models import Entry, Score
from forgetbench.leaderboard.worker import scoring


@pytest.fixture
def owner(site):
    """Headers of the submitter."""
    return site.token(name="Ada")


@pytest.fixture
def moderator(site):
    """Headers of a moderator."""
    return site.token("moderate", name="Moderator")


@pytest.fixture
def listed(site, world, tmp_path, owner):
    """Id of a listed submission."""
    entry_id = site.post(world.write_run(tmp_path / "run", memory=0.1), owner).json()["id"]
    site.work()
    return entry_id


def test_withdraw_leaves_a_tombstone(site, world, listed, owner):
    assert site.change_state(listed, "withdrawn", site.token(name="Other")).status_code == 403
    assert site.change_state(listed, "withdrawn", owner, "a bug in my method").json()["state"] == "withdrawn"
    site.work()
    page = site.client.get(f"/entries/{listed}", headers={"Accept": "text/html"})
    assert (page.status_code, "a bug in my method" in page.text) == (410, True)
    assert site.client.get(f"/api/v1/boards/{world.task}").json()["rows"] == []
    assert "1 withdrawn" in site.client.get("/submitters/Ada").text
    assert site.entry(listed, owner)["row"]["state"] == "withdrawn"
    assert site.change_state(listed, "listed", site.token("moderate")).status_code == 409


def test_quarantine_and_restore_by_moderator_are_recorded(site, listed, owner, moderator):
    assert site.change_state(listed, "quarantined", owner).status_code == 403
    assert site.change_state(listed, "quarantined", moderator, "looks copied").status_code == 200
    assert site.client.get(f"/entries/{listed}").status_code == 404
    assert site.change_state(listed, "listed", moderator, "explained").status_code == 200
    site.work()
    entry = site.entry(listed)
    assert [(event["after"], event["actor"]) for event in entry["history"][-2:]] == [
        ("quarantined", "Moderator"),
        ("listed", "Moderator"),
    ]
    assert entry["row"]["rank"]["low"] == 1


@pytest.mark.parametrize(
    "body", [{}, {"state": "listed"}, {"state": "listed", "reason": " "}, {"state": "gone", "reason": "x"}]
)
def test_change_state_without_state_or_reason_is_invalid(body, site, listed, moderator):
    answer = site.client.post(f"/api/v1/submissions/{listed}/state", json=body, headers=moderator)
    assert answer.status_code == 422


def test_reference_row_cannot_be_changed_or_downloaded(site, world, moderator):
    retrain = site.client.get(f"/api/v1/boards/{world.task}").json()["references"][0]["id"]
    assert site.change_state(retrain, "quarantined", moderator).status_code == 409
    assert site.client.get(f"/api/v1/entries/{retrain}/evidence").status_code == 404


def test_unscored_entry_cannot_be_listed_by_a_moderator(site, world, tmp_path, owner, moderator, monkeypatch):
    entry_id = site.post(world.write_run(tmp_path / "run"), owner).json()["id"]
    answers = [site.change_state(entry_id, state, moderator) for state in ("scoring", "listed")]
    assert [answer.status_code for answer in answers] == [409, 409]
    score_entry, answers = scoring.score_entry, []

    def list_while_scoring(*arguments):
        answers.append(site.change_state(entry_id, "listed", moderator))
        return score_entry(*arguments)

    monkeypatch.setattr(scoring, "score_entry", list_while_scoring)
    site.work()
    assert [answer.status_code for answer in answers] == [409]
    assert "possible: rejected, withdrawn" in answers[0].text
    assert site.entry(entry_id)["row"]["rank"]["low"] == 1
    with site.database.write_session() as session:
        session.execute(update(Entry).where(Entry.id == entry_id).values(state="quarantined"))
        session.delete(session.get_one(Score, entry_id))
    assert "has no score" in site.change_state(entry_id, "listed", moderator).text


def test_history_is_append_only(site):
    for statement in ("UPDATE events SET actor = 'me'", "DELETE FROM events"):
        with pytest.raises(DBAPIError, match="append-only"), site.database.write_session() as session:
            session.execute(text(statement))
    with site.database.read_session() as session:
        assert session.scalar(text("SELECT count(*) FROM events")) == 6


def test_evidence_download_equals_the_submission(site, listed, tmp_path):
    answer = site.client.get(f"/api/v1/entries/{listed}/evidence")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 7
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "run" / name).read_bytes()
    assert not list(site.settings.incoming.iterdir())


def test_bundle_download_has_public_files_only(site, world):
    answer = site.client.get(f"/api/v1/tasks/{world.task}/pack")
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert "pack.json" in names
    assert {name.partition("/")[0] for name in names} == {"pack.json", "originals"}
