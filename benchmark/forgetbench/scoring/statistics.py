"""The statistics of boards: oracle bands from split halves, pseudo-values, and rank intervals by sign flips.

Section numbers refer to the protocol. Nothing here is random: sampled splits and sampled sign flips come from a seed
that is part of the protocol, so that scores of the same arrays are bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, open_share, whole

MAX_SPLITS = 1000
"""All splits are used if there are at most this many; otherwise this many are sampled, each with its mirror."""

SEED = 20260801
"""Seed of the sampled splits and sign flips; part of the protocol."""

ALL_PAIRED_FLIPS_UP_TO = 24
"""With at most this many seeds `sign_flip_p` uses all 2^(S-1) sign flips."""

SAMPLED_FLIPS = 2**16
"""All 2^(S-1) sign flips are used if there are at most this many (up to 17 seeds); otherwise this many are sampled."""

RANK_FLIPS = (2**9, 2**12)
"""The same limit for ranks: 2^12 up to 90 rows, so that all are used up to 13 seeds, and 2^9 above 256 rows."""

PAIR_FLIPS = 2**25
"""Number of pairs of rows times sign flips between these limits."""

FLIPS_IN_CACHE = 2**15
"""Statistics that are computed at once, so that they stay in the processor's cache."""

ROUNDING = 1e-12
"""Rows whose values differ by less than this share of them are equal."""

CLEAR = 20.0
"""Difference of two rows, in units of the sum of their standard deviations, above which they need no test."""

ALPHA = 0.05
"""Level of the tests of ranks."""

CONFIDENCE = 0.95
"""Confidence of intervals."""

FLIPS_AT_ONCE = 2**22
"""Sampled signs that are held at once."""


class Band(NamedTuple):
    """The distribution of a metric over splits of the pooled oracles into halves."""

    mean: float
    low: float
    """2.5 % point."""
    high: float
    """97.5 % point."""
    sd: float


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float


class Placing(NamedTuple):
    """The rank of a contestant."""

    rank: int
    """Rank by distance, from 1."""
    low: int
    """Best rank of its rank interval."""
    high: int
    """Worst rank of its rank interval."""


@lru_cache(maxsize=16)
def split_halves(size: int, limit: int = MAX_SPLITS) -> tuple[tuple[IntArray, IntArray], ...]:
    """Splits of 2 * size pooled models into halves, one of each mirror pair, as (left, right) sorted index arrays.

    All C(2S, S) / 2 of them if C(2S, S) is at most ``limit``; otherwise ``limit`` distinct ones, sampled with the
    protocol's seed. The first one is always the pool's own order: the first S models against the others.

    Raises:
        UsageError: There are no models.
    """
    if size < 1:
        raise UsageError("A split needs at least one model on each side.")
    others = range(1, 2 * size)
    if comb(2 * size, size) <= limit:
        lefts: Iterator[tuple[int, ...]] = ((0, *rest) for rest in combinations(others, size - 1))
    else:
        lefts = _sampled_splits(size, limit)
    pairs = []
    for left in lefts:
        chosen = np.zeros(2 * size, dtype=np.bool_)
        chosen[list(left)] = True
        pair = (np.flatnonzero(chosen), np.flatnonzero(~chosen))
        for side in pair:
            side.flags.writeable = False  # the result is cached
        pairs.append(pair)
    return tuple(pairs)


def _sampled_splits(size: int, count: int) -> Iterator[tuple[int, ...]]:
    generator = np.random.default_rng(SEED)
    seen = {tuple(range(size))}
    yield from seen
    while len(seen) < count:
        order = np.argsort(generator.random(2 * size), kind="stable")
        half = order[:size] if 0 in order[:size] else order[size:]
        left = tuple(sorted(int(i) for i in half))
        if left not in seen:
            seen.add(left)
            yield left


