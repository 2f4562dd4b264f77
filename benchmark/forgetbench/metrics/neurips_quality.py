"""Forgetting quality of the NeurIPS 2023 unlearning challenge (Triantafillou et al. 2024), by counting.

The released code builds a grid of thresholds times models for each example, and does not run without changes. Its
decision rules depend on a threshold only through the number of values below it, so here every rule is a pair of
positions in the sorted values, for many examples at once.
"""

from __future__ import annotations

from functools import lru_cache

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
    spaced,
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
RIGHT_ENDS = round(2 * BUFFER * PER_UNIT)
"""Right ends of the double threshold; rounding may add one."""
LEFT_ENDS = 400
"""Left ends tried for each right end."""
GRID_SIZE = 2**19
"""Right ends times gaps between values that are tested at once, so that they stay in the processor's cache."""
BOARD_EXAMPLES = 1000
"""Examples of a board whose epsilon is computed; more are thinned out evenly."""
POINT_MASS = 0.01
"""Ratio of ranges below which one side counts as a point mass."""
CONTROL_SPLITS = 4
"""Splits of the oracles behind the control of forgetting quality, which is slow."""


def epsilons(unlearned: ArrayLike, oracle: ArrayLike, *, max_rows: int | None = None) -> FloatArray:
    """Epsilon of each example: how well the best decision rule separates the two sides.

    Args:
        unlearned: (M, n) phi of the unlearned models.
        oracle: (M, n) phi of the oracles.
        max_rows: Examples that are used, evenly spaced; None uses all, as published. Boards use 1,000.

    Returns:
        (n,) in [0, 50]; at most log(M - 1) unless a rule makes no error; 0 if all models on both sides agree. Not 0
        for two oracle sets: 1.5 on average.
    """
    left, right = phi_of(unlearned, "phi of the unlearned"), phi_of(oracle, "phi of the oracles")
    same_shape(left, right, "the same models and examples")
    if len(left) < 2:
        raise UsageError("Epsilon needs at least two models on each side.")
    rows = spaced(left.shape[1], max_rows)
    blocks = np.array_split(rows, -(-len(rows) * len(left) * 2 * RIGHT_ENDS // GRID_SIZE))
    return np.concatenate([_epsilons(left[:, block], right[:, block]) for block in blocks])


def _compare_quality(draw: Draw, subset: str) -> Comparison:
    phi = draw.phi(subset)

    def value(left: IntArray, right: IntArray) -> float:
        if len(left) < 3:
            raise UsageError(f"Forgetting quality needs at least three models a side; there are {len(left)}.")
        found = epsilons(phi[left], phi[right], max_rows=draw.at_most(BOARD_EXAMPLES))
        return forgetting_quality(found, len(left))

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
            "log((1 - d - FPR) / FNR), log((1 - d - FNR) / FPR), d = 1e-5; over the mean F of 4 splits of the oracles; "
            "on boards over at most 1,000 examples, evenly spaced"
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


def _epsilons(left: FloatArray, right: FloatArray) -> FloatArray:
    """Epsilon of each example, (n,), from phi (M, n) of both sides."""
    ranges = np.stack([np.ptp(left, axis=0), np.ptp(right, axis=0)])
    widest, narrowest = ranges.max(axis=0), ranges.min(axis=0)
    constant = widest == 0
    found = np.where(constant & (left[0] == right[0]), 0.0, CAP)
    rows = np.flatnonzero(narrowest / np.where(constant, 1.0, widest) >= POINT_MASS)
    if len(rows):
        left, right = left[:, rows], right[:, rows]
        found[rows] = np.minimum(CAP, np.maximum(_single(left, right), _double(left, right)))
    return found


class _Merged:
    """The values of both sides of each example in one order.

    Args:
        chosen: (M, n) values of the side that is counted.
        others: (M, n) values of the other side.
    """

    def __init__(self, chosen: FloatArray, others: FloatArray) -> None:
        models = len(chosen)
        pooled = np.concatenate([chosen, others])
        order = np.argsort(pooled, axis=0, kind="stable")
        self.values: FloatArray = np.take_along_axis(pooled, order, axis=0)
        """(2M, n) sorted."""
        is_first = np.ones(order.shape, dtype=np.bool_)
        is_first[1:] = self.values[1:] > self.values[:-1]
        start = np.maximum.accumulate(np.where(is_first, np.arange(2 * models)[:, None], 0), axis=0)
        before = np.zeros((2 * models + 1, order.shape[1]), dtype=np.int64)
        np.cumsum(order < models, axis=0, out=before[1:])
        below = np.take_along_axis(before, start, axis=0)
        self.below: IntArray = np.concatenate([below, np.full((1, order.shape[1]), models)])
        """(2M + 1, n) number of chosen values below each sorted value; then of all of them."""
        self.is_first: BoolArray = is_first
        """(2M, n) whether a value is larger than the one before it."""


def _single(left: FloatArray, right: FloatArray) -> FloatArray:
    """Positive, and on the side with the larger median, where phi is at least a threshold, on an even grid.

    The grid is that of the pooled range. Only which values a threshold separates matters: a cut just below a value
    counts if the grid has a threshold between it and the previous value. So the work grows with the models and not with
    the range of phi.
    """
    models = len(left)
    swapped = np.median(right, axis=0) > np.median(left, axis=0)
    merged = _Merged(np.where(swapped, right, left), np.where(swapped, left, right))
    reached = _thresholds_upto(merged.values)
    cut = np.diff(reached, axis=0, prepend=0) > 0
    missed = merged.below[:-1]
    false = models - (np.arange(2 * models)[:, None] - missed)
    best: FloatArray = np.where(cut & merged.is_first, _epsilon_of_errors(models)[false, missed], 0.0).max(axis=0)
    return best


def _thresholds_upto(values: FloatArray) -> FloatArray:
    """Number of thresholds at or below each of the sorted values (2M, n).

    The thresholds of an example are ``linspace(values[0], values[-1], count)``, with `PER_UNIT` to a unit of phi.
    """
    low, high = values[0], values[-1]
    count = np.ceil(PER_UNIT * (high - low))
    step = (high - low) / np.maximum(count - 1, 1)

    def threshold(number: FloatArray) -> FloatArray:
        on_grid = np.where((number == count - 1) & (count > 1), high, number * step + low)
        return np.where(number < count, np.where(count > 1, on_grid, low), np.inf)

    last = np.clip(np.floor((values - low) / step), 0, count - 1)
    last -= threshold(last) > values  # rounding may make the quotient wrong by one: compare with the grid itself
    last += threshold(last + 1) <= values
    count_upto: FloatArray = last + 1
    return count_upto


def _double(left: FloatArray, right: FloatArray) -> FloatArray:
    """Positive, and on the side with the smaller range, where phi is between two thresholds, both ends included."""
    swapped = np.ptp(left, axis=0) >= np.ptp(right, axis=0)
    inner = np.where(swapped, right, left)
    merged = _Merged(inner, np.where(swapped, left, right))
    lowest, highest = inner.min(axis=0), inner.max(axis=0)
    low, high = lowest + (highest - lowest) - BUFFER, highest + BUFFER
    counts = np.ceil(PER_UNIT * (high - low)).astype(np.int64)
    best = np.zeros(len(low))
    for count in np.unique(counts[counts > 0]):  # 400, or 401 by rounding
        rows = np.flatnonzero(counts == count)
        right_ends = np.linspace(low[rows], high[rows], count, axis=1)
        values, below = merged.values[:, rows].T.copy(), merged.below[:, rows].T.copy()
        last = np.stack([np.searchsorted(*pair, side="right") for pair in zip(values, right_ends, strict=True)])
        starts = right_ends - (highest - lowest)[rows, None] - BUFFER
        best[rows] = _best_interval(values, below, last, _gaps_reached(values, starts))
    return best


def _gaps_reached(merged: FloatArray, starts: FloatArray) -> BoolArray:
    """(n, R, 2M + 1): whether any of the 400 left ends from each start falls between one value and the next.

    Left end k is at start + k * step, so a gap is reached if an integer is between its ends. This is far less work than
    placing every left end.
    """
    steps = merged[:, None, :] - starts[:, :, None]
    steps *= (LEFT_ENDS - 1) / (2 * BUFFER)
    np.floor(steps, out=steps)
    upto = np.empty((*steps.shape[:2], steps.shape[2] + 2), dtype=np.int16)
    upto[:, :, 0], upto[:, :, -1] = -1, LEFT_ENDS - 1
    upto[:, :, 1:-1] = np.clip(steps, -1, LEFT_ENDS - 1, out=steps)
    reached: BoolArray = upto[:, :, 1:] > upto[:, :, :-1]
    return reached


def _best_interval(merged: FloatArray, below: IntArray, last: IntArray, reached: BoolArray) -> FloatArray:
    """The largest epsilon over intervals, (n,).

    Args:
        merged: (n, 2M) sorted values.
        below: (n, 2M + 1) number of values of the inner side below each of them.
        last: (n, R) first position beyond each right end, ascending.
        reached: (n, R, 2M + 1) first positions inside that each right end is combined with.
    """
    examples, positions = len(merged), np.arange(below.shape[1])
    new = np.ones(last.shape, dtype=np.bool_)
    new[:, 1:] = last[:, 1:] > last[:, :-1]
    firsts = np.flatnonzero(new)
    example, last = firsts // last.shape[1], last.ravel()[firsts]  # right ends with the same last position together
    reached = np.logical_or.reduceat(reached.reshape(-1, len(positions)), firsts, axis=0)
    reached &= positions < last[:, None]
    which, first = np.nonzero(reached)
    hits = below[example[which], last[which]] - below[example[which], first]
    models = merged.shape[1] // 2
    found = _epsilon_of_errors(models)[last[which] - first - hits, models - hits]
    best = np.zeros(examples)
    np.maximum.at(best, example[which], found)
    return best


@lru_cache(maxsize=8)
def _epsilon_of_errors(models: int) -> FloatArray:
    """(M + 1, M + 1): epsilon of a rule by its numbers of false positives and false negatives among ``models`` a side.

    A rule without any error gives the cap; one with a single kind of error is discarded, which is 0.
    """
    rates = np.arange(models + 1) / models
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.log(1 - DELTA - rates)[:, None] - np.log(rates)[None, :]
    table: FloatArray = np.fmax(np.fmax(one, one.T), 0.0)
    table[0, :] = table[:, 0] = 0.0
    table[0, 0] = CAP
    table.flags.writeable = False  # the result is cached
    return table
