"""Attacks of the literature against scikit-learn's own estimators and published figures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.svm import SVC

from forgetbench.errors import UsageError
from forgetbench.metrics import classic_mia as attacks
from forgetbench.metrics import confidence, entropy, loss, metrics, modified_entropy, softmax
from forgetbench.metrics.classic_mia import BOARD_ROWS
from forgetbench.metrics.neurips_quality import BOARD_EXAMPLES
from forgetbench.metrics.rmia_population import POPULATION_ROWS


@pytest.fixture
def losses():
    generator = np.random.default_rng(0)
    return generator.exponential(0.3, 300), generator.exponential(0.8, 250)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(0.1, 5))
@settings(max_examples=25)
def test_logistic_line_equals_scikit_learn(seed, apart, strength):
    generator = np.random.default_rng(seed)
    rows = np.r_[generator.normal(apart, 1, 40), generator.normal(0, 1, 60)]
    truth = np.repeat([1, 0], [40, 60])
    expected = LogisticRegression(C=strength, tol=1e-10, max_iter=1000).fit(rows[:, None], truth)
    found = attacks.logistic_line(rows, truth, strength)
    assert found == pytest.approx((expected.coef_[0, 0], expected.intercept_[0]), abs=1e-4)


def test_logistic_line_extreme_rows_stay_finite():
    truth = np.repeat([0, 1], 50)
    for rows in (np.repeat([0.0, 1e4], 50), np.r_[np.zeros(99), 6e4], np.zeros(100)):
        assert np.isfinite(attacks.logistic_line(rows, truth)).all()


def simple_mia(forget, unseen):
    """The starting kit's attack, by scikit-learn."""
    rows, truth = np.r_[unseen, forget][:, None], np.repeat([0, 1], [len(unseen), len(forget)])
    splits = StratifiedShuffleSplit(n_splits=10, random_state=0)
    return cross_val_score(LogisticRegression(tol=1e-8), rows, truth, cv=splits, scoring="accuracy").mean()


def test_loss_attack_equals_the_starting_kit(losses):
    forget, test = losses[0][:250], losses[1]
    assert attacks.loss_attack(forget, test) == pytest.approx(simple_mia(forget, test), abs=1e-12)
    assert attacks.loss_attack(*losses, cut=False) == pytest.approx(simple_mia(*losses), abs=1e-12)


def test_loss_attack_unequal_sides_thins_the_larger():
    generator = np.random.default_rng(0)
    few, many = generator.exponential(0.3, 100), generator.exponential(0.8, 1600)
    assert attacks.loss_attack(few, many) == pytest.approx(simple_mia(few, many[::16]), abs=1e-12)
    assert attacks.loss_attack(many, few) == pytest.approx(simple_mia(many[::16], few), abs=1e-12)
    assert attacks.loss_attack(few, many) < 0.8
    assert attacks.loss_attack(few, many, cut=False) > 0.9  # 1,600 of 1,700 are 0.94
    assert attacks.loss_attack(few, many, max_rows=50) == pytest.approx(simple_mia(few[::2], many[::32]), abs=1e-12)
    assert attacks.loss_attack(few, many, cut=False, max_rows=400) == pytest.approx(
        simple_mia(few, many[::4]), abs=1e-12
    )


def test_loss_attack_shuffle_cuts_forget_rows_like_mufac(losses):
    forget, unseen = losses[0].copy(), losses[1]
    np.random.RandomState(42).shuffle(forget)
    expected = simple_mia(forget[:250], unseen)
    assert attacks.loss_attack(losses[0], unseen, shuffle=42) == pytest.approx(expected, abs=1e-12)
    forget = unseen.copy()
    np.random.RandomState(42).shuffle(forget)
    expected = simple_mia(forget, losses[0])  # 250 against 300: nothing is cut
    assert attacks.loss_attack(unseen, losses[0], shuffle=42) == pytest.approx(expected, abs=1e-12)


