"""Submissions: from a run folder to a scored and ranked row, and the checks on the way."""

from __future__ import annotations

import shutil
import threading

from sqlalchemy import func, select
from support.concurrency import LIMIT
from support.leaderboard import edit_manifest

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.db.models import Entry
from forgetbench.scoring.scorer import Scorer, rank_runs


def count_entries(site):
    with site.database.read_session() as session:
        return session.scalar(select(func.count()).select_from(Entry))


def test_submission_is_scored_ranked_and_shown(site, world, tmp_path):
    answer = site.post(world.write_run(tmp_path / "run"), site.token())
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "received"
    assert site.work() == 2  # score, rank
    submission = site.client.get(f"/api/v1/submissions/{answer.json()['id']}").json()
    assert submission["state"] == "listed"
    assert submission["rank"] == {"scope": "claimed", "position": 1, "low": 1, "high": 1}
    assert [event["after"] for event in submission["history"]] == ["received", "scoring", "listed"]
    board = site.client.get(f"/api/v1/boards/{world.task}").json()
    assert [row["label"] for row in board["references"]] == ["Retrain", "No unlearning"]
    assert [row["label"] for row in board["rows"]] == ["scrub"]


def test_server_scores_equal_local_scores(site, world, tiny_pack, tmp_path):
    run = world.write_run(tmp_path / "run", memory=0.4)
    identity = site.post(run, site.token()).json()["id"]
    site.work()
    local = Scorer(tiny_pack).score(read_run(run)).model_dump(mode="json")
    entry = site.entry(identity)
    assert entry["scorecard"] == local
    assert entry["row"]["distance"] == local["distance"]["value"]
    assert entry["row"]["values"]["lira.forget"]["value"] == local["metrics"]["lira.forget"]["value"]


def test_server_ranks_equal_local_ranks(site, world, tiny_pack, tmp_path):
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


def test_dry_run_stores_nothing(site, world, tmp_path, assert_nothing_stored):
    answer = site.post(world.write_run(tmp_path / "run"), site.token(), dry_run="true")
    assert (answer.status_code, answer.json()["accepted"]) == (200, True)
    assert_nothing_stored()


def test_repeated_request_gets_the_first_response(site, world, tmp_path):
    headers = {**site.token(), "Idempotency-Key": "one"}
    run = world.write_run(tmp_path / "run")
    first, second = site.post(run, headers), site.post(run, headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    other_body = site.post(world.write_run(tmp_path / "other", start=500), headers)
    assert other_body.status_code == 409
    other_token = {**site.token(), "Idempotency-Key": "one"}
    assert site.post(world.write_run(tmp_path / "third", start=700), other_token).status_code == 202
    assert count_entries(site) == 4


def test_concurrent_repeated_requests_are_one_submission(site, world, tmp_path):
    headers, run = {**site.token(), "Idempotency-Key": "k"}, world.write_run(tmp_path / "run")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(site.post(run, headers))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(answers) == 4
    assert sorted({answer.status_code for answer in answers} - {200}) == [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert count_entries(site) == 3


def test_evidence_submitted_twice_is_refused(site, world, tmp_path):
    run = world.write_run(tmp_path / "run")
    assert site.post(run, site.token()).status_code == 202
    again = site.post(run, site.token(name="Grace Hopper"))
    assert again.status_code == 422
    assert "before" in again.json()["errors"][0]["message"]


def test_logits_of_an_oracle_are_refused(site, world, tmp_path):
    stolen = world.write_run(tmp_path / "run", start=200, trained=True)  # exactly the control oracles
    answer = site.post(stolen, site.token())
    assert answer.status_code == 422
    assert "oracles" in answer.json()["errors"][0]["message"]


def test_logits_of_the_originals_are_accepted(site, world, tmp_path):
    unchanged = world.write_run(tmp_path / "run", start=0, memory=2.0, trained=True)
    assert site.post(unchanged, site.token()).status_code == 202


def test_missing_seed_is_named(site, world, tmp_path):
    run = edit_manifest(world.write_run(tmp_path / "run"), lambda manifest: manifest["models"].pop())
    (run / "d0-s5.npz").unlink()
    answer = site.post(run, site.token())
    assert (answer.status_code, "(0, 5)" in answer.text) == (422, True)


def test_other_originals_are_refused_with_the_command(site, world, tmp_path):
    run = edit_manifest(
        world.write_run(tmp_path / "run"), lambda manifest: manifest["models"][2].update(original="1" * 64)
    )
    answer = site.post(run, site.token())
    assert (answer.status_code, "forgetbench pack pull" in answer.text) == (422, True)


def test_submission_beyond_the_quota_says_when_to_retry(site, world, tmp_path):
    token = create_token(site.settings, "Eager", ["submit"], daily_submissions=1)
    headers = {"Authorization": f"Bearer {token}"}
    assert site.post(world.write_run(tmp_path / "a"), headers).status_code == 202
    second = site.post(world.write_run(tmp_path / "b", start=500), headers)
    assert second.status_code == 429
    assert 80_000 < int(second.headers["Retry-After"]) <= 86_400


def test_damaged_evidence_is_rejected_and_may_be_resubmitted(site, world, tmp_path):
    headers = site.token()
    identity = site.post(world.write_run(tmp_path / "run"), headers).json()["id"]
    (site.settings.evidence / identity / "d0-s3.npz").write_bytes(b"rot")
    site.work()
    submission = site.client.get(f"/api/v1/submissions/{identity}", headers=headers).json()
    assert submission["state"] == "rejected"
    assert "d0-s3.npz" in submission["note"]
    assert site.post(tmp_path / "run", headers).status_code == 202


def test_newer_bundle_supersedes_the_board(site, world, tmp_path):
    old = site.client.get(f"/api/v1/boards/{world.task}").json()
    install_bundle(site.settings, world.write_pack(tmp_path / "new", title="Once more"))
    install_bundle(site.settings, tmp_path / "new")  # repeated: no change
    new = site.client.get(f"/api/v1/boards/{world.task}").json()
    assert new["title"] == "Once more"
    superseded = site.client.get(f"/api/v1/boards/{world.task}?pack={old['pack'][:12]}").json()
    assert superseded["title"] == old["title"]
    assert len(superseded["references"]) == 2
    shutil.rmtree(tmp_path / "new")
