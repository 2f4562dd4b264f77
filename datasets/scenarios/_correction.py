"""What the scenarios of correction share: which harmful rows were found, and the test images that show the harm."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from forgetbench.datasets._sampling import connected_groups, sample_groups
from forgetbench.datasets.base import make_rng
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from forgetbench.datasets.types import ImageSet, Partition

HARMFUL = "harmful"
"""Name of the list of harmful rows in a prepared image set."""


def find_some(
    owner: str, harmful: NDArray[np.int64], found: float, groups: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the harmful rows that were found, at least one.

    Args:
        owner: The scenario, for messages.
        harmful: Harmful rows.
        found: Fraction of them that was found.
        groups: (N,) rows with equal numbers are the same image, so that they are found together.
        rng: Source of the randomness.

    Returns:
        Sorted row numbers.

    Raises:
        UsageError: There are no harmful rows, or more copies of each than may be found.
    """
    if not len(harmful):
        raise UsageError(f"{owner}: no training image would be changed. Increase the rate.")
    count = max(1, round(found * len(harmful)))
    rows: NDArray[np.int64] = harmful[sample_groups(connected_groups(groups[harmful]), count, rng)]
    if not len(rows):
        raise UsageError(f"{owner}: {count} of {len(harmful)} rows would be found, but each has more copies than that.")
    return rows


def find_rng(name: str, rng_seed: int, draw: int) -> np.random.Generator:
    """The generator that says which harmful rows were found in a draw."""
    return make_rng(name, "found", rng_seed, draw)


def with_triggered(
    partition: Partition,
    harmful: NDArray[np.int64],
    triggered: ImageSet,
    targets: NDArray[np.int64],
    train: ImageSet | None = None,
) -> Partition:
    """Return the image set with its harmful rows listed, and with test images that show the harm.

    Args:
        partition: The image set as it was loaded.
        harmful: Harmful rows of the training set.
        triggered: The test images, with their true labels.
        targets: (n,) the class that harmful data makes models answer on each.
        train: The changed training set; None: it stays.
    """
    lists = {**partition.forget_lists, HARMFUL: harmful}
    changed = partition.train if train is None else train
    return replace(partition, train=changed, forget_lists=lists, triggered=triggered, targets=targets)
