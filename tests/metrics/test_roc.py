"""One ROC: golden values, scikit-learn, scipy, ties, and the refusal of rates that cannot be resolved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve
from statsmodels.stats.proportion import proportion_confint

from forgetbench.errors import UsageError
from forgetbench.metrics import ROC, auc, balanced_accuracy, clopper_pearson, rates, tpr_at_fpr

POSITIVE = [0.9, 0.8, 0.7, 0.6, 0.55]
NEGATIVE = [0.75, 0.5, 0.4, 0.3, 0.2]
SCORES = hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-5, 5).map(float))


def test_auc_and_tpr_by_hand():
    assert auc(POSITIVE, NEGATIVE) == 22 / 25
    assert tpr_at_fpr(POSITIVE, NEGATIVE, 0) == 0.4
    assert tpr_at_fpr(POSITIVE, NEGATIVE, 0.2) == 1.0
    assert tpr_at_fpr(POSITIVE, NEGATIVE, 0.39) == 1.0


def test_auc_equal_scores_is_chance():
    assert auc([1, 1, 1], [1, 1]) == 0.5
    assert tpr_at_fpr([1.0, 1.0], [1.0] * 10, 0.5) == 0.0
    assert balanced_accuracy([0.0], [0.0]) == 0.5


def test_auc_ties_count_half():
    positive, negative = [3, 3, 2, 2, 1], [3, 2, 1, 1, 0]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(np.mean(pairs))


@given(SCORES, SCORES)
def test_auc_equals_scikit_learn_and_mann_whitney(positive, negative):
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    assert auc(positive, negative) == pytest.approx(roc_auc_score(labels, np.r_[positive, negative]))
    statistic = mannwhitneyu(positive, negative, method="asymptotic").statistic
    assert auc(positive, negative) == pytest.approx(statistic / (len(positive) * len(negative)))


@given(SCORES, SCORES, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))
def test_tpr_at_fpr_is_the_largest_allowed(positive, negative, alpha):
    if 0 < alpha < 1 / len(negative):
        return
    false, true, _ = roc_curve(
        np.r_[np.ones(len(positive)), np.zeros(len(negative))], np.r_[positive, negative], drop_intermediate=False
    )
    assert tpr_at_fpr(positive, negative, alpha) == pytest.approx(true[false <= alpha + 1e-12].max())


@given(SCORES, SCORES)
def test_rates_equal_scikit_learn(positive, negative):
    found = rates(positive, negative)
    false, true, thresholds = roc_curve(
        np.r_[np.ones(len(positive)), np.zeros(len(negative))], np.r_[positive, negative], drop_intermediate=False
    )
    np.testing.assert_allclose(found.false_positive, false, atol=1e-12)
    np.testing.assert_allclose(found.true_positive, true, atol=1e-12)
    np.testing.assert_array_equal(found.thresholds, thresholds)


@given(SCORES, SCORES, st.randoms())
def test_auc_properties(positive, negative, random):
    value = auc(positive, negative)
    assert 0 <= value <= 1
    assert auc(negative, positive) == pytest.approx(1 - value)
    assert auc(positive * 3 + 1, negative * 3 + 1) == value
    shuffled = list(positive)
    random.shuffle(shuffled)
    assert auc(shuffled, negative) == value
    assert auc(np.r_[positive, positive], negative) == pytest.approx(value)


def test_auc_separated_sides_both_ways():
    assert auc([5.0], [4.0]) == 1.0
    assert auc([4.0], [5.0]) == 0.0
    assert balanced_accuracy([1.0, 2.0], [-1.0]) == 1.0
    assert tpr_at_fpr([2.0] * 3, np.arange(100) / 100, 0.01) == 1.0


def test_tpr_at_fpr_unresolvable_rate_is_refused():
    with pytest.raises(UsageError, match="at least 1000 non-members; there are 999"):
        tpr_at_fpr([1.0], np.zeros(999), 0.001)
    assert tpr_at_fpr([1.0], np.zeros(1000), 0.001) == 1.0
    with pytest.raises(UsageError, match=r"alpha: 1\.5 is not between 0 and 1"):
        tpr_at_fpr([1.0], [0.0], 1.5)


@pytest.mark.parametrize("alpha", [0.01, 0.29, 0.57])
def test_tpr_at_fpr_rounding_allows_every_false_positive(alpha):
    negative = np.arange(100.0)
    allowed = round(alpha * 100)
    assert tpr_at_fpr(negative + 0.5, negative, alpha) == pytest.approx((allowed + 1) / 100)


def test_roc_empty_sides_and_nan_are_refused():
    with pytest.raises(UsageError, match="both sides"):
        auc([], [1.0])
    with pytest.raises(UsageError, match="row 1"):
        auc([1.0, np.nan], [1.0])


def test_roc_of_collects_all_results():
    generator = np.random.default_rng(0)
    members, others = generator.normal(1, 1, 300), generator.normal(0, 1, 1000)
    found = ROC.of(members, others)
    assert (found.auc, found.balanced_accuracy) == (auc(members, others), balanced_accuracy(members, others))
    assert (found.tpr_1, found.tpr_01) == (tpr_at_fpr(members, others, 0.01), tpr_at_fpr(members, others, 0.001))
    assert found.tpr_1_interval == clopper_pearson(round(300 * found.tpr_1), 300)
    few = ROC.of(members, others[:999])
    assert (few.tpr_1 is None, few.tpr_01, few.tpr_01_interval) == (False, None, None)
    assert ROC.of([0.6], [0.4], threshold=0.5).balanced_accuracy == 1.0


@given(st.integers(1, 200), st.data())
def test_clopper_pearson_equals_statsmodels(trials, data):
    hits = data.draw(st.integers(0, trials))
    expected = proportion_confint(hits, trials, method="beta")
    np.testing.assert_allclose(clopper_pearson(hits, trials), expected, atol=1e-9)


def test_clopper_pearson_by_hand():
    assert clopper_pearson(0, 64).high == pytest.approx(0.0560, abs=5e-5)
    assert clopper_pearson(5, 512) == pytest.approx((0.00318, 0.02264), abs=5e-6)
    with pytest.raises(UsageError):
        clopper_pearson(3, 2)
    for hits, trials in ((2.5, 4), (1, 0), (-1, 3), (np.nan, 3)):
        with pytest.raises(UsageError, match=r"^(hits|trials): .* is not a whole number|^hits: nan"):
            clopper_pearson(hits, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 5, 95, np.nan])
def test_clopper_pearson_confidence_out_of_range_is_refused(confidence):
    with pytest.raises(UsageError, match=r"^confidence: "):
        clopper_pearson(1, 10, confidence=confidence)
    assert clopper_pearson(1, 10, confidence=0.9) == pytest.approx(
        proportion_confint(1, 10, alpha=0.1, method="beta"), abs=1e-9
    )
