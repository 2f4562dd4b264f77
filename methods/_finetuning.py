"""Shared by methods that end with training on the retain set, to repair what they have damaged."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from forgetbench.methods.base import ForgetRequest
from forgetbench.training.data import batch_sizes


def cosine(progress: float) -> float:
    """Factor of the learning rate that falls from 1 to 0 by half a cosine, for a progress from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def triangle(progress: float) -> float:
    """Factor of the learning rate that rises linearly to 1 at half of the steps, and falls to 0."""
    return 1 - abs(2 * progress - 1)


Progress = tuple[float, Tensor, Tensor]
"""Fraction of all steps, images, labels."""


def retain_batches(request: ForgetRequest, batch_size: int, epoch: int, epochs: int) -> Iterator[Progress]:
    """Shuffled batches of the retain set with the recipe's augmentation.

    Yields:
        (progress, images, labels), with progress the fraction of all epochs' steps, at the middle of the step.
    """
    steps = len(batch_sizes(len(request.retain), batch_size))
    recipe, seed = request.recipe, request.derive_seed(101, epoch)
    shuffled = request.retain.batches(batch_size, seed, recipe.augment, recipe.crop_padding)
    for step, (images, labels) in enumerate(shuffled):
        yield (epoch + (step + 0.5) / steps) / epochs, images, labels
