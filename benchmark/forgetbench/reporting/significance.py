"""Classical statistics for reports: intervals over seeds and examples, paired tests, and ranks across tasks.

The ranking of a board needs none of these; see statistics.py for what the protocol fixes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm, rankdata, studentized_range
from scipy.stats import f as fisher_f

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats, number, open_share, shares, whole
from forgetbench.metrics.roc import auc
from forgetbench.scoring.statistics import ALPHA, CONFIDENCE, Estimate, half_width, sign_flip_p

EXACT_UP_TO = 1000
"""Differences up to which Wilcoxon's p comes from the exact distribution, which takes a second there."""


class Test(NamedTuple):
    """A statistic and its p-value."""

    statistic: float
    p: float


class Friedman(NamedTuple):
    """Methods compared across tasks."""

    mean_ranks: FloatArray
    """(k,): mean rank of each method, 1 = best."""
    chi_square: Test
    """Friedman's statistic, without a correction for ties (Demsar 2006, equation in section 3.2.2)."""
    iman_davenport: Test
    """The F statistic of Iman and Davenport, which is less conservative."""
    critical_difference: float
    """Nemenyi: two methods differ where their mean ranks differ by at least this."""


def t_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of one value per seed, with its Student interval.

    Raises:
        UsageError: There are fewer than two seeds.
    """
    array = floats(values, "values", ndim=1)
    half = half_width(array, confidence=confidence)
    return Estimate(float(array.mean()), float(array.mean()) - half, float(array.mean()) + half)


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    resamples: int = 2000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap over examples: each sample is resampled by its rows, with replacement.

    Never over seeds: a copy of a model leaks into its own fit, and with five seeds the interval is too short.

    Args:
        statistic: From the samples to a finite number.
        samples: Arrays whose first axis is the examples, resampled independently of each other.
        resamples: How many, at least 1.
        confidence: Share of the resampled values inside the interval.
        seed: Of the resampling.

    Raises:
        UsageError: A sample is empty, the statistic is not finite on a resample, or an option is out of range.
    """
    arrays = [floats(sample, "sample") for sample in samples]
    if not arrays or any(array.ndim == 0 or not len(array) for array in arrays):
        raise UsageError("The bootstrap needs at least one example in every sample.")
    upper, count = (1 + open_share(confidence, "confidence")) / 2, whole(resamples, "resamples", 1)
    generator = np.random.default_rng(whole(seed, "seed"))
    value = number(statistic(*arrays), "statistic of the samples")
    statistics = [
        number(
            statistic(*(array[generator.integers(0, len(array), len(array))] for array in arrays)),
            "statistic of a resample",
        )
        for _ in range(count)
    ]
    low, high = np.quantile(statistics, [1 - upper, upper])
    return Estimate(value, float(low), float(high))


