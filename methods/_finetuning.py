"""Shared by methods that train on the retain set: the schedule of the learning rate, and the batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from forgetbench.methods._training import augmentation
from forgetbench.methods.base import ForgetRequest, param
from forgetbench.training.data import batch_sizes

SCHEDULES = ("cosine", "cosine-by-epoch", "constant", "restart")
"""Values of the shared hyper-parameter `schedule`; see `schedule_option`."""


def schedule_option(default: str, *, paper_default: str | None = None) -> Any:
    """Declare the hyper-parameter `schedule`: how the learning rate falls from `lr` to `min_lr`.

    "cosine": by half a cosine over all steps. "cosine-by-epoch": by the same, but only after each epoch. "constant":
    not at all. "restart": by half a cosine, epoch by epoch, in cycles of 1, 2, 4, 8, ... epochs, each of which starts
    at `lr` again (Loshchilov and Hutter 2017).
    """
    return param(
        default,
        choices=SCHEDULES,
        paper_default=paper_default,
        help="Learning rate: half a cosine to `min_lr`, in steps or epochs; constant; or cosines that restart.",
    )


def min_lr_option(default: float = 0.0, *, paper_default: float | None = None) -> Any:
    """Declare the hyper-parameter `min_lr`: the learning rate at the end of a cosine."""
    return param(default, ge=0, paper_default=paper_default, help="Learning rate at the end of a cosine.")


def scheduled_lr(schedule: str, lr: float, min_lr: float, epoch: int, epochs: int, progress: float) -> float:
    """The learning rate of a step.

    Args:
        schedule: See `schedule_option`.
        lr: Highest learning rate.
        min_lr: Lowest learning rate.
        epoch: Number of the epoch, from 0.
        epochs: Number of epochs.
        progress: Fraction of all steps before this one.
    """
    if schedule == "constant":
        return lr
    if schedule == "cosine-by-epoch":
        progress = epoch / epochs
    if schedule == "restart":
        length = 1 << (epoch + 1).bit_length() - 1  # the cycle of this length starts at epoch length - 1
        progress = (epoch - (length - 1)) / length
    return min_lr + (lr - min_lr) * cosine(progress)


def cosine(progress: float) -> float:
    """Factor of the learning rate that falls from 1 to 0 by half a cosine, for a progress from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def triangle(progress: float) -> float:
    """Factor of the learning rate that rises linearly to 1 at half of the steps, and falls to 0."""
    return 1 - abs(2 * progress - 1)


Progress = tuple[float, Tensor, Tensor]
"""Fraction of all steps, images, labels."""


def retain_batches(
    request: ForgetRequest, batch_size: int, epoch: int, epochs: int, *, augment: bool = True
) -> Iterator[Progress]:
    """Shuffled batches of the retain set, with the recipe's augmentation unless `augment` is false.

    Yields:
        (progress, images, labels), with progress the fraction of all epochs' steps, at the middle of the step.
    """
    steps = len(batch_sizes(len(request.retain), batch_size))
    seed = request.derive_seed(101, epoch)
    shuffled = request.retain.batches(batch_size, seed, *augmentation(request, augment=augment))
    for step, (images, labels) in enumerate(shuffled):
        yield (epoch + (step + 0.5) / steps) / epochs, images, labels
