"""Accuracy, gaps, tug-of-war and average gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score

from forgetbench.errors import UsageError
from forgetbench.metrics import accuracy, average_gap, gap, tow

SHARES = hnp.arrays(np.float64, 4, elements=st.floats(0, 1))


def test_accuracy_by_hand():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    assert accuracy(logits, [0, 1, 1]) == pytest.approx(2 / 3)
    assert accuracy(logits[:1], [0]) == 1.0


@given(hnp.arrays(np.float64, (9, 4), elements=st.floats(-50, 50)), hnp.arrays(np.int64, 9, elements=st.integers(0, 3)))
def test_accuracy_equals_scikit_learn(logits, labels):
    assert accuracy(logits, labels) == pytest.approx(accuracy_score(labels, logits.argmax(axis=1)))


def test_accuracy_attributes_is_the_mean_over_them():
    logits = np.array([[1.0, -1.0], [1.0, 1.0]])
    assert accuracy(logits, np.array([[1, 0], [0, 1]])) == 0.75


def test_accuracy_several_models():
    logits = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    np.testing.assert_array_equal(accuracy(logits, [0]), [1.0, 0.0])


def test_accuracy_no_rows_and_nan_are_refused():
    with pytest.raises(UsageError, match="without rows"):
        accuracy(np.zeros((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(UsageError, match="row 0"):
        accuracy(np.array([[np.nan, 0.0]]), [0])


def test_gap_is_signed():
    assert gap([0.90, 0.92], [0.88, 0.88]) == pytest.approx(0.03)
    assert gap([0.5], [0.75]) == -0.25


@given(SHARES, SHARES)
def test_gap_exchanged_sides_change_the_sign(left, right):
    assert gap(left, right) == pytest.approx(-gap(right, left))
    assert -1 <= gap(left, right) <= 1


def test_tow_by_hand():
    unlearned = {"forget": [0.90], "retain": [0.99], "test": [0.85]}
    oracle = {"forget": [0.85], "retain": [1.00], "test": [0.881]}
    assert tow(unlearned, oracle) == pytest.approx(0.95 * 0.99 * 0.969)
    assert tow(oracle, oracle) == 1.0


def test_tow_is_taken_per_seed():
    unlearned = {"forget": [0.9, 0.7], "retain": [1.0, 1.0], "test": [0.8, 0.8]}
    oracle = {"forget": [0.8, 0.8], "retain": [1.0, 1.0], "test": [0.8, 0.8]}
    assert tow(unlearned, oracle) == pytest.approx(0.9)  # the mean gap is 0, and would give 1


@given(st.lists(SHARES, min_size=6, max_size=6))
def test_tow_properties(values):
    names = ("forget", "retain", "test")
    left, right = dict(zip(names, values[:3], strict=True)), dict(zip(names, values[3:], strict=True))
    assert 0 <= tow(left, right) <= 1
    assert tow(left, right) == pytest.approx(tow(right, left))


@pytest.mark.parametrize(
    ("row", "expected"),
    [((2.85, 99.62, 93.93, 14.39), 1.1525)],
)
def test_average_gap_equals_a_published_row(row, expected):
    oracle = (5.24, 100.0, 94.26, 12.88)
    names = ("UA", "RA", "TA", "MIA")
    value = average_gap(
        {name: [value] for name, value in zip(names, row, strict=True)},
        {name: [value] for name, value in zip(names, oracle, strict=True)},
    )
    assert value == pytest.approx(expected)


@given(SHARES, SHARES, SHARES)
def test_average_gap_at_least_the_gap_of_means(first, second, oracle):
    value = average_gap({"UA": first, "RA": second}, {"UA": oracle, "RA": oracle})
    assert value >= (abs(first.mean() - oracle.mean()) + abs(second.mean() - oracle.mean())) / 2 - 1e-12


def test_tow_and_average_gap_unlike_sides_are_refused():
    with pytest.raises(UsageError, match="same quantities"):
        average_gap({"UA": [1.0]}, {"RA": [1.0]})
    with pytest.raises(UsageError, match="paired"):
        average_gap({"UA": [1.0, 0.9]}, {"UA": [1.0]})


def test_tow_missing_or_further_subsets_are_refused():
    three = {"forget": [0.9], "retain": [0.9], "test": [0.9]}
    for names, problem in (
        (("forget", "test"), "retain is missing"),
        ((*three, "unseen"), "'unseen' is not one of them"),
    ):
        other = {name: [0.9] for name in names}
        for sides in ((other, other), (three, other), (other, three)):
            with pytest.raises(UsageError, match=f"forget, retain and test accuracies on both sides: {problem}"):
                tow(*sides)


ONE_HOT = r"labels: every row has exactly one 1.*labels\.argmax\(axis=1\)"


@pytest.mark.parametrize(("classes", "rows"), [(2, 20), (3, 10), (4, 50), (5, 5), (10, 10), (100, 300)])
def test_accuracy_one_hot_labels_are_not_silent(classes, rows):
    generator = np.random.default_rng(0)
    numbers = np.r_[np.arange(classes), generator.integers(0, classes, rows - classes)]
    logits = generator.normal(size=(rows, classes))
    with pytest.raises(UsageError, match=ONE_HOT) if classes >= 5 else pytest.warns(UserWarning, match=ONE_HOT):
        accuracy(logits, np.eye(classes, dtype=int)[numbers])
    assert accuracy(logits, numbers) == np.mean(logits.argmax(axis=1) == numbers)


def test_accuracy_attributes_like_one_hot_are_accepted():
    few = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])  # people with one of three attributes each
    assert accuracy(2.0 * few - 1, few) == 1.0
    one = np.tile([[0, 1, 0]], (50, 1))  # many rows of one joint label
    assert accuracy(2.0 * one - 1, one) == 1.0
    two = np.vstack([np.eye(3, dtype=int)[np.arange(30) % 3], [[1, 1, 0]]])
    assert accuracy(2.0 * two - 1, two) == 1.0
