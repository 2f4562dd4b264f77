"""Scenarios in which training labels are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forgetbench.datasets._sampling import joined_groups, take_groups
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError


@scenarios.register("mislabelled")
@dataclass(frozen=True, kw_only=True)
class Mislabelled(Scenario):
    """Corrective unlearning: labels are wrong, and only part of the wrong ones have been found (Goel et al. 2024).

    Wrong labels are drawn once per task, uniformly over the other classes (of attributes, one is turned over); which of
    them are known is drawn anew for every draw. The known ones are to be forgotten, the others are withheld, and the
    oracle is trained on the clean rest. Images with the same bytes share their fate.
    """

    rate: float = option(0.2, "Share of the training images with a wrong label.", gt=0, lt=1)
    known: float = option(1.0, "Share of those that are known, and given to the method.", gt=0, le=1)

    name: ClassVar[str] = "mislabelled"
    title: ClassVar[str] = "wrongly labeled images, all or some of them known"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        groups = joined_groups(partition.train.first_copy)
        flips = generator("mislabelled", "flips", rng_seed)
        wrong = take_groups(groups, round(self.rate * len(partition.train)), flips)
        if not len(wrong):
            raise UsageError(
                f"{self.option_owner}: a rate of {self.rate} mislabels none of {len(partition.train)} images."
            )
        labels = flipped(partition.train, wrong, groups, flips)
        number = max(1, round(self.known * len(wrong)))
        known = wrong[take_groups(joined_groups(groups[wrong]), number, generator("mislabelled", rng_seed, draw))]
        return self.split(partition, known, withheld=np.setdiff1d(wrong, known), train_labels=labels)


def flipped(images: ImageSet, wrong: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels with the given rows wrong: another class, or one attribute turned over; alike for rows of one group."""
    labels = images.labels.copy()
    choices = images.outputs if images.attributes else images.outputs - 1
    step = np.floor(rng.random(int(groups.max()) + 1) * choices).astype(np.int64)[groups[wrong]]
    if images.attributes:
        labels[wrong, step] ^= 1
    else:
        labels[wrong] = (labels[wrong] + 1 + step) % images.outputs
    return labels
