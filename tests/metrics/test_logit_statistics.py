"""phi, losses and entropies against values by hand, scipy, and extreme logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from forgetbench.errors import UsageError
from forgetbench.metrics import confidence, entropy, loss, modified_entropy, phi, softmax

LOGITS = hnp.arrays(np.float64, (4, 5), elements=st.floats(-30, 30))
LABELS = hnp.arrays(np.int64, 4, elements=st.integers(0, 4))


def log(probabilities):
    return np.log(np.array([probabilities]))


def test_phi_two_classes_is_the_logit_difference():
    np.testing.assert_allclose(phi(np.array([[3.0, 1.25]]), [0]), [1.75])


def test_phi_uniform_prediction_by_hand():
    np.testing.assert_allclose(phi(np.zeros((1, 10)), [3]), [-np.log(9)])


def test_modified_entropy_by_hand():
    np.testing.assert_allclose(modified_entropy(log([0.7, 0.2, 0.1]), [0]), [0.16217], atol=5e-6)
    np.testing.assert_allclose(modified_entropy(np.array([[800.0, 0.0, 0.0]]), [0]), [0.0], atol=1e-300)


@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(-7, 7)), LABELS)
def test_modified_entropy_equals_song_and_mittal(logits, labels):
    p = special.softmax(logits, axis=1)
    rows = np.arange(4)
    terms = -p * special.log1p(-p)
    terms[rows, labels] = 0
    expected = -(1 - p[rows, labels]) * np.log(p[rows, labels]) + terms.sum(axis=1)
    np.testing.assert_allclose(modified_entropy(logits, labels), expected, rtol=1e-6, atol=1e-12)


@given(st.floats(-700, 700))
def test_modified_entropy_two_classes_in_closed_form(margin):
    expected = 2 * special.expit(-margin) * np.logaddexp(0, -margin)
    np.testing.assert_allclose(modified_entropy(np.array([[margin, 0.0]]), [0]), [expected], rtol=1e-9, atol=1e-300)


@given(LOGITS, LABELS)
def test_statistics_equal_scipy(logits, labels):
    p, rows = special.softmax(logits, axis=1), np.arange(4)
    np.testing.assert_allclose(softmax(logits), p, rtol=1e-10)
    np.testing.assert_allclose(confidence(logits, labels), p[rows, labels], rtol=1e-9)
    np.testing.assert_allclose(loss(logits, labels), -special.log_softmax(logits, axis=1)[rows, labels], atol=1e-9)
    np.testing.assert_allclose(entropy(logits), special.entr(p).sum(axis=1), atol=1e-9)


@given(LOGITS, LABELS, st.floats(-100, 100))
def test_statistics_constant_added_to_a_row_no_change(logits, labels, constant):
    for function in (phi, loss, confidence, modified_entropy):
        np.testing.assert_allclose(function(logits + constant, labels), function(logits, labels), atol=1e-8)


@given(LOGITS, LABELS)
def test_loss_is_softplus_of_minus_phi(logits, labels):
    np.testing.assert_allclose(loss(logits, labels), np.logaddexp(0, -phi(logits, labels)), rtol=1e-12)


@pytest.mark.parametrize("size", [1e4, 6e4])
def test_statistics_extreme_logits_stay_finite(size):
    logits = np.array([[size, -size, 0.0], [-size, -size, -size], [0.0, -size, -size]])
    for labels in ([0, 0, 0], [1, 1, 1], [2, 2, 2]):
        for function in (phi, loss, confidence, modified_entropy):
            assert np.isfinite(function(logits, labels)).all(), function
    assert np.isfinite(entropy(logits)).all()
    np.testing.assert_allclose(phi(logits, [1, 1, 1]), [-2 * size, -np.log(2), -size - np.log1p(np.exp(-size))])


def test_statistics_tails_keep_precision():
    logits = np.array([[60.0, 0.0], [200.0, 0.0]])
    np.testing.assert_allclose(loss(logits, [0, 0]), [np.exp(-60), np.exp(-200)], rtol=1e-9)


def test_statistics_attributes_are_signed_logits():
    logits = np.array([[2.0, -1.0, 0.5]])
    labels = np.array([[1, 1, 0]])
    np.testing.assert_allclose(phi(logits, labels), [2.0 - 1.0 - 0.5])
    bce = -np.log(special.expit([2.0, -1.0, -0.5])).sum()
    np.testing.assert_allclose(loss(logits, labels), [bce])
    np.testing.assert_allclose(confidence(logits, labels), special.expit([[2.0, -1.0, -0.5]]))
    p = special.expit(logits)
    np.testing.assert_allclose(entropy(logits, attributes=True), special.entr(p) + special.entr(1 - p))
    q = special.expit(np.array([[2.0, -1.0, -0.5]]))  # of the label; the other value of a binary attribute has 1 - q
    np.testing.assert_allclose(modified_entropy(logits, labels), -(1 - q) * np.log(q) - (1 - q) * np.log(q))


def test_statistics_one_attribute_equals_two_classes():
    logits, labels = np.array([[1.5], [-0.3]]), np.array([[1], [1]])
    two = np.concatenate([np.zeros((2, 1)), logits], axis=1)
    for function in (phi, loss):
        np.testing.assert_allclose(function(logits, labels), function(two, labels[:, 0]))
    for function in (confidence, modified_entropy):
        np.testing.assert_allclose(function(logits, labels)[:, 0], function(two, labels[:, 0]))


def test_statistics_several_models_at_once():
    logits = np.random.default_rng(0).normal(size=(3, 6, 4))
    labels = np.array([0, 1, 2, 3, 0, 1])
    for function in (phi, loss, confidence, modified_entropy):
        np.testing.assert_allclose(function(logits, labels), [function(model, labels) for model in logits])


def test_statistics_nan_is_refused_with_its_row():
    logits = np.zeros((2, 5, 3))
    logits[1, 4, 2] = np.nan
    with pytest.raises(UsageError, match="row 4 of model 1"):
        phi(logits, np.zeros(5, dtype=int))
    with pytest.raises(UsageError, match="row 2"):
        entropy(np.array([[0.0, 1.0], [0.0, 1.0], [np.inf, 1.0]]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], "row 2"),
        ([0, 1], "rows"),
        ([0.0, 1.0, 2.0], "expected integers"),
        ([[0, 1, 2], [0, 1, 0], [1, 1, 1]], "0 to 1"),
    ],
)
def test_statistics_mismatched_labels_are_refused(labels, message):
    with pytest.raises(UsageError, match=message):
        phi(np.zeros((3, 3)), labels)
