"""Scenarios that forget the training images that a network memorizes most, or least."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets._files import kept
from forgetbench.datasets._sampling import joined_groups, take_first_groups
from forgetbench.datasets.base import option
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split, wanted
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.store import file_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 8
"""Pictures are compared by at most so many cells across."""


@scenarios.register("memorised")
@dataclass(frozen=True, kw_only=True)
class Memorised(Scenario):
    """Forget the images that are memorised most, least, or in between; the same ones in every draw.

    The proxy is stated, needs no training and is exact on every machine: the distance to the nearest image with the
    same label over the distance to the nearest one with another label, on pictures reduced to 8x8 cells. Atypical
    images, which a network can only learn by heart, have high values (Feldman and Zhang 2020 measure that with
    thousands of networks; their scores, or anybody's, can be given as a file instead). Zhao et al. 2024 showed that
    methods rank differently on the two ends. Images with the same bytes go together.
    """

    which: Literal["most", "middle", "least"] = option("most", "Which end of the ranking.")
    fraction: float | None = option(None, "Share of the training images.", gt=0, lt=1)
    count: int | None = option(None, "Number of training images, instead of a share.", ge=1)
    scores: str = option("", "A file of scores, one for every training image (.npy), instead of the proxy.")
    sha256: str = option(
        "", "SHA-256 of that file, checked where it is given: with it, a task names its rows for good."
    )

    name: ClassVar[str] = "memorised"
    title: ClassVar[str] = "the images that are memorised most, least or in between"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:  # noqa: ARG002 (nothing is drawn)
        total = len(partition.train)
        number = wanted(self.option_owner, self.fraction, self.count, total, "training images")
        scores = self._scores(total) if self.scores else _kept_atypicality(partition.train)
        groups = joined_groups(partition.train.first_copy)
        highest = np.full(int(groups.max()) + 1, -np.inf)
        np.maximum.at(highest, groups, scores)
        ranking = np.argsort(-highest, kind="stable")
        if self.which == "least":
            ranking = ranking[::-1]
        elif self.which == "middle":
            middle = len(ranking) / 2
            ranking = ranking[np.argsort(np.abs(np.arange(len(ranking)) - middle + 0.5), kind="stable")]
        return self.split(partition, take_first_groups(groups, number, ranking))

    def _scores(self, total: int) -> NDArray[np.float64]:
        path = Path(self.scores).expanduser()
        try:
            content = path.read_bytes()
            scores = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.option_owner}: {path} cannot be read as an array of scores: {error}") from error
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 and found != self.sha256.lower():
            raise UsageError(f"{self.option_owner}: {path} has SHA-256 {found}, and {self.sha256} was asked for.")
        if scores.shape != (total,) or not np.isfinite(scores).all():
            raise UsageError(
                f"{self.option_owner}: {path} must hold {total} finite scores; it has shape {scores.shape}."
            )
        return np.asarray(scores)


def _kept_atypicality(images: ImageSet) -> NDArray[np.float64]:
    """The proxy out of the store: for 50,000 images it takes more than a minute."""
    key = {"scores": "atypicality", "of": images.sha256, "code": file_digest(Path(__file__))}
    return kept(key, lambda _: {"scores": atypicality(images)})["scores"]


def atypicality(images: ImageSet, block: int = 1024) -> NDArray[np.float64]:
    """Distance to the nearest image of the same label over that to the nearest of another, squared, (N,).

    Cells are whole numbers up to 255 and at most 192 of them, so that all sums stay below 2**24 and are exact in
    float32, in whatever order a machine adds them.

    Args:
        images: The images.
        block: Rows that are compared with all others at once.
    """
    cells = _cells(images.images)
    norms = (cells * cells).sum(axis=1)
    _, label = np.unique(images.labels, axis=0, return_inverse=True)
    scores = np.empty(len(cells))
    for start in range(0, len(cells), block):
        rows = slice(start, min(start + block, len(cells)))
        distance = norms[rows, None] + norms[None, :] - 2 * (cells[rows] @ cells.T)
        distance[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf  # nobody is their own neighbor
        same = label[rows, None] == label[None, :]
        near = np.where(same, distance, np.inf).min(axis=1).astype(np.float64)
        far = np.where(same, np.inf, distance).min(axis=1).astype(np.float64)
        scores[rows] = np.minimum(near, 1e12) / np.maximum(np.minimum(far, 1e12), 1)
    return scores


def _cells(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures as rows of at most 8x8 cells per channel: the rounded means of equal parts, (N, D)."""
    _, channels, height, width = images.shape
    rows, columns = (np.linspace(0, side, min(side, CELLS) + 1).astype(int) for side in (height, width))
    parts = []
    for start in range(0, len(images), 4096):
        some = images[start : start + 4096, : min(channels, 3)].astype(np.int64)
        sums = np.add.reduceat(np.add.reduceat(some, rows[:-1], axis=2), columns[:-1], axis=3)
        area = np.outer(np.diff(rows), np.diff(columns))
        parts.append(((sums + area // 2) // area).reshape(len(some), -1).astype(np.float32))
    return np.concatenate(parts)
