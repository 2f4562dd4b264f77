"""Cost ratios and budget classes."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pydantic import ValidationError

from forgetbench.cli import main
from forgetbench.errors import UsageError
from forgetbench.metrics import Cost, metrics
from forgetbench.metrics._docs import metrics_page
from forgetbench.metrics.cost import amortized, budget_class, cost_ratio, share_changed


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
def test_budget_class_by_hand(flops, name):
    assert budget_class(flops) == name
    assert Cost(flops=flops).budget == name


def test_cost_ratio_by_hand():
    assert cost_ratio(5.0, 20.0) == 0.25
    assert amortized([1.0, 3.0], [10.0, 10.0]) == 0.2
    assert Cost().budget is None
    with pytest.raises(UsageError):
        cost_ratio(1.0, 0.0)
    with pytest.raises(UsageError):
        amortized([1.0], [1.0, 2.0])
    with pytest.raises(UsageError, match="below 0"):
        amortized([2.0, -1.0], [1.0, 2.0])


def test_share_changed_by_hand():
    before = [[[1.0, 2.0], [3.0, 4.0]], [5.0, 6.0]]
    assert share_changed(before, [[[1.0, 2.0], [0.0, 4.0]], [5.0, 7.0]]) == pytest.approx(2 / 6)
    assert share_changed(before, before) == 0.0
    for other in (before[:1], [before[0], [5.0]], []):
        with pytest.raises(UsageError):
            share_changed(before, other)


def test_cost_specs_have_a_section_and_never_rank():
    page, answers = metrics_page(), io.StringIO()
    for name in ("flops", "wall", "memory", "changed", "amortized", "re-emergence", "accuracy.earlier"):
        spec = metrics.get(name)
        shown = name not in {"memory", "amortized"}
        assert spec.from_records is shown
        assert not spec.efficacy
        assert not spec.harm
        section = page.split(f"### `{name}`\n")[1].split("\n###")[0]
        assert ("from a run's records: shown next to the score" in section) is shown
        assert "its band flags nothing" not in section
    with contextlib.redirect_stdout(answers), pytest.raises(SystemExit, match="0"):
        main(["show", "metric", "flops", "--json"])
    assert json.loads(answers.getvalue())["function"] == "cost.cost_ratio"


def test_cost_negative_or_infinite_is_refused():
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Cost(flops=bad)


@pytest.mark.parametrize("flops", [-0.1, np.nan, None])
def test_budget_class_without_a_ratio_is_refused(flops):
    with pytest.raises(UsageError, match=r"^flops: "):
        budget_class(flops)


def test_amortized_negative_costs_are_refused():
    with pytest.raises(UsageError, match="costs: -1 in row 1 is below 0"):
        amortized([1.0, -1.0], [1.0, 1.0])
