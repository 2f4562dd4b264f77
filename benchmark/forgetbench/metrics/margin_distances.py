"""Distances between the distributions of phi over models, example by example: KLOM and Wasserstein-1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, phi_of, same_shape
from forgetbench.metrics.board_rules import MAX_SPLITS_SLOW, Comparison, Draw, PairwiseRule
from forgetbench.metrics.registry import MetricSpec, metric

CLIP = 100.0
"""Phi is clipped to plus or minus this."""
BINS = 20
EMPTY = 1e-5
"""Probability of a bin that the oracles leave empty."""
KLOM_MODELS = 50
"""With fewer models a side the histogram is mostly noise, and Wasserstein-1 is the better choice."""

_MARGIN_SUBSETS = ("forget", "retain", "test")


def _margin_spec(kind: Literal["w1", "klom"], subset: str) -> MetricSpec:
    klom_ = kind == "klom"
    definition = (
        "KL(u || r) of 20-bin histograms of phi clipped to [-100, 100], empty bins of r at 1e-5; 50 models a side"
        if klom_
        else "mean over ranks of |sorted phi_u - sorted phi_r|, phi clipped to [-100, 100]"
    )
    return MetricSpec(
        name=f"{kind}.{subset}",
        title=f"{'KLOM' if klom_ else 'W1'}, {subset}",
        symbol=f"{'KLOM' if klom_ else 'W1'}_{subset}",
        group="privacy",
        unit="nats",
        range=(None, 11.6 if klom_ else None),
        requires=(subset,),
        meaning="Distance of phi's distributions over models, 95th percentile over examples, minus the oracles' own.",
        misses="Calibration: fresh oracles fall outside its band far too often, so it flags and ranks nothing.",
        misuse=(
            "Few models: 0.35 between two oracle sets of 100, 1.7 of 32. The published code drops the largest value."
            if klom_
            else "Comparing values between tasks: it has the scale of phi."
        ),
        formula=f"{definition}; 95th percentile over examples, minus the band's mean.",
        example=(
            "u = 0.5..9.5 and r = 0..9 in steps of 1: log(0.1 * 1.0001 / 1e-5) = 9.2104."
            if klom_
            else "u = (1, 3), r = (0, 5): (|1 - 0| + |3 - 5|) / 2 = 1.5."
        ),
        source="Georgiev et al. 2024, section 3; protocol, section 3.",
        calibrated=False,
        relative_to_band="difference",
    )


def _percentile_95(
    distance: Callable[[FloatArray, FloatArray], FloatArray], phi: FloatArray
) -> Callable[[IntArray, IntArray], float]:
    return lambda left, right: float(np.quantile(distance(phi[left], phi[right]), 0.95))


def _compare_klom(draw: Draw, subset: str) -> Comparison:
    percentile = _percentile_95(klom, draw.phi(subset))

    def value(left: IntArray, right: IntArray) -> float:
        if len(left) < KLOM_MODELS - 1:  # one may be left out
            raise UsageError(f"KLOM needs {KLOM_MODELS} models a side, there are {len(left)}: see w1.")
        return percentile(left, right)

    return Comparison(value, max_splits=MAX_SPLITS_SLOW)


@metric(*(_margin_spec("klom", subset) for subset in _MARGIN_SUBSETS), board=PairwiseRule(_compare_klom))
def klom(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """KL divergence of margins for each example (Georgiev et al. 2024): KL(unlearned || oracle), 20 bins.

    Both sides are clipped to ±100 and binned together, from the smallest to the largest value, the top edge included
    (the published code drops the largest value). Bins that the oracles leave empty get the probability 1e-5, and the
    oracles' side is normalized again.

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


def _compare_wasserstein(draw: Draw, subset: str) -> Comparison:
    return Comparison(_percentile_95(wasserstein, draw.phi(subset)), "even", max_splits=MAX_SPLITS_SLOW)


@metric(*(_margin_spec("w1", subset) for subset in _MARGIN_SUBSETS), board=PairwiseRule(_compare_wasserstein))
def wasserstein(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """Wasserstein-1 distance of phi between two equally large sets of models, example by example: (n,), in nats."""
    left, right = _sides(unlearned, oracle)
    if len(left) != len(right):
        raise UsageError(
            f"Wasserstein-1 needs the same number of models on both sides, not {len(left)} and {len(right)}: leave "
            "some out."
        )
    distance: FloatArray = np.abs(np.sort(left, axis=0) - np.sort(right, axis=0)).mean(axis=0)
    return distance


def margin_distance(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """95th percentile over examples of KLOM, or of Wasserstein-1 if either side has fewer than 50 models."""
    fewest = min(len(side) for side in _sides(unlearned, oracle))
    distance = klom if fewest >= KLOM_MODELS else wasserstein
    return float(np.quantile(distance(unlearned, oracle), 0.95))


def _histogram(values: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Shares (20, n) of the values (M, n) in each bin; a value on an edge is in the upper bin, as in numpy.

    The quotient finds the bin only up to rounding, so it is corrected by comparison with the edges.
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
