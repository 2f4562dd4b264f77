"""Scores that papers report, by hand and against published tables; and published code that deviates."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special
from sklearn.metrics import roc_curve

from forgetbench.errors import UsageError
from forgetbench.metrics import centered_js, jensen_shannon, literature, metrics
from forgetbench.metrics import divergence as pairs
from forgetbench.metrics import published_code as legacy

TABLE = [
    (0.5951, 0.2136, 0.5839), (0.4880, 0.0445, 0.6995), (0.6055, 0.2129, 0.5898), (0.5900, 0.2126, 0.5824),
    (0.4048, 0.0485, 0.6539), (0.5893, 0.2089, 0.5857), (0.5925, 0.1990, 0.5972), (0.5984, 0.1415, 0.6577),
    (0.5633, 0.0953, 0.6863), (0.8852, 0.0568, 0.8858), (0.8135, 0.0436, 0.8631), (0.9835, 0.0306, 0.9611),
    (0.5549, 0.4680, 0.3094), (0.5573, 0.0139, 0.7647),
]  # fmt: skip


@pytest.mark.parametrize(("accuracy", "off", "expected"), TABLE)
def test_nomus_equals_published_tables(accuracy, off, expected):
    assert literature.nomus(accuracy, 0.5 + off) == pytest.approx(expected, abs=2e-4)
    assert literature.nomus(accuracy, 0.5 - off) == pytest.approx(expected, abs=2e-4)


def test_nomus_equals_the_notebook():
    assert literature.nomus(0.5951916829109811, 0.7136212624584718) == pytest.approx(0.5839745789970188, abs=1e-15)


def test_published_scores_by_hand():
    assert literature.adaptive_unlearning_score(0.92, 0.88, 0.95) == pytest.approx(0.8971963, abs=5e-8)
    assert literature.adaptive_unlearning_score(0.9, 0.9, 0.0, classes=True) == 1.0
    assert literature.indiscernibility(0.6) == pytest.approx(0.8)
    assert literature.retention_deviation({"retain": 0.9, "test": 0.8}, {"retain": 1.0, "test": 0.8}) == pytest.approx(
        0.1
    )
    assert literature.sape(1.0, 3.0) == 50.0
    assert literature.sape(0.0, 0.0) == 0.0
    accuracies = {"retain": [1.0], "test": [0.9]}
    assert literature.tow_mia(accuracies, accuracies, ([0.6], [0.5])) == pytest.approx(0.9)


def test_output_distances_by_hand():
    one, two = np.array([[9e3, 0.0], [0.0, 0.0]]), np.array([[0.0, 9e3], [0.0, 0.0]])
    assert literature.activation_distance(one, two) == pytest.approx(np.sqrt(2) / 2)
    assert literature.completeness(one, two) == 0.5
    assert literature.zrf(one[:1], two[:1]) == pytest.approx(1 - np.log(2))
    assert literature.zrf(one, one) == 1.0
    assert literature.layer_distance([[3.0, 0.0]], [[0.0, 4.0]]) == 5.0
    assert literature.layer_distance([[3.0, 0.0]], [[0.0, 4.0]], relative=True) == pytest.approx(5 / 3)
    with pytest.raises(UsageError, match="shape"):
        literature.layer_distances([[1.0]], [[1.0, 2.0]])


def test_activation_distance_many_attributes_in_range():
    present = np.full((4, 9), 1e4)
    found = literature.activation_distance(present, -present, attributes=True)
    low, high = metrics.get("activation-distance").range
    assert found == pytest.approx(3)  # the root of 9
    assert found >= low
    assert high is None or found <= high


def test_output_distances_attributes_are_not_classes():
    one, two = np.array([[5.0, 3.0]]), np.array([[-1.0, -3.0]])  # the larger logit is the same, every attribute differs
    both = np.stack([one, two])
    assert literature.completeness(one, two) == 1.0
    assert literature.completeness(one, two, attributes=True) == pairs.agreement_pairs(both, attributes=True)[0, 1] == 0
    expected = np.sqrt(((special.expit(one) - special.expit(two)) ** 2).sum())
    assert literature.activation_distance(one, two, attributes=True) == pytest.approx(expected)
    assert pairs.distance_pairs(both, attributes=True)[0, 1] == pytest.approx(expected)
    js = jensen_shannon(one, two, attributes=True)[0]
    assert literature.zrf(one, two, attributes=True) == pytest.approx(1 - js)


def shares_of(*sides):
    return tuple(special.expit(side[:, 0]) for side in sides)


@pytest.mark.parametrize(
    "call",
    [
        literature.completeness,
        literature.activation_distance,
        literature.zrf,
        legacy.zrf,
        jensen_shannon,
        lambda a, b: centered_js(np.stack([a, a]), np.stack([b, b])),
        lambda a, b: literature.tow_mia(*({"retain": p, "test": p} for p in shares_of(a, b)), shares_of(a, b)),
    ],
)  # fmt: skip
def test_output_distances_no_broadcasting(call):
    rows = np.random.default_rng(0).normal(size=(4, 3))
    call(rows, rows)
    for other in (rows[:1], rows[:2]):
        with pytest.raises(UsageError):
            call(rows, other)
        with pytest.raises(UsageError):
            call(other, rows)
    with pytest.raises(UsageError):
        call(rows[:0], rows[:0])


def test_pairs_without_rows_are_refused():
    for matrix in (pairs.distance_pairs, pairs.agreement_pairs):
        with pytest.raises(UsageError, match="at least one row"):
            matrix(np.zeros((3, 0, 2)))


def test_published_zrf_certain_models_minus_infinity():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert legacy.zrf([[1e4, 0.0]], [[0.0, 1e4]]) == -np.inf
        assert np.isnan(legacy.zrf([[1e4, 0.0, 0.0]], [[0.0, 1e4, 0.0]]))


def test_published_modified_entropy_by_hand():
    rows = np.array([[0.7, 0.2, 0.1]] * 3)
    assert legacy.modified_entropy(rows, [0, 1, 2])[0] == pytest.approx(3.46689, abs=2e-5)
    expected = -(0.3 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    assert legacy.modified_entropy(rows, [0, 0, 0])[0] == pytest.approx(expected)
    assert expected == pytest.approx(0.659, abs=5e-4)  # the definition gives 0.162


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0], [0.6591485749678444, 2.0794415416798357, 3.7588966143555878]),
        ([0, 2, 2], [2.501216649363081, 2.772588722239781, 4.724559361816048]),
        ([0, 1, 3], [70.70236411783846, 3.465735902799726, 4.984715479022507]),
        ([3, 3, 3], [69.8793713479535, 2.0794415416798357, 0.9605724434037981]),
    ],
)
def test_published_modified_entropy_equals_released_code(labels, expected):
    rows = [[0.7, 0.2, 0.1, 0.0], [0.25] * 4, [0.05, 0.15, 0.2, 0.6]]  # what SalUn's m_entropy returned in float64
    np.testing.assert_allclose(legacy.modified_entropy(rows, labels), expected, rtol=1e-9)  # log 1e-30 is float32


@given(
    hnp.arrays(np.float64, st.integers(1, 9), elements=st.integers(0, 6).map(float)),
    hnp.arrays(np.float64, st.integers(1, 9), elements=st.integers(0, 6).map(float)),
    st.one_of(st.sampled_from([0.0, 0.01, 0.25, 1 / 3, 0.5, 1.0]), st.floats(0, 1)),
)
def test_published_tpr_nearest_equals_roc_curve(members, others, alpha):
    truth = np.repeat([1, 0], [len(members), len(others)])
    false, true, _ = roc_curve(truth, np.r_[members, others])
    assert legacy.tpr_nearest(members, others, alpha) == true[np.argmin(np.abs(false - alpha))]


def test_published_tpr_nearest_omits_points_on_a_line():
    assert legacy.tpr_nearest([0.2], [0.0, 0.1], 0.5) == 0.0  # the point (0.5, 1) is on the line from (0, 1) to (1, 1)
    with pytest.raises(UsageError, match="alpha: nan"):
        legacy.tpr_nearest([0.2], [0.0, 0.1], np.nan)


def test_published_klom_equal_values_give_0():
    assert legacy.klom(np.ones((10, 1)), np.ones((10, 1))) == 0.0
    assert np.isnan(legacy.klom(np.zeros((10, 1)), np.ones((10, 1)))).all()  # all oracles at the top edge are dropped


def test_published_zrf_is_a_reversed_divergence():
    one, two = np.log([[0.6, 0.3, 0.1]]), np.log([[0.2, 0.2, 0.6]])
    p, q = np.exp(one), np.exp(two)
    m = (p + q) / 2
    expected = 1 - ((m * np.log(m / p)).sum() + (m * np.log(m / q)).sum()) / 2 / 3
    assert legacy.zrf(one, two) == pytest.approx(expected)


def test_published_code_by_hand():
    np.testing.assert_array_equal(legacy.loss_score([0.2]), [-0.2])
    np.testing.assert_allclose(legacy.rmia_population([[0.1], [0.2], [0.3], [0.4]]), [0.35])
    assert (
        legacy.tpr_nearest([0.9, 0.8, 0.1], [0.5, 0.4], 0.0) == 0.0
    )  # the first of equal rates; the true value is 2/3


def test_retention_deviation_arrays_are_refused():
    whole, several = {"test": 0.8}, {"test": np.array([0.8, 0.9])}
    for sides, name in (((several, whole), "test"), ((whole, several), "test of the oracle")):
        with pytest.raises(UsageError, match=f"^{name}: expected 0 dimensions"):
            literature.retention_deviation(*sides)
    with pytest.raises(UsageError, match="the oracle's must be above 0"):
        literature.retention_deviation(whole, {"test": 0.0})
    with pytest.raises(UsageError, match="same subsets on both sides"):
        literature.retention_deviation(whole, {"retain": 0.8})


def test_tow_mia_other_accuracies_are_refused():
    two, three = ({name: [0.5] for name in names} for names in (("retain", "test"), ("retain", "test", "unseen")))
    for sides in ((two, three), (three, two)):
        with pytest.raises(UsageError, match=r"ToW-MIA needs retain and test .* 'unseen' is not one of them"):
            literature.tow_mia(*sides, ([0.5], [0.5]))
