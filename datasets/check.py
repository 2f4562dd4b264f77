"""Every problem of an image set, before anything is trained on it; and how a set is got ready."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets import make_loader
from forgetbench.datasets._identity_splits import people_are_classes
from forgetbench.datasets._sampling import joined_groups
from forgetbench.datasets.base import Examined
from forgetbench.datasets.problems import Problem, some, too_few
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from forgetbench.datasets.types import DatasetCard, ImageSet, Partition


FEW = 5
"""A class with fewer training images than this can hardly be learned."""


def check_image_set(name: str, options: Mapping[str, Any] | None = None, root: Path | None = None) -> Examined:
    """An image set as far as it can be read, and all its problems: of its files, and of the parts made of good ones.

    Args:
        name: Name in the registry.
        options: Options of the set.
        root: The data folder.

    Raises:
        UsageError: There is no such image set or option.
    """
    loader = make_loader(name, options)
    partition, problems = loader.examine(root)
    found = list(problems)
    if partition is not None:
        fix = "Copy the set again from where it comes from; results on other files say nothing beside those on the set."
        differences = loader.differences(root)
        found += check_partition(partition)
        found += [Problem("not the published set", difference, fix, serious=False) for difference in differences]
    return Examined(partition, sorted(dict.fromkeys(found), key=lambda problem: not problem.serious))


def check_partition(partition: Partition) -> list[Problem]:
    """All problems of a partition, the serious ones first."""
    problems: list[Problem] = []
    for check in (
        _repeated_across_parts,
        _people_on_two_sides,
        _contradictions,
        _classes,
        _repeated_in_training,
        _leaks,
        _blank,
    ):
        problems += check(partition)
    return sorted(problems, key=lambda problem: not problem.serious)


def prepare(
    name: str,
    options: Mapping[str, Any] | None = None,
    root: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Examined:
    """Get an image set ready: say on what terms it is used, fetch it where that is allowed, and check it.

    Args:
        name: Name in the registry.
        options: Options of the set.
        root: The data folder; files are fetched into it.
        say: Is given a line at a time of what a person should know.

    Returns:
        What is there, and what is wrong with it.

    Raises:
        UsageError: Files are needed and no data folder was named.
        ForgetBenchError: The download failed.
    """
    loader = make_loader(name, options)
    for line in terms(loader.card):
        say(line)
    fetch = getattr(loader, "prepare", None)
    if loader.card.downloads and fetch is not None:
        if root is None:
            raise UsageError(f"{loader.option_owner} is fetched into a data folder: name it with --root.")
        fetch(root)
    return check_image_set(name, options, root)


def terms(card: DatasetCard) -> list[str]:
    """What a person should know before using an image set, a line each."""
    lines = [f"{card.title}: {card.description}", f"License: {card.license}."]
    if card.people:
        lines.append(
            "It shows real people. Keep the pictures to yourself, do not try to find out who somebody is, and ask "
            "whether your institution wants an ethics review."
        )
    if card.restricted:
        lines.append(f"It may not be passed on, and is never fetched for you. {card.obtain}")
    if card.citation:
        lines.append(f"Cite: {card.citation}.")
    return lines


def _repeated_across_parts(partition: Partition) -> list[Problem]:
    parts = dict(partition.parts())
    firsts = {part: _first_rows(images) for part, images in parts.items()}
    problems = []
    for one, other in combinations(parts, 2):
        digests = _digests(parts[other])
        pairs = [(row, firsts[one][digest]) for row, digest in enumerate(digests) if digest in firsts[one]]
        if pairs:
            named = some([f"{parts[other].source(row)} = {parts[one].source(first)}" for row, first in pairs])
            where = f"{len(pairs)} images of {other} are in {one} too, byte for byte: {named}"
            fix = f"Take them out of {other}, or use another split."
            problems.append(Problem("repeated across parts", where, fix))
    return problems


def _people_on_two_sides(partition: Partition) -> list[Problem]:
    """People of train in other parts, unless the people are what is learned."""
    sides = {part: images for part, images in partition.parts() if images.identities is not None}
    if "train" not in sides or people_are_classes(partition.train):
        return []
    people = {part: _first_pictures(images) for part, images in sides.items()}
    problems = []
    for one, other in combinations(sides, 2):
        shared = sorted(people[one].keys() & people[other].keys())
        if shared:
            named = some(
                [
                    f"{sides[one].person(who)} ({sides[one].source(people[one][who])}, "
                    f"{sides[other].source(people[other][who])})"
                    for who in shared
                ]
            )
            where = f"{len(shared)} people are in {one} and in {other}: {named}"
            fix = "Put all pictures of a person into one part, or use a split by person."
            problems.append(Problem("person on two sides", where, fix))
    return problems


def _contradictions(partition: Partition) -> list[Problem]:
    """The same image under two labels."""
    train, first = partition.train, partition.train.first_copy
    differs = np.flatnonzero((train.labels != train.labels[first]).reshape(len(train), -1).any(axis=1))
    if not len(differs):
        return []
    named = some([f"{train.source(row)} = {train.source(first[row])}" for row in differs.tolist()])
    where = f"{len(differs)} training images repeat another one and have another label: {named}"
    return [Problem("contradicting labels", where, "Correct the labels, or drop the repetitions.")]


def _classes(partition: Partition) -> list[Problem]:
    """Classes that cannot be learned, or tested."""
    problems = []
    for number, name in enumerate(partition.train.classes):
        taught, tested = (int(_shows(images, number).sum()) for images in (partition.train, partition.test))
        if taught < FEW:
            problems.append(too_few(name, taught))
        if tested == 0:
            where, fix = f"class {name!r} has no test image", "Make the test set larger, or leave the class out."
            problems.append(Problem("untested class", where, fix, serious=False))
    return problems


def _repeated_in_training(partition: Partition) -> list[Problem]:
    train, first = partition.train, partition.train.first_copy
    rows = np.flatnonzero(first != np.arange(len(first)))
    if not len(rows):
        return []
    named = some([f"{train.source(row)} = {train.source(first[row])}" for row in rows.tolist()])
    where = f"{len(rows)} training images repeat another one, byte for byte: {named}"
    fix = "Drop them, or leave them: scenarios keep them on one side."
    return [Problem("repeated in training", where, fix, serious=False)]


def _leaks(partition: Partition) -> list[Problem]:
    fix = "Use a split without leaks; results on this one compare with what was published on it, and with nothing else."
    return [Problem("leak as published", where, fix, serious=False) for where in leaks(partition)]


def _blank(partition: Partition) -> list[Problem]:
    problems = []
    for part, images in partition.parts():
        flat = images.images.reshape(len(images), -1)
        rows = np.flatnonzero((flat == flat[:, :1]).all(axis=1)).tolist() if len(flat) else []
        if rows:
            named = some([images.source(row) for row in rows])
            where = f"{len(rows)} images of {part} are of one color: {named}"
            problems.append(Problem("blank image", where, "Look at them; take them out.", serious=False))
    return problems


def _digests(images: ImageSet) -> list[bytes]:
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in images.images]


def _first_rows(images: ImageSet) -> dict[bytes, int]:
    """Digests to the first row of each."""
    first: dict[bytes, int] = {}
    for row, digest in enumerate(_digests(images)):
        first.setdefault(digest, row)
    return first


def _first_pictures(images: ImageSet) -> dict[int, int]:
    """Everybody's number to the first row of each."""
    assert images.identities is not None  # noqa: S101 (asked for sets with people alone)
    people, rows = np.unique(images.identities, return_index=True)
    return dict(zip(people.tolist(), rows.tolist(), strict=True))


def _shows(images: ImageSet, number: int) -> NDArray[np.bool_]:
    """Which images show a class, or have an attribute."""
    return np.asarray(images.labels[:, number] == 1 if images.attributes else images.labels == number)


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
