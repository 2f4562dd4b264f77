"""What leaks in a split that somebody published: between what is forgotten and what is kept, and between its parts."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.datasets.problems import some
from forgetbench.datasets.sampling import joined_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from forgetbench.datasets.images import Partition


def leaks(partition: Partition) -> list[str]:
    """Pictures and people on two sides of a published list of rows to forget, or of the parts that it came with.

    People who share a picture, byte for byte, are taken for one: published names may be two for one person.

    Returns:
        A sentence for each kind of leak; none for splits that nobody published.
    """
    found = []
    for name, rows in partition.forget_lists.items():
        listed = np.zeros(len(partition.train), dtype=bool)
        listed[rows] = True
        copies, who = partition.train.first_copy, partition.train.identities
        twice = np.flatnonzero(listed & np.isin(copies, copies[~listed]))
        if len(twice):
            shown = some([partition.train.source(row) for row in twice.tolist()])
            found.append(f"{len(twice)} images of the list {name!r} are retained too, byte for byte: {shown}")
        if who is not None:
            people = joined_groups(who, copies)
            both = np.intersect1d(people[listed], people[~listed])
            where = f"in the list {name!r} and among the retained"
            found += [_of_people(both, where, who[np.isin(people, both)], partition)] if len(both) else []
    return found + (_joined(partition) if partition.forget_lists else [])


def _joined(partition: Partition) -> list[str]:
    """People of two parts, once those who share a picture are one, though they have two numbers."""
    parts = [(name, images) for name, images in partition.parts() if images.identities is not None and len(images)]
    digests = [hashlib.blake2b(image.data, digest_size=16).digest() for _, part in parts for image in part.images]
    numbers = np.concatenate([images.identities for _, images in parts if images.identities is not None])
    people = joined_groups(numbers, np.unique(np.array(digests, dtype="S16"), return_inverse=True)[1])
    ends = np.cumsum([len(images) for _, images in parts])
    sides = dict(zip([name for name, _ in parts], np.split(people, ends[:-1]), strict=True))
    shared = {(one, other): np.intersect1d(sides[one], sides[other]) for one, other in combinations(sides, 2)}
    return [
        _of_people(both, f"in {one} and in {other}", numbers[np.isin(people, both)], partition)
        for (one, other), both in shared.items()
        if len(both)
    ]


def _of_people(people: NDArray[np.int64], where: str, numbers: NDArray[np.int64], partition: Partition) -> str:
    shown = some([partition.train.person(number) for number in np.unique(numbers).tolist()])
    return f"{len(people)} people, once those who share a picture are taken for one, are {where}: {shown}"
