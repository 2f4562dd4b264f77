"""Every problem of an image set, before anything is trained on it; and how a set is got ready."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from forgetbench.datasets import make_loader
from forgetbench.datasets.files import FileProblems
from forgetbench.datasets.leaks import leaks
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from forgetbench.datasets.images import DatasetCard, ImageSet, Partition

FEW = 5
"""A class with fewer training images than this can hardly be learnt."""


class Problem(NamedTuple):
    """One thing that is wrong with an image set."""

    name: str
    """What kind of problem, in a word or two."""
    where: str
    """Which file, row, part or class."""
    fix: str
    """What to do about it."""
    serious: bool = True
    """Whether results would be wrong, rather than only worse."""


def check_image_set(name: str, options: Mapping[str, Any] | None = None, root: Path | None = None) -> list[Problem]:
    """All problems of an image set: files that are missing or unreadable, or else what is wrong in its parts.

    Args:
        name: Name in the registry.
        options: Options of the set.
        root: The data folder.

    Raises:
        UsageError: There is no such image set or option.
    """
    loader = make_loader(name, options)
    try:
        partition = loader.load(root)
    except FileProblems as error:
        fix = "Copy the file again from where the set comes from, or take it out of the table."
        return [Problem("missing or unreadable", problem, fix) for problem in error.problems]
    except UsageError as error:
        return [Problem("not as expected", str(error), loader.card.obtain or "See the message.")]
    return check_partition(partition) + [
        Problem(
            "not the published set",
            difference,
            "Copy the set again from where it comes from; results on other files say nothing beside those on the set.",
            serious=False,
        )
        for difference in loader.differences(root)
    ]


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
) -> list[Problem]:
    """Get an image set ready: say on what terms it is used, fetch it where that is allowed, and check it.

    Args:
        name: Name in the registry.
        options: Options of the set.
        root: The data folder; files are fetched into it.
        say: Is given a line at a time of what a person should know.

    Returns:
        What is wrong with what is there.

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
    lines = [f"{card.title}: {card.description}", f"Licence: {card.licence}."]
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
    digests = {part: _digests(images) for part, images in partition.parts()}
    problems = []
    for one, other in combinations(digests, 2):
        shared = set(digests[one]) & set(digests[other])
        if shared:
            rows = [row for row, digest in enumerate(digests[other]) if digest in shared]
            where = f"{len(rows)} images of {other} are in {one} too, byte for byte: rows {_some(rows)}"
            fix = f"Take them out of {other}, or use another split."
            problems.append(Problem("repeated across parts", where, fix))
    return problems


def _people_on_two_sides(partition: Partition) -> list[Problem]:
    """People of train in other parts, unless the people are what is learnt."""
    people = {part: images.identities for part, images in partition.parts() if images.identities is not None}
    if "train" not in people or _people_are_classes(partition.train):
        return []
    problems = []
    for one, other in combinations(people, 2):
        shared = np.intersect1d(people[one], people[other])
        if len(shared):
            where = f"{len(shared)} people are in {one} and in {other}: numbers {_some(shared.tolist())}"
            problems.append(Problem("person on two sides", where, "Divide the pictures by person."))
    return problems


def _contradictions(partition: Partition) -> list[Problem]:
    """The same image under two labels."""
    train = partition.train
    differs = np.flatnonzero((train.labels != train.labels[train.first_copy]).reshape(len(train), -1).any(axis=1))
    if not len(differs):
        return []
    where = f"{len(differs)} training images repeat another one and have another label: rows {_some(differs.tolist())}"
    return [Problem("contradicting labels", where, "Correct the labels, or drop the repetitions.")]


def _classes(partition: Partition) -> list[Problem]:
    """Classes that cannot be learnt, or tested."""
    problems = []
    for number, name in enumerate(partition.train.classes):
        taught, tested = (int(_shows(images, number).sum()) for images in (partition.train, partition.test))
        if taught < FEW:
            where = f"class {name!r} has {taught} training images"
            fix = "Add images, or leave the class out."
            problems.append(Problem("too few images", where, fix, serious=taught == 0))
        if tested == 0:
            where, fix = f"class {name!r} has no test image", "Make the test set larger, or leave the class out."
            problems.append(Problem("untested class", where, fix, serious=False))
    return problems


def _repeated_in_training(partition: Partition) -> list[Problem]:
    first = partition.train.first_copy
    rows = np.flatnonzero(first != np.arange(len(first))).tolist()
    if not rows:
        return []
    where = f"{len(rows)} training images repeat another one, byte for byte: rows {_some(rows)}"
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
            where = f"{len(rows)} images of {part} are of one colour: rows {_some(rows)}"
            problems.append(Problem("blank image", where, "Look at them; take them out.", serious=False))
    return problems


def _digests(images: ImageSet) -> list[bytes]:
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in images.images]


def _people_are_classes(images: ImageSet) -> bool:
    """Whether every person has one label that nobody else has."""
    if images.attributes or images.identities is None:
        return False
    pairs = Counter(zip(images.identities.tolist(), images.labels.tolist(), strict=True))
    return len(pairs) == len({who for who, _ in pairs}) == len({label for _, label in pairs})


def _shows(images: ImageSet, number: int) -> NDArray[np.bool_]:
    """Which images show a class, or have an attribute."""
    return np.asarray(images.labels[:, number] == 1 if images.attributes else images.labels == number)


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