def test_mufac_attack_attributes_averages_losses():
    generator = np.random.default_rng(7)
    labels = [generator.integers(0, 2, (n, 3)) for n in (90, 60)]
    logits = [generator.normal(size=y.shape) + move * (2 * y - 1) for y, move in zip(labels, (0.4, 0.1), strict=True)]
    losses = [
        np.array([np.mean([log_loss([y], [p], labels=[0, 1]) for y, p in zip(*row, strict=True)]) for row in rows])
        for rows in (zip(y, special.expit(z), strict=True) for y, z in zip(labels, logits, strict=True))
    ]
    np.random.RandomState(42).shuffle(losses[0])
    sides = list(zip(logits, labels, strict=True))
    assert attacks.mufac_attack(*sides) == pytest.approx(simple_mia(losses[0][:60], losses[1]), abs=1e-12)
    whole = [loss(*side) for side in sides]
    assert attacks.mufac_attack(*sides) != attacks.loss_attack(*whole, shuffle=42)  # the sum is on another scale
    classes = [(z, y[:, 0]) for z, y in sides]
    whole = [loss(*side) for side in classes]
    assert attacks.mufac_attack(*classes) == attacks.loss_attack(*whole, shuffle=42)
    with pytest.raises(UsageError, match="logits of one model"):
        attacks.mufac_attack((logits[0][None], labels[0]), sides[1])


def test_loss_attack_equal_or_separated_sides():
    generator = np.random.default_rng(1)
    assert attacks.loss_attack(generator.exponential(1, 2000), generator.exponential(1, 2000)) == pytest.approx(
        0.5, abs=0.05
    )
    assert attacks.loss_attack(np.zeros(50), np.full(50, 9.0)) == 1.0
    with pytest.raises(UsageError, match="ten rows"):
        attacks.loss_attack([1.0], [2.0])


def test_entropy_attack_equals_balanced_regression(losses):
    inside, outside = losses
    model = LogisticRegression(class_weight="balanced", C=2.0, tol=1e-10)
    model.fit(np.r_[inside, outside][:, None], np.repeat([1, 0], [300, 250]))
    targets = np.linspace(0, 2, 101)
    assert attacks.entropy_attack(inside, outside, targets) == pytest.approx(model.predict(targets[:, None]).mean())


def test_svc_non_members_unshuffled_equals_published(losses):
    p = np.exp(-losses[0]), np.exp(-losses[1])
    model = SVC(C=3, gamma="auto").fit(np.r_[p[0][:250], p[1]][:, None], np.repeat([1, 0], 250))
    targets = np.linspace(0, 1, 57)
    expected = 1 - model.predict(targets[:, None]).mean()
    assert attacks.svc_non_members(p[0], p[1], targets, seed=None) == pytest.approx(expected)


def test_svc_attacks_separated_sides_give_extremes():
    sure, unsure = np.full(60, 0.99), np.full(60, 0.2)
    assert attacks.svc_non_members(sure, unsure, unsure) == 1.0
    assert attacks.svc_non_members(sure, unsure, sure) == 0.0
    assert attacks.svc_training_privacy(sure, unsure) == 1.0
    both = np.column_stack([sure, 1 - sure]), np.column_stack([unsure, 1 - unsure])
    assert attacks.svc_non_members(*both, both[0]) == 0.0


def test_svc_training_privacy_fits_half_of_the_test_rows():
    generator = np.random.default_rng(4)
    retain, test = np.sort(generator.uniform(0.2, 1, 90)), np.sort(generator.uniform(0, 0.9, 41))
    model = SVC(C=3, gamma="auto").fit(np.r_[retain[:20], test[:20]][:, None], np.repeat([1, 0], 20))
    right = model.predict(retain[20:, None]).mean(), 1 - model.predict(test[20:, None]).mean()
    assert attacks.svc_training_privacy(retain, test, seed=None) == pytest.approx(np.mean(right), abs=1e-12)
    with pytest.raises(UsageError, match="two test rows"):
        attacks.svc_training_privacy(retain, test[:1])
    with pytest.raises(UsageError, match="more retain rows"):
        attacks.svc_training_privacy(retain[:20], test)


