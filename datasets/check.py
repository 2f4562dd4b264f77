"""Checks of an image set before training, and preparation of its files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets import make_loader
from forgetbench.datasets._identity_splits import identities_are_classes
from forgetbench.datasets._sampling import connected_groups
from forgetbench.datasets.base import LoadReport
from forgetbench.datasets.problems import Problem, summarize_names, too_few_images
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from forgetbench.datasets.types import DatasetCard, ImageSet, Partition


MIN_TRAINING_IMAGES = 5
"""A network hardly learns a class with fewer training images."""


def check_image_set(name: str, options: Mapping[str, Any] | None = None, root: Path | None = None) -> LoadReport:
    """Read an image set as far as possible and report all problems, of its files and of the readable images.

    Args:
        name: Name in the registry.
        options: Options of the image set.
        root: The data folder.

    Raises:
        UsageError: The image set or an option is unknown.
    """
    loader = make_loader(name, options)
    partition, problems = loader.examine(root)
    found = list(problems)
    if partition is not None:
        fix = "Copy the image set from its source again; results on other files are not comparable."
        differences = loader.compare_with_published(root)
        found += check_partition(partition)
        found += [Problem("not the published set", difference, fix, serious=False) for difference in differences]
    return LoadReport(partition, sorted(dict.fromkeys(found), key=lambda problem: not problem.serious))


def check_partition(partition: Partition) -> list[Problem]:
    """Return all problems of a partition, serious ones first."""
    problems: list[Problem] = []
    for check in (
        _check_repeats_across_parts,
        _check_people_across_parts,
        _check_contradicting_labels,
        _check_classes,
        _check_repeats_in_training,
        _check_published_leaks,
        _check_blank_images,
    ):
        problems += check(partition)
    return sorted(problems, key=lambda problem: not problem.serious)


def prepare(
    name: str,
    options: Mapping[str, Any] | None = None,
    root: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> LoadReport:
    """Prepare an image set: print its terms of use, download it if that is allowed, and check it.

    Args:
        name: Name in the registry.
        options: Options of the image set.
        root: The data folder, into which files are downloaded.
        say: Receives the terms of use, one line per call.

    Returns:
        The readable images, and all problems.

    Raises:
        UsageError: Files are needed, and no data folder was named.
        ForgetBenchError: The download failed.
    """
    loader = make_loader(name, options)
    for line in terms_of_use(loader.card):
        say(line)
    download = getattr(loader, "prepare", None)
    if loader.card.downloads and download is not None:
        if root is None:
            raise UsageError(f"{loader.option_owner} needs a data folder to download into. Name it with --root.")
        download(root)
    return check_image_set(name, options, root)


def terms_of_use(card: DatasetCard) -> list[str]:
    """Return what a user should know before using an image set, one text per line."""
    lines = [f"{card.title}: {card.description}", f"License: {card.license}."]
    if card.people:
        lines.append(
            "It shows real people. Do not pass the images on, do not try to identify people, and find out whether your "
            "institution requires an ethics review."
        )
    if card.restricted:
        lines.append(f"It must not be redistributed, and ForgetBench never downloads it. {card.obtain}")
    if card.citation:
        lines.append(f"Cite: {card.citation}.")
    return lines


def published_leaks(partition: Partition) -> list[str]:
    """Find images and people on both sides of a published forget list, or in two parts of a published split.

    People who share an image, byte for byte, count as one person: published image sets file some people under two
    names.

    Returns:
        A sentence without the full stop for each kind of leak; empty for partitions without a published forget list.
    """
    found = []
    for name, rows in partition.forget_lists.items():
        listed = np.zeros(len(partition.train), dtype=bool)
        listed[rows] = True
        copies, identities = partition.train.first_copy, partition.train.identities
        retained_too = np.flatnonzero(listed & np.isin(copies, copies[~listed]))
        if len(retained_too):
            names = summarize_names([partition.train.source(row) for row in retained_too.tolist()])
            found.append(f"{len(retained_too)} images of the list {name!r} are also retained, byte for byte: {names}")
        if identities is not None:
            people = connected_groups(identities, copies)
            shared = np.intersect1d(people[listed], people[~listed])
            where = f"in the list {name!r} and in the retained images"
            if len(shared):
                found.append(_people_sentence(shared, where, identities[np.isin(people, shared)], partition))
    return found + (_people_in_two_parts(partition) if partition.forget_lists else [])


def _people_in_two_parts(partition: Partition) -> list[str]:
    """Find people in two parts, where people who share an image count as one although they have two numbers."""
    parts = [(name, images) for name, images in partition.parts() if images.identities is not None and len(images)]
    digests = [digest for _, images in parts for digest in _digests(images)]
    numbers = np.concatenate([images.identities for _, images in parts if images.identities is not None])
    people = connected_groups(numbers, np.unique(np.array(digests, dtype="S16"), return_inverse=True)[1])
    ends = np.cumsum([len(images) for _, images in parts])
    by_part = dict(zip([name for name, _ in parts], np.split(people, ends[:-1]), strict=True))
    sentences = []
    for first, second in combinations(by_part, 2):
        shared = np.intersect1d(by_part[first], by_part[second])
        if len(shared):
            numbers_shared = numbers[np.isin(people, shared)]
            sentences.append(_people_sentence(shared, f"in {first} and in {second}", numbers_shared, partition))
    return sentences


def _people_sentence(people: NDArray[np.int64], where: str, numbers: NDArray[np.int64], partition: Partition) -> str:
    names = summarize_names([partition.train.person(number) for number in np.unique(numbers).tolist()])
    return f"{len(people)} people, counting people who share an image as one, are {where}: {names}"


def _check_repeats_across_parts(partition: Partition) -> list[Problem]:
    parts = dict(partition.parts())
    firsts = {part: _first_rows(images) for part, images in parts.items()}
    problems = []
    for first, second in combinations(parts, 2):
        digests = _digests(parts[second])
        pairs = [(row, firsts[first][digest]) for row, digest in enumerate(digests) if digest in firsts[first]]
        if pairs:
            names = summarize_names(
                [f"{parts[second].source(row)} = {parts[first].source(original)}" for row, original in pairs]
            )
            message = f"{len(pairs)} images of {second} are also in {first}, byte for byte: {names}"
            fix = f"Remove them from {second}, or use another split."
            problems.append(Problem("repeated across parts", message, fix))
    return problems


def _check_people_across_parts(partition: Partition) -> list[Problem]:
    """Find people in two parts, unless the people are the classes."""
    parts = {part: images for part, images in partition.parts() if images.identities is not None}
    if "train" not in parts or identities_are_classes(partition.train):
        return []
    people = {part: _first_row_of_people(images) for part, images in parts.items()}
    problems = []
    for first, second in combinations(parts, 2):
        shared = sorted(people[first].keys() & people[second].keys())
        if shared:
            names = summarize_names(
                [
                    f"{parts[first].person(number)} ({parts[first].source(people[first][number])}, "
                    f"{parts[second].source(people[second][number])})"
                    for number in shared
                ]
            )
            message = f"{len(shared)} people are in {first} and in {second}: {names}"
            fix = "Put all images of a person into one part, or use a split by person."
            problems.append(Problem("person in two parts", message, fix))
    return problems


def _check_contradicting_labels(partition: Partition) -> list[Problem]:
    """Find copies of one image with different labels."""
    train, first = partition.train, partition.train.first_copy
    rows = np.flatnonzero((train.labels != train.labels[first]).reshape(len(train), -1).any(axis=1))
    if not len(rows):
        return []
    names = summarize_names([f"{train.source(row)} = {train.source(first[row])}" for row in rows.tolist()])
    message = f"{len(rows)} training images are copies of another one with a different label: {names}"
    return [Problem("contradicting labels", message, "Correct the labels, or remove the copies.")]


def _check_classes(partition: Partition) -> list[Problem]:
    """Find classes that cannot be learned, or tested."""
    problems = []
    for number, name in enumerate(partition.train.classes):
        in_train, in_test = (int(_has_label(images, number).sum()) for images in (partition.train, partition.test))
        if in_train < MIN_TRAINING_IMAGES:
            problems.append(too_few_images(name, in_train))
        if in_test == 0:
            message, fix = f"class {name!r} has no test image", "Make the test set larger, or remove the class."
            problems.append(Problem("untested class", message, fix, serious=False))
    return problems


def _check_repeats_in_training(partition: Partition) -> list[Problem]:
    train, first = partition.train, partition.train.first_copy
    rows = np.flatnonzero(first != np.arange(len(first)))
    if not len(rows):
        return []
    names = summarize_names([f"{train.source(row)} = {train.source(first[row])}" for row in rows.tolist()])
    message = f"{len(rows)} training images are copies of another one, byte for byte: {names}"
    fix = "You may remove them; scenarios forget or retain all copies of an image together."
    return [Problem("repeated in training", message, fix, serious=False)]


def _check_published_leaks(partition: Partition) -> list[Problem]:
    fix = "Use a split without leaks; results on this one are comparable only with published results on the same split."
    return [Problem("leak as published", leak, fix, serious=False) for leak in published_leaks(partition)]


def _check_blank_images(partition: Partition) -> list[Problem]:
    problems = []
    for part, images in partition.parts():
        flat = images.images.reshape(len(images), math.prod(images.images.shape[1:]))  # -1 is ambiguous without images
        rows = np.flatnonzero((flat == flat[:, :1]).all(axis=1)).tolist()
        if rows:
            names = summarize_names([images.source(row) for row in rows])
            message = f"{len(rows)} images of {part} have a single color: {names}"
            problems.append(Problem("blank image", message, "Check them, and remove them.", serious=False))
    return problems


def _digests(images: ImageSet) -> list[bytes]:
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in images.images]


def _first_rows(images: ImageSet) -> dict[bytes, int]:
    """Return digest -> first row with it."""
    first: dict[bytes, int] = {}
    for row, digest in enumerate(_digests(images)):
        first.setdefault(digest, row)
    return first


def _first_row_of_people(images: ImageSet) -> dict[int, int]:
    """Return number of a person -> first row."""
    assert images.identities is not None  # noqa: S101 (called only for image sets with identities)
    people, rows = np.unique(images.identities, return_index=True)
    return dict(zip(people.tolist(), rows.tolist(), strict=True))


def _has_label(images: ImageSet, number: int) -> NDArray[np.bool_]:
    """Mark the images of a class, or with an attribute."""
    return np.asarray(images.labels[:, number] == 1 if images.attributes else images.labels == number)
