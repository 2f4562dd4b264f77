"""Forgetting quality of the NeurIPS 2023 challenge against the plain grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.errors import UsageError
from forgetbench.metrics import neurips_quality as quality


def plain_epsilon(left, right, delta=1e-5):
    """Every rule of the released grid, one by one."""
    ranges = np.ptp(left), np.ptp(right)
    if max(ranges) == 0 or min(ranges) / max(ranges) < 0.01:
        return 50.0
    best = [0.0]

    def add(false, missed):
        if false == 0 and missed == 0:
            best.append(50.0)
        elif false > 0 and missed > 0:
            best.extend(
                np.log(1 - delta - a) - np.log(b) for a, b in ((false, missed), (missed, false)) if a < 1 - delta
            )

    positive, negative = (right, left) if np.median(right) > np.median(left) else (left, right)
    low, high = min(left.min(), right.min()), max(left.max(), right.max())
    for threshold in np.linspace(low, high, int(np.ceil(100 * (high - low)))):
        add(np.mean(negative >= threshold), np.mean(positive < threshold))
    inner, outer = (left, right) if ranges[0] < ranges[1] else (right, left)
    width = np.ptp(inner)
    start, end = inner.min() + width - 2, inner.max() + 2
    for upper in np.linspace(start, end, int(np.ceil(100 * (end - start)))):
        lower = np.linspace(upper - width - 2, upper - width + 2, 400)
        hit = ((inner[:, None] >= lower) & (inner[:, None] <= upper)).mean(axis=0)
        false = ((outer[:, None] >= lower) & (outer[:, None] <= upper)).mean(axis=0)
        for a, b in set(zip(false, hit, strict=True)):
            add(a, 1 - b)
    return min(50.0, max(best))


@pytest.mark.parametrize("models", [3, 6, 10, 40, 64, 80])
def test_epsilons_equal_the_plain_grid(models):
    generator = np.random.default_rng(models)
    for shift, scale in ((0.0, 1.0), (0.7, 0.5), (2.0, 3.0)):
        left, right = generator.normal(size=models) + shift, scale * generator.normal(size=models)
        found = quality.epsilons(left[:, None], right[:, None])[0]
        assert found == pytest.approx(plain_epsilon(left, right), abs=1e-6)


def test_epsilons_by_hand():
    left = np.r_[np.zeros(63), 10.0] + np.linspace(0, 0.1, 64)
    right = np.r_[np.full(63, 5.0), -10.0] + np.linspace(0, 0.1, 64)
    assert np.log((1 - 1e-5 - 1 / 64) * 64) == pytest.approx(4.143124, abs=1e-6)
    found = quality._single(left[:, None], right[:, None])  # one false positive, one false negative
    assert found == pytest.approx(4.143124, abs=1e-6)
    apart = np.linspace(0, 1, 16)[:, None]
    assert quality.epsilons(apart, apart + 9) == 50.0
    assert quality.epsilons(apart, np.full((16, 1), 3.0)) == 50.0  # a point mass
    assert quality.epsilons(apart, apart) == pytest.approx(plain_epsilon(apart[:, 0], apart[:, 0]))


def test_epsilons_identical_models_are_zero():
    three, five = np.full((6, 1), 3.0), np.full((6, 1), 5.0)
    assert quality.epsilons(three, three) == 0.0
    assert quality.epsilons(three, five) == 50.0


@given(st.integers(0, 10**6), st.floats(-3, 2), st.sampled_from([None, 0, 1, 2]))
def test_single_threshold_equals_the_plain_grid(seed, scale, digits):
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(2, generator.integers(2, 30))) * 10**scale
    if digits is not None:  # values upon the grid's own thresholds, and ties
        left, right = np.round(left, digits), np.round(right, digits)
    low, high = min(left.min(), right.min()), max(left.max(), right.max())
    if low == high:
        return
    thresholds = np.linspace(low, high, int(np.ceil(100 * (high - low))))
    positive, negative = (right, left) if np.median(right) > np.median(left) else (left, right)
    missed, false = len(left) - called(positive, thresholds), called(negative, thresholds)
    best = quality._epsilon_of_errors(len(left))[false, missed].max()
    assert quality._single(left[:, None], right[:, None]) == best


def called(values, thresholds):
    return (values[:, None] >= thresholds).sum(axis=0)


def test_epsilons_do_not_depend_on_the_block(monkeypatch):
    left, right = np.random.default_rng(3).normal(size=(2, 12, 90))
    whole = quality.epsilons(left, right)
    monkeypatch.setattr(quality, "GRID_SIZE", 2**15)
    assert np.array_equal(quality.epsilons(left, right), whole)
    assert np.array_equal(quality.epsilons(left, right, max_rows=30), whole[::3])
    assert whole == pytest.approx([plain_epsilon(*pair) for pair in zip(left.T, right.T, strict=True)], abs=1e-6)


def test_epsilons_large_range_stays_fast():
    left, right = np.random.default_rng(8).normal(size=(2, 16, 1)) * 1e12  # a grid would need 1e14 thresholds
    assert 0 <= quality.epsilons(left, right)[0] <= 50


def test_forgetting_quality_by_hand():
    assert quality.forgetting_quality([0.2, 0.7, 5.0], 64) == pytest.approx(0.5)
    assert quality.forgetting_quality([0.0], 64) == 1.0
    assert quality.forgetting_quality([50.0], 64) == 0.0
    assert quality.neurips_score(0.095, (0.9, 0.9), (0.8, 1.0), control=0.19) == pytest.approx(0.4)
    with pytest.raises(UsageError):
        quality.neurips_score(0.1, (1.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize("models", [16, 128])
def test_forgetting_quality_two_oracle_sets_about_a_fifth(models):
    left, right = np.random.default_rng(models).normal(size=(2, models, 150))
    assert 0.14 < quality.forgetting_quality(quality.epsilons(left, right), models) < 0.24


@given(st.integers(3, 12), st.integers(0, 10**6))
@settings(max_examples=20)
def test_epsilons_stay_in_range_in_any_order(models, seed):
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(2, models, 4)) * 3
    found = quality.epsilons(left, right)
    assert ((found >= 0) & (found <= 50)).all()
    np.testing.assert_allclose(quality.epsilons(generator.permutation(left), right), found)


def test_forgetting_quality_arguments_out_of_range_are_refused():
    with pytest.raises(UsageError, match="epsilon: -1 in row 0 is below 0"):
        quality.forgetting_quality([-1.0], 64)
    for models in (2, 64.5, np.nan):
        with pytest.raises(UsageError, match=r"^models: "):
            quality.forgetting_quality([0.2], models)
    with pytest.raises(UsageError, match="must not be negative"):
        quality.neurips_score(-0.1, (1.0, 1.0), (1.0, 1.0))
