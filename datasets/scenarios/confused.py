"""Scenario in which labels of two classes are interchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from forgetbench.datasets._sampling import connected_groups, sample_groups
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios._correction import HARMFUL, find_rng, find_some, with_triggered
from forgetbench.datasets.scenarios.base import Scenario, Split
from forgetbench.datasets.scenarios.classes import choose_classes, requires_classes
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option


@scenarios.register("confused")
@dataclass(frozen=True, kw_only=True)
class Confused(Scenario):
    """Correct a confusion: a share of the images of two classes bear each other's labels (Goel et al. 2022 and 2024).

    Which images are confused is drawn once per task; which of them were found is drawn for every draw. Those are to be
    forgotten, and the others remain among the retained images. Subset "test-triggered" has the test images of the two
    classes, and "test" those of the others.
    """

    classes: tuple[str | int, ...] = option((), "The two classes by name or number; none: drawn at random.")
    share: float = option(0.5, "Fraction of the images of both classes with the other's label.", gt=0, le=1)
    found: float = option(1.0, "Fraction of these that was found, and is given to the method.", gt=0, le=1)

    name: ClassVar[str] = "confused"
    title: ClassVar[str] = "images of two classes with each other's label, all or some of them found"

    @property
    def corrective(self) -> bool:
        """Always."""
        return True

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require three classes."""
        reason = requires_classes(partition)
        if reason is None and len(partition.train.classes) < len("abc"):
            reason = f"image set {partition.name!r} has only two classes; models also answer on images of a third"
        return reason

    def prepare(self, partition: Partition, rng_seed: int = 0) -> Partition:
        """List the confused images, and the test images of the two classes."""
        first, second = self._pair(partition.train, rng_seed)
        test = partition.test
        shown = test.take(np.flatnonzero(np.isin(test.labels, (first, second))))
        rows = self._confused_rows(partition.train, (first, second), rng_seed)
        return with_triggered(partition, rows, shown, first + second - shown.labels)

    def _pair(self, train: ImageSet, rng_seed: int) -> tuple[int, int]:
        chosen = sorted(choose_classes(self.option_owner, self.classes, train.classes, 2, 0, rng_seed))
        if len(chosen) != 2:
            raise UsageError(f"{self.option_owner}: name two different classes, or none.")
        return chosen[0], chosen[1]

    def _confused_rows(self, train: ImageSet, pair: tuple[int, int], rng_seed: int) -> NDArray[np.int64]:
        groups = connected_groups(train.first_copy)
        parts = []
        for label in pair:
            # copies of an image with different labels are confused already
            others = np.isin(groups, groups[train.labels != label])
            rows = np.flatnonzero((train.labels == label) & ~others)
            count = round(self.share * len(rows))
            rng = make_rng("confused", rng_seed, label)
            parts.append(rows[sample_groups(connected_groups(groups[rows]), count, rng)])
        return np.sort(np.concatenate(parts))

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        if HARMFUL not in partition.forget_lists:
            partition = self.prepare(partition, rng_seed)
        train, rows = partition.train, partition.forget_lists[HARMFUL]
        pair = self._pair(train, rng_seed)
        labels = train.labels.copy()
        labels[rows] = sum(pair) - labels[rows]
        groups = connected_groups(train.first_copy)
        found = find_some(self.option_owner, rows, self.found, groups, find_rng(self.name, rng_seed, draw))
        split = self.make_split(partition, found, missed=np.setdiff1d(rows, found), train_labels=labels)
        return replace(split, test=np.flatnonzero(~np.isin(partition.test.labels, pair)))
