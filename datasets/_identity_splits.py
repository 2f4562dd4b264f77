"""What image sets of people share: dividing pictures by person, or within each person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.datasets._sampling import joined_groups, people_parts, stratified_parts, teach_every_class
from forgetbench.datasets.base import FileLoader, generator, option
from forgetbench.datasets.problems import problem_error
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PeopleLoader(FileLoader):
    """Base of loaders of pictures of people, which come without parts of their own."""

    size: int = option(32, "Side of a picture, pixels.", ge=8, le=512)
    seed: int = option(0, "Seed of the split into parts.", ge=0)

    def by_person(self, whole: ImageSet, shares: Sequence[float], rows: NDArray[np.int64] | None = None) -> Partition:
        """Parts that share nobody, of people drawn at random, so that test people and unseen people are alike.

        People who share a picture byte for byte stay together.

        Args:
            whole: All pictures, with identities.
            shares: Of the people, for validation, test and unseen; each part gets one person at least.
            rows: The pictures to use; None: all.
        """
        assert whole.identities is not None  # noqa: S101 (sets of people have them)
        rows = np.arange(len(whole)) if rows is None else rows
        groups = np.unique(joined_groups(whole.identities, whole.first_copy)[rows], return_inverse=True)[1]
        total = int(groups.max()) + 1
        counts = [max(1, round(share * total)) for share in shares]
        try:
            parts = people_parts(groups, counts, generator("people", self.card.name, self.seed))
        except UsageError as error:
            fix = "Add people, or give smaller shares to validation and test; every part needs somebody."
            raise problem_error("too few people", f"{self.option_owner}: {str(error).rstrip('.')}", fix) from None
        if not whole.attributes:
            parts = teach_every_class(parts, whole.labels[rows], groups, train=3)
        validation, test, unseen, train = (whole.take(rows[part]) for part in parts)
        return Partition(self.card.name, train, validation, test, unseen, self.card)

    def within_person(self, whole: ImageSet, shares: Sequence[float]) -> Partition:
        """Parts that share everybody: every person's pictures are divided, and nobody is unseen.

        Copies of one picture stay in one part, and every class has something in the training set.

        Args:
            whole: All pictures, whose labels are the people.
            shares: Of the pictures, for validation and test.
        """
        validation, test = (round(share * len(whole)) for share in shares)
        sizes = [len(whole) - validation - test, validation, test]
        rng = generator("within", self.card.name, self.seed)
        parts = stratified_parts(whole.labels, sizes, rng, whole.first_copy)
        parts = teach_every_class(parts, whole.labels, whole.first_copy, train=0)
        train, validated, tested = (whole.take(part) for part in parts)
        return Partition(self.card.name, train, validated, tested, None, self.card)


def people_are_classes(images: ImageSet) -> bool:
    """Whether every person has one label that nobody else has."""
    if images.attributes or images.identities is None:
        return False
    pairs = set(zip(images.identities.tolist(), images.labels.tolist(), strict=True))
    return len(pairs) == len({who for who, _ in pairs}) == len({label for _, label in pairs})


def held_back(
    people: NDArray[np.int64], barred: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """All rows of some people drawn at random, who are then neither trained on nor tested on.

    So the published test set stays whole, nothing is chosen on it, and what is forgotten stays as published; the price
    is that fewer rows are retained than were published.

    Args:
        people: (N,), who is seen, over all rows of the set.
        barred: (N,), rows that have to stay where they are, and with them everybody who is seen in one: those to be
            forgotten, those of the test set, those of unseen people.
        share: Of the people who are left, at least one.
        rng: Where the randomness comes from.

    Returns:
        Sorted row numbers.

    Raises:
        FileProblems: Fewer than two people are left.
    """
    free = np.flatnonzero(~np.isin(people, people[barred]))
    count = len(np.unique(people[free]))
    if count < 2:
        where = (
            f"Validation pictures are those of some people of whom nothing is forgotten or tested, and there are "
            f"{count} such people; two are needed"
        )
        raise problem_error("too few people", where, "Get the whole set, or take another split.")
    return free[people_parts(people[free], [max(1, round(share * count))], rng)[0]]
