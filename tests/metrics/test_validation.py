"""Refused arguments, and the advice in the error messages."""

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
    balanced_accuracy,
    entropy,
    fit_normal,
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

MASKED = "To mask classes, use a finite number such as -1e4 instead of minus infinity"
DIVERGED = "A model that returns NaN or infinity has diverged"
NAN = "NaN is not a number"
NONE = "It is not a number; leave it out"
INFINITE = "Infinity is not supported: use a finite number instead; for a score, one beyond all others"
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
        (lambda: significance.holm([0.01, np.nan]), f"p-values: nan in row 1. {NAN}"),
        (lambda: significance.holm([0.01, None]), f"p-values: None in row 1. {NONE}"),
        (lambda: ROC.of([0.1, np.inf], [0.0]), f"members: inf in row 1. {INFINITE}"),
        (lambda: auc([0.1], [-np.inf]), f"non-members: -inf in row 0. {INFINITE}"),
    ],
)
def test_floats_not_finite_is_refused_with_advice(call, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        call()


def test_logits_masked_by_finite_numbers_are_accepted():
    assert phi(with_one(-1e4), LABELS)[3] == 0.0  # one of the two remaining classes


@pytest.mark.parametrize(
    "values", [[["a", "b"]], [["0.5", "1"]], [[1.0, 2.0], [1.0]], [[1j, 2.0]], [[object(), 1.0]], [[b"1", b"2"]]]
)
def test_floats_text_and_ragged_lists_are_refused(values):
    for call in (lambda: phi(values, [0]), lambda: auc(values, [0.5])):
        with pytest.raises(UsageError, match="expected one array of numbers, with rows of equal length and no text"):
            call()


def test_shares_rounding_above_1_is_accepted():
    assert forgetting_rate([1 + 1e-7], [0.5], 0.1) == pytest.approx(0.5 / 0.9)
    with pytest.raises(UsageError, match="is not between 0 and 1"):
        forgetting_rate([1.001], [0.5], 0.1)


def test_labels_empty_list_has_no_type():
    assert phi(np.zeros((0, 3)), []).shape == (0,)
    with pytest.raises(UsageError, match="Accuracy is not defined without rows"):
        accuracy(np.zeros((0, 3)), [])


def test_labels_none_ragged_or_text_are_refused():
    with pytest.raises(UsageError, match="logits: None was given, but numbers are needed"):
        phi(None, LABELS)
    with pytest.raises(UsageError, match="labels: expected one array of numbers"):
        phi(LOGITS, [[0], [0, 1]])
    with pytest.raises(UsageError, match="labels: expected integers"):
        phi(LOGITS, ["cat", "dog", "cat", "dog"])


def test_tow_mia_missing_accuracy_is_named():
    whole = {"retain": [0.9], "test": [0.8]}
    for sides in (({"retain": [0.9]}, whole), (whole, {"retain": [0.9]})):
        with pytest.raises(UsageError, match="retain and test accuracies on both sides: test is missing"):
            tow_mia(*sides, ([0.5], [0.5]))


def test_layer_distance_relative_to_zero_is_refused():
    with pytest.raises(UsageError, match="weights are all 0"):
        layer_distance([np.zeros(3)], [np.ones(3)], relative=True)
    assert layer_distance([np.zeros(4)], [np.ones(4)]) == 2.0


def test_published_modified_entropy_wrong_labels_are_refused():
    rows = [[0.7, 0.3], [0.4, 0.6]]
    with pytest.raises(UsageError, match="labels: 2 in row 1; expected 0 to 1"):
        legacy.modified_entropy(rows, [0, 2])
    with pytest.raises(UsageError, match="attributes are not supported"):
        legacy.modified_entropy(rows, [[0, 1], [1, 0]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sd", [0.0, -1.0])
def test_lira_fit_without_spread_is_refused(sd):
    flat, fit = Fit(np.zeros(2), np.array([1.0, sd])), Fit(np.zeros(2), np.ones(2))
    for call in (
        lambda: lira_online([1.0, 1.0], flat, fit),
        lambda: lira_online([1.0, 1.0], fit, flat),
        lambda: lira_offline([1.0, 1.0], flat),
        lambda: ulira([1.0, 1.0], fit, flat),
    ):
        with pytest.raises(UsageError, match="spread must be above 0; fit_normal uses at least 1e-06"):
            call()


@pytest.mark.parametrize("values", [np.ma.array([1.0, 9.0], mask=[0, 1]), [np.ma.masked, 9.0]])
def test_floats_masked_values_are_refused(values):
    for call in (
        lambda: auc(values, [2.0]),
        lambda: significance.sign_flip(values),
        lambda: phi(np.zeros((2, 3)), values),
        lambda: entropy([values, [0.0, 0.0]]),
    ):
        with pytest.raises(UsageError, match=r"some values are masked. Remove the masked ones, or fill them"):
            call()
    with pytest.raises(UsageError, match="members: some values are masked"):
        fit_normal(np.zeros((2, 2)), np.ma.array([[1, 1], [1, 1]], mask=[[0, 1], [0, 0]]))


def test_floats_unmasked_masked_arrays_are_accepted():
    assert auc(np.ma.array([1.0, 9.0], mask=[0, 0]), [2.0]) == 0.5
    assert auc(np.ma.array([1.0, 9.0]), np.ma.array([2.0])) == 0.5


@pytest.mark.parametrize("members", [None, [None], [0.1, None]])
def test_floats_none_is_named(members):
    where = "None was given, but numbers are needed" if members is None else f"None in row {len(members) - 1}"
    for call in (lambda: auc(members, [0.5]), lambda: ROC.of(members, [0.5])):
        with pytest.raises(UsageError, match=f"^members: {where}"):
            call()
    with pytest.raises(UsageError, match=r"^phi of the unlearned: None in row 1 of model 2"):
        lira([[0.0, 1.0]] * 2 + [[0.0, None]], np.zeros((3, 2)))


def test_floats_numbers_as_text_or_dates_are_refused():
    for values in (np.array(["1.5", 2.0], dtype=object), np.array(["2020-01-01"], dtype="M8[D]")):
        with pytest.raises(UsageError, match="expected one array of numbers"):
            auc(values, [0.5])


@pytest.mark.parametrize("threshold", [np.nan, np.inf, None])
def test_roc_threshold_not_finite_is_refused(threshold):
    for call in (balanced_accuracy, ROC.of):
        with pytest.raises(UsageError, match=r"^threshold: "):
            call([0.9], [0.1], threshold)


def test_floats_tensors_that_numpy_cannot_read_get_advice():
    class OnDevice:
        def detach(self):
            return self

        def __array__(self, *_, **__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(UsageError, match=r"members: .*cuda:0.* For a tensor, give tensor\.detach\(\)\.cpu\(\)"):
        auc(OnDevice(), [0.5])
