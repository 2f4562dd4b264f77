import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.datasets._sampling import joined_groups, order, stratified_parts, take_groups, teach_every_class
from forgetbench.datasets.base import generator
from forgetbench.errors import UsageError

small = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@settings(deadline=None)
@given(small, st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(0, 99))
def test_stratified_parts_are_exact_disjoint_and_in_proportion(labels, sizes, seed):
    labels = np.array(labels)
    if sum(sizes) > len(labels):
        with pytest.raises(UsageError, match="cannot be taken"):
            stratified_parts(labels, sizes, generator(seed))
        return
    parts = stratified_parts(labels, sizes, generator(seed))
    assert [len(part) for part in parts] == sizes
    rows = np.concatenate(parts)
    assert len(np.unique(rows)) == len(rows)
    # Each class lies evenly in the order, so a stretch of it holds its share to within the unevenness of all classes.
    slack = 1 + len(np.unique(labels))
    for part in parts:
        share = np.bincount(labels[part], minlength=6) - np.bincount(labels, minlength=6) * len(part) / len(labels)
        assert np.abs(share).max() <= slack


def test_balanced_classes_are_split_evenly():
    labels = np.repeat(np.arange(10), 100)
    first, second = stratified_parts(labels, [100, 300], generator("even"))
    assert np.abs(np.bincount(labels[first]) - 10).max() <= 1
    assert np.abs(np.bincount(labels[second]) - 30).max() <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_joined_groups_are_connected_components(pairs):
    """Against a union of sets by hand."""
    sets: list[set[int]] = []
    for row, (left, right) in enumerate(pairs):
        mates = {other for other, (a, b) in enumerate(pairs[: row + 1]) if a == left or b == right} | {row}
        touched = [group for group in sets if group & mates]
        sets = [group for group in sets if not group & mates] + [mates.union(*touched)]
    groups = joined_groups(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    assert {frozenset(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)} == {frozenset(s) for s in sets}
    first_seen = list(dict.fromkeys(groups.tolist()))
    assert first_seen == list(range(len(first_seen)))


@settings(deadline=None)
@given(small, st.integers(0, 60), st.integers(0, 9))
def test_take_groups_takes_whole_groups_and_never_too_many(column, count, seed):
    groups = joined_groups(np.array(column))
    rows = take_groups(groups, count, generator(seed))
    assert len(rows) <= count
    assert not set(groups[rows]) & set(np.delete(groups, rows))
    if len(groups) == len(np.unique(groups)):
        assert len(rows) == min(count, len(groups))


def test_order_is_a_permutation_and_uniform():
    ranks = np.array([order(4, generator("uniform", seed)) for seed in range(4000)])
    assert np.array_equal(np.sort(ranks, axis=1), np.tile(np.arange(4), (4000, 1)))
    seen = np.array([(ranks[:, 0] == value).mean() for value in range(4)])
    assert np.abs(seen - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_generators_are_the_same_in_another_process_and_differ_by_name():
    code = "from forgetbench.datasets.base import generator; print(generator('a', 1).random().hex())"
    hashed = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        for seed in ("1", "2")
    ]
    assert {run.stdout.strip() for run in hashed} == {generator("a", 1).random().hex()}
    drawn = {generator(*names).random() for names in (("a", 1), ("a", 2), ("a1",), ("a", "1"), (1, "a"))}
    assert len(drawn) == 5


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.integers(0, 9), st.integers(0, 30))
def test_rows_that_belong_together_stay_in_one_part(labels, seed, copies):
    labels = np.array(labels)
    sizes = [len(labels) // 2, len(labels) // 4, len(labels) - len(labels) // 2 - len(labels) // 4]
    apart = stratified_parts(labels, sizes, generator(seed), np.arange(len(labels)))
    for part, same in zip(apart, stratified_parts(labels, sizes, generator(seed)), strict=True):
        assert np.array_equal(part, same)
    groups = np.arange(len(labels))
    for copy, original in np.random.default_rng(copies).integers(0, len(labels), (5, 2)):
        groups[groups == groups[copy]] = groups[original]
    parts = stratified_parts(labels, sizes, generator(seed), groups)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not set(groups[parts[one]]) & set(groups[parts[other]])
    largest = np.bincount(groups).max()
    assert all(abs(len(part) - size) <= largest for part, size in zip(parts, sizes, strict=True))


def test_a_class_without_training_rows_gets_its_first_and_what_belongs_to_it():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 0])
    groups = np.array([0, 1, 2, 3, 4, 5, 5, 7])
    parts = [np.array([0, 1]), np.array([2, 5, 6]), np.array([3, 4, 7])]
    taught = teach_every_class(parts, labels, groups, train=0)
    assert [part.tolist() for part in taught] == [[0, 1, 3, 5, 6], [2], [4, 7]]
    same = teach_every_class(taught, labels, groups, train=0)
    assert all(np.array_equal(one, other) for one, other in zip(taught, same, strict=True))
    kept = teach_every_class([np.array([0]), np.array([1])], np.array([0, 1]), np.array([0, 1]), train=0)
    assert [part.tolist() for part in kept] == [[0], [1]]  # or nothing would be left to test on
