"""H-mean, generalization, re-emergence and relearn time by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forgetbench.errors import UsageError
from forgetbench.metrics import anamnesis_index, forgetting_rate, generalization, h_mean, reemergence, relearn_time


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


def test_relearn_time_and_index_by_hand():
    assert relearn_time([0.2, 0.6, 0.96], 1.0) == 2
    assert relearn_time([0.95], 1.0) == 0
    assert relearn_time([0.2, 0.3], 1.0) is None
    assert anamnesis_index([2], [5]) == 0.5
    assert anamnesis_index([5], [0]) == 6
    assert anamnesis_index([None], [5]) is None
    assert anamnesis_index([None], [4], limit=9) == 2


def test_relearn_time_percentages_are_refused():
    with pytest.raises(UsageError, match="accuracies: 20 in row 0 is not between 0 and 1"):
        relearn_time([20.0, 60.0], 1.0)
    with pytest.raises(UsageError, match="original: 100 is not between 0 and 1"):
        relearn_time([0.2, 0.6], 100.0)


def test_anamnesis_index_takes_arrays():
    assert anamnesis_index(np.array([2, 3]), np.array([5.0])) == 3.5 / 6
    assert anamnesis_index(np.array([2, None]), np.array([5]), limit=6) == 5 / 6
    assert anamnesis_index(np.array([2, None]), np.array([5])) is None
    with pytest.raises(UsageError, match="at least one curve on each side"):
        anamnesis_index(np.array([]), np.array([5]))


def test_anamnesis_index_impossible_steps_are_refused():
    with pytest.raises(UsageError, match="steps: -1 in row 1 is below 0"):
        anamnesis_index([2, -1], [5])
    with pytest.raises(UsageError, match="after more than the limit of 4 steps"):
        anamnesis_index([None], [5], limit=4)
    for limit in (-1, 2.5):
        with pytest.raises(UsageError, match=r"^limit: "):
            anamnesis_index([None], [5], limit=limit)
