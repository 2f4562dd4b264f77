"""The linear probe and its ratio."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import Rows, linear_probe, residual_share


def features(generator, separable):
    rows = {}
    for name, counts in {"train": 60, "validation": 20, "forgotten": 30}.items():
        labels = np.repeat([0, 1, 2], counts) if name != "forgotten" else np.full(counts, 2)
        centers = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 4.0 if separable else 0.0]])
        rows[name] = Rows(generator.normal(size=(len(labels), 2)) + centers[labels], labels)
    return rows["train"], rows["validation"], rows["forgotten"]


def test_linear_probe_reads_separable_features():
    generator = np.random.default_rng(5)
    there, gone = linear_probe(*features(generator, True)), linear_probe(*features(generator, False))
    assert there.accuracy > 0.9
    assert gone.accuracy < 0.75
    assert there.shuffled < 0.75
    assert linear_probe(*features(np.random.default_rng(6), True)) == linear_probe(
        *features(np.random.default_rng(6), True)
    )


def test_linear_probe_mismatched_rows_are_refused():
    train, validation, forgotten = features(np.random.default_rng(7), True)
    with pytest.raises(UsageError, match="lack a forgotten class"):
        linear_probe(train, validation, Rows(forgotten.features, forgotten.labels + 1))
    with pytest.raises(UsageError, match="training: one class for each of 179 rows is needed"):
        linear_probe(Rows(train.features[1:], train.labels), validation, forgotten)


def test_residual_share_by_hand():
    assert residual_share([0.75], [0.60], [0.90]) == pytest.approx(0.5)
    assert residual_share([0.75], [0.90], [0.91]) is None


def part(features, labels):
    return Rows(np.asarray(features, dtype=float), labels)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_linear_probe_dead_network_is_at_chance(value):
    for classes, rows in ((2, 40), (4, 60)):
        train = part(np.full((rows, 5), value), np.arange(rows) % classes)
        for forgotten in range(classes):
            found = linear_probe(train, train, part(np.full((9, 5), value), np.full(9, forgotten)))
            assert found == (1 / classes, 1 / classes)
    unbalanced = part(np.full((50, 2), value), np.r_[np.zeros(45, dtype=int), np.ones(5, dtype=int)])
    assert linear_probe(unbalanced, unbalanced, part([[value] * 2], [1])).accuracy == 0.5


def test_linear_probe_constant_features_change_nothing():
    train, validation, forgotten = features(np.random.default_rng(8), True)
    expected = linear_probe(train, validation, forgotten)
    wider = [
        part(np.c_[rows.features, np.full(len(rows.features), 0.1) + 0.2 * (rows is not train)], rows.labels)
        for rows in (train, validation, forgotten)
    ]  # the deviation of many 0.1 is rounding, but not 0
    assert linear_probe(*wider) == expected


@pytest.mark.parametrize("labels", [np.arange(20) % 2 + 0.5, np.where(np.arange(20) % 2, 1.0, np.nan), np.ones(20)])
def test_linear_probe_labels_of_other_types_are_refused(labels):
    good = part(np.random.default_rng(9).normal(size=(20, 2)), np.arange(20) % 2)
    for name, sides in (
        ("training", (Rows(good.features, labels), good, good)),
        ("validation", (good, Rows(good.features, labels), good)),
        ("forgotten classes", (good, good, Rows(good.features, labels))),
    ):
        with pytest.raises(UsageError, match=f"labels, {name}: expected integers, but the type is float64"):
            linear_probe(*sides)


def test_linear_probe_other_features_or_no_rows_are_refused():
    good, wider = (part(np.ones((20, width)), np.arange(20) % 2) for width in (2, 3))
    with pytest.raises(UsageError, match="training, validation and forgotten: 2 and 3 and 2"):
        linear_probe(good, wider, good)
    with pytest.raises(UsageError, match="forgotten classes has none"):
        linear_probe(good, good, part(np.ones((0, 2)), np.zeros(0, dtype=int)))


def test_residual_share_percentages_are_refused():
    with pytest.raises(UsageError, match="probe accuracies: 75 in row 0 is not between 0 and 1"):
        residual_share([75.0], [60.0], [90.0])
