"""The scoring worker: leases, retries, heartbeats, and what the site says without one."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from support.concurrency import LIMIT, wait_until

from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Board, Entry, Job, PastPlacing, Score, ScoringProcess, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.worker import cleanup, scoring
from forgetbench.leaderboard.worker import worker as worker_module
from forgetbench.leaderboard.worker.worker import Worker


@pytest.fixture
def owner(site):
    """Headers of the submitter."""
    return site.token()


@pytest.fixture
def received(site, world, tmp_path, owner):
    """Id of an unscored submission."""
    return site.post(world.write_run(tmp_path / "run", memory=0.1), owner).json()["id"]


def run_in_thread(worker):
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return thread


def stop(worker, thread):
    worker.stop()
    thread.join(LIMIT)
    assert not thread.is_alive()


def is_listed(site, entry_id):
    return site.client.get(f"/api/v1/submissions/{entry_id}").status_code == 200


def expire_leases(site):
    with site.database.write_session() as session:
        session.execute(update(Job).values(lease_until=utc_now() - timedelta(seconds=1)))


def test_expired_lease_gives_the_job_to_another_worker(site, received):
    job = queue.claim(site.database, "dead", lease=60)
    assert job is not None
    expire_leases(site)
    assert site.work() == 2
    with pytest.raises(queue.LeaseLostError), site.database.write_session() as session:
        queue.complete(session, job)
    history = site.client.get(f"/api/v1/submissions/{received}").json()["history"]
    assert [event["after"] for event in history] == ["received", "scoring", "listed"]


def test_job_that_always_fails_rejects_the_entry(site, received, owner, monkeypatch):
    def fail(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(scoring, "score_entry", fail)
    for _ in range(site.settings.job_attempts):
        assert site.client.get(f"/api/v1/submissions/{received}", headers=owner).json()["state"] != "rejected"
        assert site.worker.work_once()
        expire_leases(site)
    document = site.client.get(f"/api/v1/submissions/{received}", headers=owner).json()
    assert (document["state"], "server's fault" in document["note"]) == ("rejected", True)
    with site.database.read_session() as session:
        job = session.scalars(select(Job).where(Job.subject == received)).one()
        assert (job.state, job.attempts, job.error) == ("failed", 3, "RuntimeError: boom")


def test_failed_job_is_retried_after_a_delay(site, received, monkeypatch):
    def fail(*_):
        raise RuntimeError("boom")

    object.__setattr__(site.settings, "poll_seconds", 1000.0)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_entry", fail)
        assert site.worker.work_once()
    assert not site.worker.work_once()
    expire_leases(site)
    assert site.work() == 2
    assert is_listed(site, received)


def test_several_submissions_need_one_rank_job(site, world, tmp_path, owner):
    for place in range(3):
        site.post(world.write_run(tmp_path / str(place), f"m{place}", start=300 + 20 * place), owner)
    assert site.work() == 3 + 1


def test_unreachable_database_is_tried_again(site, received, monkeypatch, caplog):
    claim, failures = queue.claim, iter([OperationalError("SELECT 1", {}, Exception("gone"))] * 2)

    def claim_with_failures(*arguments):
        for failure in failures:
            raise failure
        return claim(*arguments)

    monkeypatch.setattr(worker_module, "MIN_PAUSE", 0.01)
    monkeypatch.setattr(queue, "claim", claim_with_failures)
    thread = run_in_thread(site.worker)
    wait_until(lambda: is_listed(site, received), "the score")
    stop(site.worker, thread)
    assert caplog.text.count("the database does not answer") == 2


def test_worker_survives_a_restart_of_postgresql(world, tiny_pack, tmp_path, postgres_server, caplog):
    settings = Settings(server_folder=tmp_path / "server", database_url=postgres_server.create(), poll_seconds=0.05)
    install_bundle(settings, tiny_pack.folder)
    database = Database(settings.database)
    worker = Worker(settings, database)
    thread = run_in_thread(worker)

    def states():
        with database.read_session() as session:
            return set(session.scalars(select(Entry.state)))

    wait_until(lambda: states() == {"listed"}, "the score")
    postgres_server.crash()
    wait_until(lambda: "the database does not answer" in caplog.text, "the failure")
    postgres_server.start()
    with database.write_session() as session:
        entry = session.scalars(select(Entry)).first()
        queue.enqueue(session, "rescore", entry.id)

    def rescored():
        with database.read_session() as session:
            return session.scalar(select(Job.state).where(Job.kind == "rescore")) == "done"

    wait_until(rescored, "the rescoring")
    stop(worker, thread)
    database.close()


def test_failure_after_a_lost_lease_changes_nothing(site, received, monkeypatch):
    worker = Worker(site.settings.model_copy(update={"job_attempts": 1}), site.database)

    def lose_lease_and_fail(*_):
        with site.database.write_session() as session:
            session.execute(update(Job).where(Job.state == "running").values(worker="another"))
        raise ValueError("no")

    monkeypatch.setattr(scoring, "score_entry", lose_lease_and_fail)
    assert worker.work_once()
    with site.database.read_session() as session:
        assert session.get_one(Entry, received).state == "scoring"


def test_lease_renewal_that_fails_is_repeated(site, received, monkeypatch):
    renew_lease, score_entry = queue.renew_lease, scoring.score_entry
    attempts, renewed = [], threading.Event()
    site.worker.settings = site.settings.model_copy(update={"lease_seconds": 0.3})

    def fail_once(*arguments):
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise OperationalError("UPDATE jobs", {}, Exception("locked"))
        renewed.set()
        return renew_lease(*arguments)

    def score_after_renewal(*arguments):
        assert renewed.wait(LIMIT)
        return score_entry(*arguments)

    monkeypatch.setattr(queue, "renew_lease", fail_once)
    monkeypatch.setattr(scoring, "score_entry", score_after_renewal)
    site.work()
    assert site.client.get(f"/api/v1/submissions/{received}").json()["state"] == "listed"


def scored_by_protocol_1(site):
    """Make the server's scores those of an earlier version."""
    with site.database.write_session() as session:
        session.execute(update(Board).values(protocol=1))
        session.execute(update(Entry).values(verdict=None, forgotten=None, harm=None))
        for score in session.scalars(select(Score)):
            score.software = {**score.software, "code": "0" * 64}
            for name in ("card", "brief"):
                card = {key: value for key, value in getattr(score, name).items() if key not in NEW_FIELDS}
                gate = {"collapsed": False, "unstable": False, "collapsed_models": 0, "models": 6, "median": 0.9}
                setattr(score, name, {**card, "protocol": 1, "gate": {**gate, "reasons": []}})


