"""Scenario that forgets people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forgetbench.datasets._sampling import connected_groups, random_order
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.problems import summarize_names
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import (
    Scenario,
    Split,
    completely_forgotten_classes,
    forget_count,
    resolve_number,
)
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option


@scenarios.register("identity")
@dataclass(frozen=True, kw_only=True)
class People(Scenario):
    """Forget people, each with all images.

    People who share an image byte for byte count as one person: published face sets file some people under several
    names. If people are the classes, forgetting them erases classes, and the split is on that track.
    """

    fraction: float | None = option(None, "Fraction of the people in the training set.", gt=0, lt=1)
    count: int | None = option(None, "Number of people, instead of a fraction.", ge=1)
    people: tuple[str | int, ...] = option(
        (), "People by name (by number if they have no names), instead of people drawn at random."
    )

    name: ClassVar[str] = "identity"
    title: ClassVar[str] = "people, with all their images"

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require identities."""
        return None if partition.train.identities is not None else f"image set {partition.name!r} has no identities"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        identities = partition.train.identities
        assert identities is not None  # noqa: S101 (draw has called incompatibility)
        groups = connected_groups(identities, partition.train.first_copy)
        if self.people:
            chosen = self._named_groups(groups, partition.train)
        else:
            total = int(groups.max()) + 1
            count = forget_count(self.option_owner, self.fraction, self.count, total, "people")
            chosen = random_order(total, make_rng("identity", rng_seed, draw))[:count]
        forget = np.isin(groups, chosen)
        classes = completely_forgotten_classes(partition, np.flatnonzero(~forget))
        return self.make_split(partition, np.flatnonzero(forget), forgotten_classes=classes)

    def _named_groups(self, groups: np.ndarray, train: ImageSet) -> np.ndarray:
        if self.fraction is not None or self.count is not None:
            raise UsageError(f"{self.option_owner}: give either people, or a fraction or a count of them.")
        identities = train.identities
        assert identities is not None  # noqa: S101 (draw has called incompatibility)
        in_train = np.unique(identities)
        numbers = [self._identity(value, train, in_train) for value in self.people]
        return np.unique(groups[np.isin(identities, numbers)])

    def _identity(self, value: str | int, train: ImageSet, in_train: np.ndarray) -> int:
        """Return the number of a person in the training set, given by name or number."""
        if train.people:
            number = resolve_number(self.option_owner, "person", value, train.people)
        else:
            number = int(value) if str(value).isdecimal() else -1
        if number in in_train:
            return number
        if train.people:
            names = summarize_names([train.people[known] for known in in_train], limit=10)
            raise UsageError(
                f"{self.option_owner}: {train.person(number)} is not in the training set. Its {len(in_train)} people "
                f"are {names}."
            )
        raise UsageError(
            f"{self.option_owner}: no person in the training set has number {value}. Its {len(in_train)} people have "
            f"no names, and numbers from {in_train.min()} to {in_train.max()}."
        )