def delong(members: ArrayLike, others: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """AUC of one model with the interval of DeLong, DeLong and Clarke-Pearson (1988), over examples.

    Args:
        members: (n,) scores, larger = member, n >= 2.
        others: (m,) scores of non-members, m >= 2.
        confidence: Confidence of the interval.

    Returns:
        The AUC and its interval, cut off at 0 and 1. It is a normal approximation: where the two sides are perfectly
        separated the variance is 0 and so is the width, [1, 1], which says nothing of how certain that is.
    """
    value = auc(members, others)
    quantile = float(norm.ppf((1 + open_share(confidence, "confidence")) / 2))
    half = quantile * delong_error(members, others)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def delong_error(members: ArrayLike, others: ArrayLike) -> float:
    """Standard error of the AUC: from the variance of each example's placement among the other side."""
    positive, negative = floats(members, "members", ndim=1), floats(others, "non-members", ndim=1)
    if len(positive) < 2 or len(negative) < 2:
        raise UsageError("DeLong's variance needs two examples on each side.")
    both = rankdata(np.concatenate([positive, negative]))
    above = (both[: len(positive)] - rankdata(positive)) / len(negative)
    below = 1.0 - (both[len(positive) :] - rankdata(negative)) / len(positive)
    return float(np.sqrt(above.var(ddof=1) / len(positive) + below.var(ddof=1) / len(negative)))


def sign_flip(differences: ArrayLike) -> Test:
    """Two-sided sign-flip test of paired differences: the sum against all flips of signs.

    Exact up to 24 seeds; beyond, 2^16 flips are drawn from a fixed seed, and p is then off by up to 0.002 near 0.05.
    With S seeds the smallest p is 2^(1-S): 0.0625 for five, 0.031 for six.
    """
    array = _differences(differences)
    return Test(float(array.sum()), sign_flip_p(array))


def wilcoxon(differences: ArrayLike) -> Test:
    """Wilcoxon's signed-rank test, two-sided and exact also with ties; zeros by Pratt (ranked, then left out).

    Returns:
        The sum of the signed ranks, and p from its exact distribution under all flips of signs; above 1,000
        differences from the normal distribution of the same variance. scipy's exact p, which knows neither ties nor
        zeros, is the same where there are none.
    """
    array = _differences(differences)
    doubled = np.rint(2 * rankdata(np.abs(array))).astype(np.int64)[array != 0]  # tied ranks may be halves
    signed = int((np.sign(array[array != 0]) * doubled).sum())
    if len(doubled) > EXACT_UP_TO:
        p = float(2 * norm.sf(abs(signed) / np.sqrt(float((doubled.astype(np.float64) ** 2).sum()))))
    else:
        p = _share_of_flips(doubled, abs(signed))
    return Test(signed / 2, min(1.0, p))


def _share_of_flips(ranks: NDArray[np.int64], observed: int) -> float:
    """Share of all flips of signs of whole numbers (n,) whose sum is at least an observed one, in absolute value."""
    if observed == 0:
        return 1.0
    step = int(np.gcd.reduce(ranks))  # 2 without ties
    total = int(ranks.sum()) // step
    chances = np.zeros(total + 1)  # of each sum of the ranks with a plus
    chances[0] = 1.0
    reached = 0
    for rank in np.sort(ranks // step):
        moved = chances[: reached + 1] / 2
        reached += int(rank)
        chances[: reached + 1] /= 2
        chances[int(rank) : reached + 1] += moved
    return float(2 * chances[(total + observed // step) // 2 :].sum())


def _differences(values: ArrayLike) -> FloatArray:
    array = floats(values, "differences", ndim=1)
    if not len(array):
        raise UsageError("There are no differences.")
    return array


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjust p-values for multiple testing by Holm's step-down procedure (1979).

    Args:
        p_values: (m,) p-values in [0, 1], in any order.

    Returns:
        (m,) adjusted p-values in the same order, at most 1.
    """
    values = shares(p_values, "p-values", ndim=1)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def friedman(values: ArrayLike, *, smaller_is_better: bool = True, alpha: float = ALPHA) -> Friedman:
    """Ranks of methods across tasks (Demsar 2006). Tasks that share an image set are not independent: give one each.

    Args:
        values: (N, k): the value of each of k methods on each of N tasks; ties share their mean rank.
        smaller_is_better: As for distances.
        alpha: Level of the critical difference.

    Raises:
        UsageError: There are fewer than two tasks or methods.
    """
    table = floats(values, "values", ndim=2)
    _require_two(table.shape[1], len(table))
    ranks = rankdata(table if smaller_is_better else -table, axis=1)
    return friedman_of_ranks(ranks.mean(axis=0), len(table), alpha=alpha)


def friedman_of_ranks(mean_ranks: ArrayLike, tasks: int, *, alpha: float = ALPHA) -> Friedman:
    """The same from mean ranks (k,) over a number of tasks.

    Raises:
        UsageError: There are fewer than two tasks or methods, or a mean rank is not between 1 and k.
    """
    ranks = floats(mean_ranks, "mean ranks", ndim=1)
    count, tasks = len(ranks), whole(tasks, "tasks")
    _require_two(count, tasks)
    if ranks.min() < 1 or ranks.max() > count:
        raise UsageError(f"mean ranks: those of {count} methods are between 1 and {count}.")
    statistic = 12 * tasks / (count * (count + 1)) * float((ranks**2).sum() - count * (count + 1) ** 2 / 4)
    statistic = max(statistic, 0.0)
    room = tasks * (count - 1) - statistic
    davenport = (tasks - 1) * statistic / room if room > 1e-9 else np.inf
    return Friedman(
        mean_ranks=ranks,
        chi_square=Test(statistic, float(chi2.sf(statistic, count - 1))),
        iman_davenport=Test(davenport, float(fisher_f.sf(davenport, count - 1, (count - 1) * (tasks - 1)))),
        critical_difference=nemenyi_difference(count, tasks, alpha=alpha),
    )


def nemenyi_difference(methods: int, tasks: int, *, alpha: float = ALPHA) -> float:
    """Critical difference of mean ranks, q sqrt(k (k + 1) / (6 N)), q the studentized range over sqrt(2)."""
    count, tasks = whole(methods, "methods", 2), whole(tasks, "tasks", 1)
    return nemenyi_quantile(count, alpha=alpha) * float(np.sqrt(count * (count + 1) / (6 * tasks)))


def nemenyi_quantile(methods: int, *, alpha: float = ALPHA) -> float:
    """Upper point of the studentized range for k methods and infinite degrees of freedom, over sqrt(2)."""
    level = 1 - open_share(alpha, "alpha")
    return float(studentized_range.ppf(level, whole(methods, "methods", 2), np.inf) / np.sqrt(2))


def pairwise_holm(values: ArrayLike, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """Holm-adjusted exact Wilcoxon p-values of every pair of methods over tasks; in addition to Nemenyi's test.

    Args:
        values: (N, k) values.
        names: The k methods, each once.

    Raises:
        UsageError: There are no tasks, or not one name for each column, or a name occurs twice.
    """
    table = floats(values, "values", ndim=2)
    if table.shape[1] != len(names):
        raise UsageError(f"{table.shape[1]} columns, but {len(names)} names.")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageError(f"Duplicate name: {twice[0]}. Give each method another name.")
    if not len(table):
        raise UsageError("Pairs of methods are compared over tasks; there are none.")
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    adjusted = holm([wilcoxon(table[:, i] - table[:, j]).p for i, j in pairs])
    return {(names[i], names[j]): float(p) for (i, j), p in zip(pairs, adjusted, strict=True)}


def _require_two(methods: int, tasks: int) -> None:
    if methods < 2 or tasks < 2:
        raise UsageError(f"Ranks across tasks need two methods and two tasks; there are {methods} and {tasks}.")
