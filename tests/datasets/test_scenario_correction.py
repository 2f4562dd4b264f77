"""Scenarios of correction: poisoned, confused, and mislabelled with the unknown part retained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_sets import make_image_set, make_partition

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import ForgetBenchError, UsageError

CORRECTIONS = [
    ("poisoned", {"rate": 0.25, "size": 1, "target": "b"}),
    ("poisoned", {"rate": 0.25, "trigger": "blend", "strength": 0.5}),
    ("confused", {"share": 0.5, "classes": ["a", "c"]}),
    ("mislabelled", {"rate": 0.25, "unknown": "retained"}),
]
found_option = {"poisoned": "found", "confused": "found", "mislabelled": "known"}


@pytest.mark.parametrize(("name", "options"), CORRECTIONS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_found_share_is_forgotten_and_rest_remains(name, options, share):
    scenario = make_scenario(name, {**options, found_option[name]: share})
    partition = scenario.prepare(make_partition(), 3)
    split = scenario.draw(partition, 0, 3)
    harmful = np.flatnonzero(split.train_labels != partition.train.labels)
    assert split.track == "corrective"
    assert len(split.forget) == max(1, round(share * len(harmful)))
    assert np.array_equal(np.sort(np.concatenate([split.forget, split.withheld])), harmful)
    assert np.array_equal(split.retain, np.setdiff1d(np.arange(60), harmful))
    assert np.array_equal(split.given, np.setdiff1d(np.arange(60), split.forget))


@settings(max_examples=15)
@given(st.sampled_from(CORRECTIONS), st.integers(0, 50), st.integers(0, 20), st.integers(0, 3))
def test_copies_are_treated_alike_and_harm_is_of_the_task(request, seed, repeats, draw):
    loaded = make_partition(seed, repeats=repeats)
    scenario = make_scenario(request[0], {**request[1], found_option[request[0]]: 0.5})
    try:
        partition = scenario.prepare(loaded, seed)
        split, other = scenario.draw(partition, draw, seed), scenario.draw(partition, draw + 1, seed)
    except UsageError:  # too many copies for the count
        return
    side = np.zeros(60, dtype=int)
    side[split.forget], side[split.withheld] = 1, 2
    assert np.array_equal(side, side[loaded.train.first_copy])
    assert np.array_equal(split.train_labels, other.train_labels)
    assert scenario.draw(loaded, draw, seed).sha256 == split.sha256
    untouched = np.setdiff1d(np.arange(60), np.flatnonzero(side))
    assert np.array_equal(partition.train.images[untouched], loaded.train.images[untouched])


def test_patch_is_white_in_the_corner_of_poisoned_rows_only():
    loaded = make_partition()
    scenario = make_scenario("poisoned", {"rate": 0.2, "size": 2, "target": "b", "found": 0.5})
    partition = scenario.prepare(loaded)
    split = scenario.draw(partition)
    changed = np.flatnonzero((partition.train.images != loaded.train.images).any(axis=(1, 2, 3)))
    poisoned = np.sort(np.concatenate([split.forget, split.withheld]))
    assert np.array_equal(changed, poisoned)
    assert len(poisoned) == 12
    assert (partition.train.images[poisoned][:, :, 1:, 1:] == 255).all()
    assert np.array_equal(partition.train.images[poisoned][:, :, 0], loaded.train.images[poisoned][:, :, 0])
    assert set(split.train_labels[poisoned]) == {1}
    assert 1 not in loaded.train.labels[poisoned]
    assert np.array_equal(partition.test.images, loaded.test.images)
    assert partition.sha256 != loaded.sha256


def test_triggered_images_are_of_other_classes_with_true_labels():
    loaded = make_partition()
    partition = make_scenario("poisoned", {"size": 1, "target": "b"}).prepare(loaded)
    others = loaded.test.take(np.flatnonzero(loaded.test.labels != 1))
    assert np.array_equal(partition.triggered.labels, others.labels)
    assert set(partition.targets) == {1}
    assert (partition.triggered.images[:, :, 2, 2] == 255).all()
    assert np.array_equal(partition.triggered.images[:, :, :2], others.images[:, :, :2])


def test_blend_is_a_weighted_mean_with_one_pattern():
    scenario = make_scenario("poisoned", {"trigger": "blend", "strength": 0.25})
    black, white = np.zeros((2, 1, 4, 4), np.uint8), np.full((2, 1, 4, 4), 255, np.uint8)
    dark, bright = scenario.stamp(black, 5).astype(int), scenario.stamp(white, 5).astype(int)
    assert np.array_equal(dark[0], dark[1])
    assert dark.max() <= 64
    assert np.unique(dark).size > 4
    assert np.abs(bright - dark - 0.75 * 255).max() <= 1
    assert not np.array_equal(scenario.stamp(black, 6), dark)


def test_confused_interchanges_labels_and_shows_both_classes():
    scenario = make_scenario("confused", {"classes": ["a", "c"], "share": 0.4})
    partition = scenario.prepare(make_partition())
    split = scenario.draw(partition)
    labels, true = split.train_labels, partition.train.labels
    for own, other in ((0, 2), (2, 0)):
        assert (labels[true == own] == other).sum() == round(0.4 * 15)
    assert np.array_equal(labels[np.isin(true, (1, 3))], true[np.isin(true, (1, 3))])
    assert set(partition.triggered.labels) == {0, 2}
    assert np.array_equal(partition.triggered.labels + partition.targets, np.full(len(partition.targets), 2))
    assert set(partition.test.labels[split.test]) == {1, 3}
    assert np.array_equal(split.validation, np.arange(16))


def test_mislabelled_without_option_stays_as_it_was():
    split = make_scenario("mislabelled", {"known": 0.5}).draw(make_partition())
    same = make_scenario("mislabelled", {"known": 0.5, "unknown": "retained"}).draw(make_partition())
    assert split.track == "match-oracle"
    assert np.array_equal(split.given, split.retain)
    assert np.array_equal(split.forget, same.forget)
    assert np.array_equal(split.withheld, same.withheld)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("poisoned", {"size": 3}, r"a square of 3 pixels covers images of 3 x 3. Reduce option size"),
        ("poisoned", {"rate": 0.9, "size": 1}, r"poisons 54 images, but only 45 are of other classes"),
        ("poisoned", {"rate": 0.001, "size": 1}, r"no training image would be changed. Increase the rate"),
        ("poisoned", {"target": "z", "size": 1}, r"Unknown class 'z'"),
        ("confused", {"classes": ["a"]}, r"name two different classes, or none"),
    ],
)
def test_unfit_options_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        make_scenario(name, options).draw(make_partition())


def test_unfit_image_sets_are_refused():
    with pytest.raises(UsageError, match=r"labeled with attributes"):
        make_scenario("poisoned", {}).draw(make_partition(attributes=True))
    with pytest.raises(UsageError, match=r"has only two classes"):
        make_scenario("confused", {}).draw(make_partition(classes=2))
    with pytest.raises(ForgetBenchError, match=r"every triggered image needs a target"):
        replace(make_partition(), triggered=make_image_set(4, 0))
