"""Attacks with reference models."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import published_code as legacy
from forgetbench.metrics import shadow_models as shadow

ONE = shadow.Fit(np.array([1.0]), np.array([1.0]))
MINUS_ONE = shadow.Fit(np.array([-1.0]), np.array([1.0]))


def test_lira_online_by_hand():
    assert shadow.lira_online([1.0], ONE, MINUS_ONE) == pytest.approx(2.0)
    assert shadow.lira_online([0.0], ONE, MINUS_ONE) == pytest.approx(0.0)
    assert shadow.lira_offline([-1.0], MINUS_ONE) == pytest.approx(np.log(0.5))
    np.testing.assert_allclose(shadow.lira_online([[1.0], [0.0]], ONE, MINUS_ONE), [1.0])


def test_lira_offline_is_one_sided():
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


def test_fit_normal_per_example_and_pooled():
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


def test_ulira_roc_finds_memory():
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


@pytest.mark.parametrize("models", [9, 90])
def test_ulira_roc_by_sums_equals_refits(models):
    generator = np.random.default_rng(models)
    seen = generator.random((models, 30)) < 0.5
    forgotten = seen & (generator.random((models, 30)) < 0.9)
    phi = np.round(generator.normal(size=(models, 30)) + forgotten, 1)  # with ties
    for members in (forgotten, ~seen):
        role = shadow._Role(phi, members)
        for model in range(models):
            others = np.arange(models) != model
            usable = members[others].sum(axis=0) >= 2
            found, expected = (
                role.fit_without(model, usable),
                shadow.fit_normal(phi[others][:, usable], members[others][:, usable]),
            )
            np.testing.assert_array_equal(found.center, expected.center)
            np.testing.assert_allclose(found.sd, expected.sd, rtol=1e-12)


def test_ulira_roc_does_not_saturate_into_ties():
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


def test_attacks_target_of_other_examples_is_refused():
    fit = shadow.fit_normal([[0.0], [1.0], [2.0]])
    for call in (lambda z: shadow.lira_online(z, fit, fit), lambda z: shadow.lira_offline(z, fit)):
        with pytest.raises(UsageError, match="same examples"):
            call([0.1, 0.2])


def test_published_fixed_variance_uses_the_in_side():
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


def test_rmia_tie_break_orders_tied_scores():
    target, reference = ([0.8, 0.9], [0.3, 0.5, 0.2]), ([0.4, 0.7], [0.3, 0.2, 0.3])
    for gamma, offline in ((1.0, 0.6), (1.5, None)):
        ratio = np.array([0.8, 0.9]) / ([0.4, 0.7] if offline is None else [(1.6 * p + 0.4) / 2 for p in (0.4, 0.7)])
        plain = shadow.rmia(target, reference, gamma=gamma, offline=offline)
        found = shadow.rmia_tie_break(target, reference, gamma=gamma, offline=offline)
        np.testing.assert_allclose(found - plain, ratio / (1 + ratio) / 4)
    with pytest.raises(TypeError, match="gama"):
        shadow.rmia_tie_break(target, reference, gama=1.0)


def test_fit_normal_masks_of_other_shapes_are_refused():
    phi = np.random.default_rng(4).normal(size=(6, 3))
    whole = np.ones((6, 3), dtype=bool)
    for call in (
        lambda mask: shadow.fit_normal(phi, mask),
        lambda mask: shadow.ulira_roc(phi, mask, whole),
        lambda mask: shadow.ulira_roc(phi, ~whole, mask),
        lambda mask: legacy.fixed_variance(phi, mask),
    ):
        with pytest.raises(UsageError, match=r"shape of phi, \(6, 3\), but it is \(3, 6\)\. It is transposed"):
            call(whole.T)
        with pytest.raises(UsageError, match=r"but it is \(6,\)\.$"):
            call(whole[:, 0])
        for values in (np.full((6, 3), 0.3), np.full((6, 3), 2), np.full((6, 3), np.nan)):
            with pytest.raises(UsageError, match="expected true and false for each model and example"):
                call(values)


def test_fit_normal_zeros_and_ones_are_a_mask():
    phi = np.random.default_rng(5).normal(size=(6, 3))
    mask = np.arange(18).reshape(6, 3) % 4 > 0
    for found, expected in zip(shadow.fit_normal(phi, mask.astype(int)), shadow.fit_normal(phi, mask), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("gamma", [np.nan, np.inf, 0.0, -1.0])
def test_rmia_gamma_out_of_range_is_refused(gamma):
    for attack in (shadow.rmia, shadow.rmia_tie_break):
        with pytest.raises(UsageError, match=r"^gamma: "):
            attack(([0.5], [0.5, 0.2]), ([0.5], [0.5, 0.3]), gamma=gamma)


def test_rmia_negative_probabilities_are_refused():
    for offline in (0.3, None):
        with pytest.raises(UsageError, match=r"p of the target: -0.5 in row 0 is"):
            shadow.rmia(([-0.5], [0.5, 0.2]), ([0.5], [0.5, 0.3]), offline=offline)


def test_published_lira_offline_wrong_fits_are_refused():
    with pytest.raises(UsageError, match="spread of the fit: -1 in row 0 is below 0"):
        legacy.lira_offline([0.0], shadow.Fit(np.zeros(1), np.array([-1.0])))
    with pytest.raises(UsageError, match="same examples"):
        legacy.lira_offline([0.0], shadow.Fit(np.zeros(1), np.ones(2)))
