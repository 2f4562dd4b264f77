"""Halvings, bands, pseudo-values and tie groups against their definitions, written out."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from forgetbench.errors import UsageError
from forgetbench.scoring.statistics import (
    Band,
    band_of,
    family_limit,
    over_split_halves,
    pseudo_interval,
    pseudo_values,
    sign_flips,
    split_halves,
    tie_groups,
    z_score,
)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_split_halves_small_pool_has_all(size):
    pairs = split_halves(size)
    both = {tuple(left) for left, _ in pairs} | {tuple(right) for _, right in pairs}
    assert both == set(combinations(range(2 * size), size))
    assert 2 * len(pairs) == comb(2 * size, size) == len(both)


@pytest.mark.parametrize("size", [7, 10, 20])
def test_split_halves_large_pool_has_a_thousand(size):
    pairs = split_halves(size)
    assert len({tuple(left) for left, _ in pairs}) == len(pairs) == 1000
    for left, right in pairs:
        assert len(left) == len(right) == size
        assert sorted([*left, *right]) == list(range(2 * size))
        assert 0 in left  # so that no mirror is among them
    assert list(pairs[0][0]) == list(range(size))
    counts = np.bincount(np.concatenate([left for left, _ in pairs]), minlength=2 * size)[1:] / 1000
    assert np.all(np.abs(counts - (size - 1) / (2 * size - 1)) < 0.08)


def test_split_halves_are_deterministic():
    first = [left.tolist() for left, _ in split_halves(10)]
    split_halves.cache_clear()
    assert [left.tolist() for left, _ in split_halves(10)] == first
    with pytest.raises(ValueError, match="read-only"):
        split_halves(10)[0][0][0] = 3


def test_over_split_halves_symmetry_changes_nothing():
    values = np.random.default_rng(0).normal(size=8)

    def gap(left, right):
        return float(values[left].mean() - values[right].mean())

    def distance(left, right):
        return abs(gap(left, right))

    np.testing.assert_array_equal(over_split_halves(gap, 4, "odd"), over_split_halves(gap, 4))
    np.testing.assert_array_equal(over_split_halves(distance, 4, "even"), over_split_halves(distance, 4))
    band = band_of(over_split_halves(gap, 4))
    assert band.mean == pytest.approx(0, abs=1e-15)
    assert band.low == pytest.approx(-band.high)
    everything = [gap(list(left), sorted(set(range(8)) - set(left))) for left in combinations(range(8), 4)]
    assert band.sd == pytest.approx(np.std(everything))
    assert (band.low, band.high) == pytest.approx(tuple(np.percentile(everything, [2.5, 97.5])))


def test_z_score_by_hand():
    band = Band(0.5, 0.4, 0.6, 0.05)
    assert z_score(0.6, band, 0.01) == pytest.approx(2.0)
    assert z_score(0.6, band, 0.2) == pytest.approx(0.5)
    flat = Band(1.0, 1.0, 1.0, 0.0)
    assert z_score(0.995, flat, 0.005) == pytest.approx(-1.0)
    assert z_score(1.0, flat, 0.0) == 0.0
    assert z_score(2.0, flat, 0.0) == np.inf


def test_family_limit_by_hand():
    largest = np.arange(101.0)
    assert family_limit(largest, 6) == pytest.approx(95 * stats.t.ppf(0.995, 11) / 2.576)


@given(hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-100, 100)), st.floats(-10, 10))
def test_pseudo_values_by_definition(left_out, whole):
    pseudo = pseudo_values(whole, left_out)
    assert pseudo.mean() == pytest.approx(whole, abs=1e-6)
    count = len(left_out)
    np.testing.assert_allclose(pseudo, [whole + (count - 1) * (left_out.mean() - x) for x in left_out])
    value, low, high = pseudo_interval(whole, pseudo)
    half = stats.t.ppf(0.975, count - 1) * np.std(pseudo, ddof=1) / np.sqrt(count)
    assert (value, low, high) == pytest.approx((whole, whole - half, whole + half))


def test_pseudo_values_of_a_mean_are_the_values():
    values = np.array([1.0, 4.0, 2.0, 8.0])
    left_out = [np.delete(values, i).mean() for i in range(4)]
    np.testing.assert_allclose(pseudo_values(values.mean(), left_out), values)
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert pseudo_interval(values.mean(), values)[1:] == pytest.approx(expected)
    with pytest.raises(UsageError, match="two seeds"):
        pseudo_interval(1.0, np.array([1.0]))


def slow_tie_groups(pseudo):
    """Protocol section 4, sentence by sentence."""
    order = sorted(range(len(pseudo)), key=lambda k: (pseudo[k].mean(), k))
    spans, start = {}, 0
    rest = order
    while rest:
        live = list(rest)
        while True:
            values = pseudo[live] - pseudo[live].mean(axis=0)
            flips = [np.array((1, *signs)) for signs in product((1, -1), repeat=pseudo.shape[1] - 1)]
            ranges = np.array([np.ptp((values * flip).sum(axis=1)) for flip in flips])
            if len(live) == 1 or np.mean(ranges >= ranges[0] * (1 - 1e-9)) > 0.05:
                break
            live.pop()
        for k in live:
            spans[k] = (start + 1, start + len(live))
        start += len(live)
        rest = rest[len(live) :]
    return spans


@given(st.integers(0, 10**9), st.integers(1, 9), st.sampled_from([3, 6, 7]), st.sampled_from([0.0, 0.5, 2.0, 9.0]))
@settings(max_examples=40, deadline=None)
def test_tie_groups_equal_the_definition(seed, contestants, seeds, apart):
    generator = np.random.default_rng(seed)
    pseudo = generator.normal(size=(contestants, seeds)) + apart * np.arange(contestants)[:, None]
    pseudo = generator.permutation(pseudo + 5 * generator.normal(size=(1, seeds)))
    found = tie_groups(pseudo)
    assert {k: (placing.low, placing.high) for k, placing in enumerate(found)} == slow_tie_groups(pseudo)
    assert sorted(placing.rank for placing in found) == list(range(1, contestants + 1))
    best = sorted(range(contestants), key=lambda k: pseudo[k].mean())
    assert [found[k].rank for k in best] == list(range(1, contestants + 1))
    assert all(placing.low <= placing.rank <= placing.high for placing in found)


def test_tie_groups_ignore_the_order_of_rows():
    generator = np.random.default_rng(2)
    pseudo = generator.normal(size=(8, 6)) + np.arange(8)[:, None]
    order = generator.permutation(8)
    straight, shuffled = tie_groups(pseudo), tie_groups(pseudo[order])
    assert [straight[i] for i in order] == shuffled


def test_over_split_halves_limit_out_of_range_is_refused():
    for limit in (0, -1, 2.5):
        with pytest.raises(UsageError, match=r"^max_splits: "):
            over_split_halves(lambda *_: 0.0, 3, at_most=limit)


def test_tie_groups_equal_rows_tie():
    same = np.tile(np.arange(6.0), (3, 1))
    assert {(placing.low, placing.high) for placing in tie_groups(same)} == {(1, 3)}
    far = same + np.array([0.0, 10.0, 20.0])[:, None]
    assert [(placing.low, placing.high) for placing in tie_groups(far)] == [(1, 1), (2, 2), (3, 3)]
    five = far[:, :5]  # 2 / 32 is not below 0.05 two-sided: 1 / 16 = 0.0625, so nothing can be told apart
    assert {placing.group for placing in tie_groups(five)} == {1}


def test_sign_flips_are_all_or_sampled():
    flips = sign_flips(4)
    assert sorted(map(tuple, flips)) == sorted((1.0, *signs) for signs in product((1.0, -1.0), repeat=3))
    assert sign_flips(30).shape == (2**16, 30)
    assert (sign_flips(30)[0] == 1).all()


@pytest.mark.parametrize("contestants", [2, 5, 10, 20])
def test_tie_groups_equal_contestants_are_seldom_separated(contestants):
    generator = np.random.default_rng(contestants)
    boards, separated = 150, 0
    for _ in range(boards):
        pseudo = generator.normal(size=(contestants, 8)) + generator.normal(size=(1, 8))
        separated += max(placing.group for placing in tie_groups(pseudo)) > 1
    assert stats.binomtest(separated, boards, 0.08, alternative="greater").pvalue > 0.01
