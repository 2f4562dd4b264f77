"""Random orders, stratified splits, and splits that keep groups of rows together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def random_order(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random permutation of ``range(count)``.

    It is the ranking of uniform doubles, whose stream stays the same from one numpy release to the next.
    """
    return np.argsort(rng.random(count), kind="stable").astype(np.int64)


def stratified_split(
    labels: NDArray[np.int64],
    sizes: Sequence[int],
    rng: np.random.Generator,
    groups: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Draw disjoint parts of exactly these sizes, each with the classes in proportion; other rows are unused.

    Every class is put in a random order and spread evenly over [0, 1). Cutting the rows, sorted by that position, keeps
    all classes in proportion to within one row for every part. With groups, sizes are met to within one group.

    Args:
        labels: (N,) classes.
        sizes: Number of rows of every part.
        rng: Source of the randomness.
        groups: (N,) rows with equal numbers stay in one part, such as :attr:`ImageSet.first_copy`; None: no groups.

    Returns:
        Sorted row numbers, one array per size.

    Raises:
        UsageError: The sizes add up to more than N.
    """
    if sum(sizes) > len(labels) or min(sizes, default=0) < 0:
        raise UsageError(f"Parts of {', '.join(map(str, sizes))} images cannot be taken from {len(labels)} images.")
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        position[rows[random_order(len(rows), rng)]] = (np.arange(len(rows)) + rng.random()) / len(rows)
    edges = np.cumsum([0, *sizes])
    if groups is None:
        ranking = np.argsort(position, kind="stable")
    else:
        # a group is placed where its first row is; edges move to the nearest border between groups
        _, first, members = np.unique(groups, return_index=True, return_inverse=True)
        ranking = np.lexsort((first[members], position[first][members]))
        starts = np.flatnonzero(np.diff(members[ranking], prepend=-1))
        borders = np.append(starts, len(labels))
        edges = borders[np.abs(borders[:, None] - edges).argmin(axis=0)]
    return [np.sort(ranking[start:stop]) for start, stop in itertools.pairwise(edges)]


def ensure_train_covers_classes(
    parts: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], groups: NDArray[np.int64], train: int
) -> list[NDArray[np.int64]]:
    """Move the first row of every class without training rows to the training part, with all rows of its group.

    A move that would leave another part empty is not made.

    Args:
        parts: Row numbers of every part.
        labels: (N,) classes.
        groups: (N,) rows with equal numbers stay together.
        train: Index of the training part in ``parts``.

    Returns:
        Sorted row numbers of every part; unchanged if the training part already has every class.
    """
    part = np.full(len(labels), -1)
    for number, rows in enumerate(parts):
        part[rows] = number
    for label in np.setdiff1d(labels, labels[part == train]):
        moving = groups == groups[np.flatnonzero(labels == label)[0]]
        if all(bool((part[~moving] == number).any()) for number in np.unique(part[moving]) if number >= 0):
            part[moving] = train
    return [np.flatnonzero(part == number) for number in range(len(parts))]


def connected_groups(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group rows that have equal values in any column, directly or through other rows.

    With identities and :attr:`ImageSet.first_copy` as columns, people who share an image become one group.

    Args:
        columns: (N,) each.

    Returns:
        (N,) group numbers from 0, in the order of the groups' first rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(columns[0])
    # a graph of rows (nodes 0 to count - 1) and values (the nodes after them), with an edge for every cell
    nodes, offset = [], count
    for column in columns:
        _, codes = np.unique(column, return_inverse=True)
        nodes.append(codes + offset)
        offset += int(codes.max(initial=-1)) + 1
    rows = np.tile(np.arange(count), len(columns))
    edges = coo_array((np.ones(len(rows), np.int8), (rows, np.concatenate(nodes))), shape=(offset, offset))
    _, component = connected_components(edges, directed=False)
    _, first, codes = np.unique(component[:count], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes].astype(np.int64)


def sample_groups(groups: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most ``count`` random rows in whole groups; exactly ``count`` if the sizes of the groups allow it.

    Args:
        groups: (N,) group numbers from 0.
        count: Number of rows.
        rng: Source of the randomness.

    Returns:
        Sorted row numbers.
    """
    return take_ranked_groups(groups, count, random_order(int(groups.max(initial=-1)) + 1, rng))


def take_ranked_groups(groups: NDArray[np.int64], count: int, ranking: NDArray[np.int64]) -> NDArray[np.int64]:
    """Take at most ``count`` rows in whole groups, in the order of a ranking.

    A group that would exceed the count is skipped, and the next ones are tried.

    Args:
        groups: (N,) group numbers from 0.
        count: Number of rows.
        ranking: Group numbers, the first one to take first.

    Returns:
        Sorted row numbers.
    """
    sizes = np.bincount(groups)
    chosen = np.zeros(len(sizes), dtype=bool)
    remaining = count
    for group in ranking:
        if sizes[group] <= remaining:
            chosen[group] = True
            remaining -= int(sizes[group])
            if remaining == 0:
                break
    return np.flatnonzero(chosen[groups])


def split_by_group(
    groups: NDArray[np.int64], counts: Sequence[int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Split rows into parts of whole groups (people) drawn at random, so that all parts have the same distribution.

    Args:
        groups: (N,) rows with equal numbers stay in one part.
        counts: Number of groups of every part but the last, which gets all others.
        rng: Source of the randomness.

    Returns:
        Sorted row numbers: one array per count, and one for the rest.

    Raises:
        UsageError: The last part would be empty.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if sum(counts) >= len(names):
        parts = ", ".join(map(str, counts))
        raise UsageError(f"Parts of {parts} people leave none of the {len(names)} people for training.")
    edges = np.cumsum([*counts, len(names) - sum(counts)])
    part = np.empty(len(names), dtype=np.int64)
    part[random_order(len(names), rng)] = np.searchsorted(edges, np.arange(len(names)), side="right")
    return [np.flatnonzero(part[codes] == number) for number in range(len(edges))]
