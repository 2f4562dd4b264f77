"""Rejected entries, failed jobs and rescoring: what moderators and operators bring back."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from forgetbench.errors import UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Entry, EvidenceFile, Job, Score, ScoringProcess, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.worker import scoring
from forgetbench.leaderboard.worker.worker import Worker


@pytest.fixture
def moderator(site):
    """Headers of a moderator."""
    return site.token("moderate", name="Moderator")


@pytest.fixture
def listed(site, world, tmp_path):
    """Id of a listed submission."""
    entry_id = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    return entry_id


@pytest.fixture
def impatient(site):
    """A worker that tries each job once."""
    return Worker(site.settings.model_copy(update={"job_attempts": 1}), site.database)


def columns_of(site, entry_id, *columns):
    with site.database.read_session() as session:
        return tuple(session.execute(select(*columns).where(Entry.id == entry_id)).one())


def fail(*_):
    raise RuntimeError("boom")


def submit_rejected(site, run, headers, worker, monkeypatch):
    """Submit a run that the server fails to score; returns its id."""
    entry_id = site.post(run, headers).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_entry", fail)
        worker.drain()
    assert columns_of(site, entry_id, Entry.state) == ("rejected",)
    return entry_id


def set_old_code(site):
    """Pretend that older code scored every entry."""
    with site.database.write_session() as session:
        session.execute(update(Score).values(software={"code": "old"}))


def test_rejected_entry_scored_again_uses_its_evidence(site, world, tmp_path, impatient, moderator, monkeypatch):
    run = world.write_run(tmp_path / "run")
    entry_id = submit_rejected(site, run, site.token(), impatient, monkeypatch)
    assert site.change_state(entry_id, "scoring", moderator).status_code == 200
    assert site.post(run, site.token(name="Other")).status_code == 422
    site.work()
    assert columns_of(site, entry_id, Entry.state) == ("listed",)
    with site.database.read_session() as session:
        assert all(session.scalars(select(EvidenceFile.counted).where(EvidenceFile.entry_id == entry_id)))


def test_rejected_entry_with_reused_evidence_stays_rejected(site, world, tmp_path, impatient, moderator, monkeypatch):
    run = world.write_run(tmp_path / "run")
    entry_id = submit_rejected(site, run, site.token(), impatient, monkeypatch)
    assert site.post(run, site.token(name="Other")).status_code == 202
    answer = site.change_state(entry_id, "scoring", moderator)
    assert (answer.status_code, "Another entry" in answer.text) == (409, True)
    assert columns_of(site, entry_id, Entry.state) == ("rejected",)
    [item] = admin.moderation_queue(site.settings)
    with pytest.raises(UsageError, match="Another entry"):
        admin.retry_jobs(site.settings, item.id.removeprefix("job "))


def test_retry_jobs_runs_every_kind_of_failed_job(site, world, listed, tmp_path, impatient, monkeypatch):
    second = world.write_run(tmp_path / "second", memory=0.1, start=700)
    site.verify(listed, second, site.token("verify", name="Grace"))
    set_old_code(site)
    with site.database.write_session() as session:
        board = str(session.get_one(Entry, listed).board_id)
        queue.enqueue(session, "rank", board)
        queue.enqueue(session, "rescore", listed)
    other = world.write_run(tmp_path / "other", start=800)
    rejected = submit_rejected(site, other, site.token(), impatient, monkeypatch)
    with monkeypatch.context() as patch:
        for kind in ("score", "rank", "rescore", "verify"):
            patch.setitem(impatient._handlers, kind, fail)
        with site.database.write_session() as session:
            queue.enqueue(session, "rank", board)
        impatient.drain()
    items = {item.state: item for item in admin.moderation_queue(site.settings)}
    assert set(items) == {"score failed", "rank failed", "rescore failed", "verify failed"}
    assert (items["verify failed"].task, items["rank failed"].task) == (world.task, world.task)
    with pytest.raises(UsageError, match="No failed job '999'"):
        admin.retry_jobs(site.settings, "999")
    score_job = items["score failed"].id.removeprefix("job ")
    assert admin.retry_jobs(site.settings, score_job) == [f"score:{rejected}"]
    assert len(admin.retry_jobs(site.settings, "all")) == 3
    site.work()
    assert admin.moderation_queue(site.settings) == []
    assert admin.retry_jobs(site.settings, "all") == []
    assert columns_of(site, rejected, Entry.state) == ("listed",)
    assert columns_of(site, listed, Entry.reproductions) == (1,)
    with site.database.read_session() as session:
        assert set(session.scalars(select(Job.state))) == {"done"}


def test_retry_jobs_scores_a_failed_reference_row(make_settings, world, tiny_pack, monkeypatch):
    settings = make_settings(job_attempts=1)
    admin.install_bundle(settings, tiny_pack.folder)
    database = Database(settings.database)
    worker = Worker(settings, database)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_entry", fail)
        worker.drain()
    assert len(admin.retry_jobs(settings, "all")) == 2
    worker.drain()
    with database.read_session() as session:
        assert set(session.scalars(select(Entry.state))) == {"listed"}
    database.close()


def test_rescore_changes_only_what_older_code_scored(site, world, listed):
    assert admin.rescore(site.settings) == 0
    before = site.entry(listed)
    set_old_code(site)
    assert admin.rescore(site.settings, world.task) == 3
    assert site.work() == 3 + 1
    after = site.entry(listed)
    assert after["scorecard"] == before["scorecard"]
    assert after["software"]["code"] != "old"
    assert "scored again" in after["history"][-1]["reason"]


def test_rescore_includes_quarantined_and_checks_the_task(site, world, listed):
    admin.change_state(site.settings, listed, "quarantined", "a look")
    with site.database.write_session() as session:
        session.execute(update(Score).where(Score.entry_id == listed).values(software={"code": "old"}))
    with pytest.raises(UsageError, match=rf"No board for task 'nope'. Available: {world.task}"):
        admin.rescore(site.settings, "nope")
    assert admin.rescore(site.settings, world.task) == 1
    site.work()
    with site.database.read_session() as session:
        assert session.get_one(Score, listed).software["code"] != "old"
    assert columns_of(site, listed, Entry.state) == ("quarantined",)


def test_outdated_entry_is_marked_and_rescored_when_restored(site, listed):
    with site.database.write_session() as session:
        session.add(ScoringProcess(name="w", code="new" * 10, seen_at=utc_now()))
    assert site.entry(listed)["outdated"]
    assert "newnewnewnew" in site.client.get(f"/entries/{listed}").text
    with site.database.write_session() as session:
        session.execute(update(Score).where(Score.entry_id == listed).values(software={"code": "new" * 10}))
    assert not site.entry(listed)["outdated"]
    admin.change_state(site.settings, listed, "quarantined", "a look")
    site.work()
    change = admin.change_state(site.settings, listed, "listed", "explained")
    assert (change.before, change.after) == ("quarantined", "listed")
    site.work()
    assert "scored again" in site.entry(listed)["history"][-1]["reason"]
