"""Scenarios that pick single training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetbench.datasets.base import generator, option
from forgetbench.datasets.images import Partition
from forgetbench.datasets.sampling import joined_groups, take_groups
from forgetbench.datasets.scenarios import Scenario, Split, wanted


@dataclass(frozen=True, kw_only=True)
class RandomRows(Scenario):
    """Forget images drawn at random.

    Images with the same bytes are forgotten together, or else a forgotten image would still be trained on. One draw's
    smaller forget set lies within its larger one wherever no image is repeated.
    """

    fraction: float | None = option(None, "Share of the training images.", gt=0, lt=1)
    count: int | None = option(None, "Number of training images, instead of a share.", ge=1)

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "images drawn at random"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        total = len(partition.train)
        number = wanted(self.option_owner, self.fraction, self.count, total, "training images")
        groups = joined_groups(partition.train.first_copy)
        return self.split(partition, take_groups(groups, number, generator("random", rng_seed, draw)))
