"""A full disk and a locked database: who is told what, what stays, and what goes on."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from support import skip
from support.concurrency import LIMIT, wait_until
from support.leaderboard import ZIP, zip_of
from support.server_process import ServerProcess

from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Board, Entry, Job, utc_now
from forgetbench.leaderboard.render import vega
from forgetbench.leaderboard.submissions import receive, uploads
from forgetbench.leaderboard.worker import scoring
from forgetbench.leaderboard.worker import worker as worker_module

FULL = OSError(errno.ENOSPC, "No space left on device")
NOT_YOU = "Your request is not at fault"


def fail(error):
    def raise_error(*_arguments, **_options):
        raise error

    return raise_error


def change_settings(site, monkeypatch, **changes):
    monkeypatch.setattr(site.client.app.state, "settings", site.settings.model_copy(update=changes))


@pytest.mark.parametrize(("module", "name"), [(uploads, "_extract"), (receive, "store_evidence")])
def test_full_disk_gives_507_and_blames_no_one(module, name, site, world, tmp_path, monkeypatch, assert_nothing_stored):
    monkeypatch.setattr(module, name, fail(FULL))
    answer = site.post(world.write_run(tmp_path / "run"), site.token())
    assert (answer.status_code, answer.headers["Retry-After"]) == (507, "600")
    assert NOT_YOU in answer.json()["detail"]
    assert_nothing_stored()


def test_full_database_gives_507_and_removes_the_files(site, world, tmp_path, monkeypatch, assert_nothing_stored):
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    monkeypatch.setattr(queue, "enqueue", fail(OperationalError("INSERT", {}, error)))
    answer = site.post(world.write_run(tmp_path / "run"), site.token())
    assert (answer.status_code, NOT_YOU in answer.text) == (507, True)
    assert_nothing_stored()


def test_disk_below_the_reserve_is_not_ready(site, monkeypatch, assert_nothing_stored):
    headers = site.token()
    assert site.client.get("/ready").status_code == 200
    change_settings(site, monkeypatch, min_free_bytes=2**60)
    answer = site.client.get("/ready")
    assert (answer.status_code, "disk of the server's folder is full" in answer.text) == (503, True)
    answer = site.post(b"not even read", headers)
    assert (answer.status_code, NOT_YOU in answer.text) == (507, True)
    assert site.client.get(f"/boards/{site.world.task}").status_code == 200
    assert_nothing_stored()


def test_upload_larger_than_the_free_space_is_refused_at_once(site, monkeypatch):
    headers = ZIP | site.token() | {"Content-Length": str(2**59)}
    change_settings(site, monkeypatch, max_upload_bytes=2**60)
    answer = site.client.post("/api/v1/submissions", content=b"x", headers=headers)
    assert (answer.status_code, NOT_YOU in answer.text) == (507, True)


def test_full_board_refuses_further_submissions(site, world, tmp_path, monkeypatch, assert_nothing_stored):
    change_settings(site, monkeypatch, max_entries=2)
    answer = site.post(world.write_run(tmp_path / "run"), site.token())
    assert (answer.status_code, "has 2 submissions, the most" in answer.text) == (507, True)
    assert_nothing_stored()


@contextmanager
def locked(settings):
    """Hold the write lock of the server's database."""
    other = sqlite3.connect(settings.server_folder / "leaderboard.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


def test_locked_database_gives_503_for_writes_only(site, world, tmp_path):
    if site.settings.database_url:
        pytest.skip("a lock of SQLite")
    site.client.app.state.database.engine.dispose()
    from forgetbench.leaderboard.db.session import Database

    site.client.app.state.database = Database(site.settings.database, lock_seconds=0.1)
    headers, run = site.token(), world.write_run(tmp_path / "run")
    with locked(site.settings):
        answer = site.post(run, headers)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "database is busy with other changes" in answer.json()["detail"]
        assert site.client.get("/api/v1/whoami", headers=headers).status_code == 200  # its last use is not recorded
        assert site.client.get("/ready").status_code == 200
        assert not list(site.settings.evidence.iterdir())
    assert site.post(run, headers).status_code == 202


def test_overdue_ranking_goes_before_further_scores(site, world, tmp_path):
    site.post(world.write_run(tmp_path / "run"), site.token())
    with site.database.write_session() as session:
        queue.enqueue(session, "rank", str(session.scalars(select(Board.id)).one()))
    job = queue.claim(site.database, "first", 60)
    assert job.kind == "score"
    with site.database.write_session() as session:
        queue.release(session, job)
        session.execute(update(Job).where(Job.kind == "rank").values(created_at=utc_now() - timedelta(seconds=31)))
    assert [queue.claim(site.database, str(turn), 60).kind for turn in range(2)] == ["rank", "score"]


@pytest.fixture
def running(site, monkeypatch):
    """Starts the site's worker in a thread, and stops it after the test."""
    threads = []

    def start():
        monkeypatch.setattr(worker_module, "MIN_PAUSE", 0.01)
        threads.append(threading.Thread(target=site.worker.run, daemon=True))
        threads[0].start()

    yield start
    site.worker.stop()
    threads[0].join(LIMIT)


def test_worker_scores_without_the_optional_chart_file(site, world, tmp_path, running, monkeypatch, caplog):
    entry_id = site.post(world.write_run(tmp_path / "run"), site.token()).json()["id"]
    monkeypatch.setattr(vega, "write_program", fail(FULL))
    running()
    wait_until(lambda: site.client.get(f"/api/v1/submissions/{entry_id}").status_code == 200, "the score")
    assert caplog.text.count("maintenance failed") == 1


def test_leftovers_are_removed_while_the_worker_runs(site, running, monkeypatch):
    maintained = threading.Event()
    monkeypatch.setattr(vega, "write_program", lambda _: maintained.set())
    running()
    assert maintained.wait(LIMIT)
    half = site.settings.incoming / "half"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    monkeypatch.setattr(worker_module, "MAINTENANCE_SECONDS", 0.0)
    wait_until(lambda: not half.exists(), "the removal")


def board_and_entry(site, entry_id):
    with site.database.read_session() as session:
        entry = session.get_one(Entry, entry_id)
        board = entry.board
        session.expunge_all()
        return board, entry


def test_full_disk_uses_no_attempt_of_a_job(site, world, tmp_path, running, monkeypatch, caplog):
    entry_id = site.post(world.write_run(tmp_path / "run"), site.token()).json()["id"]
    score = scoring.score_entry(site.settings, *board_and_entry(site, entry_id))
    monkeypatch.setattr(scoring, "score_entry", lambda *_: score)
    write_score, failures = scoring.write_score, iter([FULL] * 4)  # more than `job_attempts`

    def write_with_failures(*arguments):
        for failure in failures:
            raise failure
        write_score(*arguments)

    monkeypatch.setattr(scoring, "write_score", write_with_failures)
    running()
    wait_until(lambda: site.client.get(f"/api/v1/submissions/{entry_id}").status_code == 200, "the score")
    assert caplog.text.count("the disk is full; trying again") == 4
    with site.database.read_session() as session:
        assert session.scalar(select(Job.attempts).where(Job.key == f"score:{entry_id}")) == 1


@pytest.fixture
def small_server(prepared, databases, tmp_path):
    """A server in processes of its own, on a file system of 12 MiB."""
    if prepared.database_url:
        pytest.skip("the database is on the same disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], check=False).returncode:
        skip("this user cannot mount a file system")
    process = ServerProcess(databases.copy(prepared, disk / "server"))
    yield process
    process.close()
    subprocess.run(["umount", disk], check=True)


def occupy(disk, leave):
    """Fill a disk up to some free bytes; returns the file that takes the space."""
    filler = disk / "filler"
    handle = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(handle, bytes(4096))
    os.ftruncate(handle, os.fstat(handle).st_size - leave)
    os.close(handle)
    return filler


@pytest.mark.system
def test_really_full_disk_loses_nothing(small_server, world, tmp_path):
    settings, disk = small_server.settings, small_server.settings.server_folder.parent
    headers = {"Authorization": f"Bearer {admin.create_token(settings, 'Ada')}"} | ZIP
    runs = [zip_of(world.write_run(tmp_path / str(turn), f"m{turn}", start=300 + 20 * turn)) for turn in range(3)]
    small_server.start(worker=True, min_free_bytes=4096)
    url = f"{small_server.address}/api/v1/submissions"

    def submit(body):
        # without a length, so that the space is missed at whatever is written: the body, its files, or the row
        return small_server.http.post(url, content=iter([body]), headers=headers)

    ids = [submit(runs[0]).json()["id"]]
    for body, leave in zip(runs[1:], (0, len(runs[0]) * 3 // 2), strict=True):
        filler = occupy(disk, leave)
        answer = submit(body)
        assert (answer.status_code, NOT_YOU in answer.text) == (507, True), (leave, answer.text)
        assert small_server.get("/ready").status_code == (503 if leave == 0 else 200)
        assert small_server.get(f"/boards/{world.task}").status_code == 200
        filler.unlink()
        answer = submit(body)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
    for entry_id in ids:
        wait_until(
            lambda name=entry_id: small_server.get(f"/api/v1/submissions/{name}").status_code == 200, "the score"
        )
    assert small_server.stop() == 0
    assert not [line for line in small_server.log if "the scoring worker ended" in line]
    assert {path.name for path in settings.evidence.iterdir()} == set(ids)
    assert not list(settings.incoming.iterdir())
