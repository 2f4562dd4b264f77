"""Variance of a row, split into that of training and that of unlearning, by several runs of a method per original.

    v[s, r] = m + t[s] + u[s, r],   s the original's seed, r the method's seed

The analysis of variance of a balanced one-way layout (Searle, Casella and McCulloch 1992, chapter 3): the variance of
unlearning is the mean over s of the variance over r; that of training is the variance over s of the means over r, minus
a share 1/R of the former, and at least 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray
from forgetbench.scoring.scorecards import Scorecard, VarianceSplit

DISTANCE = "distance"
"""Name of the distance among the metrics of a split; it is split by its pseudo-values."""


def split_variance(values: FloatArray) -> VarianceSplit:
    """Split the variance of values of several runs per original.

    Args:
        values: (R, S), R runs with other method seeds on each of S originals.

    Raises:
        UsageError: There are fewer than two runs or originals.
    """
    repeats, seeds = values.shape
    if repeats < 2 or seeds < 2:
        raise UsageError(f"A split of variance needs 2 runs on each of 2 originals, not {repeats} on {seeds}.")
    unlearning = float(values.var(axis=0, ddof=1).mean())
    training = max(0.0, float(values.mean(axis=0).var(ddof=1)) - unlearning / repeats)
    return VarianceSplit(training=float(np.sqrt(training)), unlearning=float(np.sqrt(unlearning)), repeats=repeats)


def with_variance(card: Scorecard, others: Sequence[Scorecard]) -> Scorecard:
    """A scorecard with the split variances of its distance and of its metrics that have a value per seed.

    Args:
        card: The scorecard of a row.
        others: Those of the same method with other seeds, on the same originals.
    """
    cards = [card, *others]
    if len(cards) < 2 or any(each.status != "ok" for each in cards):
        return card
    columns: dict[str, list[tuple[float, ...]]] = {
        name: [each.metrics[name].seeds for each in cards if name in each.metrics] for name in card.metrics
    }
    columns[DISTANCE] = [each.distance.pseudo_values if each.distance else () for each in cards]
    found = {}
    for name, rows in columns.items():
        if len(rows) == len(cards) and len(rows[0]) >= 2 and len({len(row) for row in rows}) == 1:
            values = np.array(rows, dtype=np.float64)
            if np.isfinite(values).all():
                found[name] = split_variance(values)
    return card.model_copy(update={"variance": found})
