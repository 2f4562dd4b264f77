"""Accuracy, its gap to the oracles, and the two summaries of gaps that papers use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats, labels_of, logits_of, shares


def correct(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """How right each answer is: 0 or 1 (..., n); for attributes the share of them that is right.

    The first of equal logits is the prediction; an attribute is present where its logit is above 0.
    """
    scores = logits_of(logits)
    truth = labels_of(labels, scores)
    if truth.ndim == 2:
        share: FloatArray = ((scores > 0) == (truth == 1)).mean(axis=-1)
        return share
    right: FloatArray = (scores.argmax(axis=-1) == truth).astype(np.float64)
    return right


def accuracy(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Accuracy in [0, 1]: of one model () or of each of several (S,); for attributes the mean over them.

    Raises:
        UsageError: There are no rows.
    """
    right = correct(logits, labels)
    if right.shape[-1] == 0:
        raise UsageError("Accuracy over no rows is not defined.")
    return np.asarray(right.mean(axis=-1))


def gap(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """Mean accuracy of the unlearned models minus that of the oracles, signed.

    Args:
        unlearned: (S,) accuracies in [0, 1], one per model.
        oracle: (S',) accuracies of the oracles.
    """
    left, right = floats(unlearned, "accuracies"), floats(oracle, "accuracies")
    if not left.size or not right.size:
        raise UsageError("A gap needs at least one model on each side.")
    return float(left.mean() - right.mean())


def tow(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> float:
    """Tug-of-war: the product over subsets of 1 - |accuracy gap|, per seed, then averaged (Zhao et al. 2024, eq. 1).

    Args:
        unlearned: Subset name (forget, retain, test) to (S,) accuracies in [0, 1].
        oracle: The same subsets of the oracles, in the same order of seeds.

    Returns:
        In [0, 1]; 1 where every accuracy is the oracle's.
    """
    return float(np.mean(tow_by_seed(unlearned, oracle)))


def tow_by_seed(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> FloatArray:
    """The tug-of-war of each seed, (S,)."""
    product: FloatArray = np.ones(1)
    for delta in _paired_gaps(unlearned, oracle, shares):
        product = product * (1.0 - np.abs(delta))
    return product


def average_gap(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> float:
    """Average gap: mean |difference| over the quantities, per seed, then averaged (Fan et al. 2024, table 1).

    Args:
        unlearned: Quantity (UA or forget accuracy, RA, TA, MIA) to (S,) values, all as shares or all in per cent.
        oracle: The same quantities of the oracles, in the same order of seeds.
    """
    return float(average_gap_by_seed(unlearned, oracle).mean())


def average_gap_by_seed(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> FloatArray:
    """The average gap of each seed, (S,)."""
    mean: FloatArray = np.mean([np.abs(delta) for delta in _paired_gaps(unlearned, oracle)], axis=0)
    return mean


def _paired_gaps(
    unlearned: Mapping[str, ArrayLike],
    oracle: Mapping[str, ArrayLike],
    read: Callable[[ArrayLike, str], FloatArray] = floats,
) -> Sequence[FloatArray]:
    if set(unlearned) != set(oracle) or not unlearned:
        raise UsageError(f"The same quantities on both sides, please: {sorted(unlearned)} against {sorted(oracle)}.")
    pairs = [(read(unlearned[name], name), read(oracle[name], f"{name} of the oracles")) for name in sorted(unlearned)]
    if len({array.shape for pair in pairs for array in pair}) != 1 or not pairs[0][0].size:
        raise UsageError("Seeds are paired: every quantity needs one value per seed on both sides.")
    return [left - right for left, right in pairs]
