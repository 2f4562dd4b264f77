"""What is refused, and whether the message says how to mend it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import (
    ROC,
    Fit,
    accuracy,
    auc,
    forgetting_rate,
    layer_distance,
    lira,
    lira_offline,
    lira_online,
    phi,
    tow_mia,
    ulira,
)
from forgetbench.metrics import published_code as legacy
from forgetbench.reporting import significance

MASKED = "Where classes are masked, put a finite number such as -1e4"
DIVERGED = "A model that answers NaN or infinity has diverged"
NONE = "That is no number, nor is None"
INFINITE = "Infinity cannot be computed with: put a finite number in its place, for a score one beyond all others"
LOGITS = np.zeros((4, 3))
LABELS = np.arange(4) % 3


def with_one(value, shape=(4, 3)):
    array = np.zeros(shape)
    array[(-1,) * len(shape)] = value
    return array


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phi(with_one(-np.inf), LABELS), f"logits: -inf in row 3. {MASKED}"),
        (lambda: accuracy(with_one(-np.inf, (2, 4, 3)), LABELS), f"logits: -inf in row 3 of model 1. {MASKED}"),
        (lambda: accuracy(with_one(np.nan), LABELS), f"logits: nan in row 3. {DIVERGED}"),
        (lambda: accuracy(with_one(np.inf), LABELS), f"logits: inf in row 3. {DIVERGED}"),
        (lambda: lira(with_one(np.nan), with_one(0.0)), f"phi of the unlearned: nan in row 2 of model 3. {DIVERGED}"),
        (lambda: lira(with_one(-np.inf), with_one(0.0)), f"phi of the unlearned: -inf in row 2 of model 3. {DIVERGED}"),
        (lambda: significance.holm([0.01, np.nan]), f"p-values: nan in row 1. {NONE}"),
        (lambda: significance.holm([0.01, None]), f"p-values: nan in row 1. {NONE}"),
        (lambda: ROC.of([0.1, np.inf], [0.0]), f"members: inf in row 1. {INFINITE}"),
        (lambda: auc([0.1], [-np.inf]), f"non-members: -inf in row 0. {INFINITE}"),
    ],
)
def test_what_is_not_finite_is_refused_in_words_that_fit_it(call, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        call()


def test_masked_classes_are_scored_once_they_are_finite():
    assert phi(with_one(-1e4), LABELS)[3] == 0.0  # one of two classes that are left


@pytest.mark.parametrize(
    "values", [[["a", "b"]], [["0.5", "1"]], [[1.0, 2.0], [1.0]], [[1j, 2.0]], [[object(), 1.0]], [[b"1", b"2"]]]
)
def test_text_and_ragged_lists_are_no_arrays_of_numbers(values):
    for call in (lambda: phi(values, [0]), lambda: auc(values, [0.5])):
        with pytest.raises(UsageError, match="one array of numbers is needed, with rows of one length and no text"):
            call()


def test_a_rate_from_float32_may_lie_a_hair_beyond_1():
    assert forgetting_rate([1 + 1e-7], [0.5], 0.1) == pytest.approx(0.5 / 0.9)
    with pytest.raises(UsageError, match="no share of 1"):
        forgetting_rate([1.001], [0.5], 0.1)


def test_nothing_is_no_logits_and_ragged_labels_are_no_labels():
    with pytest.raises(UsageError, match=r"logits are \(examples, classes\)"):
        phi(None, LABELS)
    with pytest.raises(UsageError, match="labels: one array of numbers is needed"):
        phi(LOGITS, [[0], [0, 1]])
    with pytest.raises(UsageError, match="labels: whole numbers expected"):
        phi(LOGITS, ["cat", "dog", "cat", "dog"])


def test_tow_mia_names_the_accuracies_that_it_lacks():
    whole = {"retain": [0.9], "test": [0.8]}
    for sides in (({"retain": [0.9]}, whole), (whole, {"retain": [0.9]})):
        with pytest.raises(UsageError, match="retain and test accuracies on both sides: test is missing"):
            tow_mia(*sides, ([0.5], [0.5]))


def test_a_distance_is_no_share_of_weights_that_are_all_zero():
    with pytest.raises(UsageError, match="weights are all 0"):
        layer_distance([np.zeros(3)], [np.ones(3)], relative=True)
    assert layer_distance([np.zeros(4)], [np.ones(4)]) == 2.0


def test_published_modified_entropy_wants_a_class_for_each_row():
    rows = [[0.7, 0.3], [0.4, 0.6]]
    with pytest.raises(UsageError, match="labels: 2 in row 1, where 0 to 1 is expected"):
        legacy.modified_entropy(rows, [0, 2])
    with pytest.raises(UsageError, match="the code knows no attributes"):
        legacy.modified_entropy(rows, [[0, 1], [1, 0]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sd", [0.0, -1.0])
def test_a_fit_without_a_spread_is_refused(sd):
    flat, fit = Fit(np.zeros(2), np.array([1.0, sd])), Fit(np.zeros(2), np.ones(2))
    for call in (
        lambda: lira_online([1.0, 1.0], flat, fit),
        lambda: lira_online([1.0, 1.0], fit, flat),
        lambda: lira_offline([1.0, 1.0], flat),
        lambda: ulira([1.0, 1.0], fit, flat),
    ):
        with pytest.raises(UsageError, match="spread must be above 0: 1e-06 at least, as fit_normal has it"):
            call()
