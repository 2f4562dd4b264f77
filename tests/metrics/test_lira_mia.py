"""The likelihood ratio attack and the shift, against a slow reading of their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from forgetbench.errors import UsageError
from forgetbench.metrics import lira, lira_auc, shift
from forgetbench.metrics.lira_mia import POOL_BELOW, leave_one_out_median, ratios


def matrices(low=3, high=7):
    shapes = st.tuples(st.integers(low, high), st.integers(1, 12))
    return shapes.flatmap(
        lambda shape: hnp.arrays(np.float64, (2, *shape), elements=st.integers(-40, 40).map(lambda i: i / 4))
    )


def slow_ratios(left, right):
    """Fold by fold, example by example, as the protocol's sentence has it."""
    count, examples = left.shape
    scores = np.zeros((2, count, examples))
    for fold in range(count):
        fits = []
        for side in (left, right):
            others = np.delete(side, fold, axis=0)
            variance = others.var(axis=0, ddof=1)
            sd = np.sqrt(variance if count >= POOL_BELOW else np.full(examples, variance.mean()))
            fits.append((np.median(others, axis=0), np.maximum(sd, 1e-6)))
        for place, side in enumerate((left, right)):
            scores[place, fold] = norm.logpdf(side[fold], *fits[0]) - norm.logpdf(side[fold], *fits[1])
    return scores


@given(hnp.arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(1, 5)), elements=st.integers(-3, 3).map(float)))
def test_leave_one_out_median_equals_numpy(values):
    expected = [np.median(np.delete(values, i, axis=0), axis=0) for i in range(len(values))]
    np.testing.assert_array_equal(leave_one_out_median(values), expected)


@given(matrices())
def test_ratios_equal_the_definition(sides):
    found, expected = ratios(*sides), slow_ratios(*sides)
    scale = 1 + np.abs(expected)
    np.testing.assert_allclose(found.unlearned / scale[0], expected[0] / scale[0], atol=1e-6)
    np.testing.assert_allclose(found.oracle / scale[1], expected[1] / scale[1], atol=1e-6)


def test_ratios_32_models_use_a_spread_per_example():
    sides = np.random.default_rng(0).normal(size=(2, 33, 4)) * [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(ratios(*sides), slow_ratios(*sides), rtol=1e-9)
    sides = sides[:, :31]
    np.testing.assert_allclose(ratios(*sides), slow_ratios(*sides), rtol=1e-9)


def test_lira_auc_pools_examples_and_folds():
    sides = np.random.default_rng(1).normal(size=(2, 5, 30)) + np.array([0.5, 0.0])[:, None, None]
    scores = slow_ratios(*sides)
    expected = roc_auc_score(np.r_[np.ones(150), np.zeros(150)], scores.reshape(-1))
    assert lira_auc(*sides) == pytest.approx(expected, abs=1e-12)
    assert lira(*sides).auc == lira_auc(*sides)


@given(matrices(low=4), st.randoms())
def test_lira_properties(sides, random):
    value = lira_auc(*sides)
    assert 0 <= value <= 1
    assert lira_auc(sides[1], sides[0]) == pytest.approx(value, abs=1e-9)  # it has no side
    order = list(range(sides.shape[2]))
    random.shuffle(order)
    assert lira_auc(*sides[:, :, order]) == pytest.approx(value, abs=0.02)  # equal up to ties made by rounding
    whole = lira(*sides)
    assert 0 <= whole.balanced_accuracy <= 1
    assert whole.worst_decile is None or 0 <= whole.worst_decile <= 1


def test_lira_constant_input_is_at_chance():
    same = np.full((4, 20), 3.0)
    assert lira(same, same).auc == 0.5
    assert lira(same, same).balanced_accuracy == 0.5
    assert shift(same, same) == 0.0


def test_lira_separated_sides_give_1():
    generator = np.random.default_rng(2)
    left, right = generator.normal(size=(2, 10, 120))
    found = lira(left + 50, right)
    values = found.auc, found.balanced_accuracy, found.tpr_1, found.tpr_01, found.worst_decile
    assert values == (1.0, 1.0, 1.0, 1.0, 1.0)


def test_lira_one_example():
    found = lira(np.array([[5.0], [5.5], [5.2]]), np.array([[0.0], [0.4], [-0.3]]))
    assert found.auc == 1.0
    assert (found.tpr_1, found.tpr_01, found.worst_decile) == (None, None, None)


def test_lira_extreme_phi_stays_finite():
    generator = np.random.default_rng(7)
    left, right = 6e4 - 100 * generator.random((4, 30)), 100 * generator.random((4, 30)) - 6e4
    assert lira(left, right).auc == 1.0
    assert np.isfinite(shift(left, right))


def test_lira_worst_decile_finds_few_remembered_rows():
    generator = np.random.default_rng(5)
    left, right = generator.normal(size=(2, 10, 400))
    left[:, :20] += 3.0
    found = lira(left, right)
    assert found.auc < 0.6
    assert found.worst_decile is not None
    assert found.worst_decile > 0.75


def test_lira_worst_decile_equal_populations_at_chance():
    generator = np.random.default_rng(6)
    values = [lira(*generator.normal(size=(2, 6, 100))).worst_decile for _ in range(60)]
    assert abs(np.mean(values) - 0.5) < 0.02


def test_shift_by_hand():
    assert shift([[2.0], [2.0]], [[0.0], [2.0]]) == pytest.approx(1 / np.sqrt(2))
    assert shift([[-1.0, 1.0]], [[0.0, 0.0], [2.0, 2.0]]) == pytest.approx(-1 / np.sqrt(2))


@given(matrices(), st.floats(-5, 5), st.floats(0.1, 10))
def test_shift_properties(sides, by, scale):
    left, right = sides
    sd = np.sqrt(right.var(axis=0, ddof=1).mean())
    if sd < 1e-3:
        return
    value = shift(left, right)
    assert value == pytest.approx((left.mean(axis=0) - right.mean(axis=0)).mean() / sd)
    assert shift(left + by, right) == pytest.approx(value + by / sd, abs=1e-6)
    assert shift(left * scale, right * scale) == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_shift_is_signed_and_does_not_saturate():
    generator = np.random.default_rng(4)
    left, right = generator.normal(size=(2, 6, 50))
    assert shift(left + 100, right) > 2 * shift(left + 40, right) > 0 > shift(left - 40, right)


def test_lira_too_few_models_are_refused():
    with pytest.raises(UsageError, match="at least three"):
        lira(np.zeros((2, 5)), np.zeros((2, 5)))
    with pytest.raises(UsageError, match="same models"):
        lira(np.zeros((4, 5)), np.zeros((4, 6)))
    broken = np.zeros((4, 5))
    broken[3, 1] = np.nan
    with pytest.raises(UsageError, match="unlearned: nan in row 1 of model 3"):
        lira(broken, np.zeros((4, 5)))
    with pytest.raises(UsageError, match="at least two"):
        shift(np.zeros((1, 3)), np.zeros((1, 3)))
