"""Scenarios that forget people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forgetbench.datasets.base import generator, option
from forgetbench.datasets.images import Partition
from forgetbench.datasets.sampling import joined_groups, order
from forgetbench.datasets.scenarios import Scenario, Split, lost_classes, wanted
from forgetbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class People(Scenario):
    """Forget people, each with all pictures.

    People who share an image byte for byte count as one person: published face sets file the same person under several
    names. Where people are the classes, forgetting them erases classes, and the split goes on that track.
    """

    fraction: float | None = option(None, "Share of the people in the training set.", gt=0, lt=1)
    count: int | None = option(None, "Number of people, instead of a share.", ge=1)
    people: tuple[int, ...] = option((), "These people, by their numbers, instead of people drawn at random.")

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
            chosen = self._named(groups, identities)
        else:
            people = int(groups.max()) + 1
            number = wanted(self.option_owner, self.fraction, self.count, people, "people")
            chosen = order(people, generator("identity", rng_seed, draw))[:number]
        forgotten = np.isin(groups, chosen)
        return self.split(
            partition, np.flatnonzero(forgotten), gone=lost_classes(partition, np.flatnonzero(~forgotten))
        )

    def _named(self, groups: np.ndarray, identities: np.ndarray) -> np.ndarray:
        if self.fraction is not None or self.count is not None:
            raise UsageError(f"{self.option_owner}: give people, or a fraction or a count of them; not both.")
        missing = sorted(set(self.people) - set(identities.tolist()))
        if missing:
            raise UsageError(
                f"{self.option_owner}: nobody in the training set has number {', '.join(map(str, missing))}; "
                f"its {len(np.unique(identities))} people have numbers from {identities.min()} to {identities.max()}."
            )
        return np.unique(groups[np.isin(identities, self.people)])
