"""RMIA between two populations: the oracles are the reference models, each fold without its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, phi_of, same_shape, spaced
from forgetbench.metrics.roc import sorted_auc
from forgetbench.metrics.shadow_models import rmia_tie_break


def population_rmia(
    unlearned: tuple[ArrayLike, ArrayLike], oracle: tuple[ArrayLike, ArrayLike], *, most: int | None = None
) -> float:
    """AUC of RMIA's score, unlearned models against oracles, over all examples and folds.

    In fold s the oracles but s are the reference models (they never saw the examples: offline), and the unlearned model
    s and the oracle s are scored. Cheap with few models, and it has a side: above 0.5 the forget set still looks
    trained on.

    Args:
        unlearned: p_y of the S unlearned models on the forget set (S, n) and on test rows (S, m).
        oracle: The same of S oracles, S >= 2.
        most: Test rows that an example is compared with, evenly spaced; None takes all. Boards take 2,500.
    """
    mine = [phi_of(side, "p of the unlearned") for side in unlearned]
    theirs = [phi_of(side, "p of the oracles") for side in oracle]
    for one, two in zip(mine, theirs, strict=True):
        same_shape(one, two, "as many models, and the same rows")
    rows = spaced(mine[1].shape[1], most)
    mine[1], theirs[1] = mine[1][:, rows], theirs[1][:, rows]
    count = len(theirs[0])
    if count < 2 or len(theirs[1]) != count:
        raise UsageError("RMIA needs as many unlearned models as oracles, and at least two.")
    scores: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    totals = [side.sum(axis=0) for side in theirs]
    for fold in range(count):
        means = [(total - side[fold]) / (count - 1) for total, side in zip(totals, theirs, strict=True)]
        reference = (np.maximum(means[0], 0.0), np.maximum(means[1], 0.0))
        for found, side in zip(scores, (mine, theirs), strict=True):
            found.append(rmia_tie_break((side[0][fold], side[1][fold]), reference))
    return sorted_auc(np.sort(np.concatenate(scores[0])), np.sort(np.concatenate(scores[1])))
