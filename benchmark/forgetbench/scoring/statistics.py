"""The benchmark's own statistics: oracle bands from halvings, pseudo-values, and tie groups by sign flips.

Section numbers refer to the protocol. Nothing here is random: sampled halvings and sampled sign flips come from a seed
that is part of the protocol, so that scores of the same arrays are equal to the last bit.
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
from forgetbench.metrics._validation import FloatArray, IntArray

MAX_SPLITS = 1000
"""All halvings are used up to this many; beyond, this many are drawn, each with its mirror."""

SEED = 20260801
"""Seed of the sampled halvings and sign flips; part of protocol version 1."""

ALL_FLIPS_UP_TO = 17
"""Up to this many seeds all 2^(S-1) sign flips are taken; beyond, 2^16 are drawn."""

LEVEL = 0.05
"""Two-sided level of intervals and ties."""


class Band(NamedTuple):
    """The distribution of a metric over halvings of the pooled oracles."""

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
    """Rank of a contestant."""

    rank: int
    """Place by distance, from 1."""
    low: int
    """First place that its tie group spans."""
    high: int
    """Last place that its tie group spans."""
    group: int
    """Number of the tie group, from 1."""


@lru_cache(maxsize=16)
def split_halves(size: int, limit: int = MAX_SPLITS) -> tuple[tuple[IntArray, IntArray], ...]:
    """Halvings of 2 * size pooled models, one of each mirror pair, as (left, right) sorted index arrays.

    All C(2S, S) / 2 of them where C(2S, S) is at most ``limit``; else ``limit`` distinct ones, drawn from the
    protocol's seed. The first is always the pool's own order: the first S models against the others.

    Raises:
        UsageError: There are no models.
    """
    if size < 1:
        raise UsageError("Halvings need at least one model on each side.")
    everyone = range(1, 2 * size)
    if comb(2 * size, size) <= limit:
        lefts: Iterator[tuple[int, ...]] = ((0, *rest) for rest in combinations(everyone, size - 1))
    else:
        lefts = _drawn_splits(size, limit)
    pairs = []
    for left in lefts:
        chosen = np.zeros(2 * size, dtype=np.bool_)
        chosen[list(left)] = True
        pair = (np.flatnonzero(chosen), np.flatnonzero(~chosen))
        for side in pair:
            side.flags.writeable = False  # the list is kept for the next band
        pairs.append(pair)
    return tuple(pairs)


def _drawn_splits(size: int, count: int) -> Iterator[tuple[int, ...]]:
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
    """A metric over all halvings and their mirrors: (2, H), the mirrors in the second row.

    Args:
        value: The metric of (left, right) index arrays into the pooled models.
        size: Models on each side.
        symmetry: "even" or "odd" where exchanging the sides keeps the value or turns its sign: saves half the work.
        at_most: Take no more halvings than this, evenly spread; for metrics that are slow and rank nothing.
    """
    pairs = split_halves(size)
    if at_most is not None:
        pairs = pairs[:: -(-len(pairs) // at_most)]
    straight = np.array([value(left, right) for left, right in pairs], dtype=np.float64)
    if symmetry == "even":
        return np.stack([straight, straight])
    if symmetry == "odd":
        return np.stack([straight, -straight])
    return np.stack([straight, np.array([value(right, left) for left, right in pairs], dtype=np.float64)])


def band_of(values: FloatArray) -> Band:
    """Mean, 2.5 and 97.5 % points and standard deviation of a metric over halvings."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Band(float(values.mean()), float(low), float(high), float(values.std()))


def z_score(value: float, band: Band, floor: float) -> float:
    """Distance of a value from the band's mean, in standard deviations of the band but at least the floor.

    Where neither the band nor the floor has any width, 0 for the band's own value and infinity for any other.
    """
    width = max(band.sd, floor)
    off = value - band.mean
    if width == 0.0:
        return 0.0 if off == 0.0 else float(np.copysign(np.inf, off))
    return off / width


