"""Classical statistics against scipy, statsmodels, published figures, and enumeration."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.multitest import multipletests

from forgetbench.errors import UsageError
from forgetbench.metrics import clopper_pearson
from forgetbench.reporting.significance import (
    bootstrap_interval,
    delong,
    delong_error,
    friedman,
    friedman_of_ranks,
    holm,
    nemenyi_difference,
    nemenyi_quantile,
    pairwise_holm,
    sign_flip,
    t_interval,
    wilcoxon,
)
from forgetbench.scoring.ranking import detectable_difference
from forgetbench.scoring.statistics import pseudo_interval, rank_intervals

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


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
@settings(max_examples=60)
def test_wilcoxon_with_ties_and_zeros_by_enumeration(differences):
    ranks = np.where(differences, stats.rankdata(np.abs(differences)), 0.0)
    sums = np.array([np.dot(signs, ranks) for signs in product((1, -1), repeat=len(ranks))])
    observed = np.dot(np.sign(differences), ranks)
    assert wilcoxon(differences) == pytest.approx((observed, np.mean(np.abs(sums) >= abs(observed) - 1e-9)), abs=1e-12)


@pytest.mark.parametrize("count", [18, 20, 35, 60, 200])
def test_wilcoxon_many_differences_equal_scipy(count):
    differences = np.random.default_rng(count).normal(0.2, 1, count)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert wilcoxon(differences).p == pytest.approx(expected, rel=1e-9)
    assert wilcoxon(np.arange(1.0, count + 1)).p == pytest.approx(2.0 ** (1 - count), rel=1e-9)


def test_wilcoxon_many_ties_equal_sampled_flips():
    generator = np.random.default_rng(4)
    differences = generator.integers(-6, 8, 30).astype(float)
    ranks = np.where(differences, stats.rankdata(np.abs(differences)), 0.0)
    flips = np.where(generator.random((200_000, 30)) < 0.5, -1.0, 1.0) @ ranks
    expected = np.mean(np.abs(flips) >= abs(np.dot(np.sign(differences), ranks)) - 1e-9)
    assert wilcoxon(differences).p == pytest.approx(expected, abs=0.005)


def test_wilcoxon_beyond_the_exact_size_is_normal():
    differences = np.random.default_rng(5).normal(0.05, 1, 1500)
    expected = stats.wilcoxon(differences, method="approx", correction=False).pvalue
    assert wilcoxon(differences).p == pytest.approx(expected, rel=1e-9)


def test_sign_flip_many_differences_need_little_memory():
    differences = np.random.default_rng(6).normal(0.03, 1, 1000)
    tracemalloc.start()
    found = sign_flip(differences)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6  # all flips at once would take 1 GB
    z = differences.sum() / np.sqrt((differences**2).sum())
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)


def test_pairwise_holm_wrong_names_are_refused():
    values = np.random.default_rng(7).normal(size=(5, 3))
    with pytest.raises(UsageError, match="Duplicate name: a"):
        pairwise_holm(values, ["a", "b", "a"])
    with pytest.raises(UsageError, match="3 columns, but 2 names"):
        pairwise_holm(values, ["a", "b"])
    with pytest.raises(UsageError, match="there are none"):
        pairwise_holm(values[:0], ["a", "b", "c"])


def test_holm_percentages_are_refused():
    with pytest.raises(UsageError, match="p-values: 5 in row 1 is not between 0 and 1"):
        holm([0.01, 5.0])


@pytest.mark.filterwarnings("error")
def test_friedman_too_few_tasks_or_methods_are_refused():
    for shape in ((0, 3), (1, 3), (4, 1), (4, 0)):
        with pytest.raises(UsageError, match=f"there are {shape[1]} and {shape[0]}"):
            friedman(np.zeros(shape))
    with pytest.raises(UsageError, match="mean ranks: those of 3 methods are between 1 and 3"):
        friedman_of_ranks([0.0, 1.0, 2.0], 4)
    for methods, tasks, name in ((1, 4, "methods"), (3, 0, "tasks"), (3, 2.5, "tasks")):
        with pytest.raises(UsageError, match=f"^{name}: "):
            nemenyi_difference(methods, tasks)


@pytest.mark.filterwarnings("error")
def test_bootstrap_arguments_out_of_range_are_refused():
    for options in ({"resamples": 0}, {"resamples": -5}, {"resamples": 2.5}, {"seed": -1}, {"confidence": 95}):
        with pytest.raises(UsageError, match=f"^{next(iter(options))}: "):
            bootstrap_interval(lambda x: float(np.mean(x)), [1.0, 2.0], **options)
    with pytest.raises(UsageError, match="statistic of the samples: nan"):
        bootstrap_interval(lambda _: np.nan, [1.0, 2.0])


CONFIDENT = {
    "t": lambda c: t_interval([0.80, 0.81, 0.82, 0.80, 0.83], confidence=c),
    "delong": lambda c: delong([0.9, 0.4, 0.7], [0.5, 0.2, 0.6], confidence=c),
    "bootstrap": lambda c: bootstrap_interval(lambda x: float(np.mean(x)), np.arange(20.0), confidence=c),
    "pseudo": lambda c: pseudo_interval(1.0, np.array([0.5, 1.0, 1.5]), confidence=c),
    "clopper-pearson": lambda c: (0.1, *clopper_pearson(1, 10, confidence=c)),
}


@pytest.mark.parametrize("name", CONFIDENT)
def test_intervals_widen_with_confidence(name):
    widths = [high - low for _, low, high in map(CONFIDENT[name], (0.5, 0.9, 0.95))]
    assert widths == sorted(widths)
    assert widths[0] < widths[2]
    for confidence in (0.0, 1.0, 95, np.nan):
        with pytest.raises(UsageError, match=r"^confidence: "):
            CONFIDENT[name](confidence)


def test_tests_alpha_is_the_level_of_the_test():
    assert nemenyi_quantile(4, alpha=0.1) < nemenyi_quantile(4, alpha=0.05) == nemenyi_quantile(4)
    values = np.random.default_rng(8).normal(size=(6, 3))
    assert friedman(values, alpha=0.1).critical_difference == nemenyi_difference(3, 6, alpha=0.1)
    pseudo = np.array([[0.0] * 6, [1.0, 0.9, 1.1, 1.0, 0.8, 1.2]])  # the smallest p of six seeds is 2 / 64
    assert [rank_intervals(pseudo, alpha=alpha)[0].high for alpha in (0.05, 0.01)] == [1, 2]
    assert detectable_difference(*pseudo, alpha=0.01) > detectable_difference(*pseudo)
    for call in (lambda: rank_intervals(pseudo, alpha=5), lambda: nemenyi_quantile(4, alpha=0.0)):
        with pytest.raises(UsageError, match=r"^alpha: "):
            call()
    with pytest.raises(UsageError, match="two or more seeds"):
        detectable_difference(*pseudo[:, :1])
