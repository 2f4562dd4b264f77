"""Intervals of the statistics of the likelihood ratio attack: pseudo-values, and Clopper and Pearson's for rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgetbench.metrics import lira, phi
from forgetbench.scoring.derived import lira_statistics


def test_lira_statistics_have_pseudo_value_intervals(simulate):
    task = simulate(seeds=7)
    mine, theirs, labels = task.models(memory=1.0), task.models(), task.labels
    found = lira_statistics(mine, theirs, labels)
    sides = [phi(side[0]["forget"], labels[0]["forget"]) for side in (mine, theirs)]
    whole = lira(*sides)
    for metric, field in (("lira.forget.balanced", "balanced_accuracy"), ("lira.forget.worst-decile", "worst_decile")):
        left_out = [getattr(lira(*(np.delete(side, seed, axis=0) for side in sides)), field) for seed in range(7)]
        pseudo = getattr(whole, field) + 6 * (np.mean(left_out) - np.array(left_out))
        half = stats.t.ppf(0.975, 6) * pseudo.std(ddof=1) / np.sqrt(7)
        value = found[metric]
        assert value.value == getattr(whole, field)
        assert value.pseudo_values == pytest.approx(tuple(pseudo))
        assert (value.low, value.high) == pytest.approx((value.value - half, value.value + half))


@pytest.mark.parametrize("draws", [1, 2])
def test_lira_statistics_tpr_has_an_exact_interval(simulate, draws):
    task = simulate(seeds=6, draws=draws, rows={"forget": 200, "retain": 50, "test": 50})
    found = lira_statistics(task.models(memory=1.0), task.models(), task.labels)
    scores = draws * 6 * 200
    for metric in ("lira.forget.tpr-1", "lira.forget.tpr-0.1"):
        value = found[metric]
        exact = stats.binomtest(round(value.value * scores), scores).proportion_ci(method="exact")
        assert (value.low, value.high) == pytest.approx((exact.low, exact.high))
        assert 0 <= value.low <= value.value <= value.high <= 1


def test_lira_statistics_three_models_no_pseudo_values(simulate):
    task = simulate(seeds=3)
    found = lira_statistics(task.models(memory=1.0), task.models(), task.labels)
    assert found["lira.forget.balanced"].value is not None
    assert found["lira.forget.balanced"].low is None
    assert found["lira.forget.tpr-1"].low < found["lira.forget.tpr-1"].high
    assert found["lira.forget.worst-decile"].reason == "too few models or examples for this statistic"