def test_svc_attack_each_kind_equals_its_features():
    generator = np.random.default_rng(5)
    labels = {name: generator.integers(0, 3, n) for name, n in (("retain", 50), ("test", 40), ("forget", 30))}
    logits = {name: generator.normal(size=(len(truth), 3)) for name, truth in labels.items()}
    sides = [(logits[name], labels[name]) for name in ("retain", "test", "forget")]
    seen = {
        "correctness": lambda z, y: 1.0 * (z.argmax(axis=1) == y),
        "confidence": confidence,
        "entropy": lambda z, _: entropy(z),
        "m-entropy": modified_entropy,
        "probabilities": lambda z, _: softmax(z),
    }
    for kind, feature in seen.items():
        columns = [feature(*side) for side in sides]
        assert attacks.svc_attack(*sides, kind=kind) == attacks.svc_non_members(*columns), kind
        found = attacks.svc_attack(*sides[:2], kind=kind, reading="training-privacy")
        assert found == attacks.svc_training_privacy(*columns[:2]), kind
    with pytest.raises(UsageError, match="Unknown kind 'losses' of SVC attack"):
        attacks.svc_attack(*sides, kind="losses")
    with pytest.raises(UsageError, match="needs the forget set"):
        attacks.svc_attack(*sides[:2])
    for arguments in (sides, sides[:2]):
        with pytest.raises(UsageError, match="Unknown reading 'efficiency' of SVC_MIA"):
            attacks.svc_attack(*arguments, reading="efficiency")


@pytest.mark.parametrize("kind", attacks.get_args(attacks.SvcKind))
def test_svc_attack_several_models_are_refused(kind):
    labels = np.arange(30) % 3
    side = np.random.default_rng(0).normal(size=(2, 30, 3)), labels
    with pytest.raises(UsageError, match=r"logits of one model, logits\[s\].*\(2, 30, 3\)"):
        attacks.svc_attack(side, side, side, kind=kind)
    with pytest.raises(UsageError, match="of one model, but the shape"):
        attacks.svc_non_members(side[0], side[0], side[0])


def test_svc_attack_attributes_averages_them():
    generator = np.random.default_rng(6)
    labels = [generator.integers(0, 2, (n, 2)) for n in (50, 40, 30)]
    logits = [generator.normal(size=truth.shape) + truth for truth in labels]
    for kind in ("correctness", "confidence", "entropy", "m-entropy", "probabilities"):
        alone = [
            attacks.svc_attack(*((z[:, [a]], y[:, [a]]) for z, y in zip(logits, labels, strict=True)), kind=kind)
            for a in range(2)
        ]
        assert attacks.svc_attack(*zip(logits, labels, strict=True), kind=kind) == pytest.approx(np.mean(alone))


