"""Scenario that forgets the training images that a network memorizes most, or least."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets._files import cached_arrays
from forgetbench.datasets._sampling import connected_groups, take_ranked_groups
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios._index_files import IndexFileError, read_values
from forgetbench.datasets.scenarios.base import Scenario, Split, forget_count
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.fingerprints import fingerprint
from forgetbench.options import option
from forgetbench.user_files import user_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 8
"""Images are compared at a resolution of at most this many cells across."""


@scenarios.register("memorised")
@dataclass(frozen=True, kw_only=True)
class Memorised(Scenario):
    """Forget the images that are memorized most, least, or in between; the same ones in every draw.

    Memorization is estimated by a proxy that needs no training and is exact on every machine: the distance to the
    nearest image with the same label over the distance to the nearest one with another label, on images reduced to 8x8
    cells. Atypical images, which a network can only memorize, have high values. Feldman and Zhang 2020 measure
    memorization with thousands of networks; their scores, or any others, can be given as a file instead. Zhao et al.
    2024 showed that methods rank differently on the two ends. Images with the same bytes are forgotten together.
    """

    which: Literal["most", "middle", "least"] = option("most", "Position in the ranking by memorization.")
    fraction: float | None = option(None, "Fraction of the training images.", gt=0, lt=1)
    count: int | None = option(None, "Number of training images, instead of a fraction.", ge=1)
    scores: str = option("", "File of scores, one per training image (.npy), instead of the proxy.")
    sha256: str = option("", "SHA-256 of that file; if given, other contents are refused.")

    name: ClassVar[str] = "memorised"
    title: ClassVar[str] = "the images that are memorized most, least or in between"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:  # noqa: ARG002 (nothing is drawn)
        total = len(partition.train)
        count = forget_count(self.option_owner, self.fraction, self.count, total, "training images")
        scores = self._read_scores(total) if self.scores else _cached_atypicality(partition.train)
        groups = connected_groups(partition.train.first_copy)
        highest = np.full(int(groups.max()) + 1, -np.inf)
        np.maximum.at(highest, groups, scores)
        ranking = np.argsort(-highest, kind="stable")
        if self.which == "least":
            ranking = ranking[::-1]
        elif self.which == "middle":
            middle = len(ranking) / 2
            ranking = ranking[np.argsort(np.abs(np.arange(len(ranking)) - middle + 0.5), kind="stable")]
        return self.make_split(partition, take_ranked_groups(groups, count, ranking))

    def _read_scores(self, total: int) -> NDArray[np.float64]:
        path = user_path(self.scores)
        try:
            content = path.read_bytes()
            scores = read_values(content)
        except OSError as error:
            raise UsageError(f"{self.option_owner}: {path} cannot be read: {error.strerror}. Correct it.") from error
        except IndexFileError as error:
            raise UsageError(f"{self.option_owner}: {path} {error}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if self.sha256 and sha256 != self.sha256.lower():
            raise UsageError(
                f"{self.option_owner}: {path} has SHA-256 {sha256}, not {self.sha256}: it is another file."
            )
        if scores.shape != (total,) or not np.isfinite(scores).all():
            raise UsageError(
                f"{self.option_owner}: {path} must contain {total} finite scores, one for each training image; it has "
                f"shape {scores.shape}."
            )
        return np.asarray(scores)


def _cached_atypicality(images: ImageSet) -> NDArray[np.float64]:
    """Return the proxy from the store, or compute it: 50,000 images take more than a minute."""
    key = {"scores": "atypicality", "of": images.sha256, "code": fingerprint("images.atypicality")}
    return cached_arrays(key, lambda _: {"scores": atypicality(images)})["scores"]


def atypicality(images: ImageSet, block: int = 1024) -> NDArray[np.float64]:
    """Compute the squared distance to the nearest image with the same label over that to the nearest with another.

    Cells are whole numbers up to 255 and at most 192 of them, so that all sums are below 2**24 and exact in float32,
    whatever order a machine adds them in.

    Args:
        images: N images.
        block: Number of rows that are compared with all others at once.

    Returns:
        (N,) scores.
    """
    cells = _cells(images.images)
    norms = (cells * cells).sum(axis=1)
    _, label = np.unique(images.labels, axis=0, return_inverse=True)
    scores = np.empty(len(cells))
    for start in range(0, len(cells), block):
        rows = slice(start, min(start + block, len(cells)))
        distance = norms[rows, None] + norms[None, :] - 2 * (cells[rows] @ cells.T)
        distance[np.arange(rows.stop - start), np.arange(start, rows.stop)] = (
            np.inf
        )  # an image is no neighbor of itself
        same = label[rows, None] == label[None, :]
        nearest_same = np.where(same, distance, np.inf).min(axis=1).astype(np.float64)
        nearest_other = np.where(same, np.inf, distance).min(axis=1).astype(np.float64)
        # 1e12 exceeds every distance: it replaces infinity where a label has one image, or there is one label
        scores[rows] = np.minimum(nearest_same, 1e12) / np.maximum(np.minimum(nearest_other, 1e12), 1)
    return scores


def _cells(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce images to at most 8x8 cells per channel, the rounded means of equal parts: (N, D)."""
    _, channels, height, width = images.shape
    rows, columns = (np.linspace(0, side, min(side, CELLS) + 1).astype(int) for side in (height, width))
    parts = []
    for start in range(0, len(images), 4096):
        chunk = images[start : start + 4096, : min(channels, 3)].astype(np.int64)
        sums = np.add.reduceat(np.add.reduceat(chunk, rows[:-1], axis=2), columns[:-1], axis=3)
        area = np.outer(np.diff(rows), np.diff(columns))
        parts.append(((sums + area // 2) // area).reshape(len(chunk), -1).astype(np.float32))
    return np.concatenate(parts)
