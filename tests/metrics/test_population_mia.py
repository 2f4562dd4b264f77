"""The population attack: matched by label, cross-fitted, oriented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from forgetbench.errors import UsageError
from forgetbench.metrics import auc, confidence, entropy, loss, loss_auc, mia_population, modified_entropy
from forgetbench.metrics._validation import joint_labels
from forgetbench.metrics.population_mia import AttackTable, attack_scores, attack_table, population


def answers(generator, models, labels, classes, margin):
    logits = generator.normal(size=(models, len(labels), classes))
    logits[:, np.arange(len(labels)), labels] += margin
    return logits


@pytest.fixture
def task():
    generator = np.random.default_rng(0)
    return generator, generator.integers(0, 4, 60), generator.integers(0, 4, 200)


def test_attack_scores_are_larger_for_members(task):
    generator, labels, _ = task
    logits = answers(generator, 2, labels, 4, 1.0)
    found = attack_scores(logits, labels)
    np.testing.assert_allclose(found[0], -loss(logits, labels))
    np.testing.assert_allclose(found[1], confidence(logits, labels))
    np.testing.assert_allclose(found[2], -entropy(logits))
    np.testing.assert_allclose(found[3], -modified_entropy(logits, labels))


def test_attack_table_is_the_mean_over_labels(task):
    generator, members, others = task
    left, right = answers(generator, 2, members, 4, 2.0), answers(generator, 2, others, 4, 1.0)
    table = attack_table(left, members, right, others)
    scores = attack_scores(left, members), attack_scores(right, others)
    for attack in range(4):
        for model in range(2):
            parts = [
                (
                    auc(scores[0][attack, model, members == c], scores[1][attack, model, others == c]),
                    (members == c).sum(),
                )
                for c in range(4)
            ]
            expected = np.average([value for value, _ in parts], weights=[weight for _, weight in parts])
            assert table.whole[model, attack] == pytest.approx(expected)


def test_attack_table_matches_labels():
    generator = np.random.default_rng(1)
    members, others = np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [100, 300])  # class 0 is the easy one

    def easy(labels):
        logits = generator.normal(size=(1, len(labels), 2))
        logits[0, :, 0] += np.where(labels == 0, 6.0, 0.0)
        return logits

    left, right = easy(members), easy(others)
    table = attack_table(left, members, right, others)
    plain = roc_auc_score(np.r_[np.ones(100), np.zeros(400)], -np.r_[loss(left[0], members), loss(right[0], others)])
    assert abs(table.whole[0, 0] - 0.5) < 0.1
    assert plain > 0.7


def test_population_has_a_side(task):
    generator, members, others = task
    oracle = answers(generator, 4, members, 4, 1.0), answers(generator, 4, others, 4, 1.0)
    sure = answers(generator, 4, members, 4, 3.0), answers(generator, 4, others, 4, 1.0)
    unsure = answers(generator, 4, members, 4, -1.0), answers(generator, 4, others, 4, 1.0)
    assert mia_population(sure, oracle, members, others) > 0.15
    assert mia_population(unsure, oracle, members, others) < -0.15
    assert mia_population(oracle, oracle, members, others) == 0.0
    assert mia_population(oracle, sure, members, others) == -mia_population(sure, oracle, members, others)


def test_population_choice_of_attack_is_cross_fitted():
    base = np.full((3, 4), 0.5)
    halves = np.stack([base, base])
    halves[0, :, 2] = 0.7  # large on the one half, nothing on the other
    table = AttackTable(base, halves)
    assert population(table, AttackTable(base, np.stack([base, base]))) == pytest.approx(0.0)
    both = np.stack([base, base])
    both[:, :, 1] = 0.8
    assert population(AttackTable(base, both), AttackTable(base, np.stack([base, base]))) == pytest.approx(0.3)


@given(st.integers(0, 10**6), st.floats(-20, 20))
@settings(max_examples=20)
def test_population_properties(seed, constant):
    generator = np.random.default_rng(seed)
    members, others = generator.integers(0, 3, 20), np.repeat([0, 1, 2], 8)
    sides = [
        (answers(generator, 3, members, 3, margin), answers(generator, 3, others, 3, 1.0)) for margin in (2.0, 1.0)
    ]
    value = mia_population(*sides, members, others)
    assert -1 <= value <= 1
    moved = [(forget + constant, test + constant) for forget, test in sides]
    assert mia_population(*moved, members, others) == pytest.approx(value, abs=0.02)  # rounding may make or break a tie


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=20)
def test_mia_population_ignores_the_order_of_rows(seed, tied):
    generator = np.random.default_rng(seed)
    members, others = generator.integers(0, 3, 40), generator.integers(0, 3, 70)
    sides = [
        (answers(generator, 3, members, 3, margin), answers(generator, 3, others, 3, 1.0)) for margin in (2.0, 1.0)
    ]
    if tied:
        sides = [tuple(np.round(part) for part in side) for side in sides]
    orders = generator.permutation(40), generator.permutation(70)
    mixed = [tuple(part[:, order] for part, order in zip(side, orders, strict=True)) for side in sides]
    value = mia_population(*sides, members, others)
    assert mia_population(*mixed, members[orders[0]], others[orders[1]]) == pytest.approx(value, abs=1e-12)


def test_mia_population_other_models_on_test_are_refused(task):
    generator, members, others = task
    two, three = answers(generator, 2, members, 4, 1.0), answers(generator, 3, others, 4, 1.0)
    with pytest.raises(UsageError, match="same models"):
        mia_population((two, three), (two, three[:2]), members, others)
    with pytest.raises(UsageError, match="same models"):
        attack_table(two, members, three, others)


def test_mia_population_separated_sides_give_1():
    members, others = np.zeros(12, dtype=int), np.zeros(30, dtype=int)
    high, low = np.tile([9.0, 0.0], (2, 12, 1)), np.tile([0.0, 9.0], (2, 30, 1))
    assert attack_table(high, members, low, others).whole.max() == 1.0
    chance = np.zeros((2, 12, 2)), np.zeros((2, 30, 2))
    assert mia_population((high, low), chance, members, others) == pytest.approx(0.5)


def test_mia_population_attributes_are_averaged():
    generator = np.random.default_rng(3)
    members, others = generator.integers(0, 2, (40, 2)), generator.integers(0, 2, (120, 2))
    left, right = generator.normal(size=(2, 40, 2)) + 2 * members, generator.normal(size=(2, 120, 2))
    table = attack_table(left, members, right, others)
    assert table.whole.shape == (2, 4)
    joint_members, joint_others = members @ [1, 2], others @ [1, 2]
    expected = []
    for a in range(2):
        sides = [logits[0, :, a] * (2 * labels[:, a] - 1) for logits, labels in ((left, members), (right, others))]
        parts = [auc(sides[0][joint_members == c], sides[1][joint_others == c]) for c in range(4)]
        expected.append(np.average(parts, weights=[(joint_members == c).sum() for c in range(4)]))
    assert table.whole[0, 0] == pytest.approx(np.mean(expected))


def test_attack_table_small_cells_are_ignored():
    generator = np.random.default_rng(4)
    members, others = np.array([0, 0, 1]), np.repeat([0, 1], [5, 4])
    left, right = answers(generator, 1, members, 2, 1.0), answers(generator, 1, others, 2, 1.0)
    table = attack_table(left, members, right, others)
    only = attack_table(left[:, :2], members[:2], right[:, :5], others[:5])
    np.testing.assert_array_equal(table.whole, only.whole)
    with pytest.raises(UsageError, match="nothing can be matched"):
        attack_table(left[:, 2:], members[2:], right, others)


def test_mia_population_nan_is_refused_with_its_row(task):
    generator, members, others = task
    left, right = answers(generator, 2, members, 4, 1.0), answers(generator, 2, others, 4, 1.0)
    right[1, 17, 0] = np.nan
    with pytest.raises(UsageError, match="row 17 of model 1"):
        attack_table(left, members, right, others)


@pytest.mark.parametrize("count", [31, 63, 64, 65, 70, 130])
def test_joint_labels_many_attributes_stay_distinct(count):
    labels = np.vstack([np.eye(count, dtype=int), 1 - np.eye(count, dtype=int), np.ones((1, count), dtype=int)])
    expected = [sum(int(bit) << place for place, bit in enumerate(row)) for row in labels]
    assert [int(number) for number in joint_labels(labels)] == expected
    assert len(np.unique(joint_labels(labels))) == len(labels)


def test_mia_population_many_attributes_are_matched_by_all():
    generator = np.random.default_rng(5)
    kinds = np.vstack([np.zeros((1, 70), dtype=int), np.eye(70, dtype=int)[64:67]])  # alike in the first 64
    members, others = kinds[np.arange(24) % 4], kinds[np.arange(80) % 4]
    left, right = generator.normal(size=(2, 24, 70)), generator.normal(size=(2, 80, 70))
    table = attack_table(left, members, right, others)
    scores = [z[0] * (2 * y - 1) for z, y in ((left, members), (right, others))]
    expected = [auc(scores[0][k::4, a], scores[1][k::4, a]) for a in range(70) for k in range(4)]
    assert table.whole[0, 0] == pytest.approx(np.mean(expected))


def test_mia_population_classes_against_attributes_are_refused(task):
    generator, members, others = task
    left, right = answers(generator, 2, members, 4, 1.0), answers(generator, 2, others, 4, 1.0)
    attributes = generator.integers(0, 2, (len(others), 4))
    for call in (
        lambda: mia_population((left, right), (left, right), members, attributes),
        lambda: loss_auc((left, members), (right, attributes)),
    ):
        with pytest.raises(UsageError, match="the same on every side"):
            call()
