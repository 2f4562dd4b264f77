"""Digits: 1,797 real scans of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._sampling import stratified_parts
from forgetbench.datasets.base import Loader, generator, option
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import UsageError

TOTAL = 1797


@datasets.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Loader):
    """The test part of UCI's "Optical Recognition of Handwritten Digits", 8x8 counts of ink from 0 to 16.

    Digits are learned from few scans: with 1,000 of them a small network is nearly perfect on the test images too, and
    little separates forgotten from unseen. ``train`` makes a task harder.
    """

    train: int = option(1000, "Training images, stratified by class; the others are tested on.", ge=20, le=1700)
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
        """All scans, in stratified parts."""
        from sklearn.datasets import load_digits

        rest = TOTAL - self.train - self.validation
        if rest < 50:
            raise UsageError(
                f"image set 'digits': options 'train' and 'validation' leave {rest} of {TOTAL} to test on; leave 50."
            )
        scans = load_digits()
        # Counts of ink go from 0 to 16; 16 * 255 / 16 = 255, and every count keeps a level of its own.
        ink = np.round(scans.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = scans.target.astype(np.int64)
        whole = ImageSet(images=ink, labels=labels, classes=tuple("0123456789"))
        rows = stratified_parts(labels, (self.train, self.validation, rest), generator("digits", self.seed))
        train, validation, test = (whole.take(part) for part in rows)
        return Partition("digits", train, validation, test, None, self.card)
