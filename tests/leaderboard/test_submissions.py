from __future__ import annotations

import pytest

from forgetbench.evidence import read_run
from forgetbench.judging import Judge


def test_a_submission_is_scored_ranked_and_shown(site, world, tiny_pack, tmp_path):
    run = world.write_run(tmp_path / "run")
    answer = site.post(run, site.token())
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "received"
    assert site.work() == 3  # score, rank, chart
    got = site.client.get(f"/api/v1/submissions/{answer.json()['id']}").json()
    assert got["state"] == "listed"
    assert got["rank"]["low"] == 1
    assert [event["after"] for event in got["history"]] == ["received", "scoring", "listed"]
    board = site.client.get(f"/api/v1/boards/{world.task}").json()
    assert [row["label"] for row in board["references"]] == ["Retrain", "No unlearning"]
    assert [row["label"] for row in board["rows"]] == ["scrub"]


def test_the_servers_scores_are_the_local_ones_to_the_bit(site, world, tiny_pack, tmp_path):
    run = world.write_run(tmp_path / "run", memory=0.4)
    identity = site.post(run, site.token()).json()["id"]
    site.work()
    local = Judge(tiny_pack).score(read_run(run)).model_dump(mode="json")
    assert site.client.get(f"/api/v1/entries/{identity}").json()["scorecard"] == local
