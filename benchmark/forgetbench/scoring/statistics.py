"""The statistics of boards: oracle bands from split halves, pseudo-values, and tie groups by sign flips.

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
from scipy.stats import t as student

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, open_share, whole

MAX_SPLITS = 1000
"""All splits are used if there are at most this many; otherwise this many are sampled, each with its mirror."""

SEED = 20260801
"""Seed of the sampled splits and sign flips; part of the protocol."""

ALL_PAIRED_FLIPS_UP_TO = 24
"""With at most this many seeds `sign_flip_p` uses all 2^(S-1) sign flips."""

ALL_FLIPS_UP_TO = 17
"""With at most this many seeds all 2^(S-1) sign flips are used; otherwise some are sampled."""

SAMPLED_FLIPS = 2**16
"""Number of sampled sign flips."""

ALPHA = 0.05
"""Level of the test of ties."""

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
    """First rank of its tie group."""
    high: int
    """Last rank of its tie group."""
    group: int
    """Number of the tie group, from 1."""


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


def family_limit(largest: FloatArray, size: int) -> float:
    """The family limit: 95 % point of the largest |z| over splits, times t(2S - 1, .995) / 2.576 (section 2).

    Args:
        largest: Largest |z| over the ranking metrics, one per split (mirrors included).
        size: Models on each side, S.
    """
    widening = float(student.ppf(0.995, 2 * size - 1)) / 2.576
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
    return float(student.ppf(quantile, count - 1) * values.std(ddof=1) / np.sqrt(count))


def tie_groups(pseudo: FloatArray, *, alpha: float = ALPHA) -> list[Placing]:
    """Ranks, tie groups and rank intervals of contestants from their pseudo-values (section 4).

    The contestants are ordered by mean. The statistic of the remaining contestants is the range of their sums over
    seeds, and p its rank among all joint sign flips of the seeds; while p <= alpha the worst is removed. The survivors
    tie, and the procedure starts again with the rest. Centering by seed shifts all of them equally, so the range does
    not need it.

    Args:
        pseudo: (K, S) pseudo-values of the distance, smaller = better; the order of rows breaks exact ties.
        alpha: Level of the test.

    Returns:
        One placing per row of ``pseudo``.

    Raises:
        UsageError: Alpha is not in (0, 1).
    """
    alpha = open_share(alpha, "alpha")
    contestants, seeds = pseudo.shape
    order = np.argsort(pseudo.mean(axis=1), kind="stable")
    centered = pseudo[order] - pseudo.mean(axis=0)
    flips = sign_flips(seeds)
    placings: list[Placing | None] = [None] * contestants
    start, group = 0, 0
    while start < contestants:
        group += 1
        size = _survivors(centered[start:], flips, alpha)
        for place in range(start, start + size):
            placings[int(order[place])] = Placing(place + 1, start + 1, start + size, group)
        start += size
    return [placing for placing in placings if placing is not None]


def sign_flips(seeds: int) -> FloatArray:
    """All 2^(S-1) joint sign flips (E, S) up to a common sign, the first all +1; 2^16 sampled ones above 17 seeds."""
    return np.concatenate(list(sign_flip_chunks(seeds)))


def sign_flip_chunks(seeds: int) -> Iterator[FloatArray]:
    """The rows of `sign_flips` in order, some at a time: all of them would take 0.5 MiB for each seed."""
    if seeds <= ALL_FLIPS_UP_TO:
        codes = np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds - 1)[None, :]
        yield _with_first(np.where(codes & 1, -1.0, 1.0))
        return
    generator, rows = np.random.default_rng(SEED), max(1, FLIPS_AT_ONCE // seeds)
    for start in range(0, SAMPLED_FLIPS, rows):
        rest = np.where(generator.random((min(rows, SAMPLED_FLIPS - start), seeds - 1)) < 0.5, -1.0, 1.0)
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


def _survivors(values: FloatArray, flips: FloatArray, alpha: float) -> int:
    """The number of contestants (rows, best first) that tie with the first: the most whose range is not significant."""
    values = values[: _undecided(values, flips, alpha)]
    contestants = len(values)
    at_least = np.zeros(contestants)
    observed: FloatArray | None = None
    for chunk in range(0, len(flips), 4096):
        sums = np.zeros((min(4096, len(flips) - chunk), contestants))
        for seed in range(values.shape[1]):  # no matrix product, which may round differently on another machine
            sums += flips[chunk : chunk + 4096, seed, None] * values[None, :, seed]
        ranges = np.maximum.accumulate(sums, axis=1) - np.minimum.accumulate(sums, axis=1)
        if observed is None:
            observed = ranges[0].copy()
        at_least += (ranges >= observed * (1 - 1e-9)).sum(axis=0)
    significant = at_least / len(flips) <= alpha
    return contestants - int(np.argmin(significant[::-1]))


def _undecided(values: FloatArray, flips: FloatArray, alpha: float) -> int:
    """The number of contestants that need the test; with any other one the range is certainly significant.

    A flip other than "all plus" changes the sign of at least one seed, so a gap of D between means contributes at most
    (S - 2) D to its range, and the rest of the two contestants at most twice the largest sum of absolute deviations;
    the observed range is S D. If D exceeds that sum, only "all plus" reaches it. This keeps boards of thousands of rows
    fast.
    """
    if float((flips > 0).all(axis=1).mean()) > alpha:
        return len(values)
    means = values.mean(axis=1)
    noise = np.maximum.accumulate(np.abs(values - means[:, None]).sum(axis=1))
    sure = (means - means[0]) * (1 - 1e-6) > noise
    return int(np.flatnonzero(~sure)[-1]) + 1
