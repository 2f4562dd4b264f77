"""Distances between the distributions of phi over models, example by example: KLOM and Wasserstein-1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, phi_of, same_shape

CLIP = 100.0
"""Phi beyond this counts as this."""
BINS = 20
EMPTY = 1e-5
"""Probability given to a bin that the second side leaves empty."""
KLOM_MODELS = 50
"""With fewer models a side the histogram is mostly noise, and Wasserstein-1 stands in."""


def klom(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """KL divergence of margins for each example (Georgiev et al. 2024): KL(unlearned || oracle), 20 bins.

    Both sides are clipped to ±100 and binned together, from the smallest to the largest value, the top edge included
    (the published code drops the largest value). Bins that the oracle leaves empty count 1e-5, and its side is
    normalized again.

    Args:
        unlearned: (M, n) phi of the unlearned models.
        oracle: (M', n) phi of the oracles.

    Returns:
        (n,) nats, from 0 to about log(1e5); not 0 for two oracle sets: 0.35 with 100 models, 1.7 with 32.
    """
    left, right = _sides(unlearned, oracle)
    low = np.minimum(left.min(axis=0), right.min(axis=0))
    high = np.maximum(left.max(axis=0), right.max(axis=0))
    p, q = (_histogram(side, low, high) for side in (left, right))
    floor = np.where(p > 0, np.maximum(q, EMPTY), q)
    floor = floor / floor.sum(axis=0)
    ratio = np.where(p > 0, p / np.where(p > 0, floor, 1.0), 1.0)
    divergence: FloatArray = (p * np.log(ratio)).sum(axis=0)
    return np.maximum(divergence, 0.0)


def wasserstein(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """Wasserstein-1 distance of phi between two equally large sets of models, example by example: (n,), in nats."""
    left, right = _sides(unlearned, oracle)
    if len(left) != len(right):
        raise UsageError(
            f"Wasserstein-1 needs as many models on both sides, not {len(left)} and {len(right)}: leave some out."
        )
    distance: FloatArray = np.abs(np.sort(left, axis=0) - np.sort(right, axis=0)).mean(axis=0)
    return distance


def margin_distance(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """95th percentile over examples of KLOM, or of Wasserstein-1 where either side has fewer than 50 models."""
    fewest = min(len(side) for side in _sides(unlearned, oracle))
    distance = klom if fewest >= KLOM_MODELS else wasserstein
    return float(np.quantile(distance(unlearned, oracle), 0.95))


def _histogram(values: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Shares (20, n) of the values (M, n) in each bin, one on an edge in the bin above, as ``numpy.histogram`` has it.

    A quotient says which bin a value is in only up to rounding: the edges themselves decide.
    """
    span = high - low
    edges = np.arange(BINS + 1)[:, None] * (span / BINS) + low
    edges[-1] = high
    place = (values - low) / np.where(span > 0, span, 1.0) * BINS
    bins = np.minimum(place.astype(np.int64), BINS - 1)
    bins -= values < np.take_along_axis(edges, bins, axis=0)
    bins += (values >= np.take_along_axis(edges, bins + 1, axis=0)) & (bins < BINS - 1)
    flat = bins * values.shape[1] + np.arange(values.shape[1])
    counts = np.bincount(flat.ravel(), minlength=BINS * values.shape[1]).reshape(BINS, values.shape[1])
    return counts / len(values)


def _sides(unlearned: ArrayLike, oracle: ArrayLike) -> tuple[FloatArray, FloatArray]:
    left, right = phi_of(unlearned, "phi of the unlearned"), phi_of(oracle, "phi of the oracles")
    same_shape(left, right, "the same examples", after=1)
    return np.clip(left, -CLIP, CLIP), np.clip(right, -CLIP, CLIP)
