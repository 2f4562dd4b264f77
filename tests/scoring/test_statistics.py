"""Halvings, bands, pseudo-values and rank intervals against their definitions, written out."""

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
from forgetbench.scoring import statistics
from forgetbench.scoring.statistics import (
    Band,
    band_of,
    distinguished,
    family_limit,
    log_pseudo_values,
    over_split_halves,
    pseudo_interval,
    pseudo_values,
    rank_intervals,
    sign_flips,
    split_halves,
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


def slow_separated(pseudo, alpha=0.05):
    """Protocol section 4, sentence by sentence: closed over all step-down sets, every flip of every sign."""
    count, seeds = pseudo.shape
    logs = log_pseudo_values(pseudo)
    flips = [np.array(signs) for signs in product((1, -1), repeat=seeds)]

    def statistic(first, second, flip):
        difference = logs[first] - logs[second]
        size = np.sqrt((difference**2).sum())
        return abs((flip * difference).sum()) / size if size > 0 else 0.0

    found = []
    for row in range(count):
        rest = [other for other in range(count) if other != row]
        separated = []
        while rest:
            largest = [max(statistic(row, other, flip) for other in rest) for flip in flips]
            farthest = max(rest, key=lambda other: statistic(row, other, flips[0]))
            observed = statistic(row, farthest, flips[0])
            if np.mean([value >= observed * (1 - 1e-9) for value in largest]) > alpha:
                break
            separated.append(farthest)
            rest.remove(farthest)
        found.append(separated)
    return found


def slow_rank_intervals(pseudo, separated):
    spans = []
    for row, others in enumerate(separated):
        better = sum(pseudo[other].mean() < pseudo[row].mean() for other in others)
        spans.append((1 + better, len(pseudo) - (len(others) - better)))
    return spans


@given(st.integers(0, 10**9), st.integers(1, 6), st.sampled_from([2, 5, 6, 7]), st.sampled_from([0.0, 0.5, 2.0, 9.0]))
@settings(max_examples=30)
def test_rank_intervals_equal_the_definition(seed, contestants, seeds, apart):
    generator = np.random.default_rng(seed)
    pseudo = 8 + generator.normal(size=(contestants, seeds)) * generator.choice([0.1, 1, 10], (contestants, 1))
    pseudo = generator.permutation(pseudo + apart * np.arange(contestants)[:, None]) + generator.normal(size=(1, seeds))
    found, separated = rank_intervals(pseudo), slow_separated(pseudo)
    assert [(placing.low, placing.high) for placing in found] == slow_rank_intervals(pseudo, separated)
    expected = [[j in separated[i] and i in separated[j] for j in range(contestants)] for i in range(contestants)]
    assert distinguished(pseudo).tolist() == expected
    assert sorted(placing.rank for placing in found) == list(range(1, contestants + 1))
    best = sorted(range(contestants), key=lambda k: pseudo[k].mean())
    assert [found[k].rank for k in best] == list(range(1, contestants + 1))
    assert all(placing.low <= placing.rank <= placing.high for placing in found)


@pytest.mark.parametrize("seeds", [5, 6, 10])
def test_rank_intervals_two_rows_are_the_paired_test(seeds):
    generator = np.random.default_rng(seeds)
    outcomes = set()
    for _ in range(40):
        pseudo = 20 + generator.normal(size=(2, seeds)) + [[0.0], [generator.uniform(0, 2)]]
        difference = np.diff(log_pseudo_values(pseudo), axis=0)[0]
        p = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        expected = {(1, 1), (2, 2)} if p <= 0.05 else {(1, 2)}
        assert {(placing.low, placing.high) for placing in rank_intervals(pseudo)} == expected
        outcomes.add(p <= 0.05)
    assert outcomes == ({False} if seeds == 5 else {False, True})


def test_rank_intervals_ignore_the_order_of_rows():
    generator = np.random.default_rng(2)
    pseudo = 5 + generator.normal(size=(8, 6)) + np.arange(8)[:, None]
    order = generator.permutation(8)
    straight, shuffled = rank_intervals(pseudo), rank_intervals(pseudo[order])
    assert [straight[i] for i in order] == shuffled


def test_rank_intervals_equal_rows_share_all_ranks():
    same = np.tile(np.arange(6.0), (3, 1))
    assert {(placing.low, placing.high) for placing in rank_intervals(same)} == {(1, 3)}
    exact = np.repeat([[50.0], [50.0], [50.0 + 1e-13], [60.0], [3.0]], 6, axis=1)  # rows without noise
    exact[4] += same[0]
    assert [(p.low, p.high) for p in rank_intervals(exact)] == [(2, 4), (2, 4), (2, 4), (5, 5), (1, 1)]
    far = same + np.array([10.0, 30.0, 90.0])[:, None]
    assert [(placing.low, placing.high) for placing in rank_intervals(far)] == [(1, 1), (2, 2), (3, 3)]
    assert {(p.low, p.high) for p in rank_intervals(far[:, :1])} == {(1, 3)}
    for seeds in (2, 3, 4, 5):  # the smallest p is 2^(1 - S), 0.0625 for five seeds: nothing is separated
        assert {(p.low, p.high) for p in rank_intervals(far[:, :seeds])} == {(1, 3)}


def test_rank_intervals_one_noisy_row_hides_no_others():
    signs = np.array([1, -1, 1, -1, 1, -1.0])
    pseudo = np.array([1.3, 4.8, 7.7, 60.0])[:, None] + np.array([0.6, 0.4, 0.5, 40.0])[:, None] * signs[None, :]
    pseudo[1], pseudo[2] = pseudo[1][[0, 2, 1, 3, 4, 5]], pseudo[2][[1, 0, 3, 2, 4, 5]]
    assert [(p.low, p.high) for p in rank_intervals(pseudo)][:3] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("seeds", [6, 10, 20])
def test_rank_intervals_of_clearly_better_rows_lie_ahead(seeds):
    generator = np.random.default_rng(seeds)
    pseudo = 50 + generator.normal(size=(12, seeds)) * generator.choice([0.1, 1, 10], (12, 1))
    pseudo[:4] = 5 + 0.1 * generator.normal(size=(4, seeds))
    found = rank_intervals(pseudo)
    for good in found[:4]:
        assert all(good.low <= other.high for other in found[4:])
        assert good.high <= 4 + sum(other.low <= 4 for other in found[4:])


def test_rank_intervals_shortcut_changes_nothing(monkeypatch):
    generator = np.random.default_rng(9)
    for seeds, spread in ((6, 2000.0), (8, 300.0), (20, 300.0)):
        pseudo = generator.exponential(spread, (70, 1)) + generator.normal(size=(70, seeds))
        straight = rank_intervals(pseudo)
        with monkeypatch.context() as patch:
            patch.setattr(statistics, "CLEAR", np.inf)
            assert rank_intervals(pseudo) == straight


def test_rank_intervals_sixty_rows_and_twenty_seeds():
    pseudo = np.random.default_rng(1).normal(size=(60, 20)) + np.repeat([10.0, 20.0, 40.0], 20)[:, None]
    found = rank_intervals(pseudo)
    assert rank_intervals(pseudo) == found  # the sampled sign flips are the same
    assert (
        sum(placing.low > 20 * (k // 20) + 1 or placing.high < 20 * (k // 20) + 20 for k, placing in enumerate(found))
        < 9
    )
    assert all(placing.high - placing.low <= 19 for placing in found)


def test_log_pseudo_values_are_those_of_the_log():
    left_out = np.array([3.0, 4.0, 5.0, 3.5, 4.5])  # their mean is the distance, so nothing is approximated
    pseudo = pseudo_values(4.0, left_out)
    expected = pseudo_values(np.log(5.0), np.log1p(left_out))
    np.testing.assert_allclose(log_pseudo_values(pseudo[None])[0], expected)
    assert log_pseudo_values(pseudo[None]).mean() == pytest.approx(np.log(5.0))
    wild = log_pseudo_values(np.array([[0.0, 0.0, 0.0, 60.0], [0.0] * 4]))  # a distance without a seed is at least 0
    assert np.isfinite(wild).all()


def test_sign_flips_are_all_or_sampled():
    flips = sign_flips(4)
    assert sorted(map(tuple, flips)) == sorted((1.0, *signs) for signs in product((1.0, -1.0), repeat=3))
    assert sign_flips(30).shape == (2**16, 30)
    assert sign_flips(13, 2**12).shape == sign_flips(14, 2**12)[:, :13].shape == (2**12, 13)
    assert (sign_flips(30)[0] == 1).all()


@pytest.mark.parametrize(("contestants", "seeds"), [(2, 8), (5, 6), (10, 8), (20, 10)])
def test_rank_intervals_of_equal_rows_miss_one_in_twenty(contestants, seeds):
    generator = np.random.default_rng(contestants)
    missed = []
    for _ in range(150):
        pseudo = 100 + generator.normal(size=(contestants, seeds)) + generator.normal(size=(1, seeds))
        missed.append(rank_intervals(pseudo)[0][1:] != (1, contestants))
    assert stats.binomtest(sum(missed), 150, 0.05, alternative="greater").pvalue > 0.01


def test_over_split_halves_limit_out_of_range_is_refused():
    for limit in (0, -1, 2.5):
        with pytest.raises(UsageError, match=r"^max_splits: "):
            over_split_halves(lambda *_: 0.0, 3, at_most=limit)
