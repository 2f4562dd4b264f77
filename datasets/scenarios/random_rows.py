"""Scenarios that pick single training images: at random, as published, or from an index file."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets._sampling import joined_groups, take_groups
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split, lost_classes, wanted
from forgetbench.datasets.types import Partition
from forgetbench.errors import UsageError
from forgetbench.registry import unknown


@scenarios.register("random")
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


@scenarios.register("published")
@dataclass(frozen=True, kw_only=True)
class Published(Scenario):
    """Forget the rows that the image set's authors published, the same in every draw.

    They are taken as they are: repeated images may lie on both sides, as they did in the published results.
    """

    rows: str = option("published", "Name of the list; image sets say which they have.")

    name: ClassVar[str] = "published"
    title: ClassVar[str] = "the images that the image set's authors forgot"

    @classmethod
    def unfit(cls, partition: Partition) -> str | None:
        """There must be a list."""
        return None if partition.forget_lists else f"image set {partition.name!r}, as split here, has no published list"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:  # noqa: ARG002 (nothing is drawn)
        if self.rows not in partition.forget_lists:
            raise UsageError(f"{self.option_owner}: {unknown('list', self.rows, sorted(partition.forget_lists))}")
        forget = partition.forget_lists[self.rows]
        kept = np.setdiff1d(np.arange(len(partition.train)), forget)
        return self.split(partition, forget, gone=lost_classes(partition, kept))


@scenarios.register("indices")
@dataclass(frozen=True, kw_only=True)
class Indices(Scenario):
    """Forget the training rows that a file lists, the same in every draw; for index files published elsewhere.

    The file is an array of numbers or of booleans (``.npy``), a list (``.json``), or a number on every line (``.txt``).
    """

    path: str = option("", "The file.")
    sha256: str = option("", "Its SHA-256, checked where it is given: with it, a task names its rows for good.")

    name: ClassVar[str] = "indices"
    title: ClassVar[str] = "the images that a file lists"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:  # noqa: ARG002 (nothing is drawn)
        rows = self._read(len(partition.train))
        kept = np.setdiff1d(np.arange(len(partition.train)), rows)
        return self.split(partition, rows, gone=lost_classes(partition, kept))

    def _read(self, total: int) -> np.ndarray:
        if not self.path:
            raise UsageError(f"{self.option_owner}: name a file of row numbers with option path.")
        path = Path(self.path).expanduser()
        try:
            content = path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            rows = _parse(path.suffix, content)
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.option_owner}: {path} cannot be read as a list of rows: {error}") from error
        if self.sha256 and found != self.sha256.lower():
            raise UsageError(f"{self.option_owner}: {path} has SHA-256 {found}, and {self.sha256} was asked for.")
        if rows.dtype == bool:
            if len(rows) != total:
                raise UsageError(
                    f"{self.option_owner}: {path} marks {len(rows)} rows; there are {total} training images."
                )
            rows = np.flatnonzero(rows)
        if len(rows) and not (rows.min() >= 0 and rows.max() < total):
            wrong = int(rows.max() if rows.max() >= total else rows.min())
            raise UsageError(f"{self.option_owner}: {path} lists row {wrong}; training rows go from 0 to {total - 1}.")
        if len(np.unique(rows)) != len(rows):
            raise UsageError(f"{self.option_owner}: {path} lists {len(rows) - len(np.unique(rows))} rows twice.")
        return rows.astype(np.int64)


def _parse(suffix: str, content: bytes) -> np.ndarray:
    if suffix == ".npy":
        rows = np.load(io.BytesIO(content), allow_pickle=False)
    elif suffix == ".json":
        rows = np.array(json.loads(content))
    else:
        rows = np.array([int(line) for line in content.decode().split()])
    if rows.ndim != 1 or not len(rows) or not (rows.dtype == bool or np.issubdtype(rows.dtype, np.integer)):
        raise ValueError(f"expected are whole numbers or booleans in one row, not {rows.dtype} {rows.shape}")
    return np.asarray(rows)
