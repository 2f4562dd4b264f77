"""RMIA between two populations; the reference models are the other oracles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import IntArray, same_shape, shares, spaced
from forgetbench.metrics.board_rules import MAX_SPLITS_SLOW, Comparison, Draw, PairwiseRule
from forgetbench.metrics.registry import MetricSpec, metric
from forgetbench.metrics.roc import sorted_auc
from forgetbench.metrics.shadow_models import broken_ties, dominance, relative

POPULATION_ROWS = 2500
"""Test rows that a board compares an example with; more are thinned out evenly."""


def _compare_rmia(draw: Draw, forget: str, test: str) -> Comparison:
    if draw.has_attributes(forget):
        raise UsageError("not computable: it is defined for classes, not for attributes")
    examples, rows = (draw.column("confidence", subset) for subset in (forget, test))

    def value(left: IntArray, right: IntArray) -> float:
        sides = [(examples[side], rows[side]) for side in (left, right)]
        return population_rmia(sides[0], sides[1], max_rows=draw.at_most(POPULATION_ROWS))

    return Comparison(value, max_splits=MAX_SPLITS_SLOW)


@metric(
    MetricSpec(
        name="rmia",
        title="RMIA",
        group="privacy",
        unit="AUC",
        requires=("forget", "test"),
        meaning="Per-example attack for few models: above 0.5 still looks trained on, below 0.5 is over-forgotten.",
        misses="Attributes (defined for classes only); differences that are the same for all rows.",
        misuse="Few population rows: strong members tie at 1 (here ties are broken by the example's own ratio).",
        formula=(
            "LR(x, z) = [p(x|m) / p(x)] / [p(z|m) / p(z)], p(x) = ((1 + a) p_OUT(x) + 1 - a) / 2 with a = 0.3 and "
            "p_OUT the mean over the other oracles; score Pr_z(LR >= 2) over test rows z, on boards at most 2,500, "
            "evenly spaced; AUC of u against r, all folds"
        ),
        example="p(x|m) = 0.8, p_OUT = 0.4, a = 0.3: p(x) = 0.61 and the ratio 1.3115.",
        source="Zarifzadeh et al. 2024, section 3.",
    ),
    board=PairwiseRule(_compare_rmia),
)
def population_rmia(
    unlearned: tuple[ArrayLike, ArrayLike], oracle: tuple[ArrayLike, ArrayLike], *, max_rows: int | None = None
) -> float:
    """AUC of RMIA's score, unlearned models against oracles, over all examples and folds.

    In fold s, all oracles except s are the reference models (they never saw the examples: offline), and unlearned model
    s and oracle s are scored. It works with few models, and it has a side: above 0.5 the forget set still looks trained
    on.

    Args:
        unlearned: p_y of the S unlearned models on the forget set (S, n) and on test rows (S, m).
        oracle: The same of S oracles, S >= 2.
        max_rows: Test rows that an example is compared with, evenly spaced; None takes all. Boards take 2,500.
    """
    unlearned_p = [shares(side, "p of the unlearned", ndim=2, first="model") for side in unlearned]
    oracle_p = [shares(side, "p of the oracles", ndim=2, first="model") for side in oracle]
    for one, two in zip(unlearned_p, oracle_p, strict=True):
        same_shape(one, two, "the same number of models, and the same rows")
    rows = spaced(unlearned_p[1].shape[1], max_rows)
    unlearned_p[1], oracle_p[1] = unlearned_p[1][:, rows], oracle_p[1][:, rows]
    count = len(oracle_p[0])
    if count < 2 or len(oracle_p[1]) != count:
        raise UsageError("RMIA needs the same number of unlearned models and oracles, and at least two.")
    means = [np.maximum((side.sum(axis=0) - side) / (count - 1), 0.0) for side in oracle_p]
    scores = []
    for side in (unlearned_p, oracle_p):
        examples, population = (relative(p, mean) for p, mean in zip(side, means, strict=True))
        shares_below = np.stack([dominance(*fold) for fold in zip(examples, population, strict=True)])
        scores.append(broken_ties(shares_below, examples, len(rows)))
    return sorted_auc(np.sort(scores[0], axis=None), np.sort(scores[1], axis=None))