def family_limit(largest: FloatArray, size: int) -> float:
    """The family band: 95 % point of the largest |z| over halvings, times t(2S - 1, .995) / 2.576 (section 2).

    Args:
        largest: Largest |z| over the ranking metrics, one per halving (mirrors included).
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


def pseudo_interval(whole: float, pseudo: FloatArray, level: float = LEVEL) -> Estimate:
    """The whole ± t(S - 1, 1 - level/2) sd(pseudo) / sqrt(S); the sd divides by S - 1 (section 4)."""
    half = half_width(pseudo, level)
    return Estimate(whole, whole - half, whole + half)


def half_width(values: FloatArray, level: float = LEVEL) -> float:
    """Half the t interval of the mean of independent values (S,), S >= 2."""
    count = len(values)
    if count < 2:
        raise UsageError("An interval needs at least two seeds.")
    return float(student.ppf(1 - level / 2, count - 1) * values.std(ddof=1) / np.sqrt(count))


def tie_groups(pseudo: FloatArray, level: float = LEVEL) -> list[Placing]:
    """Ranks, tie groups and rank intervals of contestants from their pseudo-values (section 4).

    The contestants are ordered by mean. The statistic of those still live is the range over contestants of the sums
    over seeds; p its place among all joint sign flips of the seeds; while p <= level the worst is removed. The
    survivors tie, and the rest start again. Centering by seed moves all alike: the range needs none.

    Args:
        pseudo: (K, S) pseudo-values of the distance, smaller = better; the order of rows breaks exact ties.
        level: Level of the test.

    Returns:
        One placing per row of ``pseudo``.
    """
    contestants, seeds = pseudo.shape
    order = np.argsort(pseudo.mean(axis=1), kind="stable")
    centered = pseudo[order] - pseudo.mean(axis=0)
    flips = sign_flips(seeds)
    placings: list[Placing | None] = [None] * contestants
    start, group = 0, 0
    while start < contestants:
        group += 1
        size = _survivors(centered[start:], flips, level)
        for place in range(start, start + size):
            placings[int(order[place])] = Placing(place + 1, start + 1, start + size, group)
        start += size
    return [placing for placing in placings if placing is not None]


def sign_flips(seeds: int) -> FloatArray:
    """All 2^(S-1) joint sign flips (E, S) up to a common sign, the first all +1; 2^16 drawn ones beyond 17 seeds."""
    if seeds <= ALL_FLIPS_UP_TO:
        codes = np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds - 1)[None, :]
        rest = 1.0 - 2.0 * (codes & 1)
    else:
        rest = np.where(np.random.default_rng(SEED).random((2**16, seeds - 1)) < 0.5, -1.0, 1.0)
        rest[0] = 1.0
    return np.concatenate([np.ones((len(rest), 1)), rest], axis=1)


def _survivors(values: FloatArray, flips: FloatArray, level: float) -> int:
    """How many of the contestants (rows, best first) tie with the first: the most whose range is not significant."""
    values = values[: _undecided(values, flips, level)]
    contestants = len(values)
    at_least = np.zeros(contestants)
    observed: FloatArray | None = None
    for chunk in range(0, len(flips), 4096):
        sums = np.zeros((min(4096, len(flips) - chunk), contestants))
        for seed in range(values.shape[1]):  # by hand: a matrix product may round differently on another machine
            sums += flips[chunk : chunk + 4096, seed, None] * values[None, :, seed]
        ranges = np.maximum.accumulate(sums, axis=1) - np.minimum.accumulate(sums, axis=1)
        if observed is None:
            observed = ranges[0].copy()
        at_least += (ranges >= observed * (1 - 1e-9)).sum(axis=0)
    significant = at_least / len(flips) <= level
    return contestants - int(np.argmin(significant[::-1]))


def _undecided(values: FloatArray, flips: FloatArray, level: float) -> int:
    """How many of the contestants need the test at all; adding any farther one makes the range significant for sure.

    A flip other than "all plus" turns at least one seed, so a gap between means of D counts at most (S - 2) D in its
    range, and what is left of the two contestants at most twice the largest sum of absolute deviations; the observed
    range is S D. Where D exceeds that sum, only "all plus" reaches it. This keeps boards of thousands of rows fast.
    """
    if float((flips > 0).all(axis=1).mean()) > level:
        return len(values)
    means = values.mean(axis=1)
    noise = np.maximum.accumulate(np.abs(values - means[:, None]).sum(axis=1))
    sure = (means - means[0]) * (1 - 1e-6) > noise
    return int(np.flatnonzero(~sure)[-1]) + 1
