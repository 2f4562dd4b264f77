"""RMIA between two populations: the oracles are the reference models, each fold without its own."""

from __future__ import annotations

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics.arrays import FloatArray
from forgetbench.metrics.roc import sorted_auc
from forgetbench.metrics.shadow import rmia_tie_break


def population_rmia(unlearned: tuple[FloatArray, FloatArray], oracle: tuple[FloatArray, FloatArray]) -> float:
    """AUC of RMIA's score, unlearned models against oracles, over all examples and folds.

    In fold s the oracles but s are the reference models (they never saw the examples: offline), and the unlearned model
    s and the oracle s are scored. Cheap with few models, and it has a side: above 0.5 the forget set still looks
    trained on.

    Args:
        unlearned: p_y of the S unlearned models on the forget set (S, n) and on test rows (S, m).
        oracle: The same of S oracles, S >= 2.
    """
    count = len(oracle[0])
    if count < 2 or len(unlearned[0]) != count:
        raise UsageError("RMIA needs as many unlearned models as oracles, and at least two.")
    scores: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    totals = [side.sum(axis=0) for side in oracle]
    for fold in range(count):
        means = [(total - side[fold]) / (count - 1) for total, side in zip(totals, oracle, strict=True)]
        reference = (np.maximum(means[0], 0.0), np.maximum(means[1], 0.0))
        for found, side in zip(scores, (unlearned, oracle), strict=True):
            found.append(rmia_tie_break((side[0][fold], side[1][fold]), reference))
    return sorted_auc(np.sort(np.concatenate(scores[0])), np.sort(np.concatenate(scores[1])))
