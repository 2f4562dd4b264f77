"""Classical statistics against scipy, statsmodels, published figures, and enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.multitest import multipletests

from forgetbench.errors import UsageError
from forgetbench.reporting.significance import (
    bootstrap_interval,
    delong,
    delong_error,
    friedman,
    friedman_of_ranks,
    holm,
    nemenyi_quantile,
    pairwise_holm,
    sign_flip,
    t_interval,
    wilcoxon,
)

DIFFERENCES = hnp.arrays(np.float64, st.integers(2, 9), elements=st.integers(-6, 6).map(float))


def test_t_interval_equals_scipy():
    values = [0.80, 0.81, 0.82, 0.80, 0.83]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert t_interval(values)[1:] == pytest.approx(expected)
    with pytest.raises(UsageError):
        t_interval([1.0])


def test_bootstrap_over_examples():
    generator = np.random.default_rng(0)
    sample = generator.normal(3, 2, 400)
    found = bootstrap_interval(lambda x: float(np.mean(x)), sample)
    assert found.value == pytest.approx(sample.mean())
    half = 1.96 * sample.std() / 20
    assert found.low == pytest.approx(sample.mean() - half, abs=0.03)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.03)
    assert bootstrap_interval(lambda x: float(np.mean(x)), sample) == found
    with pytest.raises(UsageError):
        bootstrap_interval(lambda x: float(np.mean(x)), [])


@given(
    hnp.arrays(np.float64, st.integers(2, 15), elements=st.integers(0, 9).map(float)),
    hnp.arrays(np.float64, st.integers(2, 15), elements=st.integers(0, 9).map(float)),
)
def test_delong_equals_its_definition(members, others):
    wins = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    variance = wins.mean(axis=1).var(ddof=1) / len(members) + wins.mean(axis=0).var(ddof=1) / len(others)
    assert delong_error(members, others) == pytest.approx(np.sqrt(variance))
    found = delong(members, others)
    assert found.value == pytest.approx(wins.mean())
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_delong_covers_the_truth():
    generator = np.random.default_rng(1)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    found = [delong(generator.normal(1, 1, 60), generator.normal(0, 1, 80)) for _ in range(300)]
    assert 0.91 < np.mean([low <= truth <= high for _, low, high in found]) < 0.99


@given(DIFFERENCES)
def test_sign_flip_by_enumeration(differences):
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    assert sign_flip(differences).p == pytest.approx(np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9))


@pytest.mark.parametrize(("seeds", "p"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 2**-9)])
def test_smallest_p_of_a_number_of_seeds(seeds, p):
    assert sign_flip(np.ones(seeds)).p == p
    assert wilcoxon(np.arange(1, seeds + 1)).p == p


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=12, unique=True), st.data())
@settings(max_examples=50)
def test_wilcoxon_without_ties_equals_scipy(sizes, data):
    signs = data.draw(st.lists(st.sampled_from([1, -1]), min_size=len(sizes), max_size=len(sizes)))
    differences = np.array(sizes) * np.array(signs)
    assert wilcoxon(differences).p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_wilcoxon_ranks_zeros_and_drops_them():
    found = wilcoxon([0.0, 1.0, 2.0, 3.0])
    assert found.statistic == 2 + 3 + 4
    assert found.p == 0.25
    assert wilcoxon([0.0, 0.0]).p == 1.0


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


def test_holm_equals_statsmodels():
    generator = np.random.default_rng(0)
    for count in (1, 5, 20):
        p_values = generator.uniform(size=count).round(1)  # rounded, so that some are tied
        np.testing.assert_array_equal(holm(p_values), multipletests(p_values, method="holm")[1])


def test_friedman_equals_demsar():
    found = friedman_of_ranks([3.143, 2.0, 2.893, 1.964], 14)
    assert found.chi_square.statistic == pytest.approx(9.28, abs=0.02)
    assert found.iman_davenport.statistic == pytest.approx(3.69, abs=0.01)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.iman_davenport.p < 0.05


@pytest.mark.parametrize(("methods", "quantile"), [(4, 2.569), (10, 3.164)])
def test_nemenyi_quantiles(methods, quantile):
    assert nemenyi_quantile(methods) == pytest.approx(quantile, abs=5e-4)


def test_friedman_without_ties_equals_scipy():
    values = np.random.default_rng(2).normal(size=(12, 5))
    expected = stats.friedmanchisquare(*values.T)
    found = friedman(values)
    assert found.chi_square == pytest.approx((expected.statistic, expected.pvalue))
    np.testing.assert_allclose(friedman(-values, smaller_is_better=False).mean_ranks, found.mean_ranks)


def test_friedman_fixed_order_and_ties():
    assert friedman(np.tile([1.0, 2.0, 3.0], (4, 1))).iman_davenport.p == 0.0
    assert friedman(np.ones((4, 3))).chi_square == (0.0, 1.0)
    with pytest.raises(UsageError, match="two methods and two tasks"):
        friedman(np.ones((1, 3)))


def test_pairwise_holm():
    generator = np.random.default_rng(3)
    values = generator.normal(size=(10, 3)) + np.array([0, 0, 9.0])
    found = pairwise_holm(values, ["a", "b", "c"])
    assert found["a", "c"] < 0.05 < found["a", "b"]
    assert found["a", "c"] == pytest.approx(3 * 2**-9)
