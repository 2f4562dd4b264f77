from __future__ import annotations

import io
import json
import shutil
import struct
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.db.models import Entry, Event, Job
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.submissions.uploads import UploadedBody, check_headers, unpack
from forgetbench.leaderboard.worker import scoring
from forgetbench.scoring.scorer import Scorer


def zip_of(folder, **changes):
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())} | changes.pop("files", {})
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", changes.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


def count(site, kind):
    with site.database.read_session() as session:
        return session.scalar(select(func.count()).select_from(kind))


def nothing_stored(site, entries=2):
    return (
        count(site, Entry) == entries
        and not list(site.settings.evidence.iterdir())
        and not list(site.settings.incoming.iterdir())
    )


def test_a_submission_is_scored_ranked_and_shown(site, world, tmp_path):
    run = world.write_run(tmp_path / "run")
    answer = site.post(run, site.token())
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "received"
    assert site.work() == 2  # score, rank
    got = site.client.get(f"/api/v1/submissions/{answer.json()['id']}").json()
    assert got["state"] == "listed"
    assert got["rank"] == {"position": 1, "low": 1, "high": 1, "tie_group": 1}
    assert [event["after"] for event in got["history"]] == ["received", "scoring", "listed"]
    board = site.client.get(f"/api/v1/boards/{world.task}").json()
    assert [row["label"] for row in board["references"]] == ["Retrain", "No unlearning"]
    assert [row["label"] for row in board["rows"]] == ["scrub"]


def test_the_servers_scores_are_the_local_ones_to_the_bit(site, world, tiny_pack, tmp_path):
    run = world.write_run(tmp_path / "run", memory=0.4)
    identity = site.post(run, site.token()).json()["id"]
    site.work()
    local = Scorer(tiny_pack).score(read_run(run)).model_dump(mode="json")
    entry = site.client.get(f"/api/v1/entries/{identity}").json()
    assert entry["scorecard"] == local
    assert entry["row"]["distance"] == local["distance"]["value"]
    assert entry["row"]["values"]["lira.forget"]["value"] == local["metrics"]["lira.forget"]["value"]


def test_the_board_ranks_as_local_scoring_does(site, world, tiny_pack, tmp_path):
    from forgetbench.scoring.scorer import rank_runs

    folders = [
        world.write_run(tmp_path / name, name, start=300 + 20 * place, memory=memory)
        for place, (name, memory) in enumerate([("a", 1.2), ("b", 0.1), ("c", 0.05), ("d", 2.0)])
    ]
    headers = site.token()
    for folder in folders:
        site.post(folder, headers)
    site.work()
    rows = site.client.get(f"/api/v1/boards/{world.task}").json()["rows"]
    local = rank_runs(Scorer(tiny_pack), [read_run(folder) for folder in folders]).board.rows
    assert [(row["label"], row["rank"]["low"], row["rank"]["high"]) for row in rows] == [
        (row.name, row.low, row.high) for row in local
    ]


def test_a_dry_run_stores_nothing(site, world, tmp_path):
    answer = site.post(world.write_run(tmp_path / "run"), site.token(), dry_run="true")
    assert (answer.status_code, answer.json()["accepted"]) == (200, True)
    assert nothing_stored(site)


