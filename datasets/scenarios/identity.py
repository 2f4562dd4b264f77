"""Scenarios that forget people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forgetbench.datasets._sampling import joined_groups, order
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split, lost_classes, number_of, wanted
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError


@scenarios.register("identity")
@dataclass(frozen=True, kw_only=True)
class People(Scenario):
    """Forget people, each with all pictures.

    People who share an image byte for byte count as one person: published face sets file the same person under several
    names. Where people are the classes, forgetting them erases classes, and the split goes on that track.
    """

    fraction: float | None = option(None, "Share of the people in the training set.", gt=0, lt=1)
    count: int | None = option(None, "Number of people, instead of a share.", ge=1)
    people: tuple[str | int, ...] = option(
        (), "These people, by name (by number where they have no names), instead of people drawn at random."
    )

    name: ClassVar[str] = "identity"
    title: ClassVar[str] = "people, with all their pictures"

    @classmethod
    def unfit(cls, partition: Partition) -> str | None:
        """Nobody is known."""
        return None if partition.train.identities is not None else f"image set {partition.name!r} has no identities"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        identities = partition.train.identities
        assert identities is not None  # noqa: S101 (draw has asked unfit)
        groups = joined_groups(identities, partition.train.first_copy)
        if self.people:
            chosen = self._named(groups, partition.train)
        else:
            people = int(groups.max()) + 1
            number = wanted(self.option_owner, self.fraction, self.count, people, "people")
            chosen = order(people, generator("identity", rng_seed, draw))[:number]
        forgotten = np.isin(groups, chosen)
        return self.split(
            partition, np.flatnonzero(forgotten), gone=lost_classes(partition, np.flatnonzero(~forgotten))
        )

    def _named(self, groups: np.ndarray, train: ImageSet) -> np.ndarray:
        if self.fraction is not None or self.count is not None:
            raise UsageError(f"{self.option_owner}: give people, or a fraction or a count of them; not both.")
        identities = train.identities
        assert identities is not None  # noqa: S101 (draw has asked unfit)
        there = np.unique(identities)
        numbers = [self._number(asked, train, there) for asked in self.people]
        return np.unique(groups[np.isin(identities, numbers)])

    def _number(self, asked: str | int, train: ImageSet, there: np.ndarray) -> int:
        """Who is meant, among the people of the training set."""
        if train.people:
            number = number_of(self.option_owner, "person", asked, train.people)
        else:
            number = int(asked) if str(asked).isdecimal() else -1
        if number in there:
            return number
        if train.people:
            some = ", ".join(train.people[who] for who in there[:10]) + (", ..." if len(there) > 10 else "")
            raise UsageError(
                f"{self.option_owner}: {train.person(number)} is not in the training set; the {len(there)} people who "
                f"are: {some}."
            )
        raise UsageError(
            f"{self.option_owner}: nobody in the training set has number {asked}; its {len(there)} people have numbers "
            f"from {there.min()} to {there.max()}, and no names."
        )
