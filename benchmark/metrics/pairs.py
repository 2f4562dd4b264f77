"""Distances of every model to every other, from which populations are compared."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from forgetbench.errors import UsageError
from forgetbench.metrics.arrays import FloatArray, logits_of
from forgetbench.metrics.confidence import softmax


def distance_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Activation distance of every pair: mean over rows of the L2 distance of their outputs, (M, n, K) to (M, M).

    For attributes the outputs are the probabilities of the A attributes.
    """
    return _matrix(outputs(_models(logits), attributes=attributes), distance)


def agreement_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Completeness of every pair: share of rows with the same prediction, (M, n, K) to (M, M); 1 on the diagonal."""
    found = _matrix(answers(_models(logits), attributes=attributes), agreement)
    np.fill_diagonal(found, 1.0)
    return found


def outputs(logits: FloatArray, *, attributes: bool = False) -> FloatArray:
    """Probabilities (..., n, K) of the classes, or (..., n, A) of the attributes."""
    present: FloatArray = expit(logits) if attributes else softmax(logits)
    return present


def answers(logits: FloatArray, *, attributes: bool = False) -> NDArray[Any]:
    """Predicted classes (..., n), or which of the attributes are present (..., n, A)."""
    predicted: NDArray[Any] = logits > 0 if attributes else logits.argmax(axis=-1)
    return predicted


def distance(one: FloatArray, two: FloatArray) -> float:
    """Mean over rows of the L2 distance of two models' outputs (n, K)."""
    return float(np.sqrt(((one - two) ** 2).sum(axis=-1)).mean())


def agreement(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Share of equal answers."""
    return float((one == two).mean())


def _models(logits: ArrayLike) -> FloatArray:
    scores = logits_of(logits)
    if scores.ndim != 3 or not scores.size:
        raise UsageError(f"Logits of several models on at least one row are needed, not {scores.shape}.")
    return scores


def _matrix(models: NDArray[Any], distance: Callable[[NDArray[Any], NDArray[Any]], float]) -> FloatArray:
    found = np.zeros((len(models), len(models)))
    for first, second in combinations(range(len(models)), 2):
        found[first, second] = found[second, first] = distance(models[first], models[second])
    return found
