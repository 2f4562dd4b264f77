"""Alarms for moderators: what raises them, and what ends them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sqlalchemy import select, update
from support.leaderboard import SEEDS, write_fake_run

from forgetbench.errors import UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db.models import Entry, Score
from forgetbench.leaderboard.db.states import NO_TRACE, ORIGIN_FLAGS
from forgetbench.store import digest


def made_of(*models, noise=0.0):
    """Answers that are the mean of one to three functions of seed and subset, with noise."""
    generator = np.random.default_rng(0)

    def logits_of(seed, subset):
        mean = np.mean([np.float64(model(seed, subset)) for model in models], axis=0)
        return mean + generator.normal(0, noise, mean.shape)

    return logits_of


def post_all(site, headers, runs):
    """Submit runs and score them; the ids of their entries."""
    answers = [site.post(run, headers) for run in runs]
    assert [answer.status_code for answer in answers] == [202] * len(runs), [answer.text for answer in answers]
    site.work()
    return [answer.json()["id"] for answer in answers]


def row_of(site, entry_id):
    return site.entry(entry_id)["row"]


def test_forged_answers_lose_their_place(site, world, tmp_path):
    def numbered(start):
        return lambda seed, subset: world.model(start + seed)[subset]

    def original(seed, subset):
        return world.model(seed, memory=2.0)[subset]

    def entry(start, turn=0):
        return lambda seed, subset: world.model(start + seed, memory=0.1, origin=(seed + turn) % SEEDS)[subset]

    def spliced(seed, subset):
        return numbered(900)(seed, subset) if subset == "forget" else original(seed, subset)

    runs = [world.write_run(tmp_path / str(start), f"honest-{start}", memory=0.1, start=start) for start in (300, 400)]
    honest = post_all(site, site.token(name="Ada"), runs)
    fakes = {
        "oracle-noise": ("near the oracles", made_of(numbered(100), noise=0.05)),
        "control-noise": ("near the oracles", made_of(numbered(200), noise=0.02)),
        "average": ("near the oracles", made_of(numbered(100), numbered(200))),
        "halfway": ("near the oracles", made_of(numbered(100), original)),
        "copy": ("copied answers", made_of(entry(300), noise=0.02)),
        "blend": ("copied answers", made_of(entry(300), entry(400))),
        "permuted": ("permuted seeds", made_of(entry(500, turn=2))),
        "spliced": ("spliced", spliced),
    }
    forged = [
        write_fake_run(world, tmp_path / name, fake, f"my-{len(name)}{name[0]}") for name, (_, fake) in fakes.items()
    ]
    ids = post_all(site, site.token(name="Eve"), forged)
    queued = {item.id: item.reason for item in admin.moderation_queue(site.settings)}
    for entry_id, (name, (kind, _)) in zip(ids, fakes.items(), strict=True):
        row = row_of(site, entry_id)
        assert (row["rank"], row["status"], kind in queued[entry_id]) == (None, "suspended", True), name
        assert kind not in json.dumps(site.entry(entry_id)), name  # what was found is for moderators
    assert [row_of(site, entry_id)["status"] for entry_id in honest] == ["ranked"] * 2
    assert f"entry {honest[0]} of Ada" in queued[ids[4]]
    assert {f"entry {entry_id} of Ada" in queued[ids[5]] for entry_id in honest} == {True}
    assert "suspended: its answers raised an alarm" in site.client.get(f"/boards/{world.task}").text


def test_untouched_originals_are_no_entries(site, world, tmp_path):
    def original(seed, subset):
        return world.model(seed, memory=2.0)[subset]

    def rounded(seed, subset):  # a method that moves forgotten rows of one model by a bit of float16, and no other
        return original(seed, subset) + (0.002 if seed == 0 and subset == "forget" else 0.0)

    runs = [
        write_fake_run(world, tmp_path / str(place), made_of(answers, noise=noise), f"copy-{place}")
        for place, (answers, noise) in enumerate(((original, 0.0), (original, 0.05), (original, 0.3), (rounded, 0.0)))
    ]
    for entry_id in post_all(site, site.token(name="Eve"), runs):
        row = row_of(site, entry_id)
        assert (row["rank"], row["status"], row["flags"][-1]) == (None, "is No unlearning", "is No unlearning")
    assert admin.moderation_queue(site.settings) == []
    assert "differ from them as noise would" in site.client.get(f"/boards/{world.task}").text


def test_models_without_trace_are_flagged_and_keep_a_place(site, world, tmp_path):
    [entry_id] = post_all(site, site.token(name="Eve"), [world.write_run(tmp_path / "new", "retrained", trained=True)])
    row = row_of(site, entry_id)
    assert (NO_TRACE in row["flags"], row["rank"]["scope"], row["rank"]["position"]) == (True, "claimed", 1)
    [item] = admin.moderation_queue(site.settings)
    assert item.reason.startswith(f"{NO_TRACE}: correlation with their originals")
    assert f'title="{ORIGIN_FLAGS[NO_TRACE][:20]}' in site.client.get(f"/boards/{world.task}").text


def test_best_oracles_of_many_leave_no_trace(site, world, tmp_path):
    """The best 6 of 12 self-made oracles, assigned to the originals that they happen to resemble most."""
    subsets = [np.stack([world.model(number)["test"] for number in numbers]) for numbers in (range(6), range(900, 912))]
    originals, oracles = (np.float64(part - part.mean(0)).reshape(len(part), -1) for part in subsets)
    chosen, order = linear_sum_assignment(oracles @ originals.T, maximize=True)
    assigned = {int(seed): 900 + int(number) for number, seed in zip(chosen, order, strict=True)}
    run = write_fake_run(world, tmp_path / "best", lambda seed, subset: world.model(assigned[seed])[subset])
    [entry_id] = post_all(site, site.token(name="Eve"), [run])
    assert NO_TRACE in row_of(site, entry_id)["flags"]


def test_moderators_give_back_a_place_with_a_reason(site, world, tmp_path):
    run = write_fake_run(
        world, tmp_path / "fake", made_of(lambda seed, subset: world.model(100 + seed)[subset], noise=0.05)
    )
    owner = site.token("submit", "moderate", name="Eve")
    [entry_id] = post_all(site, owner, [run])
    path = f"/api/v1/submissions/{entry_id}/acknowledge"
    found = {"reason": "an ensemble, the authors say"}
    assert site.client.post(path, json=found, headers=owner).status_code == 403  # one's own
    assert site.client.post(path, json={"reason": " "}, headers=site.token("moderate", name="M")).status_code == 422
    assert site.client.post(path, json=found, headers=site.token("moderate", name="Mary")).status_code == 200
    assert site.client.post(path, json=found, headers=site.token("moderate", name="Mary")).status_code == 409
    site.work()
    assert row_of(site, entry_id)["rank"]["position"] == 1
    event = site.entry(entry_id)["history"][-1]
    assert (event["actor"], event["reason"]) == ("Mary", f"acknowledged, place restored: {found['reason']}")
    with site.database.write_session() as session:
        session.execute(update(Score).values(software={"code": "old"}))
    admin.rescore(site.settings)
    site.work()
    assert (row_of(site, entry_id)["status"], admin.moderation_queue(site.settings)) == ("ranked", [])


def test_only_the_last_row_of_submitter_and_method_ranks(site, world, tmp_path):
    def run(name, start, source="a", folder=""):
        method = {"fingerprint": digest({"source": source})}
        return world.write_run(tmp_path / f"{folder}{start}", name, memory=0.1, start=start, method=method)

    ada = site.token(name="Ada")
    ids = post_all(site, ada, [run("mine", 300), run("mine", 320, "b"), run("other-name", 340, "b")])
    [foreign] = post_all(site, site.token(name="Grace"), [run("mine", 360)])
    assert [row_of(site, entry_id)["status"] for entry_id in ids] == ["earlier attempt", "earlier attempt", "ranked"]
    assert row_of(site, foreign)["status"] == "ranked"
    site.change_state(ids[2], "withdrawn", ada, "the second was better")
    site.work()
    assert [row_of(site, entry_id)["status"] for entry_id in ids[:2]] == ["earlier attempt"] * 2  # no best of many


def test_identical_losses_raise_an_alarm(site, world, tmp_path):
    def logits_of(seed, subset):
        labels = world.labels[subset]
        logits = np.full((len(labels), 3), -1.0 - seed / 8)
        logits[np.arange(len(labels)), labels] = 0.0
        return logits

    assert site.post(write_fake_run(world, tmp_path / "flat", logits_of), site.token()).status_code == 202
    site.work()
    [item] = admin.moderation_queue(site.settings)
    assert "identical losses" in item.reason


def test_many_attempts_raise_an_alarm_until_acknowledged(site, world, tmp_path):
    object.__setattr__(site.settings, "alarm_attempts", 2)
    headers = site.token(name="Ada")
    runs = [world.write_run(tmp_path / str(number), memory=0.1, start=300 + 20 * number) for number in range(3)]
    ids = [site.post(run, headers).json()["id"] for run in runs]
    site.work()
    assert [(item.id, item.reason) for item in admin.moderation_queue(site.settings)] == [
        (ids[2], "many attempts: number 3 of Ada with scrub on this board")
    ]
    refused = ((ids[2], " ", "A reason of 1 to"), (ids[0], "x", "not in the moderation queue"))
    for entry_id, reason, message in refused:
        with pytest.raises(UsageError, match=message):
            admin.acknowledge(site.settings, entry_id, reason)
    admin.acknowledge(site.settings, ids[2], "a sweep that was announced")
    assert admin.moderation_queue(site.settings) == []
    event = site.entry(ids[2])["history"][-1]
    assert (event["after"], event["reason"]) == ("listed", "acknowledged: a sweep that was announced")
    with site.database.write_session() as session:
        session.execute(update(Score).values(software={"code": "old"}))
    admin.rescore(site.settings)
    site.work()
    assert admin.moderation_queue(site.settings) == []  # a known alarm does not reopen the queue


def test_honest_entries_raise_no_alarm(full_site):
    query = select(Entry.method, Entry.alarms, Entry.queued).where(~Entry.baseline)
    with full_site.database.read_session() as session:
        rows = session.execute(query).all()
    assert len(rows) == 5
    assert [row for row in rows if row.alarms != [] or row.queued] == []
