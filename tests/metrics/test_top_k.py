"""Top-k accuracy, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from forgetbench.errors import UsageError
from forgetbench.metrics import top_accuracy
from forgetbench.metrics.accuracy_gap import accuracy


def test_top_accuracy_equals_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 50, 6)), rng.integers(0, 6, 50)
    for k in (1, 2, 5):
        expected = [top_k_accuracy_score(labels, one, k=k, labels=range(6)) for one in logits]
        np.testing.assert_allclose(top_accuracy(logits, labels, k), expected)
    np.testing.assert_array_equal(top_accuracy(logits, labels, 1), accuracy(logits, labels))
    assert float(top_accuracy([[3, 2, 1]] * 3, [0, 1, 2])) == pytest.approx(2 / 3)


def test_top_accuracy_gives_ties_to_the_first_classes():
    assert top_accuracy(np.zeros((4, 4)), np.arange(4)) == 0.5


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        (np.zeros((4, 3)), np.eye(4, 3, dtype=int), 2, "not defined for attributes"),
        (np.zeros((0, 3)), np.zeros(0, dtype=int), 2, "not defined without rows"),
        (np.zeros((4, 3)), np.zeros(4, dtype=int), 4, "k must be at most 3"),
        (np.zeros((4, 3)), np.zeros(4, dtype=int), 0, "k"),
    ],
)
def test_top_accuracy_refuses_what_it_would_misread(logits, labels, k, message):
    with pytest.raises(UsageError, match=message):
        top_accuracy(logits, labels, k)
