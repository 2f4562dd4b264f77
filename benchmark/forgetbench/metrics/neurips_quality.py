"""Forgetting quality of the NeurIPS 2023 unlearning challenge (Triantafillou et al. 2024), by counting.

The released code builds a grid of thresholds times models for each example, and does not run without changes. Its
decision rules depend on a threshold only through the number of values below it, so here every rule is a pair of
positions in the sorted values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import (
    BoolArray,
    FloatArray,
    IntArray,
    at_least,
    number,
    phi_of,
    same_shape,
    whole,
)
from forgetbench.metrics.board_rules import Comparison, Draw, PairwiseRule
from forgetbench.metrics.registry import MetricSpec, metric

DELTA = 1e-5
CAP = 50.0
"""Epsilon of two sides that one rule separates without an error."""
PER_UNIT = 100
"""Thresholds per unit of phi."""
BUFFER = 2.0
"""How far the double threshold extends beyond the values."""
LEFT_ENDS = 400
"""Left ends tried for each right end."""
FEW_POSITIONS = 130
"""Up to this many positions in the sorted values, each gap is tested for a left end, which is faster."""
POINT_MASS = 0.01
"""Ratio of ranges below which one side counts as a point mass."""
CONTROL_SPLITS = 4
"""Splits of the oracles behind the control of forgetting quality, which is slow."""


def epsilons(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """Epsilon of each example: how well the best decision rule separates the two sides.

    Args:
        unlearned: (M, n) phi of the unlearned models.
        oracle: (M, n) phi of the oracles.

    Returns:
        (n,) in [0, 50]; at most log(M - 1) unless a rule makes no error; 0 if all models on both sides agree. Not 0
        for two oracle sets: 1.5 on average.
    """
    left, right = phi_of(unlearned, "phi of the unlearned"), phi_of(oracle, "phi of the oracles")
    same_shape(left, right, "the same models and examples")
    if len(left) < 2:
        raise UsageError("Epsilon needs at least two models on each side.")
    return np.array([_epsilon(left[:, i], right[:, i]) for i in range(left.shape[1])])


def _compare_quality(draw: Draw, subset: str) -> Comparison:
    phi = draw.phi(subset)

    def value(left: IntArray, right: IntArray) -> float:
        if len(left) < 3:
            raise UsageError(f"Forgetting quality needs at least three models a side; there are {len(left)}.")
        return forgetting_quality(epsilons(phi[left], phi[right]), len(left))

    return Comparison(value, "even", max_splits=CONTROL_SPLITS, leave_out=False)


@metric(
    MetricSpec(
        name="forgetting-quality",
        title="forgetting quality",
        symbol="F/F_c",
        group="privacy",
        unit="ratio",
        direction="up",
        range=(0.0, None),
        requires=("forget",),
        meaning="The NeurIPS 2023 challenge's F over that of oracles against oracles: about 1 for an oracle.",
        misses="Anything beyond log(models - 1); its band.",
        misuse="Reading F itself: an oracle reaches about 0.19 and not 1.",
        formula=(
            "F = mean_i 2 / 2^n(i), n the bin of width 0.5 of epsilon_i = max over decision rules of "
            "log((1 - d - FPR) / FNR), log((1 - d - FNR) / FPR), d = 1e-5; over the mean F of 4 splits of the oracles"
        ),
        example="Epsilons 0.2, 0.7 and 5 with 64 models: F = (1 + 0.5 + 0) / 3 = 0.5.",
        source="Triantafillou et al. 2024; the released metric.py does not run without changes.",
        calibrated=False,
        relative_to_band="ratio",
    ),
    board=PairwiseRule(_compare_quality),
)
def forgetting_quality(epsilon: ArrayLike, models: int) -> float:
    """F = mean over examples of 2 / 2^n, n the half-open bin of width 0.5 that contains epsilon, counted from 1.

    Args:
        epsilon: (n,) epsilons, at least 0.
        models: M, at least 3; an example with epsilon >= ceil(log(M - 1)) counts 0.

    Returns:
        In [0, 1]. Two oracle sets reach about 0.19 and not 1, so divide it by the control's value.
    """
    values, models = at_least(epsilon, "epsilon", ndim=1), whole(models, "models", 3)
    if not len(values):
        raise UsageError("Forgetting quality needs at least one example.")
    limit = float(np.ceil(np.log(models - 1)))
    return float(np.where(values < limit, 2.0 ** -np.floor(values / 0.5), 0.0).mean())


@metric(
    MetricSpec(
        name="neurips-score",
        title="NeurIPS score",
        symbol="F·RA·TA",
        group="literature",
        unit="ratio",
        direction="up",
        range=(0.0, None),
        requires=("forget", "retain", "test"),
        meaning="The challenge's final score over the control: forgetting quality times the two accuracy ratios.",
        misses="As forgetting-quality; an accuracy above the oracle's makes up for memory.",
        misuse="Comparing with the challenge's board, which does not divide by the control.",
        formula="F / F(control) * (RA_u / RA_r) * (TA_u / TA_r)",
        example="F ratio 0.5, accuracies equal: 0.5.",
        source="Triantafillou et al. 2024.",
    )
)
def neurips_score(
    quality: float, retain: tuple[float, float], test: tuple[float, float], control: float = 1.0
) -> float:
    """F / F(control) * (RA_u / RA_r) * (TA_u / TA_r).

    Args:
        quality: F of the contestant.
        retain: Mean retain accuracy of the unlearned models and of the oracles.
        test: The same on test.
        control: F of one oracle set against another; 1 gives the challenge's own score.
    """
    retain_pair = [number(value, "retain accuracy") for value in retain]
    test_pair = [number(value, "test accuracy") for value in test]
    numerator, denominator = number(quality, "forgetting quality"), number(control, "control")
    if min(retain_pair[1], test_pair[1], denominator) <= 0:
        raise UsageError("The oracles' accuracies and the control must be above 0.")
    if min(retain_pair[0], test_pair[0], numerator) < 0:
        raise UsageError("Accuracies and forgetting quality must not be negative.")
    return numerator / denominator * (retain_pair[0] / retain_pair[1]) * (test_pair[0] / test_pair[1])


def _epsilon(left: FloatArray, right: FloatArray) -> float:
    ranges = np.ptp(left), np.ptp(right)
    if max(ranges) == 0:
        return 0.0 if left[0] == right[0] else CAP
    if min(ranges) / max(ranges) < POINT_MASS:
        return CAP
    positive, negative = (right, left) if np.median(right) > np.median(left) else (left, right)
    return float(min(CAP, max(_single(positive, negative), _double(left, right))))


def _single(positive: FloatArray, negative: FloatArray) -> float:
    """Positive where phi is at least a threshold, on an even grid over the pooled range.

    Only which values a threshold separates matters: a cut just below a value counts if the grid has a threshold between
    it and the previous value. So the work grows with the models and not with the range of phi.
    """
    merged = np.unique(np.concatenate([positive, negative]))
    reached = _thresholds_upto(merged, int(np.ceil(PER_UNIT * (merged[-1] - merged[0]))))
    cuts = merged[np.diff(reached, prepend=0) > 0]
    missed = np.searchsorted(np.sort(positive), cuts, side="left")
    false = len(negative) - np.searchsorted(np.sort(negative), cuts, side="left")
    return _best(false, missed, len(positive))


def _thresholds_upto(values: FloatArray, count: int) -> IntArray:
    """Number of thresholds of ``linspace(values[0], values[-1], count)`` at or below each of the sorted values."""
    low, high = values[0], values[-1]
    step = (high - low) / max(count - 1, 1)

    def threshold(number: IntArray) -> FloatArray:
        on_grid: FloatArray = (
            np.where(number == count - 1, high, number * step + low) if count > 1 else number * 0 + low
        )
        return np.where(number < count, on_grid, np.inf)

    last = np.clip(np.floor((values - low) / step).astype(np.int64), 0, count - 1)
    last -= threshold(last) > values  # rounding may make the quotient wrong by one: compare with the grid itself
    last += threshold(last + 1) <= values
    count_upto: IntArray = last + 1
    return count_upto


def _double(left: FloatArray, right: FloatArray) -> float:
    """Positive, and on the side with the smaller range, where phi is between two thresholds, both ends included."""
    inner, outer = (left, right) if np.ptp(left) < np.ptp(right) else (right, left)
    width = float(np.ptp(inner))
    low, high = float(inner.min()) + width - BUFFER, float(inner.max()) + BUFFER
    right_ends = np.linspace(low, high, int(np.ceil(PER_UNIT * (high - low))))
    cuts = _reached(np.sort(np.concatenate([inner, outer])), right_ends, width)
    merged_inner = _below(np.sort(inner), np.sort(np.concatenate([inner, outer])))
    positions = np.arange(len(merged_inner))
    first, last = cuts
    nonempty = last > first
    first, last = first[nonempty], last[nonempty]
    hits = merged_inner[last] - merged_inner[first]
    false = (positions[last] - positions[first]) - hits
    if not len(first):
        return 0.0
    return _best(false, len(inner) - hits, len(inner))


def _below(values: FloatArray, merged: FloatArray) -> IntArray:
    """For each position 0..2M in the merged order, the number of ``values`` before it."""
    edges = np.concatenate([merged, [np.inf]])
    return np.searchsorted(values, edges, side="left")


def _reached(merged: FloatArray, right_ends: FloatArray, width: float) -> tuple[IntArray, IntArray]:
    """The distinct pairs (first position inside, first position beyond) of all intervals of the grid."""
    size = len(merged) + 1
    last = np.searchsorted(merged, right_ends, side="right")
    reached = np.zeros((size, size), dtype=np.bool_)
    if size <= FEW_POSITIONS:
        which, gaps = np.nonzero(_gaps_reached(merged, right_ends - width - BUFFER))
        reached[gaps, last[which]] = True
        pairs = np.nonzero(reached)
        return pairs[0], pairs[1]
    for chunk in range(0, len(right_ends), 512):
        ends = right_ends[chunk : chunk + 512]
        left_ends = np.linspace(ends - width - BUFFER, ends - width + BUFFER, LEFT_ENDS, axis=1)
        first = np.searchsorted(merged, left_ends, side="left")
        reached[first, last[chunk : chunk + 512, None]] = True
    pairs = np.nonzero(reached)
    return pairs[0], pairs[1]


def _gaps_reached(merged: FloatArray, starts: FloatArray) -> BoolArray:
    """(R, 2M + 1): whether any of the 400 left ends from each start falls between one value and the next.

    Left end k is at start + k * step, so a gap is reached if an integer is between its ends. With few values this is
    far less work than placing every left end.
    """
    steps = np.floor((merged[None, :] - starts[:, None]) * ((LEFT_ENDS - 1) / (2 * BUFFER)))
    lowest = np.concatenate([np.full((len(starts), 1), -1.0), steps], axis=1) + 1
    highest = np.concatenate([steps, np.full((len(starts), 1), np.inf)], axis=1)
    reached: BoolArray = np.maximum(lowest, 0) <= np.minimum(highest, LEFT_ENDS - 1)
    return reached


def _best(false: IntArray, missed: IntArray, models: int) -> float:
    """Largest epsilon over rules, from false positives and false negatives among ``models`` a side.

    A rule without any error gives the cap; one with a single kind of error is discarded.
    """
    if ((false == 0) & (missed == 0)).any():
        return CAP
    both = (false > 0) & (missed > 0)
    if not both.any():
        return 0.0
    fpr, fnr = false[both] / models, missed[both] / models
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.log(1 - DELTA - fpr) - np.log(fnr)
        two = np.log(1 - DELTA - fnr) - np.log(fpr)
    return float(max(0.0, np.nanmax(np.concatenate([one, two, [0.0]]))))
