"""Two changes of the same rows at the same time; on PostgreSQL only row locks order them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from support.concurrency import LIMIT, BackgroundCall

from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import Board, Entry, Event, Job
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.submissions import moderation, receive, verification
from forgetbench.leaderboard.submissions.moderation import StateChange
from forgetbench.leaderboard.worker import scoring


def change_state(site, entry_id, state):
    with site.database.write_session() as session:
        request = StateChange(state=state, reason="because")
        moderation.change_state(session, site.settings, entry_id, request, "Moderator", None)


def history(site, entry_id):
    with site.database.read_session() as session:
        return list(session.scalars(select(Event.after).where(Event.entry_id == entry_id).order_by(Event.id)))


def state_of(site, entry_id):
    with site.database.read_session() as session:
        return session.get_one(Entry, entry_id).state


@pytest.fixture
def received(site, world, tmp_path):
    """Id of an unscored submission."""
    return site.post(world.write_run(tmp_path / "run", memory=0.1), site.token()).json()["id"]


@pytest.fixture
def listed(site, received):
    """Id of a listed submission."""
    site.work()
    return received


def test_withdrawal_at_the_end_of_scoring_is_not_lost(site, received, monkeypatch):
    write_score, withdrawals = scoring.write_score, []

    def withdraw_meanwhile(*arguments):
        withdrawals.append(BackgroundCall(change_state, site, received, "withdrawn"))
        withdrawals[0].give_time()
        write_score(*arguments)

    monkeypatch.setattr(scoring, "write_score", withdraw_meanwhile)
    site.work()
    withdrawals[0].wait()
    assert withdrawals[0].error is None
    assert history(site, received) == ["received", "scoring", "listed", "withdrawn"]
    assert state_of(site, received) == "withdrawn"


def test_withdrawal_during_scoring_ends_the_job(site, received, monkeypatch):
    score_entry = scoring.score_entry

    def withdraw_first(*arguments):
        change_state(site, received, "withdrawn")
        return score_entry(*arguments)

    monkeypatch.setattr(scoring, "score_entry", withdraw_first)
    site.work()
    assert history(site, received) == ["received", "scoring", "withdrawn"]
    with site.database.read_session() as session:
        job = session.scalars(select(Job).where(Job.key == f"score:{received}")).one()
        assert (job.state, job.attempts, job.error) == ("done", 1, None)


def test_quarantine_during_verification_is_not_lost(site, world, listed, tmp_path, monkeypatch):
    compare, changes = verification.compare_scorecards, []

    def quarantine_meanwhile(*arguments):
        changes.append(BackgroundCall(change_state, site, listed, "quarantined"))
        changes[0].give_time()
        return compare(*arguments)

    monkeypatch.setattr(verification, "compare_scorecards", quarantine_meanwhile)
    second = world.write_run(tmp_path / "second", memory=2.0, start=700)
    site.verify(listed, second, site.token("verify", name="Grace"))
    site.work()
    changes[0].wait()
    assert history(site, listed)[-2:] == ["flagged", "quarantined"]
    assert state_of(site, listed) == "quarantined"


def test_second_moderator_sees_the_change_of_the_first(site, listed):
    with site.database.write_session() as session:
        withdrawal = StateChange(state="withdrawn", reason="x")
        moderation.change_state(session, site.settings, listed, withdrawal, "First", None)
        second = BackgroundCall(change_state, site, listed, "quarantined")
        second.give_time()
    second.wait()
    assert isinstance(second.error, Problem)
    assert second.error.status == 409
    assert state_of(site, listed) == "withdrawn"


@pytest.mark.parametrize("first_waits", [True, False], ids=["a job waits", "both enqueue"])
def test_claim_waits_for_the_commit_of_enqueue(site, first_waits):
    with site.database.read_session() as session:
        board = session.scalars(select(Board)).one()
    enqueued, may_commit = threading.Event(), threading.Event()

    def enqueue_and_wait():
        with site.database.write_session() as session:
            states.bump_revision(session, board.id)
            queue.enqueue(session, "rank", str(board.id))
            enqueued.set()
            may_commit.wait(LIMIT)

    def claim():
        """Claim a job; whether the change that it was enqueued for is visible."""
        job = queue.claim(site.database, "w", 60)
        with site.database.read_session() as session:
            return job, session.get_one(Board, board.id).revision == board.revision + 1

    with site.database.write_session() as session:
        queue.enqueue(session, "rank", str(board.id))
        second = None if first_waits else BackgroundCall(enqueue_and_wait)
        if second is not None:
            second.give_time()
    second = second or BackgroundCall(enqueue_and_wait)
    assert enqueued.wait(LIMIT)
    early = BackgroundCall(claim)
    early.give_time()
    may_commit.set()
    second.wait()
    early.wait()
    job, change_is_visible = early.result
    assert job is None or change_is_visible
    assert job is not None or queue.claim(site.database, "w", 60) is not None


def test_concurrent_submissions_respect_the_quota(site, world, tmp_path, monkeypatch):
    settings = site.settings.model_copy(update={"daily_submissions": 2})
    monkeypatch.setattr(site.client.app.state, "settings", settings)
    store_evidence, all_checked = receive.store_evidence, threading.Barrier(5, timeout=LIMIT)

    def store_together(*arguments):
        all_checked.wait()
        store_evidence(*arguments)

    monkeypatch.setattr(receive, "store_evidence", store_together)
    headers = site.token()
    runs = [world.write_run(tmp_path / str(number), f"m{number}", start=300 + 20 * number) for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        statuses = sorted(answer.status_code for answer in pool.map(lambda run: site.post(run, headers), runs))
    assert statuses == [202, 202, 429, 429, 429]
    assert len(list(settings.evidence.iterdir())) == 2