def test_attacks_mismatched_rows_are_refused():
    with pytest.raises(UsageError, match="same features"):
        attacks.svc_non_members(np.zeros((5, 2)), np.zeros((5, 3)), np.zeros((5, 3)))
    with pytest.raises(UsageError, match="same features"):
        attacks.svc_non_members(np.zeros((5, 2)), np.zeros((5, 2)), np.zeros(5))
    with pytest.raises(UsageError, match="same features"):
        attacks.svc_training_privacy(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(UsageError, match="losses of known members"):
        attacks.loss_threshold([], [0.1], [0.2])
    for empty in range(4):
        sides = [[0.5], [0.5], [0.5], [0.5]]
        sides[empty] = []
        with pytest.raises(UsageError, match="Every side needs rows"):
            attacks.class_thresholds(*(tuple(sides[i : i + 2]) for i in (0, 2)), ([0], [0]), ([0], [0]))


def test_svc_non_members_sorted_rows_change_little():
    generator = np.random.default_rng(2)
    inside = np.sort(generator.uniform(0.3, 1, 1500))
    outside = generator.uniform(0, 0.8, 300)
    targets = generator.uniform(0, 1, 400)
    sorted_rows = attacks.svc_non_members(inside, outside, targets)
    mixed = attacks.svc_non_members(generator.permutation(inside), outside, targets)
    assert sorted_rows == pytest.approx(mixed, abs=0.1)


def test_svc_attacks_max_rows_limits_fitted_rows():
    generator = np.random.default_rng(3)
    inside, outside = generator.uniform(0.2, 1, 1500), generator.uniform(0, 0.9, 1500)
    targets = np.linspace(0, 1, 201)

    def machine(*sides):
        rows = np.concatenate(sides)[:, None]
        return SVC(C=3, gamma="auto").fit(rows, np.repeat([1, 0], [len(side) for side in sides]))

    kept = [int(place) for place in np.floor(np.arange(1000) * 1.5)]
    for options, sides in (
        ({}, (inside[kept], outside[kept])),
        ({"max_rows": None}, (inside, outside)),
        ({"max_rows": 300}, (inside[::5], outside[::5])),
    ):
        expected = 1 - machine(*sides).predict(targets[:, None]).mean()
        assert attacks.svc_non_members(inside, outside, targets, seed=None, **options) == pytest.approx(expected)
    model = machine(inside[:750:10], outside[:750:10])
    expected = (model.predict(inside[750:, None]).mean() + 1 - model.predict(outside[750:, None]).mean()) / 2
    assert attacks.svc_training_privacy(inside, outside, seed=None, max_rows=75) == pytest.approx(expected)
    logits = [np.c_[special.logit(rows), 0 * rows] for rows in (inside, outside, targets.clip(1e-9, 1 - 1e-9))]
    sides = [(side, np.zeros(len(side), dtype=int)) for side in logits]
    expected = 1 - machine(inside[::5], outside[::5]).predict(targets[:, None]).mean()
    assert attacks.svc_attack(*sides, seed=None, max_rows=300) == pytest.approx(expected, abs=0.01)


def test_entropy_attack_max_rows_limits_fitted_rows(losses):
    inside, outside, targets = losses[0], losses[1][:200], np.linspace(0, 2, 101)
    assert attacks.entropy_attack(inside, outside, targets, max_rows=100) == attacks.entropy_attack(
        inside[::3], outside[::2], targets
    )


def test_spec_formula_states_the_row_limit():
    for name, limit in (
        ("mia.svc-confidence", attacks.SVC_ROWS),
        ("mia.svc-training-privacy", attacks.SVC_ROWS),
        ("mia.loss", BOARD_ROWS),
        ("mia.entropy", BOARD_ROWS),
        ("rmia", POPULATION_ROWS),
    ):
        assert f"at most {limit:,}" in metrics.get(name).formula
    assert f"on boards {attacks.BOARD_SVC_ROWS}," in metrics.get("mia.svc-confidence").formula
    assert f"at most {BOARD_EXAMPLES:,}" in metrics.get("forgetting-quality").formula


def test_loss_threshold_by_hand():
    found = attacks.loss_threshold([0.0, 2.0], [0.5, 1.0, 3.0], [0.9, 1.1])
    assert found == (2 / 3, 0.5)
    assert found.balanced_accuracy == pytest.approx(7 / 12)


def best_threshold(members, others):
    """The smallest score with the largest (TPR + TNR) / 2, by exact fractions."""
    rates = {
        limit: Fraction(sum(m >= limit for m in members), len(members))
        + Fraction(sum(o < limit for o in others), len(others))
        for limit in sorted({*members, *others})
    }
    return min(limit for limit, rate in rates.items() if rate == max(rates.values()))


def test_class_thresholds_equal_rates_take_the_smallest():
    for members, others in ((range(0, 12, 3), range(0, 12, 2)), (range(7), range(1, 50)), ([1, 2, 3, 6], [0, 2, 5])):
        shadow = [float(m) for m in members], [float(o) for o in others]
        target = np.arange(-1.0, 60)
        zeros = [np.zeros(len(side), dtype=int) for side in (*shadow, target, target)]
        found = attacks.class_thresholds(shadow, (target, target), (zeros[0], zeros[1]), (zeros[2], zeros[3]))
        assert found.members == (target >= best_threshold(*shadow)).mean()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=15), st.lists(st.integers(0, 12), min_size=1, max_size=15))
def test_best_threshold_equals_exact_fractions(members, others):
    found = attacks._best_threshold(np.array(members, dtype=float), np.array(others, dtype=float))
    assert found == best_threshold(members, others)


