"""Digits: 1,797 scans of handwritten digits, 8x8 pixels, included in scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._sampling import stratified_split
from forgetbench.datasets.base import Loader, make_rng
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option

TOTAL = 1797
MIN_TEST_IMAGES = 50


@datasets.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Loader):
    """The test part of UCI's "Optical Recognition of Handwritten Digits": 8x8 counts of ink from 0 to 16.

    Few scans are enough to learn digits: with 1,000 of them a small network is nearly perfect on test images too, so
    that forgotten and unseen images hardly differ. A smaller ``train`` makes a task harder.
    """

    train: int = option(1000, "Training images, stratified by class; all other images are for testing.", ge=20, le=1700)
    validation: int = option(150, "Validation images.", ge=10, le=500)
    seed: int = option(0, "Seed of the split.", ge=0)

    card: ClassVar[DatasetCard] = DatasetCard(
        name="digits",
        title="Optical Recognition of Handwritten Digits",
        description="Handwritten digits of 43 people as 8x8 counts of ink: 1,797 scans in ten classes.",
        license="CC BY 4.0",
        homepage="https://archive.ics.uci.edu/dataset/80",
        citation="E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI repository",
        embedded=True,
    )

    def load(self, root: Path | None) -> Partition:  # noqa: ARG002 (embedded: no folder is read)
        """Return all scans in stratified parts.

        Raises:
            UsageError: Fewer than 50 images would be left for testing.
        """
        from sklearn.datasets import load_digits

        rest = TOTAL - self.train - self.validation
        if rest < MIN_TEST_IMAGES:
            raise UsageError(
                f"{self.option_owner}: options train and validation leave {rest} of {TOTAL} images for testing; reduce "
                f"them so that at least {MIN_TEST_IMAGES} are left."
            )
        scans = load_digits()
        # Counts of ink go from 0 to 16: 16 * 255 / 16 = 255, and every count keeps a level of its own.
        ink = np.round(scans.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = scans.target.astype(np.int64)
        whole = ImageSet(images=ink, labels=labels, classes=tuple("0123456789"))
        parts = stratified_split(labels, (self.train, self.validation, rest), make_rng("digits", self.seed))
        train, validation, test = (whole.take(part) for part in parts)
        return Partition("digits", train, validation, test, None, self.card)
