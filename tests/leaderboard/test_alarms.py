"""Alarms for moderators: what raises them, and what ends them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sqlalchemy import select, update
from support.leaderboard import edit_manifest

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import write_arrays
from forgetbench.evidence.run import describe
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db.models import Entry, Score

ALARM = "closer to the reference oracles than the control oracles are"


def write_fake_run(world, folder, logits_of):
    """Write a run whose models answer ``logits_of(seed, subset)``."""
    world.write_run(folder)

    def replace_logits(manifest):
        for model in manifest["models"]:
            arrays = {name: np.float16(logits_of(model["seed"], name)) for name in world.labels}
            write_arrays(folder / model["file"], arrays)
            model["arrays"] = {name: record.model_dump(mode="json") for name, record in describe(arrays).items()}

    return edit_manifest(folder, replace_logits)


@pytest.mark.parametrize("fake", ["average", "noise"])
def test_logits_made_of_oracles_raise_an_alarm(site, world, tmp_path, fake):
    oracles = [world.model(100 + seed) for seed in range(6)]
    generator = np.random.default_rng(0)

    def logits_of(seed, subset):
        first, second = (np.float32(oracles[place % 6][subset]) for place in (seed, seed + 1))
        mixed = (first + second) / 2 if fake == "average" else first + generator.normal(0, 0.3, first.shape)
        return mixed - mixed.max(axis=-1, keepdims=True)

    site.post(world.write_run(tmp_path / "honest", memory=0.1), site.token(name="Ada"))
    answer = site.post(write_fake_run(world, tmp_path / "fake", logits_of), site.token(name="Eve"))
    assert answer.status_code == 202, answer.text
    site.work()
    [item] = admin.moderation_queue(site.settings)
    assert (item.id, item.state, ALARM in item.reason) == (answer.json()["id"], "listed", True)
    assert site.entry(item.id)["row"]["rank"] is not None  # an alarm changes no rank
    assert ALARM not in json.dumps(site.entry(item.id))  # and is not public


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
