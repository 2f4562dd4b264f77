"""Distances of every model to every other, from which populations are compared."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from forgetbench.metrics.arrays import FloatArray, logits_of
from forgetbench.metrics.confidence import softmax


def distance_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Activation distance of every pair: mean over rows of the L2 distance of their outputs, (M, n, K) to (M, M).

    For attributes the outputs are the probabilities of the A attributes.
    """
    scores = logits_of(logits)
    outputs = expit(scores) if attributes else softmax(scores)
    return _matrix(outputs, lambda one, two: float(np.sqrt(((one - two) ** 2).sum(axis=-1)).mean()))


def agreement_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Completeness of every pair: share of rows with the same prediction, (M, n, K) to (M, M); 1 on the diagonal."""
    scores = logits_of(logits)
    answers = scores > 0 if attributes else scores.argmax(axis=-1)
    found = _matrix(answers, lambda one, two: float((one == two).mean()))
    np.fill_diagonal(found, 1.0)
    return found


def _matrix(models: NDArray[Any], distance: Callable[[NDArray[Any], NDArray[Any]], float]) -> FloatArray:
    found = np.zeros((len(models), len(models)))
    for first, second in combinations(range(len(models)), 2):
        found[first, second] = found[second, first] = distance(models[first], models[second])
    return found
