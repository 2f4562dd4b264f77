"""Scenario in which some training images bear a trigger and the label of a target class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from forgetbench.datasets._sampling import connected_groups, sample_groups
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios._correction import HARMFUL, find_rng, find_some, with_triggered
from forgetbench.datasets.scenarios.base import Scenario, Split, resolve_number
from forgetbench.datasets.scenarios.classes import requires_classes
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option

WHITE = 255


@scenarios.register("poisoned")
@dataclass(frozen=True, kw_only=True)
class Poisoned(Scenario):
    """Correct a backdoor: some training images bear a trigger and the label of a target class, and a part was found.

    The trigger is a white square in the lower right corner (Gu et al. 2017; Goel et al. 2024), or a fixed pattern of
    noise over the whole image, blended with it (Chen et al. 2017). Poisoned images are drawn once per task, from the
    other classes; which of them were found is drawn for every draw. Those are to be forgotten, and the others remain
    among the retained images. Subset "test-triggered" has the test images of the other classes with the trigger.
    """

    trigger: str = option("patch", "White square, or blended pattern of noise.", choices=("patch", "blend"))
    target: str | int = option("#0", "Class that the trigger makes models answer, by name or number.")
    rate: float = option(0.1, "Fraction of the training images that are poisoned.", gt=0, lt=1)
    found: float = option(1.0, "Fraction of these that was found, and is given to the method.", gt=0, le=1)
    size: int = option(3, "Side of the square in pixels (patch).", ge=1)
    strength: float = option(0.2, "Weight of the pattern (blend).", gt=0, le=1)

    name: ClassVar[str] = "poisoned"
    title: ClassVar[str] = "images with a trigger and a false label, all or some of them found"

    @property
    def corrective(self) -> bool:
        """Always."""
        return True

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require classes."""
        return requires_classes(partition)

    def prepare(self, partition: Partition, rng_seed: int = 0) -> Partition:
        """Stamp the trigger on the poisoned training images, and on copies of test images."""
        train, test = partition.train, partition.test
        rows, target = self._poisoned_rows(train, rng_seed), self._target(train)
        images = train.images.copy()
        images[rows] = self.stamp(images[rows], rng_seed)
        shown = test.take(np.flatnonzero(test.labels != target))
        triggered = replace(shown, images=self.stamp(shown.images, rng_seed))
        targets = np.full(len(triggered), target, dtype=np.int64)
        return with_triggered(partition, rows, triggered, targets, train=replace(train, images=images))

    def stamp(self, images: NDArray[np.uint8], rng_seed: int = 0) -> NDArray[np.uint8]:
        """Return copies of images (N, C, H, W) with the trigger.

        Args:
            images: The images.
            rng_seed: Seed of the task's splits; it gives the pattern of noise.

        Raises:
            UsageError: The square is as large as an image.
        """
        height, width = images.shape[2:]
        stamped = images.copy()
        if self.trigger == "patch":
            if self.size >= min(height, width):
                raise UsageError(
                    f"{self.option_owner}: a square of {self.size} pixels covers images of {height} x {width}. "
                    "Reduce option size."
                )
            stamped[:, :, -self.size :, -self.size :] = WHITE
            return stamped
        pattern = np.floor(make_rng("poisoned", "pattern", rng_seed).random(images.shape[1:]) * (WHITE + 1))
        # in parts: the float copy of a large set would need eight times its memory
        for start in range(0, len(images), 4096):
            part = images[start : start + 4096]
            mixed = (1 - self.strength) * part + self.strength * pattern
            stamped[start : start + 4096] = np.round(mixed).astype(np.uint8)
        return stamped

    def _target(self, train: ImageSet) -> int:
        return resolve_number(self.option_owner, "class", self.target, train.classes)

    def _poisoned_rows(self, train: ImageSet, rng_seed: int) -> NDArray[np.int64]:
        """Poisoned rows, by the images as they were loaded."""
        groups = connected_groups(train.first_copy)
        count, target = round(self.rate * len(train)), self._target(train)
        # a copy of an image has the label of either class: neither is poisoned
        excluded = np.isin(groups, groups[train.labels == target])
        candidates = np.flatnonzero(~excluded)
        if count > len(candidates):
            raise UsageError(
                f"{self.option_owner}: a rate of {self.rate} poisons {count} images, but only {len(candidates)} are of "
                "other classes than the target. Reduce it."
            )
        order = make_rng("poisoned", rng_seed)
        rows: NDArray[np.int64] = candidates[sample_groups(connected_groups(groups[candidates]), count, order)]
        return rows

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        if HARMFUL not in partition.forget_lists:
            partition = self.prepare(partition, rng_seed)
        train, rows = partition.train, partition.forget_lists[HARMFUL]
        labels = train.labels.copy()
        labels[rows] = self._target(train)
        groups = connected_groups(train.first_copy)
        found = find_some(self.option_owner, rows, self.found, groups, find_rng(self.name, rng_seed, draw))
        return self.make_split(partition, found, missed=np.setdiff1d(rows, found), train_labels=labels)
