"""Jensen-Shannon divergence, plain and centered."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, softmax

from forgetbench.errors import UsageError
from forgetbench.metrics import centered_js, jensen_shannon

LOGITS = hnp.arrays(np.float64, (3, 4), elements=st.floats(-20, 20))
POPULATION = hnp.arrays(np.float64, (3, 2, 4), elements=st.floats(-20, 20))


def test_jensen_shannon_by_hand():
    half, one = np.array([[0.0, 0.0]]), np.array([[1e4, 0.0]])
    np.testing.assert_allclose(jensen_shannon(half, one), [0.215762], atol=5e-7)
    np.testing.assert_allclose(jensen_shannon(one, one[:, ::-1]), [np.log(2)])
    np.testing.assert_allclose(jensen_shannon(half, half), [0.0])


@given(LOGITS, LOGITS)
def test_jensen_shannon_is_the_square_of_scipys(left, right):
    p, q = softmax(left, axis=1), softmax(right, axis=1)
    with np.errstate(invalid="ignore"):  # scipy's root of a tiny negative number, where rows are nearly equal
        expected = [jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(jensen_shannon(left, right), np.nan_to_num(expected), atol=1e-9)
    np.testing.assert_allclose(jensen_shannon(left, right), jensen_shannon(right, left), atol=1e-12)
    np.testing.assert_allclose(jensen_shannon(left + 7, right), jensen_shannon(left, right), atol=1e-9)


@given(POPULATION, POPULATION)
def test_centered_js_equals_the_definition(left, right):
    def mean(pairs):
        return np.mean([jensen_shannon(a, b).mean() for a, b in pairs])

    expected = mean(product(left, right)) - mean(combinations(left, 2)) / 2 - mean(combinations(right, 2)) / 2
    value = centered_js(left, right)
    assert value == pytest.approx(expected, abs=1e-9)
    assert -np.log(2) - 1e-12 <= value <= np.log(2) + 1e-12
    assert centered_js(right, left) == pytest.approx(value, abs=1e-12)
    order = [1, 0]
    assert centered_js(left[:, order], right[:, order]) == pytest.approx(value, abs=1e-12)


def test_centered_js_disjoint_predictions_is_log_2():
    left = np.tile([[1e4, 0.0, 0.0]], (3, 5, 1))
    assert centered_js(left, left[..., ::-1]) == pytest.approx(np.log(2))
    assert centered_js(left, left) == 0.0


def test_centered_js_equal_populations_is_about_zero():
    generator = np.random.default_rng(4)
    values = [centered_js(*generator.normal(size=(2, 6, 100, 5))) for _ in range(100)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 10


def test_jensen_shannon_attributes_averages_bernoulli():
    left, right = np.array([[2.0, -1.0]]), np.array([[0.0, 3.0]])
    expected = [
        jensenshannon([expit(a), expit(-a)], [expit(b), expit(-b)]) ** 2 for a, b in zip(left[0], right[0], strict=True)
    ]
    np.testing.assert_allclose(jensen_shannon(left, right, attributes=True), [np.mean(expected)])
    both = np.stack([left, left]), np.stack([right, right])
    assert centered_js(*both, attributes=True) == pytest.approx(np.mean(expected))


def test_centered_js_one_model_or_nan_is_refused():
    with pytest.raises(UsageError, match="two models"):
        centered_js(np.zeros((1, 3, 2)), np.zeros((2, 3, 2)))
    broken = np.zeros((2, 3, 2))
    broken[0, 2, 1] = np.nan
    with pytest.raises(UsageError, match="row 2 of model 0"):
        centered_js(broken, np.zeros((2, 3, 2)))
