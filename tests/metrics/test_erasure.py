"""H-mean, generalization and re-emergence by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forgetbench.metrics import forgetting_rate, generalization, h_mean, reemergence


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
