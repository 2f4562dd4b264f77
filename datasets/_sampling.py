"""Drawing rows: orders, stratified parts, and rows that belong together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def order(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order of ``range(count)``: the ranks of uniform doubles, whose stream numpy keeps between releases."""
    return np.argsort(rng.random(count), kind="stable").astype(np.int64)


def stratified_parts(
    labels: NDArray[np.int64],
    sizes: Sequence[int],
    rng: np.random.Generator,
    groups: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Disjoint parts of exactly these sizes, each with the classes in proportion; the rest is left out.

    Every class is put in a random order and spread evenly over [0, 1); cutting the rows, sorted by that place, keeps
    all classes in proportion, to within one row for every part. Where rows stay together, sizes are met to within a
    group.

    Args:
        labels: (N,), the classes.
        sizes: How many rows every part gets.
        rng: Where the randomness comes from.
        groups: (N,), rows that stay together, such as :attr:`ImageSet.first_copy`; none: every row is for itself.

    Returns:
        Sorted row numbers, one array for each size.

    Raises:
        UsageError: The sizes are more than there are rows.
    """
    if sum(sizes) > len(labels) or min(sizes, default=0) < 0:
        raise UsageError(f"Parts of {', '.join(map(str, sizes))} images cannot be taken from {len(labels)} images.")
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows[order(len(rows), rng)]] = (np.arange(len(rows)) + rng.random()) / len(rows)
    edges = np.cumsum([0, *sizes])
    if groups is None:
        ranked = np.argsort(place, kind="stable")
    else:
        _, first, members = np.unique(groups, return_index=True, return_inverse=True)
        ranked = np.lexsort((first[members], place[first][members]))
        starts = np.flatnonzero(np.diff(members[ranked], prepend=-1))
        borders = np.append(starts, len(labels))
        edges = borders[np.abs(borders[:, None] - edges).argmin(axis=0)]
    return [np.sort(ranked[start:stop]) for start, stop in itertools.pairwise(edges)]


def teach_every_class(
    parts: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], groups: NDArray[np.int64], train: int
) -> list[NDArray[np.int64]]:
    """Parts in which every class has something to be learned from: a class without has its first row moved to train.

    The rows of its group go with it. A part that would be left empty keeps what it has.

    Args:
        parts: Row numbers of every part.
        labels: (N,), the classes.
        groups: (N,), rows that stay together.
        train: Which part is trained on.

    Returns:
        The parts, sorted; as they were where every class is taught.
    """
    part = np.full(len(labels), -1)
    for number, rows in enumerate(parts):
        part[rows] = number
    for label in np.setdiff1d(labels, labels[part == train]):
        moved = groups == groups[np.flatnonzero(labels == label)[0]]
        left = [bool((part[~moved] == number).any()) for number in np.unique(part[moved]) if number >= 0]
        if all(left):
            part[moved] = train
    return [np.flatnonzero(part == number) for number in range(len(parts))]


def joined_groups(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of rows that are alike in any column, directly or through others.

    With identities and :attr:`ImageSet.first_copy` as columns, people who share a picture become one group.

    Args:
        columns: (N,) each; equal numbers in one column belong together.

    Returns:
        (N,) group numbers from 0, in the order in which the groups first appear.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(columns[0])
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


def take_groups(groups: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """About ``count`` random rows in whole groups: exactly as many where the groups allow, never more.

    Args:
        groups: (N,) group numbers from 0.
        count: Rows wanted.
        rng: Where the randomness comes from.

    Returns:
        Sorted row numbers.
    """
    return take_first_groups(groups, count, order(int(groups.max(initial=-1)) + 1, rng))


def take_first_groups(groups: NDArray[np.int64], count: int, ranking: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most ``count`` rows in whole groups, visited in the order of a ranking.

    A group that would go beyond the count is left out, and the next ones are tried.

    Args:
        groups: (N,) group numbers from 0.
        count: Rows wanted.
        ranking: The groups, the first to be taken first.

    Returns:
        Sorted row numbers.
    """
    sizes = np.bincount(groups)
    chosen = np.zeros(len(sizes), dtype=bool)
    left = count
    for group in ranking:
        if sizes[group] <= left:
            chosen[group] = True
            left -= int(sizes[group])
            if left == 0:
                break
    return np.flatnonzero(chosen[groups])


def people_parts(groups: NDArray[np.int64], counts: Sequence[int], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Parts of whole groups (people), drawn at random, so that all parts are alike; the last one gets all the others.

    Args:
        groups: (N,), who is seen; equal numbers stay in one part.
        counts: How many people every part but the last gets.
        rng: Where the randomness comes from.

    Returns:
        Sorted row numbers: one array for each count, and one for the rest.

    Raises:
        UsageError: Nobody would be left for the last part.
    """
    people, codes = np.unique(groups, return_inverse=True)
    if sum(counts) >= len(people):
        raise UsageError(f"Parts of {', '.join(map(str, counts))} people leave nobody of {len(people)} to train on.")
    edges = np.cumsum([*counts, len(people) - sum(counts)])
    part = np.empty(len(people), dtype=np.int64)
    part[order(len(people), rng)] = np.searchsorted(edges, np.arange(len(people)), side="right")
    return [np.flatnonzero(part[codes] == number) for number in range(len(edges))]