NEW_FIELDS = ("verdict", "forgotten", "harm", "sides", "delta_vs_no_unlearning", "recalibration")


def test_scores_of_protocol_1_are_computed_again_at_the_start(site, received):
    site.work()
    before = site.entry(received)["row"]
    assert before["verdict"] == "reaches retraining"
    scored_by_protocol_1(site)
    assert site.client.get(f"/entries/{received}").status_code == 200  # the old scores stay readable
    worker = Worker(site.settings, site.database)
    worker._enqueue_outdated()
    worker._enqueue_outdated()
    assert worker.drain() == 4  # two reference rows, one submission, one ranking
    after = site.entry(received)
    assert after["row"] == before
    assert after["scorecard"]["protocol"] == 2
    assert site.client.get(f"/api/v1/boards/{site.world.task}").json()["protocol"] == 2


def test_damaged_score_of_protocol_1_is_not_ranked(site, received, caplog):
    site.work()
    scored_by_protocol_1(site)
    for path in (site.settings.evidence / received).glob("*.npz"):
        path.write_bytes(b"damaged")
    worker = Worker(site.settings.model_copy(update={"job_attempts": 1}), site.database)
    worker._enqueue_outdated()
    worker.drain()
    row = site.entry(received)["row"]
    assert (row["rank"], row["status"]) == (None, "protocol 1")
    assert row["reasons"] == ["protocol 1: not yet scored by protocol 2"]
    assert "d0-s0.npz is not a readable evidence file" in caplog.text


def test_site_without_worker_says_so(site, received, owner):
    warning = "no scoring worker has started yet; submissions waiting for a score: 1"
    assert site.client.get("/ready").json() == {"status": "ready", "scoring": warning}
    assert site.client.get(f"/api/v1/submissions/{received}", headers=owner).json()["waits"] == warning
    assert warning in site.client.get("/submit").text


def test_site_says_since_when_no_worker_runs(site, received):
    thread = run_in_thread(site.worker)
    wait_until(lambda: site.client.get("/ready").json()["scoring"] == "ok", "the heartbeat")
    wait_until(lambda: is_listed(site, received), "the score")
    assert "no scoring worker" not in site.client.get("/submit").text
    stop(site.worker, thread)
    with site.database.write_session() as session:
        session.execute(update(ScoringProcess).values(seen_at=utc_now() - timedelta(hours=2)))
    assert "no scoring worker has been running since 20" in site.client.get("/ready").json()["scoring"]
    assert "no scoring worker" in site.client.get("/submit").text
    assert site.client.get(f"/api/v1/submissions/{received}").json()["waits"] == ""


def test_remove_leftovers_keeps_recent_files(site):
    (site.settings.incoming / "abc").write_bytes(b"half")
    (site.settings.evidence / "no-row").mkdir()
    assert cleanup.remove_leftovers(site.settings, site.database) == 0  # they may belong to an upload in progress
    assert cleanup.remove_leftovers(site.settings, site.database, min_age=-1) == 2


def test_places_are_kept_as_history(site, world, tmp_path, owner):
    def history():
        with site.database.read_session() as session:
            rows = session.scalars(select(PastPlacing).order_by(PastPlacing.day)).all()
            return {row.entry_id: (row.scope, row.position, row.distance) for row in rows}

    first = site.post(world.write_run(tmp_path / "1", "far", memory=1.0), owner).json()["id"]
    site.work()
    before = history()
    assert before == {first: ("claimed", 1, site.entry(first)["row"]["distance"])}
    second = site.post(world.write_run(tmp_path / "2", "near", memory=0.05, start=700), owner).json()["id"]
    site.work()
    assert {entry: place[1] for entry, place in history().items()} == {second: 1, first: 2}
    site.change_state(first, "withdrawn", owner)
    site.work()
    assert {entry: place[1] for entry, place in history().items()} == {second: 1, first: None}
