"""Small image sets of random pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from forgetbench.datasets.types import DatasetCard, ImageSet, Partition

CARD = DatasetCard(name="toy", title="Toy", description="Noise.", license="CC0")


def random_pixels(
    count: int, seed: int, *, repeats: int = 0, side: int = 3
) -> tuple[NDArray[np.uint8], np.random.Generator]:
    """Gray images, some of them copies of others, and the generator for what else is random."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    for target in rng.integers(0, count, repeats):
        images[target] = images[rng.integers(0, count)]
    return images, rng


def make_image_set(
    count: int, seed: int, *, classes: int = 4, people: int = 6, repeats: int = 0, attributes: bool = False
) -> ImageSet:
    """Images of classes in turn, or with three random attributes, of random people."""
    images, rng = random_pixels(count, seed, repeats=repeats)
    labels = rng.integers(0, 2, (count, 3)) if attributes else np.arange(count) % classes
    names = ("male", "smiling", "young") if attributes else tuple("abcdefgh"[:classes])
    return ImageSet(images, labels, names, rng.integers(0, people, count) if people else None)


def make_partition(
    seed: int = 0, *, classes: int = 4, people: int = 6, repeats: int = 0, attributes: bool = False
) -> Partition:
    """60 training, 16 validation and 24 test images."""
    train, validation, test = (
        make_image_set(count, seed + part, classes=classes, people=people, repeats=repeats, attributes=attributes)
        for part, count in enumerate((60, 16, 24))
    )
    return Partition("toy", train, validation, test, None, CARD)


def make_fine_image_set(count: int, seed: int, *, repeats: int = 0, side: int = 3) -> ImageSet:
    """Two classes of three fine classes each; eight people."""
    images, rng = random_pixels(count, seed, repeats=repeats, side=side)
    fine = np.arange(count) % 6
    return ImageSet(images, fine // 3, ("low", "high"), rng.integers(0, 8, count), fine, tuple("uvwxyz"))


def make_fine_partition(
    seed: int = 0, lists: Mapping[str, NDArray[np.int64]] | None = None, *, repeats: int = 0
) -> Partition:
    """60 training, 18 validation and 24 test images with fine classes."""
    parts = [make_fine_image_set(count, seed + part, repeats=repeats) for part, count in enumerate((60, 18, 24))]
    return Partition("toy", *parts, None, CARD, lists or {})
