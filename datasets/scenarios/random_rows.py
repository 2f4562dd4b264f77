"""Scenarios that forget single training images: drawn at random, published, or listed in a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forgetbench.datasets._sampling import connected_groups, sample_groups
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios._index_files import IndexFileError, read_rows
from forgetbench.datasets.scenarios.base import Scenario, Split, completely_forgotten_classes, forget_count
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option
from forgetbench.registry import unknown
from forgetbench.user_files import user_path


@scenarios.register("random")
@dataclass(frozen=True, kw_only=True)
class RandomRows(Scenario):
    """Forget images drawn at random.

    Images with the same bytes are forgotten together; otherwise a forgotten image would still be trained on. If no
    image is repeated, a smaller forget set of a draw is a subset of a larger one.
    """

    fraction: float | None = option(None, "Fraction of the training images.", gt=0, lt=1)
    count: int | None = option(None, "Number of training images, instead of a fraction.", ge=1)

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "images drawn at random"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        total = len(partition.train)
        count = forget_count(self.option_owner, self.fraction, self.count, total, "training images")
        groups = connected_groups(partition.train.first_copy)
        return self.make_split(partition, sample_groups(groups, count, make_rng("random", rng_seed, draw)))


@scenarios.register("published")
@dataclass(frozen=True, kw_only=True)
class Published(Scenario):
    """Forget the rows that the authors of the image set published, the same in every draw.

    The list is used unchanged: repeated images can be on both sides, as in the published results.
    """

    rows: str = option("published", "Name of the list; image sets document the lists that they have.")

    name: ClassVar[str] = "published"
    title: ClassVar[str] = "the forget set that the authors of the image set published"

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require a published list."""
        return None if partition.forget_lists else f"image set {partition.name!r} has no published list with this split"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:  # noqa: ARG002 (nothing is drawn)
        if self.rows not in partition.forget_lists:
            raise UsageError(f"{self.option_owner}: {unknown('list', self.rows, sorted(partition.forget_lists))}")
        forget = partition.forget_lists[self.rows]
        retain = np.setdiff1d(np.arange(len(partition.train)), forget)
        return self.make_split(partition, forget, forgotten_classes=completely_forgotten_classes(partition, retain))


@scenarios.register("indices")
@dataclass(frozen=True, kw_only=True)
class Indices(Scenario):
    """Forget the training rows that a file lists, the same in every draw; for index files published elsewhere.

    The file has row numbers, or a mark for every training image, as text, CSV, JSON, an array of numpy, or a tensor of
    torch.save. Its format is recognized by its content. In a file of several lists, the rows to forget are named
    "forget"; a single list may have any name.
    """

    path: str = option("", "The file.")
    sha256: str = option("", "SHA-256 of the file; if given, other contents are refused.")

    name: ClassVar[str] = "indices"
    title: ClassVar[str] = "the images that a file lists"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:  # noqa: ARG002 (nothing is drawn)
        rows = self._read_rows(partition.train)
        retain = np.setdiff1d(np.arange(len(partition.train)), rows)
        return self.make_split(partition, rows, forgotten_classes=completely_forgotten_classes(partition, retain))

    def _read_rows(self, train: ImageSet) -> np.ndarray:
        if not self.path:
            raise UsageError(f"{self.option_owner}: name a file of row numbers with option path.")
        path = user_path(self.path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{self.option_owner}: {path} cannot be read: {error.strerror}. Correct it.") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if self.sha256 and sha256 != self.sha256.lower():
            raise UsageError(
                f"{self.option_owner}: {path} has SHA-256 {sha256}, not {self.sha256}: it is another file."
            )
        try:
            return read_rows(content, train.labels)
        except IndexFileError as error:
            raise UsageError(f"{self.option_owner}: {path} {error}") from error