def over_split_halves(
    value: Callable[[IntArray, IntArray], float], size: int, symmetry: str | None = None, at_most: int | None = None
) -> FloatArray:
    """A metric over all splits and their mirrors: (2, H), the mirrors in the second row.

    Args:
        value: The metric of (left, right) index arrays into the pooled models.
        size: Models on each side.
        symmetry: "even" or "odd" if exchanging the sides keeps the value or changes its sign, which saves half the
            work.
        at_most: Upper limit of the splits, evenly spaced; for metrics that are slow and do not rank.

    Raises:
        UsageError: The limit is not a whole number of at least 1.
    """
    pairs = split_halves(size)
    if at_most is not None:
        pairs = pairs[:: -(-len(pairs) // whole(at_most, "max_splits", 1))]
    straight = np.array([value(left, right) for left, right in pairs], dtype=np.float64)
    if symmetry == "even":
        return np.stack([straight, straight])
    if symmetry == "odd":
        return np.stack([straight, -straight])
    return np.stack([straight, np.array([value(right, left) for left, right in pairs], dtype=np.float64)])


def band_of(values: FloatArray) -> Band:
    """Mean, 2.5 and 97.5 % points and standard deviation of a metric over splits."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Band(float(values.mean()), float(low), float(high), float(values.std()))


def z_score(value: float, band: Band, floor: float) -> float:
    """The difference of a value from the band's mean in oracle standard deviations, or in floors if these are larger.

    If both are 0, z is 0 for the band's mean and infinite for any other value.
    """
    width = max(band.sd, floor)
    difference = value - band.mean
    if width == 0.0:
        return 0.0 if difference == 0.0 else float(np.copysign(np.inf, difference))
    return difference / width


def student_quantile(share: float, degrees: int) -> float:
    """Quantile of Student's t distribution.

    scipy is imported here: it takes seconds, which workers that train models would wait for, too.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def family_limit(largest: FloatArray, size: int) -> float:
    """The family limit: 95 % point of the largest |z| over splits, times t(2S - 1, .995) / 2.576 (section 2).

    Args:
        largest: Largest |z| over the ranking metrics, one per split (mirrors included).
        size: Models on each side, S.
    """
    widening = student_quantile(0.995, 2 * size - 1) / 2.576
    return float(np.quantile(largest, 0.95)) * widening


def pseudo_values(whole: float, left_out: Sequence[float] | FloatArray) -> FloatArray:
    """Pseudo-values whole + (S - 1)(mean(left_out) - left_out), (S,); their mean is the whole (section 4)."""
    parts = np.asarray(left_out, dtype=np.float64)
    if len(parts) < 2:
        raise UsageError("Pseudo-values need at least two seeds.")
    pseudo: FloatArray = whole + (len(parts) - 1) * (parts.mean() - parts)
    return pseudo


def pseudo_interval(whole: float, pseudo: FloatArray, *, confidence: float = CONFIDENCE) -> Estimate:
    """The whole ± t(S - 1, (1 + confidence) / 2) sd(pseudo) / sqrt(S); the sd divides by S - 1 (section 4)."""
    half = half_width(pseudo, confidence=confidence)
    return Estimate(whole, whole - half, whole + half)


def half_width(values: FloatArray, *, confidence: float = CONFIDENCE) -> float:
    """Half the t interval of the mean of independent values (S,), S >= 2.

    Raises:
        UsageError: There are fewer than two values, or the confidence is not in (0, 1).
    """
    count = len(values)
    if count < 2:
        raise UsageError("An interval needs at least two seeds.")
    quantile = (1 + open_share(confidence, "confidence")) / 2
    return float(student_quantile(quantile, count - 1) * values.std(ddof=1) / np.sqrt(count))


def rank_intervals(pseudo: FloatArray, *, alpha: float = ALPHA) -> list[Placing]:
    """Ranks and rank intervals of contestants by joint studentized sign flips (section 4; Mogstad et al. 2024).

    The contestants are ordered by mean distance. For each row the differences to all others, on the scale
    log(1 + distance), are tested together, two-sided and step-down: the statistic of a pair is |sum over seeds of the
    difference| / root of the sum of its squares, and p its rank among the joint sign flips of the seeds, by the largest
    statistic of the pairs that are not farther apart. The rank interval starts after the rows that are found better,
    and ends before those that are found worse. It is the interval of one row: it misses the row's rank with probability
    alpha, not that of any row of the board. Below six seeds no p is below .05, and all rows share all ranks.

    Args:
        pseudo: (K, S) pseudo-values of the distance, smaller = better; the order of rows breaks exact ties.
        alpha: Level of the test of each row.

    Returns:
        One placing per row of ``pseudo``.

    Raises:
        UsageError: Alpha is not in (0, 1).
    """
    return intervals_on_scale(pseudo.mean(axis=1), log_pseudo_values(pseudo), alpha=alpha)


def intervals_on_scale(distances: FloatArray, values: FloatArray, *, alpha: float = ALPHA) -> list[Placing]:
    """`rank_intervals` of rows with distances (K,) from values (K, S) on a scale of choice, increasing in the distance.

    Raises:
        UsageError: Alpha is not in (0, 1).
    """
    contestants, _ = values.shape
    order = np.argsort(distances, kind="stable")
    separated = _pair_tests(values[order], alpha).separated
    placings: list[Placing | None] = [None] * contestants
    for place, index in enumerate(order):
        others = separated(place)
        better = int(others[:place].sum())
        placings[int(index)] = Placing(place + 1, 1 + better, contestants - int(others[place:].sum()))
    return [placing for placing in placings if placing is not None]


def distinguished(pseudo: FloatArray, *, alpha: float = ALPHA) -> NDArray[np.bool_]:
    """Which pairs of contestants differ, by the tests of `rank_intervals`: those of both rows must separate them.

    Args:
        pseudo: (K, S) pseudo-values of the distance.
        alpha: Level of the tests of each row.

    Returns:
        (K, K), symmetric, false on the diagonal.

    Raises:
        UsageError: Alpha is not in (0, 1).
    """
    tests = _pair_tests(log_pseudo_values(pseudo), alpha)
    by_row = np.array([tests.separated(row) for row in range(len(pseudo))])
    both: NDArray[np.bool_] = by_row & by_row.T
    return both


def _pair_tests(values: FloatArray, alpha: float) -> _PairTests:
    """The tests of each row of values (K, S) against all others, with as many flips as are affordable."""
    contestants, seeds = values.shape
    flips = sign_flips(seeds, int(np.clip(PAIR_FLIPS // max(contestants, 1) ** 2, *RANK_FLIPS)))
    return _PairTests(values, flips, open_share(alpha, "alpha"))


def log_pseudo_values(pseudo: FloatArray) -> FloatArray:
    """Pseudo-values (K, S) of log(1 + distance) from those of the distance, by which ranks are compared.

    The distance is in standard deviations of the oracles: its noise is about 1 where it is small, and proportional to
    it where it is large, so this scale makes the noise of rows alike. The distances without a seed follow from the
    pseudo-values, up to their mean, which is taken to be the distance.
    """
    seeds = pseudo.shape[1]
    whole = pseudo.mean(axis=1, keepdims=True)
    left_out = np.log1p(np.maximum(whole - (pseudo - whole) / max(seeds - 1, 1), 0.0))
    logs: FloatArray = np.log1p(np.maximum(whole, 0.0)) + (seeds - 1) * (
        left_out.mean(axis=1, keepdims=True) - left_out
    )
    return logs


class _PairTests:
    """The tests of each row against all others.

    Args:
        values: (K, S) values.
        flips: (E, S) joint sign flips, the first all +1.
        alpha: Level of the tests.
    """

    def __init__(self, values: FloatArray, flips: FloatArray, alpha: float) -> None:
        self.values, self.alpha = values - values.mean(axis=0), alpha
        self.means, self.deviations = values.mean(axis=1), values.std(axis=1)
        self.rounding = ROUNDING * np.abs(self.values).max(axis=1, initial=0.0)
        self.flipped: NDArray[np.bool_] = np.asarray((flips < 0).any(axis=1))
        self.sums = np.zeros((len(values), len(flips)))
        for seed in range(values.shape[1]):  # no matrix product, which may round differently on another machine
            self.sums += self.values[:, seed, None] * flips[None, :, seed]

    def separated(self, row: int) -> NDArray[np.bool_]:
        """(K,): whether a row is separated from each of the others.

        Rows whose means differ by at least `CLEAR` times the sum of their deviations have a statistic of at least
        1 / sqrt(1 + 1 / CLEAR**2), and of at most sqrt((S - 1) / S) for any flip but "all plus". If no such flip of the
        other pairs reaches the former, they are certainly separated, and change no p of the others. This keeps boards
        of thousands of rows fast.
        """
        clear = CLEAR * (self.deviations + self.deviations[row]) + self.rounding + self.rounding[row]
        near: NDArray[np.bool_] = np.abs(self.means - self.means[row]) <= clear
        least, seeds = 1 / np.sqrt(1 + 1 / CLEAR**2), self.values.shape[1]
        if not near.all() and np.sqrt((seeds - 1) / seeds) < least and 1 - self.flipped.mean() <= self.alpha:
            tested, largest = self._test(row, np.flatnonzero(near))
            if largest < least:
                tested[~near] = True
                return tested
        return self._test(row, np.arange(len(self.values)))[0]

    def _test(self, row: int, others: IntArray) -> tuple[NDArray[np.bool_], float]:
        """(K,): whether a row is separated from each of some others; and the largest statistic but for "all plus"."""
        differences = self.values[others] - self.values[row]
        scale = np.sqrt((differences**2).sum(axis=1) * differences.shape[1])
        unequal: NDArray[np.bool_] = scale > differences.shape[1] * (self.rounding[others] + self.rounding[row])
        weights = np.divide(1.0, scale, out=np.zeros_like(scale), where=unequal)
        observed = np.abs(self.sums[others, 0] - self.sums[row, 0]) * weights
        rising: IntArray = np.argsort(observed, kind="stable")
        others, observed, weights = others[rising], observed[rising], weights[rising, None]
        reached, highest = np.zeros(len(others)), 0.0
        limits = observed[:, None] * (1 - 1e-9)
        step = max(1, FLIPS_IN_CACHE // len(others))
        for start in range(0, len(self.flipped), step):
            part = slice(start, start + step)
            largest = self.sums[others, part]
            largest -= self.sums[row, part]
            np.abs(largest, out=largest)
            largest *= weights
            np.maximum.accumulate(largest, axis=0, out=largest)
            reached += np.count_nonzero(largest >= limits, axis=1)
            highest = max(highest, float(largest[-1].max(where=self.flipped[part], initial=0.0)))
        p = np.maximum.accumulate(reached[::-1] / len(self.flipped))[::-1]
        found = np.zeros(len(self.values), dtype=np.bool_)
        found[others] = (p <= self.alpha) & (observed > 0)
        return found, highest


def sign_flips(seeds: int, at_most: int = SAMPLED_FLIPS) -> FloatArray:
    """All 2^(S-1) joint sign flips (E, S) up to a common sign, the first all +1; above the limit, as many sampled."""
    return np.concatenate(list(sign_flip_chunks(seeds, at_most)))


def sign_flip_chunks(seeds: int, at_most: int = SAMPLED_FLIPS) -> Iterator[FloatArray]:
    """The rows of `sign_flips` in order, some at a time: all of them would take 0.5 MiB for each seed."""
    if 2 ** (seeds - 1) <= at_most:
        codes = np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds - 1)[None, :]
        yield _with_first(np.where(codes & 1, -1.0, 1.0))
        return
    generator, rows = np.random.default_rng(SEED), max(1, FLIPS_AT_ONCE // seeds)
    for start in range(0, at_most, rows):
        rest = np.where(generator.random((min(rows, at_most - start), seeds - 1)) < 0.5, -1.0, 1.0)
        if start == 0:
            rest[0] = 1.0
        yield _with_first(rest)


def sign_flip_p(differences: Sequence[float] | FloatArray) -> float:
    """Two-sided p of paired differences (S,) over joint sign flips of the seeds (section 4).

    The statistic is the absolute sum; p is the share of the 2^(S-1) flips, up to a common sign, whose statistic is at
    least the observed one. Exact for at most 24 seeds; above, over the 2^16 flips of `sign_flips`. With S seeds the
    smallest p is 2^(1-S): 0.0625 for five, 0.031 for six.

    Raises:
        UsageError: There are no differences.
    """
    deltas = np.asarray(differences, dtype=np.float64)
    if deltas.ndim != 1 or not deltas.size:
        raise UsageError("A sign-flip test needs the paired differences of at least one seed.")
    slack = 1e-9 * float(np.abs(deltas).sum())  # sums of the same numbers in another order differ by rounding
    if len(deltas) <= ALL_PAIRED_FLIPS_UP_TO:
        sums = deltas[:1]
        for delta in deltas[1:]:
            sums = np.concatenate([sums + delta, sums - delta])
    else:
        sums = np.concatenate([_signed_sums(signs, deltas) for signs in sign_flip_chunks(len(deltas))])
    return float((np.abs(sums) >= abs(sums[0]) - slack).mean())


def _signed_sums(signs: FloatArray, deltas: FloatArray) -> FloatArray:
    """The sum of each row of signs (E, S) times the differences (S,), in the order of the seeds."""
    sums = np.zeros(len(signs))
    for seed, delta in enumerate(deltas):  # no matrix product, which may round differently on another machine
        sums = sums + signs[:, seed] * delta
    return sums


def _with_first(rest: FloatArray) -> FloatArray:
    """The flips with the sign of the first seed, which is always +1."""
    return np.concatenate([np.ones((len(rest), 1)), rest], axis=1)