@pytest.mark.parametrize("labels", [[0.5], [np.nan], [1.0], [None]])
def test_class_thresholds_labels_of_other_types_are_refused(labels):
    with pytest.raises(UsageError, match=r"expected integers|None in row 0"):
        attacks.class_thresholds(([0.5], [0.2]), ([0.5], [0.2]), ([0], [0]), (labels, [0]))
    with pytest.raises(UsageError, match="one class for each of 1 rows"):
        attacks.class_thresholds(([0.5], [0.2]), ([0.5], [0.2]), ([0, 1], [0]), ([0], [0]))


def test_class_thresholds_names_of_classes_are_accepted():
    sides = ([0.9, 0.8], [0.7, 0.1]), ([0.85], [0.75])
    expected = attacks.class_thresholds(*sides, ([0, 1], [0, 1]), ([0], [1]))
    assert attacks.class_thresholds(*sides, (["cat", "dog"], ["cat", "dog"]), (["cat"], ["dog"])) == expected


def test_class_thresholds_by_hand():
    shadow = [0.9, 0.8, 0.4], [0.7, 0.1, 0.2]
    labels = [0, 0, 1], [0, 1, 1]
    found = attacks.class_thresholds(shadow, ([0.85, 0.3], [0.75, 0.5]), labels, ([0, 1], [0, 1]))
    assert found == (0.5, 0.5)  # thresholds 0.8 for class 0 and 0.4 for class 1
    unseen = attacks.class_thresholds(shadow, ([0.85], [0.3]), labels, ([2], [2]))
    assert unseen == (1.0, 1.0)  # class 2 takes the threshold of all: 0.8


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.0, 2.2])
@pytest.mark.parametrize(("members", "others"), [(30, 20), (7, 90), (50, 50), (3, 1)])
def test_entropy_attack_constant_rows_equal_scikit_learn(value, members, others):
    model = LogisticRegression(class_weight="balanced", C=2.0)
    model.fit(np.full((members + others, 1), value), np.repeat([1, 0], [members, others]))
    expected = model.predict(np.full((9, 1), value)).mean()
    assert expected == 0.0
    assert attacks.entropy_attack(np.full(members, value), np.full(others, value), np.full(9, value)) == expected


def test_entropy_attack_equal_sides_call_nothing_a_member():
    rows = np.random.default_rng(8).exponential(0.5, 200)
    assert attacks.entropy_attack(rows, rows, rows) == 0.0
    assert attacks.entropy_attack(rows, np.r_[rows, rows], rows) == 0.0
    assert attacks.loss_attack(np.full(40, 0.3), np.full(40, 0.3)) == 0.5


def test_attacks_unlike_sides_are_refused():
    generator = np.random.default_rng(9)
    classes = generator.normal(size=(30, 2)), np.arange(30) % 2
    attributes = classes[0], generator.integers(0, 2, (30, 2))
    wider = generator.normal(size=(30, 3)), np.arange(30) % 3
    for other, message in ((attributes, r"\(30,\) and \(30, 2\)"), (wider, "logits with the same columns")):
        for call in (
            lambda side: attacks.svc_attack(classes, side, classes),
            lambda side: attacks.svc_attack(side, classes, reading="training-privacy"),
            lambda side: attacks.mufac_attack(classes, side),
        ):
            with pytest.raises(UsageError, match=message if other is not attributes else "class numbers"):
                call(other)


@pytest.mark.parametrize("max_rows", [0, -1, 2.5, np.nan])
def test_attacks_max_rows_out_of_range_is_refused(losses, max_rows):
    for call in (
        lambda: attacks.svc_non_members(*losses, losses[0], max_rows=max_rows),
        lambda: attacks.svc_training_privacy(*losses, max_rows=max_rows),
        lambda: attacks.loss_attack(*losses, max_rows=max_rows),
        lambda: attacks.entropy_attack(*losses, losses[0], max_rows=max_rows),
    ):
        with pytest.raises(UsageError, match=r"^max_rows: "):
            call()


def test_attacks_seeds_out_of_range_are_refused(losses):
    with pytest.raises(UsageError, match=r"^seed: -1 is not a whole number of at least 0"):
        attacks.svc_non_members(*losses, losses[0], seed=-1)
    with pytest.raises(UsageError, match=r"^shuffle: -1 is not a whole number"):
        attacks.loss_attack(*losses, shuffle=-1)
