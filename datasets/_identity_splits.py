"""Image sets of people: splits between people and splits within each person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.datasets._sampling import (
    connected_groups,
    ensure_train_covers_classes,
    split_by_group,
    stratified_split,
)
from forgetbench.datasets.base import FileLoader, make_rng
from forgetbench.datasets.problems import problem_error
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PeopleLoader(FileLoader):
    """Base of loaders of images of people that come without a split."""

    size: int = option(32, "Side of an image in pixels.", ge=8, le=512)
    seed: int = option(0, "Seed of the split.", ge=0)

    def split_by_person(
        self, whole: ImageSet, fractions: Sequence[float], rows: NDArray[np.int64] | None = None
    ) -> Partition:
        """Split into parts that have no person in common.

        People are drawn at random, so that test people and unseen people have the same distribution. People who share
        an image byte for byte stay together.

        Args:
            whole: All images, with identities.
            fractions: Fractions of the people for validation, test and unseen; each part has at least one person.
            rows: Rows to use; None: all.
        """
        assert whole.identities is not None  # noqa: S101 (image sets of people have identities)
        rows = np.arange(len(whole)) if rows is None else rows
        groups = np.unique(connected_groups(whole.identities, whole.first_copy)[rows], return_inverse=True)[1]
        total = int(groups.max()) + 1
        counts = [max(1, round(fraction * total)) for fraction in fractions]
        try:
            parts = split_by_group(groups, counts, make_rng("people", self.card.name, self.seed))
        except UsageError as error:
            fix = "Add people, or reduce the fractions for validation and test; every part needs at least one person."
            raise problem_error("too few people", f"{self.option_owner}: {str(error).rstrip('.')}", fix) from None
        if not whole.attributes:
            parts = ensure_train_covers_classes(parts, whole.labels[rows], groups, train=3)
        validation, test, unseen, train = (whole.take(rows[part]) for part in parts)
        return Partition(self.card.name, train, validation, test, unseen, self.card)

    def split_within_person(self, whole: ImageSet, fractions: Sequence[float]) -> Partition:
        """Split the images of every person, so that every part shows everybody and no person is unseen.

        Copies of one image stay in one part, and the training set has every class.

        Args:
            whole: All images; the labels are the people.
            fractions: Fractions of the images for validation and test.
        """
        validation, test = (round(fraction * len(whole)) for fraction in fractions)
        sizes = [len(whole) - validation - test, validation, test]
        rng = make_rng("within", self.card.name, self.seed)
        parts = stratified_split(whole.labels, sizes, rng, whole.first_copy)
        parts = ensure_train_covers_classes(parts, whole.labels, whole.first_copy, train=0)
        train_set, validation_set, test_set = (whole.take(part) for part in parts)
        return Partition(self.card.name, train_set, validation_set, test_set, None, self.card)


def identities_are_classes(images: ImageSet) -> bool:
    """Check whether identities and labels correspond one to one."""
    if images.attributes or images.identities is None:
        return False
    pairs = set(zip(images.identities.tolist(), images.labels.tolist(), strict=True))
    return len(pairs) == len({identity for identity, _ in pairs}) == len({label for _, label in pairs})


def sample_validation_people(
    people: NDArray[np.int64], excluded: NDArray[np.bool_], fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw people for validation, who are then neither trained on nor tested on.

    This keeps the published test set and the published forget list complete, and no hyper-parameter is chosen on test
    images. The price is that fewer rows are retained than were published.

    Args:
        people: (N,) person of every row of the image set.
        excluded: (N,) rows that must stay in their part: rows to forget, test rows and rows of unseen people. People
            who appear in any of them are not drawn.
        fraction: Fraction of the remaining people to draw; at least one.
        rng: Source of the randomness.

    Returns:
        Sorted numbers of all rows of the drawn people.

    Raises:
        ImageSetError: Fewer than two people remain.
    """
    candidates = np.flatnonzero(~np.isin(people, people[excluded]))
    count = len(np.unique(people[candidates]))
    if count < 2:
        message = (
            "Validation images come from people without an image to forget or to test on, and there "
            f"{'is 1 such person' if count == 1 else f'are {count} such people'}; at least two are needed"
        )
        raise problem_error("too few people", message, "Get the whole image set, or use another split.")
    return candidates[split_by_group(people[candidates], [max(1, round(fraction * count))], rng)[0]]
