"""What image sets share that come in a training and a test set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forgetbench.datasets.base import Loader, generator, option
from forgetbench.datasets.images import ImageSet, Partition
from forgetbench.datasets.problems import problem_error
from forgetbench.datasets.sampling import stratified_parts


@dataclass(frozen=True, kw_only=True)
class OfficialLoader(Loader):
    """Base of loaders of sets with an official training and test set.

    Validation images come out of the test set, so that all of the training set is trained on, and index files that
    others have published keep their meaning.
    """

    train: int | None = option(None, "Training images, stratified by class; none: all.", ge=2)
    test: int | None = option(None, "Test images, stratified by class; none: all that are not for validation.", ge=1)
    validation: int = option(1000, "Validation images, stratified by class, taken out of the test set.", ge=1)
    seed: int = option(0, "Seed of what is taken.", ge=0)

    def in_parts(self, train: ImageSet, test: ImageSet) -> Partition:
        """The parts that the options ask for.

        Raises:
            UsageError: More images are asked for than there are.
        """
        tested = len(test) - self.validation if self.test is None else self.test
        asked = (("train", train, self.train or 0), ("test", test, self.validation + max(tested, 1)))
        for part, images, wanted in asked:
            if wanted > len(images):
                where = (
                    f"{self.option_owner}: the {part} set has {len(images)} images; options train, test and validation "
                    f"ask for {self.train or 'all'}, {tested} and {self.validation}"
                )
                raise problem_error("too few images", where, "Ask for fewer images.")
        rng = generator("official", self.card.name, self.seed)
        validation, kept = stratified_parts(strata(test), [self.validation, tested], rng, test.first_copy)
        if self.train is not None and self.train < len(train):
            train = train.take(stratified_parts(strata(train), [self.train], rng)[0])
        return Partition(self.card.name, train, test.take(validation), test.take(kept), None, self.card)


def strata(images: ImageSet) -> np.ndarray:
    """What parts are stratified by: the finest classes that are known."""
    return images.labels if images.fine_labels is None else images.fine_labels
