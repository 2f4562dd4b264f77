"""Scenario in which training labels are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forgetbench.datasets._sampling import connected_groups, sample_groups
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option


@scenarios.register("mislabelled")
@dataclass(frozen=True, kw_only=True)
class Mislabelled(Scenario):
    """Corrective unlearning: some labels are wrong, and only some of the wrong ones are known (Goel et al. 2024).

    Wrong labels are drawn once per task, uniformly from the other classes (with attributes, one attribute is flipped).
    Which of them are known is drawn for every draw. Known ones are to be forgotten, and the oracle is trained on the
    correctly labeled rest. The others are withheld; or, on the corrective track, they remain among the retained images
    that methods receive. Images with the same bytes are treated alike.
    """

    rate: float = option(0.2, "Fraction of the training images with a wrong label.", gt=0, lt=1)
    known: float = option(1.0, "Fraction of these that are known, and given to the method.", gt=0, le=1)
    unknown: str = option(
        "withheld",
        "What becomes of the others: given to no one, or left in the training data (corrective track).",
        choices=("withheld", "retained"),
    )

    name: ClassVar[str] = "mislabelled"
    title: ClassVar[str] = "wrongly labeled images, all or some of them known"

    @property
    def corrective(self) -> bool:
        """Whether the unknown wrong labels stay in the training data."""
        return self.unknown == "retained"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        groups = connected_groups(partition.train.first_copy)
        flip_rng = make_rng("mislabelled", "flips", rng_seed)
        wrong = sample_groups(groups, round(self.rate * len(partition.train)), flip_rng)
        if not len(wrong):
            raise UsageError(
                f"{self.option_owner}: a rate of {self.rate} mislabels none of {len(partition.train)} images. "
                "Increase it."
            )
        labels = flip_labels(partition.train, wrong, groups, flip_rng)
        count = max(1, round(self.known * len(wrong)))
        known = wrong[sample_groups(connected_groups(groups[wrong]), count, make_rng("mislabelled", rng_seed, draw))]
        rest = np.setdiff1d(wrong, known)
        if self.corrective:
            return self.make_split(partition, known, missed=rest, train_labels=labels)
        return self.make_split(partition, known, withheld=rest, train_labels=labels)


def flip_labels(images: ImageSet, wrong: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return labels in which some rows have another class, or one flipped attribute.

    Args:
        images: N images.
        wrong: Rows to mislabel.
        groups: (N,) rows with equal numbers get the same change.
        rng: Source of the randomness.
    """
    labels = images.labels.copy()
    choices = images.outputs if images.attributes else images.outputs - 1
    step = np.floor(rng.random(int(groups.max()) + 1) * choices).astype(np.int64)[groups[wrong]]
    if images.attributes:
        labels[wrong, step] ^= 1
    else:
        labels[wrong] = (labels[wrong] + 1 + step) % images.outputs
    return labels
