"""Two who change the same at the same moment; on PostgreSQL nothing but locks keeps them apart."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Board, Entry, Event
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import moderation, verification
from forgetbench.leaderboard.submissions import receive as submissions
from forgetbench.leaderboard.submissions.moderation import StateChange
from forgetbench.leaderboard.worker import worker


class Beside:
    """A call in a thread of its own."""

    def __init__(self, call, *words):
        self.answer = self.error = None

        def run():
            try:
                self.answer = call(*words)
            except Exception as error:  # noqa: BLE001 - handed to the test
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def within(self, seconds):
        """Whether it ended in time."""
        self.thread.join(seconds)
        return not self.thread.is_alive()


def change(site, identity, state):
    with site.database.write_session() as session:
        moderation.change_state(
            session, site.settings, identity, StateChange(state=state, reason="because"), "Moderator", None
        )


def history(site, identity):
    with site.database.read_session() as session:
        return list(session.scalars(select(Event.after).where(Event.entry_id == identity).order_by(Event.id)))


def state(site, identity):
    with site.database.read_session() as session:
        return session.get_one(Entry, identity).state


@pytest.fixture
def received(site, world, tmp_path):
    """Id of a submission that waits for its score."""
    return site.post(world.write_run(tmp_path / "run", memory=0.1), site.token()).json()["id"]


@pytest.fixture
def listed(site, received):
    site.work()
    return received


def test_a_withdrawal_beside_the_end_of_scoring_is_not_lost(site, received, monkeypatch):
    write, beside = worker.scoring.write_score, []

    def write_slowly(*words):
        beside.append(Beside(change, site, received, "withdrawn"))
        beside[0].within(1.0)
        write(*words)

    monkeypatch.setattr(worker.scoring, "write_score", write_slowly)
    site.work()
    assert beside[0].within(20)
    assert beside[0].error is None
    assert history(site, received) == ["received", "scoring", "listed", "withdrawn"]
    assert state(site, received) == "withdrawn"


def test_a_withdrawal_while_it_is_scored_ends_the_scoring(site, received, monkeypatch):
    scored = worker.scoring.score_entry

    def score_slowly(*words):
        change(site, received, "withdrawn")
        return scored(*words)

    monkeypatch.setattr(worker.scoring, "score_entry", score_slowly)
    site.work()
    assert history(site, received) == ["received", "scoring", "withdrawn"]
    with site.database.read_session() as session:
        job = session.scalars(select(queue.Job).where(queue.Job.key == f"score:{received}")).one()
        assert (job.state, job.attempts, job.error) == ("done", 1, None)


def test_a_quarantine_beside_a_verification_that_differs_is_not_lost(site, world, listed, tmp_path, monkeypatch):
    from tests.leaderboard.test_states import verify

    compare, beside = verification.compare_scorecards, []

    def compare_slowly(*words):
        beside.append(Beside(change, site, listed, "quarantined"))
        beside[0].within(1.0)
        return compare(*words)

    monkeypatch.setattr(verification, "compare_scorecards", compare_slowly)
    verify(site, listed, world.write_run(tmp_path / "second", memory=2.0, start=700), site.token("verify", name="G"))
    site.work()
    assert beside[0].within(20)
    assert history(site, listed)[-2:] == ["flagged", "quarantined"]
    assert state(site, listed) == "quarantined"


def test_of_two_moderators_the_second_sees_what_the_first_did(site, listed):
    with site.database.write_session() as session:
        moderation.change_state(
            session, site.settings, listed, StateChange(state="withdrawn", reason="x"), "First", None
        )
        second = Beside(change, site, listed, "quarantined")
        second.within(1.0)
    assert second.within(20)
    assert isinstance(second.error, Problem)
    assert second.error.status == 409
    assert state(site, listed) == "withdrawn"


def claim_beside(site, over):
    """A claim, and whether ``over`` was set when it got a job."""

    def claim():
        return queue.claim(site.database, "w", 60), over.is_set()

    return Beside(claim)


@pytest.mark.parametrize("waits", [True, False], ids=["one waits", "both ask"])
def test_no_job_is_taken_before_what_it_was_asked_for_is_there(site, waits):
    with site.database.read_session() as session:
        board = str(session.scalars(select(Board.id)).one())
    asked, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def ask():
        with site.database.write_session() as session:
            queue.enqueue(session, "rank", board)
            asked.set()
            go_on.wait(20)
        over.set()

    with site.database.write_session() as session:
        queue.enqueue(session, "rank", board)
        second = None if waits else Beside(ask)
        if second is not None:
            second.within(1.0)
    second = second or Beside(ask)
    assert asked.wait(20)
    early = claim_beside(site, over)
    early.within(1.0)
    go_on.set()
    assert second.within(20)
    assert early.within(20)
    job, there = early.answer
    assert job is None or there
    assert job is not None or queue.claim(site.database, "w", 60) is not None


def test_five_submissions_at_once_keep_to_a_quota_of_two(site, world, tmp_path, monkeypatch):
    settings = Settings(**{**site.settings.model_dump(), "daily_submissions": 2})
    monkeypatch.setattr(site.client.app.state, "settings", settings)
    place, all_checked = submissions.store_evidence, threading.Barrier(5, timeout=30)

    def place_together(*words):
        all_checked.wait()
        place(*words)

    monkeypatch.setattr(submissions, "store_evidence", place_together)
    headers = site.token()
    runs = [world.write_run(tmp_path / str(number), f"m{number}", start=300 + 20 * number) for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        statuses = sorted(answer.status_code for answer in pool.map(lambda run: site.post(run, headers), runs))
    assert statuses == [202, 202, 429, 429, 429]
    assert len(list(settings.evidence.iterdir())) == 2
