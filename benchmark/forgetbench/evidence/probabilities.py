"""Recognize probabilities and hard answers that were saved in place of logits: every metric would be wrong in silence.

Log-probabilities are not refused: the log-softmax of a row differs from its logits by one constant, which no metric and
no evidence depends on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from forgetbench.evidence.arrays import Array

TOLERANCE = 5e-3
"""Largest error of a sum of probabilities, relative to the sum: float16 and bfloat16 round that much."""
PERCENT_TOLERANCE = 0.02
"""The same for per cent, which people round to whole numbers."""
_SOFTMAX = "probabilities (between 0 and 1, sum 1), not logits. Save the outputs before the softmax"
_LOG = "; if only probabilities are left, np.log(p.clip(1e-12)) gives the same scores up to rounding"
_PERCENT = (
    "probabilities in per cent, not logits. Save the outputs before the softmax; if only probabilities are left, "
    "np.log((p / 100).clip(1e-12)) gives the same scores up to rounding"
)
_HARD = "hard answers (0 or 1), not logits. Save the outputs before argmax or rounding: answers alone cannot be scored"
_SIGMOID = "probabilities of attributes (0 to 1, or per cent), not logits. Save the outputs before the sigmoid"


def describe_probabilities(rows: Array, *, attributes: bool = False) -> str:
    """Say what rows are if they are no logits.

    Args:
        rows: Outputs of one model as they were saved, (n, K).
        attributes: Whether each output is a binary attribute.

    Returns:
        What the rows are and what to save instead; "" for logits. A model that gives all classes the same probability
        is accepted: its probabilities have the same scores as its logits.
    """
    values = np.asarray(rows, np.float64)
    if values.ndim != 2 or not values.size or (values.shape[1] < 2 and not attributes):
        return ""
    if attributes:
        return _describe_attributes(values)
    for scale, tolerance, what in ((1.0, TOLERANCE, _SOFTMAX + _LOG), (100.0, PERCENT_TOLERANCE, _PERCENT)):
        shares = values / scale
        sums = np.abs(shares.sum(axis=1) - 1).max() <= tolerance
        varied = np.ptp(shares, axis=1).max() > tolerance
        if sums and varied and shares.min() >= -tolerance:
            return _HARD if np.isin(shares, (0, 1)).all() else what
    return ""


def _describe_attributes(values: Array) -> str:
    """Probabilities reach both ends of [0, 1] and no further; logits of attributes have both signs."""
    for scale in (1.0, 100.0):
        shares = values / scale
        if shares.min() >= -TOLERANCE and shares.max() <= 1 + TOLERANCE and shares.min() < 0.05 and shares.max() > 0.95:
            return _HARD if np.isin(shares, (0, 1)).all() else _SIGMOID
    return ""


def describe_evidence(subsets: Iterable[Array], *, attributes: bool) -> str:
    """Say what the evidence of one model is if it was made from probabilities.

    Evidence of classes is relative to the largest output of its row, so that the sum is lost. Shifted to a sum of 1,
    rows of probabilities are never negative, some class has very different values in different rows, and some rows are
    nearly certain. Logits of a network that is constant, or uncertain everywhere, lack one of these.

    Args:
        subsets: The logits of each subset of the model, (n, K).
        attributes: Whether each output is a binary attribute.

    Returns:
        As `describe_probabilities`.
    """
    values = np.concatenate([np.asarray(rows, np.float64) for rows in subsets])
    if attributes:
        return describe_probabilities(values, attributes=True) if values.size else ""
    if values.ndim != 2 or not values.size or values.shape[1] < 2:
        return ""
    shares = values - values.mean(axis=1, keepdims=True) + 1 / values.shape[1]
    certain = (shares.max(axis=1) > 0.95).mean() >= 0.02
    if shares.min() < -TOLERANCE or np.ptp(shares, axis=0).max() < 0.5 or not certain:
        return ""
    return _HARD if np.abs(shares - shares.round()).max() < TOLERANCE else _SOFTMAX
