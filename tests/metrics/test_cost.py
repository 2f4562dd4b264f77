"""Cost ratios and budget classes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from forgetbench.errors import UsageError
from forgetbench.metrics import Cost
from forgetbench.metrics.cost import amortised, budget_class, ratio


@pytest.mark.parametrize(
    ("flops", "name"),
    [
        (0.0, "1 %"),
        (0.01, "1 %"),
        (0.011, "5 %"),
        (0.05, "5 %"),
        (0.2, "20 %"),
        (0.21, "100 %"),
        (1.0, "100 %"),
        (1.2, "over 100 %"),
    ],
)
def test_budget_classes(flops, name):
    assert budget_class(flops) == name
    assert Cost(flops=flops).budget == name


def test_ratios():
    assert ratio(5.0, 20.0) == 0.25
    assert amortised([1.0, 3.0], [10.0, 10.0]) == 0.2
    assert Cost().budget is None
    with pytest.raises(UsageError):
        ratio(1.0, 0.0)
    with pytest.raises(UsageError):
        amortised([1.0], [1.0, 2.0])


def test_costs_are_finite_and_not_negative():
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Cost(flops=bad)
