"""A scoring process that outlives what goes wrong around it, and a site that says when there is none."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Entry, Job, ScoringProcess, utc_now
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.worker import scoring
from forgetbench.leaderboard.worker import worker as working
from forgetbench.leaderboard.worker.worker import Worker


def wait_until(true, seconds=60):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def received(site, world, tmp_path):
    """Id of a submission that waits for its score, and its submitter's headers."""
    headers = site.token()
    return site.post(world.write_run(tmp_path / "run", memory=0.1), headers).json()["id"], headers


@pytest.fixture
def running(site):
    """The site's worker at work in a thread."""
    thread = threading.Thread(target=site.worker.run, daemon=True)
    thread.start()
    yield thread
    site.worker.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_a_worker_asks_again_when_the_database_does_not_answer(site, received, monkeypatch, caplog):
    claim, failures = queue.claim, iter([OperationalError("SELECT 1", {}, Exception("gone"))] * 2)

    def claim_badly(*words):
        for failure in failures:
            raise failure
        return claim(*words)

    monkeypatch.setattr(working, "MIN_PAUSE", 0.01)
    monkeypatch.setattr(queue, "claim", claim_badly)
    thread = threading.Thread(target=site.worker.run, daemon=True)
    thread.start()
    wait_until(lambda: site.client.get(f"/api/v1/submissions/{received[0]}").status_code == 200)
    site.worker.stop()
    thread.join(60)
    assert caplog.text.count("the database does not answer") == 2


def test_a_worker_outlives_a_restart_of_postgresql(world, tiny_pack, tmp_path, new_cluster):
    with new_cluster() as cluster:
        settings = Settings(server_folder=tmp_path / "server", database_url=cluster.create(), poll_seconds=0.05)
        install_bundle(settings, tiny_pack.folder)
        database = working.Database(settings.database)
        worker = Worker(settings, database)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()

        def states():
            with database.read_session() as session:
                return set(session.scalars(select(Entry.state)))

        wait_until(lambda: states() == {"listed"})
        cluster.restart(pause=2.0)
        with database.write_session() as session:
            entry = session.scalars(select(Entry)).first()
            queue.enqueue(session, "rescore", entry.id)

        def rescored():
            with database.read_session() as session:
                return session.scalar(select(Job.state).where(Job.kind == "rescore")) == "done"

        wait_until(rescored)
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()
        database.close()


def test_a_job_that_failed_after_another_worker_took_it_ends_quietly(site, received, monkeypatch):
    settings = site.settings.model_copy(update={"job_attempts": 1})
    worker = Worker(settings, site.database)

    def fail(*_):
        with site.database.write_session() as session:
            session.execute(update(Job).where(Job.state == "running").values(worker="another"))
        raise ValueError("no")

    monkeypatch.setattr(scoring, "score_entry", fail)
    assert worker.work_once()
    with site.database.read_session() as session:
        assert session.get_one(Entry, received[0]).state == "scoring"


def test_a_heartbeat_that_fails_is_followed_by_the_next(site, received, monkeypatch):
    renew, scored, beats, beaten = queue.renew_lease, scoring.score_entry, [], threading.Event()
    site.worker.settings = site.settings.model_copy(update={"lease_seconds": 0.3})

    def renew_badly(*words):
        beats.append(len(beats))
        if len(beats) == 1:
            raise OperationalError("UPDATE jobs", {}, Exception("locked"))
        beaten.set()
        return renew(*words)

    def score_slowly(*words):
        assert beaten.wait(20)
        return scored(*words)

    monkeypatch.setattr(queue, "renew_lease", renew_badly)
    monkeypatch.setattr(scoring, "score_entry", score_slowly)
    site.work()
    assert site.client.get(f"/api/v1/submissions/{received[0]}").json()["state"] == "listed"


def test_the_site_says_that_nothing_scores(site, received):
    identity, headers = received
    wanted = "no scoring worker has started yet; submissions waiting for a score: 1"
    assert site.client.get("/ready").json() == {"status": "ready", "scoring": wanted}
    assert site.client.get(f"/api/v1/submissions/{identity}", headers=headers).json()["waits"] == wanted
    assert wanted in site.client.get("/submit").text


def test_the_site_says_since_when_nothing_scores(site, received, running):
    wait_until(lambda: site.client.get("/ready").json()["scoring"] == "ok")
    wait_until(lambda: site.client.get(f"/api/v1/submissions/{received[0]}").status_code == 200)
    assert "no scoring worker" not in site.client.get("/submit").text
    site.worker.stop()
    running.join(60)
    with site.database.write_session() as session:
        session.execute(update(ScoringProcess).values(seen_at=utc_now() - timedelta(hours=2)))
    assert "no scoring worker has been running since 20" in site.client.get("/ready").json()["scoring"]
    assert "no scoring worker" in site.client.get("/submit").text
    assert site.client.get(f"/api/v1/submissions/{received[0]}").json()["waits"] == ""