def test_the_same_body_again_gets_the_first_answer(site, world, tmp_path):
    headers = {**site.token(), "Idempotency-Key": "one"}
    body = zip_of(world.write_run(tmp_path / "run"))
    first, second = site.post(body, headers), site.post(body, headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    other = site.post(zip_of(world.write_run(tmp_path / "other", start=500)), headers)
    assert other.status_code == 409
    stranger = site.post(
        zip_of(world.write_run(tmp_path / "third", start=700)), {**site.token(), "Idempotency-Key": "one"}
    )
    assert stranger.status_code == 202  # the key belongs to its token
    assert count(site, Entry) == 4


def test_two_at_once_with_one_key_are_one_submission(site, world, tmp_path):
    headers, body = {**site.token(), "Idempotency-Key": "k"}, zip_of(world.write_run(tmp_path / "run"))
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(site.post(body, headers))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted({answer.status_code for answer in answers} - {200}) == [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert count(site, Entry) == 3


def test_the_same_evidence_twice_is_refused(site, world, tmp_path):
    run = world.write_run(tmp_path / "run")
    assert site.post(run, site.token()).status_code == 202
    again = site.post(zip_of(run), site.token(name="Grace Hopper"))
    assert again.status_code == 422
    assert "before" in again.json()["errors"][0]["message"]


def test_an_oracles_answers_are_refused(site, world, tiny_pack, tmp_path, change_manifest):
    stolen = world.write_run(tmp_path / "run", start=200)  # the control oracles, exactly
    answer = site.post(stolen, site.token())
    assert answer.status_code == 422
    assert "oracles" in answer.json()["errors"][0]["message"]


def test_doing_nothing_is_no_theft(site, world, tmp_path):
    assert site.post(world.write_run(tmp_path / "run", start=0, memory=2.0), site.token()).status_code == 202


def edit(path, **changes):
    manifest = json.loads((path / "manifest.json").read_bytes())
    for name, value in changes.items():
        manifest[name] = value
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def damaged_array(path, values):
    """A file whose arrays are as announced, but for their values or type."""
    with np.load(path / "d0-s0.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["test"] = values(arrays["test"])
    np.savez(path / "d0-s0.npz", **arrays)
    return zip_of(path)


def bomb(path):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("forget", "retain", "validation", "test"):
            archive.writestr(f"{name}.npy", b"\0" * 50_000_000)
    (path / "d0-s0.npz").write_bytes(body.getvalue())
    return zip_of(path)


def huge_header(path):
    """An array whose header claims 10^12 rows."""
    with zipfile.ZipFile(path / "d0-s0.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["test.npy"] = members["test.npy"].replace(b"(90, 3)", b"(9e, 3)").replace(b"(9e, 3)", b"(90, 9)")
    with zipfile.ZipFile(path / "d0-s0.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return zip_of(path)


def crowded(count=300_000):
    """A zip that lists files without end, each of no bytes; only its directory is there."""
    name = b"d0-s0.npz"
    member = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    size = count * len(member)
    return member * count + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count % 2**16, count % 2**16, size, 0, 0)


def crowded_64():
    """The same, its length in the records of 64 bits alone."""
    plain = crowded()
    size = len(plain) - 22
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 300_000, 300_000, size, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    return plain[:size] + large + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 60, 0, 0)


def within(run, content):
    (run / "d0-s0.npz").write_bytes(content)
    return zip_of(run)


def first_inner(run):
    """An upload that ends where the first of its own zips ends."""
    body = zip_of(run)
    return body[: body.index(b"PK\5\6") + 22]


HOSTILE = {
    "a crowded zip": (lambda _: crowded(), 400, "it lists more than"),
    "a crowded zip of 64 bits": (lambda _: crowded_64(), 400, "it lists more than"),
    "a crowded file": (lambda run: within(run, crowded()), 422, "d0-s0.npz"),
    "a comment": (lambda run: zip_of(run)[:-2] + b"\1\0x", 400, "without a comment"),
    "cut off behind a file": (first_inner, 400, "not a complete zip"),
    "another task": (lambda run: zip_of(edit(run, task="other/cnn/random-10")), 422, "no board of that task"),
    "another definition": (lambda run: zip_of(edit(run, task_key="0" * 64)), 422, "another definition"),
    "an unknown key": (lambda run: zip_of(edit(run, score=99.9)), 422, "Extra inputs"),
    "a failed run": (lambda run: zip_of(edit(run, status="failed", reason="boom")), 422, "did not complete"),
    "not json": (lambda run: zip_of(run, files={"manifest.json": b"{"}), 422, "JSON"),
    "NaN in it": (lambda run: zip_of(edit(run, cost={"flops": float("inf")})), 422, "not finite"),
    "a NUL in it": (lambda run: zip_of(edit(run, command="a\0b")), 422, "NUL"),
    "no time": (lambda run: zip_of(edit(run, created="yesterday")), 422, "ISO 8601"),
    "no zip": (lambda _: b"hello", 400, "not a complete zip"),
    "cut off": (lambda run: zip_of(run)[:-100], 400, "not a complete zip"),
    "empty": (lambda _: b"", 400, "not a complete zip"),
    "compressed": (lambda run: zip_of(run, compression=zipfile.ZIP_DEFLATED), 422, "without compression"),
    "a path": (lambda run: zip_of(run, files={"../../evil.npz": b"x"}), 422, "is not a file of a run"),
    "an additional file": (lambda run: zip_of(run, files={"d0-s9.npz": b"x"}), 422, "not named"),
    "NaN logits": (lambda run: damaged_array(run, lambda a: a * np.float16(np.nan)), 422, "SHA-256 differs"),
    "objects": (lambda run: damaged_array(run, lambda _: np.array([print], object)), 422, "size"),
    "float64": (lambda run: damaged_array(run, lambda a: a.astype(np.float64)), 422, "expected float16"),
    "fewer rows": (lambda run: damaged_array(run, lambda a: a[:5]), 422, "size"),
    "a bomb": (bomb, 422, "size"),
    "another shape": (huge_header, 422, "expected float16"),
}


@pytest.mark.parametrize("make", [crowded, crowded_64])
def test_a_crowded_zip_costs_no_memory(make, world, tmp_path):
    content, body = make(), tmp_path / "body"
    body.write_bytes(content)
    run = read_run(world.write_run(tmp_path / "run"))
    (run.folder / "d0-s0.npz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(Problem, match="lists more than"):
        unpack(UploadedBody(body, "", len(content)), tmp_path / "unpacked", 4 * 2**20)
    [error] = check_headers(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (error.field, "lists more than 4 files" in error.message) == ("d0-s0.npz", True)
    assert peak < len(content) / 4  # ZipFile takes ten times the file


def test_every_fault_is_told_at_once(site, world, tmp_path, change_manifest):
    site.post(world.write_run(tmp_path / "first"), site.token())
    run = change_manifest(
        world.write_run(tmp_path / "run"),
        lambda manifest: manifest.update(
            task_key="0" * 64,
            models=[{**model, "original": "1" * 64} if model["seed"] == 2 else model for model in manifest["models"]],
        ),
    )
    (run / "d0-s0.npz").write_bytes(b"no zip")
    with np.load(run / "d0-s1.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["test"] += np.float16(1)
    np.savez(run / "d0-s1.npz", **arrays)
    answer = site.post(zip_of(run, files={"notes.txt": b"mine"}), site.token())
    assert answer.status_code == 422
    told = {(error["field"], error["message"]) for error in answer.json()["errors"]}
    for field, words in (
        ("'notes.txt'", "is not a file of a run"),
        ("d0-s0.npz", "does not end like a zip"),
        ("manifest", "another definition"),
        ("manifest", "seeds [2] were not unlearned from this board's originals"),
        ("d0-s1.npz", "SHA-256 differs"),
        ("d0-s3.npz", "submitted to this board before"),
    ):
        assert any(field == at and words in message for at, message in told), (field, words, told)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_is_said_and_nothing_is_stored(name, site, world, tmp_path):
    make, status, words = HOSTILE[name]
    answer = site.post(make(world.write_run(tmp_path / "run")), site.token())
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.text
    assert nothing_stored(site)


def test_a_missing_seed_is_named(site, world, tmp_path):
    run = world.write_run(tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["models"].pop()
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "d0-s5.npz").unlink()
    answer = site.post(run, site.token())
    assert (answer.status_code, "(0, 5)" in answer.text) == (422, True)


def test_other_originals_name_the_command_that_fetches_the_right_ones(site, world, tmp_path):
    run = world.write_run(tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["models"][2]["original"] = "1" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    answer = site.post(run, site.token())
    assert (answer.status_code, "forgetbench pack pull" in answer.text) == (422, True)


def test_too_large_is_refused_as_announced_and_as_it_comes(make_settings, site, world, tmp_path):
    headers = {**site.token(), "Content-Type": "application/zip"}
    announced = site.client.post(
        "/api/v1/submissions", content=b"x", headers={**headers, "Content-Length": str(10 * 2**30)}
    )
    assert announced.status_code == 413
    limit = site.settings.max_upload_bytes

    def endless():
        for _ in range(limit // 2**20 + 2):
            yield b"\0" * 2**20

    object.__setattr__(site.settings, "max_upload_bytes", 2**20)
    try:
        assert (
            site.client.post(
                "/api/v1/submissions", content=(b"\0" * 2**19 for _ in range(4)), headers=headers
            ).status_code
            == 413
        )
    finally:
        object.__setattr__(site.settings, "max_upload_bytes", limit)
    assert nothing_stored(site)
    del endless


def test_another_media_type_is_refused(site):
    answer = site.client.post(
        "/api/v1/submissions", content=b"{}", headers=site.token() | {"Content-Type": "application/json"}
    )
    assert answer.status_code == 415


def test_the_quota_holds_and_says_when_to_come_back(make_settings, site, world, tmp_path):
    from forgetbench.leaderboard.admin import create_token

    token = create_token(site.settings, "Eager", ["submit"], daily_submissions=1)
    headers = {"Authorization": f"Bearer {token}"}
    assert site.post(world.write_run(tmp_path / "a"), headers).status_code == 202
    second = site.post(world.write_run(tmp_path / "b", start=500), headers)
    assert second.status_code == 429
    assert 80_000 < int(second.headers["Retry-After"]) <= 86_400


def test_damaged_evidence_is_rejected_with_the_reason(site, world, tmp_path):
    headers = site.token()
    identity = site.post(world.write_run(tmp_path / "run"), headers).json()["id"]
    (site.settings.evidence / identity / "d0-s3.npz").write_bytes(b"rot")
    site.work()
    got = site.client.get(f"/api/v1/submissions/{identity}", headers=headers).json()
    assert got["state"] == "rejected"
    assert "d0-s3.npz" in got["note"]
    again = site.post(tmp_path / "run", headers)
    assert again.status_code == 202  # a rejected submission may be made again


def test_history_cannot_be_rewritten(site):
    for statement in ("UPDATE events SET actor = 'me'", "DELETE FROM events"):
        with pytest.raises(DBAPIError, match="append-only"), site.database.write_session() as session:
            session.execute(text(statement))
    assert count(site, Event) == 6


def test_a_worker_that_dies_loses_its_lease_and_nothing_else(site, world, tmp_path, monkeypatch):
    from forgetbench.leaderboard.db import queue

    identity = site.post(world.write_run(tmp_path / "run"), site.token()).json()["id"]
    dead = queue.claim(site.database, "dead", lease=0.05)
    assert dead is not None
    threading.Event().wait(0.1)
    assert site.work() == 2
    with pytest.raises(queue.LeaseLostError), site.database.write_session() as session:
        queue.complete(session, dead)
    history = site.client.get(f"/api/v1/submissions/{identity}").json()["history"]
    assert [event["after"] for event in history] == ["received", "scoring", "listed"]


def test_a_job_that_always_fails_ends_with_a_reason(site, world, tmp_path, monkeypatch):
    headers = site.token()
    identity = site.post(world.write_run(tmp_path / "run"), headers).json()["id"]

    def boom(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(scoring, "score_entry", boom)
    object.__setattr__(site.settings, "poll_seconds", 0.001)
    for _ in range(200):
        if not site.worker.work_once():
            threading.Event().wait(0.01)
        got = site.client.get(f"/api/v1/submissions/{identity}", headers=headers).json()
        if got["state"] == "rejected":
            break
    assert "server's fault" in got["note"]
    with site.database.read_session() as session:
        job = session.scalars(select(Job).where(Job.subject == identity)).one()
        assert (job.state, job.attempts, job.error) == ("failed", 3, "RuntimeError: boom")


def test_leftovers_of_interrupted_uploads_are_removed(site):
    from forgetbench.leaderboard.worker.cleanup import remove_leftovers

    (site.settings.incoming / "abc").write_bytes(b"half")
    (site.settings.evidence / "nobody").mkdir()
    assert remove_leftovers(site.settings, site.database) == 0  # they may be under way
    assert remove_leftovers(site.settings, site.database, min_age=-1) == 2


def test_one_rank_job_is_enough_for_many_submissions(site, world, tmp_path):
    headers = site.token()
    for place in range(3):
        site.post(world.write_run(tmp_path / str(place), f"m{place}", start=300 + 20 * place), headers)
    assert site.work() == 3 + 1


def test_a_newer_pack_supersedes_and_the_old_board_stays(site, world, tmp_path):
    from forgetbench.leaderboard.admin import install_bundle

    old = site.client.get(f"/api/v1/boards/{world.task}").json()
    install_bundle(site.settings, world.write_pack(tmp_path / "new", title="Once more"))
    install_bundle(site.settings, tmp_path / "new")  # twice is once
    new = site.client.get(f"/api/v1/boards/{world.task}").json()
    assert new["title"] == "Once more"
    again = site.client.get(f"/api/v1/boards/{world.task}?pack={old['pack'][:12]}").json()
    assert again["title"] == old["title"]
    assert len(again["references"]) == 2
    shutil.rmtree(tmp_path / "new")
