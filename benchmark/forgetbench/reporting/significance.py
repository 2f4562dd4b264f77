"""Classical statistics for reports: intervals over seeds and examples, paired tests, and ranks across tasks.

The ranking of a board needs none of these; see statistics.py for what the protocol fixes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm, rankdata, studentized_range
from scipy.stats import f as fisher_f

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats
from forgetbench.metrics.roc import auc
from forgetbench.scoring.statistics import Estimate, half_width, sign_flips


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


def t_interval(values: ArrayLike, level: float = 0.05) -> Estimate:
    """Mean of one value per seed, with its Student interval.

    Raises:
        UsageError: There are fewer than two seeds.
    """
    array = floats(values, "values", ndim=1)
    half = half_width(array, level)
    return Estimate(float(array.mean()), float(array.mean()) - half, float(array.mean()) + half)


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    resamples: int = 2000,
    level: float = 0.05,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap over examples: each sample is resampled by its rows, with replacement.

    Never over seeds: a copy of a model leaks into its own fit, and with five seeds the interval is too short.

    Args:
        statistic: From the samples to a number.
        samples: Arrays whose first axis is the examples, resampled independently of each other.
        resamples: How many.
        level: Two-sided level.
        seed: Of the resampling.
    """
    arrays = [floats(sample, "sample") for sample in samples]
    if not arrays or any(array.ndim == 0 or not len(array) for array in arrays):
        raise UsageError("The bootstrap needs at least one example in every sample.")
    generator = np.random.default_rng(seed)
    statistics = [
        statistic(*(array[generator.integers(0, len(array), len(array))] for array in arrays)) for _ in range(resamples)
    ]
    low, high = np.quantile(statistics, [level / 2, 1 - level / 2])
    return Estimate(float(statistic(*arrays)), float(low), float(high))


def delong(members: ArrayLike, others: ArrayLike, level: float = 0.05) -> Estimate:
    """AUC of one model with the interval of DeLong, DeLong and Clarke-Pearson (1988), over examples.

    Args:
        members: (n,) scores, larger = member, n >= 2.
        others: (m,) scores of non-members, m >= 2.
        level: Two-sided level.

    Returns:
        The AUC and its interval, cut off at 0 and 1. It is a normal approximation: where the two sides are perfectly
        separated the variance is 0 and so is the width, [1, 1], which says nothing of how certain that is.
    """
    value = auc(members, others)
    half = float(norm.ppf(1 - level / 2)) * delong_error(members, others)
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

    Exact up to 17 seeds; beyond, 2^16 flips are drawn from a fixed seed, and p is then off by up to 0.002 near 0.05.
    With S seeds the smallest p is 2^(1-S): 0.0625 for five, 0.031 for six.
    """
    array = floats(differences, "differences", ndim=1)
    if not len(array):
        raise UsageError("There are no differences.")
    sums = np.abs((sign_flips(len(array)) * array).sum(axis=1))
    observed = float(np.abs(array.sum()))
    return Test(float(array.sum()), float(np.mean(sums >= observed * (1 - 1e-9))))


def wilcoxon(differences: ArrayLike) -> Test:
    """Wilcoxon's signed-rank test, two-sided and exact also with ties; zeros by Pratt (ranked, then left out).

    Returns:
        The sum of the signed ranks, and p over all flips of signs: exact up to 17 differences, drawn beyond, as in
        ``sign_flip``. scipy's exact p, which knows neither ties nor zeros, is the same where there are none.
    """
    array = floats(differences, "differences", ndim=1)
    if not len(array):
        raise UsageError("There are no differences.")
    return sign_flip(np.sign(array) * rankdata(np.abs(array)))


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjust p-values for multiple testing by Holm's step-down procedure (1979).

    Args:
        p_values: (m,) p-values in any order.

    Returns:
        (m,) adjusted p-values in the same order, at most 1.
    """
    values = floats(p_values, "p-values", ndim=1)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def friedman(values: ArrayLike, *, smaller_is_better: bool = True, level: float = 0.05) -> Friedman:
    """Ranks of methods across tasks (Demsar 2006). Tasks that share an image set are not independent: give one each.

    Args:
        values: (N, k): the value of each of k methods on each of N tasks; ties share their mean rank.
        smaller_is_better: As for distances.
        level: Level of the critical difference.
    """
    table = floats(values, "values", ndim=2)
    ranks = rankdata(table if smaller_is_better else -table, axis=1)
    return friedman_of_ranks(ranks.mean(axis=0), len(table), level)


def friedman_of_ranks(mean_ranks: ArrayLike, tasks: int, level: float = 0.05) -> Friedman:
    """The same from mean ranks (k,) over a number of tasks.

    Raises:
        UsageError: There are fewer than two tasks or methods.
    """
    ranks = floats(mean_ranks, "mean ranks", ndim=1)
    count = len(ranks)
    if count < 2 or tasks < 2:
        raise UsageError(f"Ranks across tasks need two methods and two tasks; there are {count} and {tasks}.")
    statistic = 12 * tasks / (count * (count + 1)) * float((ranks**2).sum() - count * (count + 1) ** 2 / 4)
    statistic = max(statistic, 0.0)
    room = tasks * (count - 1) - statistic
    davenport = (tasks - 1) * statistic / room if room > 1e-9 else np.inf
    return Friedman(
        mean_ranks=ranks,
        chi_square=Test(statistic, float(chi2.sf(statistic, count - 1))),
        iman_davenport=Test(davenport, float(fisher_f.sf(davenport, count - 1, (count - 1) * (tasks - 1)))),
        critical_difference=nemenyi_difference(count, tasks, level),
    )


def nemenyi_difference(methods: int, tasks: int, level: float = 0.05) -> float:
    """Critical difference of mean ranks, q sqrt(k (k + 1) / (6 N)), q the studentised range over sqrt(2)."""
    return nemenyi_quantile(methods, level) * float(np.sqrt(methods * (methods + 1) / (6 * tasks)))


def nemenyi_quantile(methods: int, level: float = 0.05) -> float:
    """Upper point of the studentised range for k methods and infinite degrees of freedom, over sqrt(2)."""
    return float(studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2))


def pairwise_holm(values: ArrayLike, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """Holm-adjusted exact Wilcoxon p-values of every pair of methods over tasks; in addition to Nemenyi's test.

    Args:
        values: (N, k) values.
        names: The k methods.
    """
    table = floats(values, "values", ndim=2)
    if table.shape[1] != len(names):
        raise UsageError(f"{table.shape[1]} columns, but {len(names)} names.")
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    adjusted = holm([wilcoxon(table[:, i] - table[:, j]).p for i, j in pairs])
    return {(names[i], names[j]): float(p) for (i, j), p in zip(pairs, adjusted, strict=True)}
