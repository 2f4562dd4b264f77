"""Attacks with reference models, margins over models, and forgetting quality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from forgetbench.errors import UsageError
from forgetbench.metrics import margin_distances as margins
from forgetbench.metrics import neurips_quality as quality
from forgetbench.metrics import published_code as legacy
from forgetbench.metrics import shadow_models as shadow
from forgetbench.metrics.erasure import (
    anamnesis_index,
    forgetting_rate,
    generalization,
    h_mean,
    reemergence,
    relearn_time,
)
from forgetbench.metrics.probes import Rows, linear_probe, recoverability
from forgetbench.metrics.rmia_population import population_rmia

ONE = shadow.Fit(np.array([1.0]), np.array([1.0]))
MINUS_ONE = shadow.Fit(np.array([-1.0]), np.array([1.0]))
PHI = hnp.arrays(np.float64, (6, 3), elements=st.floats(-120, 120))


def test_lira_by_hand():
    assert shadow.lira_online([1.0], ONE, MINUS_ONE) == pytest.approx(2.0)
    assert shadow.lira_online([0.0], ONE, MINUS_ONE) == pytest.approx(0.0)
    assert shadow.lira_offline([-1.0], MINUS_ONE) == pytest.approx(np.log(0.5))
    np.testing.assert_allclose(shadow.lira_online([[1.0], [0.0]], ONE, MINUS_ONE), [1.0])


def test_offline_lira_is_one_sided_and_the_published_code_is_not():
    low, high = shadow.lira_offline([-5.0], MINUS_ONE), shadow.lira_offline([3.0], MINUS_ONE)
    assert low < high
    assert legacy.lira_offline([-5.0], MINUS_ONE) == pytest.approx(legacy.lira_offline([3.0], MINUS_ONE))
    assert np.isfinite(shadow.lira_offline([-6e4], MINUS_ONE)).all()


def test_ulira_by_hand():
    assert shadow.ulira([1.0], ONE, MINUS_ONE) == pytest.approx(1 / (1 + np.exp(-2)))
    assert shadow.ulira([0.0], ONE, MINUS_ONE) == pytest.approx(0.5)
    np.testing.assert_allclose(
        shadow.ulira([6e4, -6e4], *(shadow.Fit(*np.tile(fit, 2)) for fit in (ONE, MINUS_ONE))), [1, 0]
    )


def test_fits_of_each_example_and_pooled():
    generator = np.random.default_rng(0)
    many = generator.normal(size=(40, 3)) * [1.0, 2.0, 3.0]
    fit = shadow.fit_normal(many)
    np.testing.assert_allclose(fit.center, np.median(many, axis=0))
    np.testing.assert_allclose(fit.sd, many.std(axis=0))
    few = many[:5]
    np.testing.assert_allclose(shadow.fit_normal(few).sd, np.sqrt(few.var(axis=0, ddof=1).mean()))
    mask = generator.random((40, 3)) < 0.2
    mask[:2] = True
    expected = [np.median(many[mask[:, i], i]) for i in range(3)]
    np.testing.assert_allclose(shadow.fit_normal(many, mask).center, expected)
    with pytest.raises(UsageError, match="two reference models"):
        shadow.fit_normal(many[:1])


def test_ulira_tells_memory_from_none_and_is_at_chance_without():
    generator = np.random.default_rng(1)
    seen = generator.random((24, 80)) < 0.5
    forgotten = seen & (generator.random((24, 80)) < 0.5)
    phi = generator.normal(size=(24, 80))
    assert shadow.ulira_roc(phi, forgotten, seen).auc == pytest.approx(0.5, abs=0.05)
    assert shadow.ulira_roc(phi + 2.0 * forgotten, forgotten, seen).auc > 0.85
    with pytest.raises(UsageError, match="never saw"):
        shadow.ulira_roc(phi, ~seen, seen)
    with pytest.raises(UsageError, match="two other models"):
        shadow.ulira_roc(phi[:2], forgotten[:2], seen[:2])


def test_ulira_does_not_saturate_into_ties():
    phi = np.array([[0.0], [0.1], [0.2], [40.0], [41.0], [42.0]])  # log ratios of hundreds: probabilities of 1 and 0
    forgotten = np.array([[False]] * 3 + [[True]] * 3)
    found = shadow.ulira_roc(phi, forgotten, forgotten)
    assert (found.auc, found.balanced_accuracy, found.tpr_1) == (1.0, 1.0, None)
    generator = np.random.default_rng(3)
    seen = np.arange(24)[:, None] % 2 == np.arange(40) % 2
    far = 100 * generator.random((24, 40)) + 400.0 * seen
    far[0, 0], far[1, 0] = 5000.0, 4500.0  # model 0 saw example 0; model 1 did not, and looks as if it had
    scores = shadow.ulira_roc(far, seen, seen)
    assert scores.auc == pytest.approx(1.0, abs=0.01)
    assert scores.tpr_1 is not None
    assert scores.tpr_1_interval.low <= scores.tpr_1 <= scores.tpr_1_interval.high


def test_targets_of_other_examples_are_refused():
    fit = shadow.fit_normal([[0.0], [1.0], [2.0]])
    for call in (lambda z: shadow.lira_online(z, fit, fit), lambda z: shadow.lira_offline(z, fit)):
        with pytest.raises(UsageError, match="same examples"):
            call([0.1, 0.2])


def test_the_published_fixed_variance_takes_one_sides_spread_for_both():
    phi = np.array([[1.0, 11.0], [3.0, 13.0], [0.0, 0.0], [0.0, 8.0]])
    inside, outside = legacy.fixed_variance(phi, np.array([[True] * 2] * 2 + [[False] * 2] * 2))
    np.testing.assert_array_equal((inside.center, outside.center), ([2, 12], [0, 4]))
    assert inside.sd == pytest.approx(np.std([1, 3, 11, 13]))
    np.testing.assert_array_equal(inside.sd, outside.sd)


def test_rmia_by_hand():
    marginal = (1.3 * 0.4 + 0.7) / 2
    assert marginal == pytest.approx(0.61)
    z = np.array([1.0, 1.2, 1.4, 1.6])
    rows = z * (1.3 * 0.3 + 0.7) / 2, np.full(4, 0.3)
    for gamma, expected in ((1.0, 0.5), (1.25, 0.25)):
        assert shadow.rmia(([0.8], rows[0]), ([0.4], rows[1]), gamma=gamma)[0] == expected
    online = shadow.rmia(([0.8], z), ([0.4], np.ones(4)), gamma=1.5, offline=None)
    assert online[0] == 0.5  # 2 / z >= 1.5 for 1.0 and 1.2
    tied = shadow.rmia_tie_break(([0.8, 0.9], rows[0] / 99), ([0.4, 0.4], rows[1]))
    assert 1 <= tied[0] < tied[1] < 1.25


def test_ties_are_broken_by_the_ratio_under_the_options_of_rmia():
    target, reference = ([0.8, 0.9], [0.3, 0.5, 0.2]), ([0.4, 0.7], [0.3, 0.2, 0.3])
    for gamma, offline in ((1.0, 0.6), (1.5, None)):
        ratio = np.array([0.8, 0.9]) / ([0.4, 0.7] if offline is None else [(1.6 * p + 0.4) / 2 for p in (0.4, 0.7)])
        plain = shadow.rmia(target, reference, gamma=gamma, offline=offline)
        found = shadow.rmia_tie_break(target, reference, gamma=gamma, offline=offline)
        np.testing.assert_allclose(found - plain, ratio / (1 + ratio) / 4)
    with pytest.raises(TypeError, match="gama"):
        shadow.rmia_tie_break(target, reference, gama=1.0)


def test_population_rmia_has_a_side_and_is_at_chance_between_oracles():
    generator = np.random.default_rng(2)

    def side(move):
        return (
            1 / (1 + np.exp(-generator.normal(1 + move, 1, (6, 80)))),
            1 / (1 + np.exp(-generator.normal(1, 1, (6, 300)))),
        )

    oracle = side(0.0)
    assert population_rmia(side(2.0), oracle) > 0.7
    assert population_rmia(side(-2.0), oracle) < 0.3
    null = [population_rmia(side(0.0), side(0.0)) for _ in range(20)]
    assert np.mean(null) == pytest.approx(0.5, abs=0.03)


def test_population_rmia_compares_with_at_most_so_many_rows():
    generator = np.random.default_rng(3)
    sides = [[generator.uniform(size=(4, n)) for n in (30, 200)] for _ in range(2)]
    few = [(examples, rows[:, ::4]) for examples, rows in sides]
    assert population_rmia(*sides, most=50) == population_rmia(*few) != population_rmia(*sides)


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


def test_klom_against_scipy_where_no_value_is_near_an_edge():
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
def test_klom_bins_ties_and_edges_as_numpy_does(left, right):
    found = margins.klom(left, right)
    for i in range(2):
        pool = np.r_[left[:, i], right[:, i]]
        ends = (pool.min(), pool.max()) if np.ptp(pool) else (pool[0] - 0.5, pool[0] + 0.5)
        p, q = (np.histogram(side[:, i], bins=20, range=ends)[0] / len(side) for side in (left, right))
        assert found[i] == pytest.approx(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)), abs=1e-12)


@given(PHI, PHI)
def test_wasserstein_is_that_of_scipy(left, right):
    sides = np.clip(left, -100, 100), np.clip(right, -100, 100)
    expected = [stats.wasserstein_distance(sides[0][:, i], sides[1][:, i]) for i in range(3)]
    np.testing.assert_allclose(margins.wasserstein(left, right), expected, atol=1e-9)
    np.testing.assert_allclose(margins.wasserstein(right, left), expected, atol=1e-9)


def test_wasserstein_stands_in_below_fifty_models():
    left, right = np.random.default_rng(4).normal(size=(2, 60, 40))
    assert margins.margin_distance(left, right) == pytest.approx(np.quantile(margins.klom(left, right), 0.95))
    few = margins.margin_distance(left[:10], right[:10])
    assert few == pytest.approx(np.quantile(margins.wasserstein(left[:10], right[:10]), 0.95))
    more = np.random.default_rng(5).normal(size=(50, 40))
    assert margins.margin_distance(left, more) == pytest.approx(np.quantile(margins.klom(left, more), 0.95))
    for sides in ((left, right[:5]), (left[:5], right), (left, right[:49])):
        with pytest.raises(UsageError, match="Wasserstein-1 needs as many models on both sides"):
            margins.margin_distance(*sides)


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
def test_epsilon_is_that_of_the_plain_grid(models):
    generator = np.random.default_rng(models)
    for shift, scale in ((0.0, 1.0), (0.7, 0.5), (2.0, 3.0)):
        left, right = generator.normal(size=models) + shift, scale * generator.normal(size=models)
        found = quality.epsilons(left[:, None], right[:, None])[0]
        assert found == pytest.approx(plain_epsilon(left, right), abs=1e-6)


def test_epsilon_by_hand():
    left = np.r_[np.zeros(63), 10.0] + np.linspace(0, 0.1, 64)
    right = np.r_[np.full(63, 5.0), -10.0] + np.linspace(0, 0.1, 64)
    assert np.log((1 - 1e-5 - 1 / 64) * 64) == pytest.approx(4.143124, abs=1e-6)
    assert quality._single(right, left) == pytest.approx(4.143124, abs=1e-6)  # one false positive, one false negative
    apart = np.linspace(0, 1, 16)[:, None]
    assert quality.epsilons(apart, apart + 9) == 50.0
    assert quality.epsilons(apart, np.full((16, 1), 3.0)) == 50.0  # a point mass
    assert quality.epsilons(apart, apart) == pytest.approx(plain_epsilon(apart[:, 0], apart[:, 0]))


def test_epsilon_of_models_that_all_agree_is_zero():
    three, five = np.full((6, 1), 3.0), np.full((6, 1), 5.0)
    assert quality.epsilons(three, three) == 0.0
    assert quality.epsilons(three, five) == 50.0


@given(st.integers(0, 10**6), st.floats(-3, 2), st.sampled_from([None, 0, 1, 2]))
@settings(deadline=None)
def test_single_thresholds_are_those_of_the_plain_grid(seed, scale, digits):
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(2, generator.integers(2, 30))) * 10**scale
    if digits is not None:  # values upon the grid's own thresholds, and ties
        left, right = np.round(left, digits), np.round(right, digits)
    low, high = min(left.min(), right.min()), max(left.max(), right.max())
    if low == high:
        return
    thresholds = np.linspace(low, high, int(np.ceil(100 * (high - low))))
    called = [(side[:, None] >= thresholds).sum(axis=0) for side in (left, right)]
    assert quality._single(left, right) == quality._best(called[1], len(left) - called[0], len(left))


def test_epsilons_do_not_grow_slow_with_the_range_of_phi():
    left, right = np.random.default_rng(8).normal(size=(2, 16, 1)) * 1e12  # a grid would need 1e14 thresholds
    assert 0 <= quality.epsilons(left, right)[0] <= 50


def test_quality_by_hand():
    assert quality.forgetting_quality([0.2, 0.7, 5.0], 64) == pytest.approx(0.5)
    assert quality.forgetting_quality([0.0], 64) == 1.0
    assert quality.forgetting_quality([50.0], 64) == 0.0
    assert quality.neurips_score(0.095, (0.9, 0.9), (0.8, 1.0), control=0.19) == pytest.approx(0.4)
    with pytest.raises(UsageError):
        quality.neurips_score(0.1, (1.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize("models", [16, 128])
def test_quality_of_two_oracle_sets_is_about_a_fifth(models):
    left, right = np.random.default_rng(models).normal(size=(2, models, 150))
    assert 0.14 < quality.forgetting_quality(quality.epsilons(left, right), models) < 0.24


def test_h_mean_by_hand():
    assert h_mean([80.0], [90.0], [10.0]) == pytest.approx(80.0)
    assert h_mean([80.0], [50.0], [50.0]) == 0.0
    assert h_mean([80.0], [50.0], [60.0]) == 0.0
    assert h_mean([0.0], [0.0], [0.0]) == 0.0


@given(hnp.arrays(np.float64, (3, 4), elements=st.integers(0, 100).map(lambda i: i / 100)))
def test_h_mean_properties(values):
    kept, before, after = values
    value = h_mean(kept, before, after)
    assert 0 <= value <= 1
    drop = np.maximum(before - after, 0)
    expected = [2 * k * d / (k + d) if k + d else 0.0 for k, d in zip(kept, drop, strict=True)]
    assert value == pytest.approx(np.mean(expected))


def test_generalization_by_hand():
    assert forgetting_rate([1.0], [0.1], 0.1) == pytest.approx(1.0)
    assert generalization(([1.0], [0.1]), ([0.9], [0.5]), 0.1) == pytest.approx(0.5)
    assert generalization(([1.0], [1.0]), ([0.9], [0.5]), 0.1) is None
    assert generalization(([0.11], [0.1]), ([0.9], [0.5]), 0.1) is None


def test_reemergence_by_hand():
    assert reemergence([0.1, 0.05, 0.3, 0.2]) == pytest.approx(0.25)
    assert reemergence([0.5, 0.4, 0.1]) == 0.0


def test_relearning_by_hand():
    assert relearn_time([0.2, 0.6, 0.96], 1.0) == 2
    assert relearn_time([0.95], 1.0) == 0
    assert relearn_time([0.2, 0.3], 1.0) is None
    assert anamnesis_index([2], [5]) == 0.5
    assert anamnesis_index([5], [0]) == 6
    assert anamnesis_index([None], [5]) is None
    assert anamnesis_index([None], [4], limit=9) == 2


def features(generator, separable):
    rows = {}
    for name, counts in {"train": 60, "validation": 20, "forgotten": 30}.items():
        labels = np.repeat([0, 1, 2], counts) if name != "forgotten" else np.full(counts, 2)
        centers = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 4.0 if separable else 0.0]])
        rows[name] = Rows(generator.normal(size=(len(labels), 2)) + centers[labels], labels)
    return rows["train"], rows["validation"], rows["forgotten"]


def test_probe_reads_what_is_there():
    generator = np.random.default_rng(5)
    there, gone = linear_probe(*features(generator, True)), linear_probe(*features(generator, False))
    assert there.accuracy > 0.9
    assert gone.accuracy < 0.75
    assert there.shuffled < 0.75
    assert linear_probe(*features(np.random.default_rng(6), True)) == linear_probe(
        *features(np.random.default_rng(6), True)
    )


def test_probe_refuses_rows_that_do_not_fit():
    train, validation, forgotten = features(np.random.default_rng(7), True)
    with pytest.raises(UsageError, match="lack a forgotten class"):
        linear_probe(train, validation, Rows(forgotten.features, forgotten.labels + 1))
    with pytest.raises(UsageError, match="one class each"):
        linear_probe(Rows(train.features[1:], train.labels), validation, forgotten)


def test_recoverability_by_hand():
    assert recoverability([0.75], [0.60], [0.90]) == pytest.approx(0.5)
    assert recoverability([0.75], [0.90], [0.91]) is None


@given(st.integers(3, 12), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_epsilons_stay_in_range_whatever_the_order(models, seed):
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(2, models, 4)) * 3
    found = quality.epsilons(left, right)
    assert ((found >= 0) & (found <= 50)).all()
    np.testing.assert_allclose(quality.epsilons(generator.permutation(left), right), found)
