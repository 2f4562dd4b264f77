"""KLOM and Wasserstein-1 of phi over models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from forgetbench.errors import UsageError
from forgetbench.metrics import margin_distances as margins
from forgetbench.metrics import published_code as legacy

PHI = hnp.arrays(np.float64, (6, 3), elements=st.floats(-120, 120))


def test_klom_by_hand():
    p = np.arange(10.0)[:, None]
    assert margins.klom(p, p) == 0.0
    assert margins.klom(p, p + 0.5) == pytest.approx(9.2104, abs=5e-5)
    assert legacy.klom(p + 0.5, p) == pytest.approx(9.2104, abs=5e-5)
    zero, top = np.zeros((10, 1)), np.full((10, 1), 400.0)
    assert margins.klom(zero, top) == pytest.approx(np.log(1e5))
    assert legacy.klom(top, zero) == 0.0  # all at the clip: the published code sees no difference


@given(PHI, PHI)
def test_klom_stays_in_range(left, right):
    found = margins.klom(left, right)
    assert ((found >= 0) & (found <= np.log(1e5 + 20))).all()
    np.testing.assert_allclose(margins.klom(left[::-1], right), found, atol=1e-9)


def test_klom_equals_scipy_away_from_edges():
    generator = np.random.default_rng(3)
    left, right = generator.normal(size=(2, 60, 20))
    found = margins.klom(left, right)
    for i in range(20):
        pool = np.r_[left[:, i], right[:, i]]
        p, q = (np.histogram(side[:, i], bins=20, range=(pool.min(), pool.max()))[0] / 60 for side in (left, right))
        assert found[i] == pytest.approx(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)))


@given(
    hnp.arrays(np.float64, (9, 2), elements=st.integers(-20, 20).map(lambda i: i / 10)),
    hnp.arrays(np.float64, (7, 2), elements=st.integers(-20, 20).map(lambda i: i / 10)),
)
def test_klom_ties_and_edges_are_binned_like_numpy(left, right):
    found = margins.klom(left, right)
    for i in range(2):
        pool = np.r_[left[:, i], right[:, i]]
        ends = (pool.min(), pool.max()) if np.ptp(pool) else (pool[0] - 0.5, pool[0] + 0.5)
        p, q = (np.histogram(side[:, i], bins=20, range=ends)[0] / len(side) for side in (left, right))
        assert found[i] == pytest.approx(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)), abs=1e-12)


@given(PHI, PHI)
def test_wasserstein_equals_scipy(left, right):
    sides = np.clip(left, -100, 100), np.clip(right, -100, 100)
    expected = [stats.wasserstein_distance(sides[0][:, i], sides[1][:, i]) for i in range(3)]
    np.testing.assert_allclose(margins.wasserstein(left, right), expected, atol=1e-9)
    np.testing.assert_allclose(margins.wasserstein(right, left), expected, atol=1e-9)


def test_margin_distance_few_models_uses_wasserstein():
    left, right = np.random.default_rng(4).normal(size=(2, 60, 40))
    assert margins.margin_distance(left, right) == pytest.approx(np.quantile(margins.klom(left, right), 0.95))
    few = margins.margin_distance(left[:10], right[:10])
    assert few == pytest.approx(np.quantile(margins.wasserstein(left[:10], right[:10]), 0.95))
    more = np.random.default_rng(5).normal(size=(50, 40))
    assert margins.margin_distance(left, more) == pytest.approx(np.quantile(margins.klom(left, more), 0.95))
    for sides in ((left, right[:5]), (left[:5], right), (left, right[:49])):
        with pytest.raises(UsageError, match="Wasserstein-1 needs the same number of models on both sides"):
            margins.margin_distance(*sides)
