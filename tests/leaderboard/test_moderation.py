"""What moderators and verifiers may bring about, what asks for a moderator's look, and what ends that."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sqlalchemy import select, update

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import write_arrays
from forgetbench.evidence.run import MANIFEST, describe
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Entry, EvidenceFile, Job, Score, ScoringProcess, utc_now
from forgetbench.leaderboard.worker import scoring
from forgetbench.leaderboard.worker.worker import Worker
from tests.leaderboard.test_states import entry, move, verify

ALARM = "closer to the reference oracles than the control oracles are"


@pytest.fixture
def listed(site, world, tmp_path):
    """Id of a listed submission."""
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    return identity


@pytest.fixture
def impatient(site):
    """A worker that tries a job once."""
    return Worker(site.settings.model_copy(update={"job_attempts": 1}), site.database)


def of(site, identity, *columns):
    with site.database.read_session() as session:
        return tuple(session.execute(select(*columns).where(Entry.id == identity)).one())


def boom(*_):
    raise RuntimeError("boom")


def test_nobody_lists_what_was_not_scored(site, world, tmp_path, monkeypatch):
    identity = site.post(world.write_run(tmp_path / "run"), site.token()).json()["id"]
    moderator = site.token("moderate", name="Moderator")
    assert [move(site, identity, state, moderator).status_code for state in ("scoring", "listed")] == [409, 409]
    scored, answers = scoring.score_entry, []

    def score_slowly(*words):
        answers.append(move(site, identity, "listed", moderator))
        return scored(*words)

    monkeypatch.setattr(scoring, "score_entry", score_slowly)
    site.work()
    assert [answer.status_code for answer in answers] == [409]
    assert "possible: rejected, withdrawn" in answers[0].text
    assert entry(site, identity)["row"]["rank"]["low"] == 1
    with site.database.write_session() as session:
        session.execute(update(Entry).where(Entry.id == identity).values(state="quarantined"))
        session.delete(session.get_one(Score, identity))
    assert "has no score" in move(site, identity, "listed", moderator).text


def rejected(site, run, headers, worker, monkeypatch):
    """Id of a submission that the server failed to score."""
    identity = site.post(run, headers).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_entry", boom)
        worker.drain()
    assert of(site, identity, Entry.state) == ("rejected",)
    return identity


def test_evidence_that_is_scored_again_counts_as_used_again(site, world, tmp_path, impatient, monkeypatch):
    run = world.write_run(tmp_path / "run")
    identity = rejected(site, run, site.token(), impatient, monkeypatch)
    moderator = site.token("moderate", name="Moderator")
    assert move(site, identity, "scoring", moderator).status_code == 200
    assert site.post(run, site.token(name="Other")).status_code == 422
    site.work()
    assert of(site, identity, Entry.state) == ("listed",)
    with site.database.read_session() as session:
        assert all(session.scalars(select(EvidenceFile.counted).where(EvidenceFile.entry_id == identity)))


def test_evidence_that_another_brought_since_is_not_scored_again(site, world, tmp_path, impatient, monkeypatch):
    run = world.write_run(tmp_path / "run")
    identity = rejected(site, run, site.token(), impatient, monkeypatch)
    assert site.post(run, site.token(name="Other")).status_code == 202
    answer = move(site, identity, "scoring", site.token("moderate", name="Moderator"))
    assert (answer.status_code, "Another entry" in answer.text) == (409, True)
    assert of(site, identity, Entry.state) == ("rejected",)
    [line] = admin.moderation_queue(site.settings)
    with pytest.raises(UsageError, match="Another entry"):
        admin.retry_jobs(site.settings, line.id.removeprefix("job "))


def test_a_verification_that_could_not_be_scored_may_be_posted_again(
    site, world, listed, tmp_path, impatient, monkeypatch
):
    grace, second = site.token("verify", name="Grace"), world.write_run(tmp_path / "second", memory=0.1, start=700)
    first = verify(site, listed, second, grace).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr("forgetbench.leaderboard.submissions.verification.complete_verification", boom)
        impatient.drain()
    [found] = entry(site, listed)["verifications"]
    assert (found["verdict"], "server's fault" in found["note"]) == ("failed", True)
    assert "could not be scored" in entry(site, listed)["history"][-1]["reason"]
    assert verify(site, listed, second, grace).json()["id"] == first
    site.work()
    [found] = entry(site, listed)["verifications"]
    assert (found["verdict"], found["note"]) == ("reproduced", None)
    assert admin.moderation_queue(site.settings) == []


def test_failed_jobs_are_asked_for_again(site, world, listed, tmp_path, impatient, monkeypatch):
    second = world.write_run(tmp_path / "second", memory=0.1, start=700)
    verify(site, listed, second, site.token("verify", name="Grace"))
    with site.database.write_session() as session:
        board = str(session.get_one(Entry, listed).board_id)
        session.execute(update(Score).values(software={"code": "old"}))
        queue.enqueue(session, "rank", board)
        queue.enqueue(session, "rescore", listed)
    waiting = rejected(site, world.write_run(tmp_path / "other", start=800), site.token(), impatient, monkeypatch)
    with monkeypatch.context() as patch:
        for kind in ("score", "rank", "rescore", "verify"):
            patch.setitem(impatient._handlers, kind, boom)
        with site.database.write_session() as session:
            queue.enqueue(session, "rank", board)
        impatient.drain()
    found = {line.state: line for line in admin.moderation_queue(site.settings)}
    assert set(found) == {"score failed", "rank failed", "rescore failed", "verify failed"}
    assert (found["verify failed"].task, found["rank failed"].task) == (world.task, world.task)
    with pytest.raises(UsageError, match="No failed job '999'"):
        admin.retry_jobs(site.settings, "999")
    assert admin.retry_jobs(site.settings, found["score failed"].id.removeprefix("job ")) == [f"score:{waiting}"]
    assert len(admin.retry_jobs(site.settings, "all")) == 3
    site.work()
    assert admin.moderation_queue(site.settings) == []
    assert admin.retry_jobs(site.settings, "all") == []
    assert (of(site, waiting, Entry.state), of(site, listed, Entry.tier)) == (("listed",), ("reproduced",))
    with site.database.read_session() as session:
        assert set(session.scalars(select(Job.state))) == {"done"}


def test_a_reference_row_that_failed_is_asked_for_again(make_settings, world, tiny_pack, monkeypatch):
    from forgetbench.leaderboard.admin import install_bundle
    from forgetbench.leaderboard.db.session import Database

    settings = make_settings(job_attempts=1)
    install_bundle(settings, tiny_pack.folder)
    database = Database(settings.database)
    worker = Worker(settings, database)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_entry", boom)
        worker.drain()
    assert len(admin.retry_jobs(settings, "all")) == 2
    worker.drain()
    with database.read_session() as session:
        assert set(session.scalars(select(Entry.state))) == {"listed"}
    database.close()


def test_a_second_run_that_differs_takes_the_tier_away(site, world, listed, tmp_path):
    grace = site.token("verify", name="Grace")
    verify(site, listed, world.write_run(tmp_path / "second", memory=0.1, start=700), grace)
    site.work()
    assert of(site, listed, Entry.tier) == ("reproduced",)
    verify(site, listed, world.write_run(tmp_path / "third", memory=2.0, start=900), grace)
    site.work()
    found = entry(site, listed)
    assert (found["row"]["tier"], found["row"]["state"]) == ("recomputed", "flagged")
    assert [event["reason"].partition(";")[0] for event in found["history"][-2:-1]] == ["tier: recomputed"]
    assert site.client.get(f"/api/v1/boards/{world.task}?tier=reproduced").json()["rows"] == []


def test_a_second_run_that_is_the_first_to_the_bit_is_said_to_be(site, world, listed, tmp_path):
    verify(site, listed, tmp_path / "run", site.token("verify", name="Grace"))
    verify(site, listed, world.write_run(tmp_path / "second", memory=0.1, start=700), site.token("verify", name="Eve"))
    site.work()
    found = entry(site, listed)
    assert [(item["verdict"], item["identical"]) for item in found["verifications"]] == [
        ("reproduced", True),
        ("reproduced", False),
    ]
    assert "is bit-identical" in json.dumps(found["history"])
    assert "those of the first record, to the bit" in site.client.get(f"/entries/{listed}").text


def test_a_verification_compares_scores_of_the_same_code(site, world, listed, tmp_path):
    with site.database.write_session() as session:
        score = session.get_one(Score, listed)
        card = json.loads(json.dumps(score.card))
        for name in card["ranking"]:
            card["metrics"][name]["pseudo_values"] = [value + 1000 for value in card["metrics"][name]["pseudo_values"]]
        score.card, score.software = card, {"code": "old"}
    verify(site, listed, world.write_run(tmp_path / "second", memory=0.1, start=700), site.token("verify", name="G"))
    site.work()
    found = entry(site, listed)
    assert (found["row"]["tier"], found["software"]["code"] != "old") == ("reproduced", True)


def test_a_recount_reaches_what_is_quarantined_and_names_unknown_boards(site, world, listed):
    admin.change_state(site.settings, listed, "quarantined", "a look")
    with site.database.write_session() as session:
        session.execute(update(Score).where(Score.entry_id == listed).values(software={"code": "old"}))
    with pytest.raises(UsageError, match=rf"No board for task 'nope'. Available: {world.task}"):
        admin.rescore(site.settings, "nope")
    assert admin.rescore(site.settings, world.task) == 1
    site.work()
    with site.database.read_session() as session:
        assert session.get_one(Score, listed).software["code"] != "old"
    assert of(site, listed, Entry.state) == ("quarantined",)


def test_what_older_code_scored_says_so_and_is_scored_again_when_restored(site, listed):
    with site.database.write_session() as session:
        session.add(ScoringProcess(name="w", code="new" * 10, seen_at=utc_now()))
    assert entry(site, listed)["outdated"]
    assert "This server scores with code newnewnewnew by now" in site.client.get(f"/entries/{listed}").text
    with site.database.write_session() as session:
        session.execute(update(Score).where(Score.entry_id == listed).values(software={"code": "new" * 10}))
    assert not entry(site, listed)["outdated"]
    admin.change_state(site.settings, listed, "quarantined", "a look")
    site.work()
    change = admin.change_state(site.settings, listed, "listed", "explained")
    assert (change.before, change.after) == ("quarantined", "listed")
    site.work()
    assert "scored again" in entry(site, listed)["history"][-1]["reason"]


def made_of(world, folder, answers):
    """A run whose models answer what ``answers(seed, part)`` says."""
    world.write_run(folder)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for model in manifest["models"]:
        arrays = {name: np.float16(answers(model["seed"], name)) for name in world.labels}
        write_arrays(folder / model["file"], arrays)
        model["arrays"] = {name: item.model_dump(mode="json") for name, item in describe(arrays).items()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("fake", ["average", "noise"])
def test_answers_that_are_made_of_oracles_raise_an_alarm(site, world, listed, tmp_path, fake):
    oracles = [world.model(100 + seed) for seed in range(6)]
    generator = np.random.default_rng(0)

    def answers(seed, part):
        one, other = (np.float32(oracles[place % 6][part]) for place in (seed, seed + 1))
        mixed = (one + other) / 2 if fake == "average" else one + generator.normal(0, 0.3, one.shape)
        return mixed - mixed.max(axis=-1, keepdims=True)

    answer = site.post(made_of(world, tmp_path / "fake", answers), site.token(name="Eve"))
    assert answer.status_code == 202, answer.text
    site.work()
    [line] = admin.moderation_queue(site.settings)
    assert (line.id, line.state, ALARM in line.reason) == (answer.json()["id"], "listed", True)
    assert entry(site, line.id)["row"]["rank"] is not None  # an alarm changes no rank
    assert ALARM not in json.dumps(entry(site, line.id))  # and is the moderators' alone


def test_identical_losses_raise_an_alarm(site, world, tmp_path):
    def answers(seed, part):
        labels = world.labels[part]
        logits = np.full((len(labels), 3), -1.0 - seed / 8)
        logits[np.arange(len(labels)), labels] = 0.0
        return logits

    assert site.post(made_of(world, tmp_path / "flat", answers), site.token()).status_code == 202
    site.work()
    [line] = admin.moderation_queue(site.settings)
    assert "identical losses" in line.reason


def test_many_attempts_raise_an_alarm_until_somebody_looked(site, world, tmp_path):
    object.__setattr__(site.settings, "alarm_attempts", 2)
    headers = site.token(name="Ada")
    runs = [world.write_run(tmp_path / str(number), memory=0.1, start=300 + 20 * number) for number in range(3)]
    ids = [site.post(run, headers).json()["id"] for run in runs]
    site.work()
    assert [(line.id, line.reason) for line in admin.moderation_queue(site.settings)] == [
        (ids[2], "many attempts: number 3 of Ada with scrub on this board")
    ]
    for identity, reason, message in (
        (ids[2], " ", "A reason of 1 to 2000 characters"),
        (ids[0], "x", "not in the moderation queue"),
    ):
        with pytest.raises(UsageError, match=message):
            admin.acknowledge(site.settings, identity, reason)
    admin.acknowledge(site.settings, ids[2], "a sweep that was announced")
    assert admin.moderation_queue(site.settings) == []
    last = entry(site, ids[2])["history"][-1]
    assert (last["after"], last["reason"]) == ("listed", "acknowledged: a sweep that was announced")
    with site.database.write_session() as session:
        session.execute(update(Score).values(software={"code": "old"}))
    admin.rescore(site.settings)
    site.work()
    assert admin.moderation_queue(site.settings) == []  # the same alarm again asks for no second look


def test_an_honest_row_raises_no_alarm(full_site):
    with full_site.database.read_session() as session:
        found = session.execute(select(Entry.method, Entry.alarms, Entry.queued).where(Entry.tier != "reference")).all()
    assert len(found) == 5
    assert [row for row in found if row.alarms != [] or row.queued] == []
