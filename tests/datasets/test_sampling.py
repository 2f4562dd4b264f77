import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetbench.datasets._sampling import (
    connected_groups,
    ensure_train_covers_classes,
    random_order,
    sample_groups,
    stratified_split,
)
from forgetbench.datasets.base import make_rng
from forgetbench.errors import UsageError

small = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@given(small, st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(0, 99))
def test_stratified_split_is_exact_and_proportional(labels, sizes, seed):
    labels = np.array(labels)
    if sum(sizes) > len(labels):
        with pytest.raises(UsageError, match="cannot be taken"):
            stratified_split(labels, sizes, make_rng(seed))
        return
    parts = stratified_split(labels, sizes, make_rng(seed))
    assert [len(part) for part in parts] == sizes
    rows = np.concatenate(parts)
    assert len(np.unique(rows)) == len(rows)
    # every class is spread evenly over the order, so a section has its proportion up to the unevenness of all classes
    slack = 1 + len(np.unique(labels))
    for part in parts:
        share = np.bincount(labels[part], minlength=6) - np.bincount(labels, minlength=6) * len(part) / len(labels)
        assert np.abs(share).max() <= slack


def test_stratified_split_of_balanced_classes_is_even():
    labels = np.repeat(np.arange(10), 100)
    first, second = stratified_split(labels, [100, 300], make_rng("even"))
    assert np.abs(np.bincount(labels[first]) - 10).max() <= 1
    assert np.abs(np.bincount(labels[second]) - 30).max() <= 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_connected_groups_are_connected_components(pairs):
    """Against a union of sets by hand."""
    sets: list[set[int]] = []
    for row, (left, right) in enumerate(pairs):
        linked = {other for other, (a, b) in enumerate(pairs[: row + 1]) if a == left or b == right} | {row}
        touched = [group for group in sets if group & linked]
        sets = [group for group in sets if not group & linked] + [linked.union(*touched)]
    groups = connected_groups(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    assert {frozenset(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)} == {frozenset(s) for s in sets}
    first_seen = list(dict.fromkeys(groups.tolist()))
    assert first_seen == list(range(len(first_seen)))


@given(small, st.integers(0, 60), st.integers(0, 9))
def test_sample_groups_takes_whole_groups_up_to_count(column, count, seed):
    groups = connected_groups(np.array(column))
    rows = sample_groups(groups, count, make_rng(seed))
    assert len(rows) <= count
    assert not set(groups[rows]) & set(np.delete(groups, rows))
    if len(groups) == len(np.unique(groups)):
        assert len(rows) == min(count, len(groups))


def test_random_order_is_a_uniform_permutation():
    ranks = np.array([random_order(4, make_rng("uniform", seed)) for seed in range(4000)])
    assert np.array_equal(np.sort(ranks, axis=1), np.tile(np.arange(4), (4000, 1)))
    seen = np.array([(ranks[:, 0] == value).mean() for value in range(4)])
    assert np.abs(seen - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_make_rng_depends_on_names_only():
    code = "from forgetbench.datasets.base import make_rng; print(make_rng('a', 1).random().hex())"
    hashed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert {run.stdout.strip() for run in hashed} == {make_rng("a", 1).random().hex()}
    drawn = {make_rng(*names).random() for names in (("a", 1), ("a", 2), ("a1",), ("a", "1"), (1, "a"))}
    assert len(drawn) == 5


@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.integers(0, 9), st.integers(0, 30))
def test_stratified_split_keeps_groups_together(labels, seed, copies):
    labels = np.array(labels)
    sizes = [len(labels) // 2, len(labels) // 4, len(labels) - len(labels) // 2 - len(labels) // 4]
    ungrouped = stratified_split(labels, sizes, make_rng(seed), np.arange(len(labels)))
    for part, same in zip(ungrouped, stratified_split(labels, sizes, make_rng(seed)), strict=True):
        assert np.array_equal(part, same)
    groups = np.arange(len(labels))
    for copy, original in np.random.default_rng(copies).integers(0, len(labels), (5, 2)):
        groups[groups == groups[copy]] = groups[original]
    parts = stratified_split(labels, sizes, make_rng(seed), groups)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not set(groups[parts[first]]) & set(groups[parts[second]])
    largest = np.bincount(groups).max()
    assert all(abs(len(part) - size) <= largest for part, size in zip(parts, sizes, strict=True))


def test_ensure_train_covers_classes_moves_whole_groups():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 0])
    groups = np.array([0, 1, 2, 3, 4, 5, 5, 7])
    parts = [np.array([0, 1]), np.array([2, 5, 6]), np.array([3, 4, 7])]
    moved = ensure_train_covers_classes(parts, labels, groups, train=0)
    assert [part.tolist() for part in moved] == [[0, 1, 3, 5, 6], [2], [4, 7]]
    same = ensure_train_covers_classes(moved, labels, groups, train=0)
    assert all(np.array_equal(left, right) for left, right in zip(moved, same, strict=True))
    selected = ensure_train_covers_classes([np.array([0]), np.array([1])], np.array([0, 1]), np.array([0, 1]), train=0)
    assert [part.tolist() for part in selected] == [[0], [1]]  # or nothing would be left to test on
