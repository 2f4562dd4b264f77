"""Verifications: second records of an entry, and what they change."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.leaderboard import SEEDS, ZIP, edit_manifest, write_fake_run

from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db.models import Score
from forgetbench.leaderboard.submissions import verification
from forgetbench.leaderboard.submissions.verification import compare_scorecards
from forgetbench.leaderboard.worker.worker import Worker
from forgetbench.remote.verify import _class_of
from forgetbench.tasks.task import read_task


@pytest.fixture
def owner(site):
    """Headers of the submitter."""
    return site.token(name="Ada")


@pytest.fixture
def verifier(site):
    """Headers of another person, who may verify."""
    return site.token("verify", name="Grace")


@pytest.fixture
def listed(site, world, tmp_path, owner):
    """Id of a listed submission."""
    entry_id = site.post(world.write_run(tmp_path / "run", memory=0.1), owner).json()["id"]
    site.work()
    return entry_id


@pytest.fixture
def agreeing(world, tmp_path):
    """A second run that agrees with the first."""
    return world.write_run(tmp_path / "second", memory=0.1, start=700)


@pytest.fixture
def differing(world, tmp_path):
    """A second run that differs from the first."""
    return world.write_run(tmp_path / "third", memory=2.0, start=900)


def test_verify_with_agreeing_record_counts_a_reproduction(site, world, listed, agreeing, verifier):
    assert site.verify(listed, agreeing, verifier).status_code == 202
    site.work()
    entry = site.entry(listed)
    assert (entry["row"]["tier"], entry["row"]["reproductions"]) == ("claimed", 1), entry["verifications"]
    assert entry["verifications"][0]["verifier"] == "Grace"
    assert all(item["agrees"] for item in entry["verifications"][0]["comparison"].values())
    claims = site.client.get(f"/api/v1/boards/{world.task}?tier=claimed").json()
    assert [(row["rank"]["scope"], row["rank"]["low"]) for row in claims["rows"]] == [("claimed", 1)]
    assert site.client.get(f"/api/v1/boards/{world.task}?tier=ranked").json()["rows"] == []
    assert "reproduced by 1 other" in site.client.get(f"/boards/{world.task}").text
    assert "Verifications" in site.client.get(f"/entries/{listed}").text


def test_verify_with_differing_record_flags_the_row(site, world, listed, differing, verifier):
    site.verify(listed, differing, verifier)
    site.work()
    entry = site.entry(listed)
    assert (entry["row"]["tier"], entry["row"]["state"]) == ("claimed", "flagged")
    assert "lira.forget" in entry["history"][-1]["reason"]
    assert "under review" in site.client.get(f"/boards/{world.task}").text


def test_reproductions_count_people_and_change_no_tier(site, world, listed, agreeing, differing, verifier, tmp_path):
    site.verify(listed, agreeing, verifier)
    site.verify(listed, world.write_run(tmp_path / "fourth", memory=0.1, start=1000), verifier)
    site.verify(listed, world.write_run(tmp_path / "fifth", memory=0.1, start=1100), site.token("verify", name="Eve"))
    site.work()
    assert site.entry(listed)["row"]["reproductions"] == 2
    site.verify(listed, differing, verifier)
    site.work()
    row = site.entry(listed)["row"]
    assert (row["tier"], row["state"], row["reproductions"]) == ("claimed", "flagged", 2)


def test_verify_of_own_or_another_method_is_refused(site, world, listed, agreeing, verifier, owner, tmp_path):
    assert site.verify(listed, agreeing, owner).status_code == 403  # lacks the scope
    refused = site.verify(listed, world.write_run(tmp_path / "other", "another", start=800), verifier)
    assert (refused.status_code, "method.name" in refused.text) == (422, True)
    assert site.verify("unknown", agreeing, verifier).status_code == 404
    both = site.token("verify", "submit", name="Both")
    own = site.post(world.write_run(tmp_path / "own", start=900), both).json()["id"]
    site.work()
    assert site.verify(own, world.write_run(tmp_path / "again", start=950), both).status_code == 403


def test_verify_with_known_answers_is_refused(site, world, listed, agreeing, verifier, tmp_path):
    refused = site.verify(listed, tmp_path / "run", verifier)
    assert (refused.status_code, refused.text.count("bit by bit")) == (422, SEEDS)
    assert site.verify(listed, agreeing, verifier).status_code == 202
    site.work()
    again = edit_manifest(agreeing, lambda manifest: manifest.update(reason="another body"))
    refused = site.verify(listed, again, site.token("verify", name="Eve"))  # another verifier's answers
    assert (refused.status_code, "bit by bit" in refused.text) == (422, True)
    assert site.entry(listed)["row"]["reproductions"] == 1
    assert "reproduced by 1 other: Grace" in site.client.get(f"/entries/{listed}").text


def test_verify_with_noise_on_the_first_record_is_not_counted(site, world, listed, verifier, tmp_path):
    generator = np.random.default_rng(0)

    def logits_of(seed, subset):
        logits = np.float64(world.model(300 + seed, memory=0.1, origin=seed)[subset])
        return logits + generator.normal(0, 0.02, logits.shape)

    site.verify(listed, write_fake_run(world, tmp_path / "noise", logits_of), verifier)
    site.work()
    entry = site.entry(listed)
    assert (entry["row"]["reproductions"], entry["verifications"][0]["outcome"]) == (0, "failed")
    assert "not counted" in entry["verifications"][0]["note"]


def test_verify_needs_source_or_a_registered_method(site, world, verifier, tmp_path):
    entry_id = site.post(world.write_run(tmp_path / "own", "own", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    refused = site.verify(entry_id, world.write_run(tmp_path / "again", "own", memory=0.1, start=700), verifier)
    assert (refused.status_code, "others cannot run it again" in refused.text) == (422, True)
    namesake = site.token("verify", name="Ada")
    own = site.verify(entry_id, world.write_run(tmp_path / "third", "own", memory=0.1, start=800), namesake)
    assert own.status_code == 403


def test_verify_runs_a_method_with_other_seeds():
    task = read_task("digits/cnn/class")
    again = task.with_method_seeds("verify-x-Grace")
    assert (again.key, again.public()) == (task.key, task.public())
    for stream in ("method", "method-init"):
        assert again.stream(stream, 0, 1) != task.stream(stream, 0, 1)
    assert again.stream("original-init", 1) == task.stream("original-init", 1)


def test_verify_compares_scores_of_the_same_code(site, listed, agreeing, verifier):
    with site.database.write_session() as session:
        score = session.get_one(Score, listed)
        card = json.loads(json.dumps(score.card))
        for name in card["ranking"]:
            values = card["metrics"][name]["pseudo_values"]
            card["metrics"][name]["pseudo_values"] = [value + 1000 for value in values]
        score.card, score.software = card, {"code": "old"}
    site.verify(listed, agreeing, verifier)
    site.work()
    entry = site.entry(listed)
    assert (entry["row"]["reproductions"], entry["software"]["code"] != "old") == (1, True)


def test_verification_that_failed_can_be_posted_again(site, listed, agreeing, verifier, monkeypatch):
    def fail(*_):
        raise RuntimeError("boom")

    first = site.verify(listed, agreeing, verifier).json()["id"]
    worker = Worker(site.settings.model_copy(update={"job_attempts": 1}), site.database)
    with monkeypatch.context() as patch:
        patch.setattr(verification, "complete_verification", fail)
        worker.drain()
    [record] = site.entry(listed)["verifications"]
    assert (record["outcome"], "server's fault" in record["note"]) == ("failed", True)
    assert "could not be scored" in site.entry(listed)["history"][-1]["reason"]
    assert site.verify(listed, agreeing, verifier).json()["id"] == first
    site.work()
    [record] = site.entry(listed)["verifications"]
    assert (record["outcome"], record["note"]) == ("reproduced", None)
    assert admin.moderation_queue(site.settings) == []


def test_compare_scorecards_without_metric_is_undecided():
    present = {"value": 1.0, "pseudo_values": [1.0, 1.1, 0.9]}
    lacking = {"value": 1.0, "pseudo_values": []}
    first = {"ranking": ["a", "b", "c"], "metrics": {"a": present, "b": lacking, "c": present}}
    second = {"ranking": ["a", "b", "c"], "metrics": {"a": present, "b": lacking, "c": lacking}}
    comparison = compare_scorecards(first, second)
    assert {name: item["agrees"] for name, item in comparison.items()} == {"a": True, "b": None, "c": False}


def test_undecided_verification_leaves_the_row_unchanged(site, listed, agreeing, verifier, monkeypatch):
    compare = verification.compare_scorecards

    def compare_without_pseudo_values(first, second):
        for card in (first, second):
            for name in card["ranking"]:
                card["metrics"][name]["pseudo_values"] = []
        return compare(first, second)

    monkeypatch.setattr(verification, "difference", lambda *_: None)
    monkeypatch.setattr(verification, "compare_scorecards", compare_without_pseudo_values)
    site.verify(listed, agreeing, verifier)
    site.work()
    entry = site.entry(listed)
    assert (entry["row"]["state"], entry["row"]["tier"]) == ("listed", "claimed")
    assert entry["verifications"][0]["outcome"] == "failed"
    assert "inconclusive" in entry["history"][-1]["reason"]
    assert "inconclusive" in site.client.get(f"/entries/{listed}").text


def test_verify_with_incomplete_body_is_refused(site, listed, verifier):
    path = f"/api/v1/submissions/{listed}/verifications"
    assert site.client.post(path, content=b"PK\3\4", headers=ZIP | verifier).status_code == 400


def test_source_that_does_not_import_says_why(tmp_path):
    path = tmp_path / "method.py"
    path.write_text("import no_such_library\n\nclass Mine:\n    pass\n")
    with pytest.raises(ForgetBenchError, match=r"defines no method 'mine'\. .*no_such_library"):
        _class_of(path, "mine")
