"""Examples: images on the device as bytes, indexed and returned in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from forgetbench.errors import UsageError
from forgetbench.training.compute import derive_generator


class Examples:
    """Images on the device as bytes, their labels, and an index into the images: a view that never copies them.

    Args:
        images: uint8 (M, C, H, W), shared between views.
        labels: int64, one row per example of this view: (n,) classes or (n, A) zeros and ones.
        index: int64 (n,), the image of each example; None: all images in order.

    Raises:
        UsageError: Types or shapes are wrong.
    """

    def __init__(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UsageError(f"Images must be uint8 (N, C, H, W), not {images.dtype} {tuple(images.shape)}.")
        rows = images.shape[0] if index is None else index.shape[0]
        if labels.dtype != torch.int64 or labels.ndim not in (1, 2) or labels.shape[0] != rows:
            shape = tuple(labels.shape)
            raise UsageError(f"Labels must be int64 ({rows},) or ({rows}, A), not {labels.dtype} {shape}.")
        self._images, self._labels = images, labels
        self._index = torch.arange(rows, device=images.device) if index is None else index

    @classmethod
    def from_arrays(
        cls, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device | str = "cpu"
    ) -> Examples:
        """Copy arrays to the device (also on the CPU: the arrays of an image set are read-only)."""
        return cls(torch.tensor(images, device=device), torch.tensor(labels, device=device))

    def __len__(self) -> int:
        """Number of examples."""
        return int(self._index.shape[0])

    @property
    def labels(self) -> Tensor:
        """int64 (n,) or (n, A); a copy, so that changes in place have no effect on the examples."""
        return self._labels.clone()

    @property
    def images(self) -> Tensor:
        """uint8 (n, C, H, W), gathered."""
        return self._images.index_select(0, self._index)

    @property
    def attributes(self) -> bool:
        """Whether labels are rows of A binary attributes."""
        return self._labels.ndim == 2

    @property
    def device(self) -> torch.device:
        """Device of images and labels."""
        return self._images.device

    def take(self, indices: Tensor | NDArray[np.int64] | Sequence[int]) -> Examples:
        """Return the examples at these positions, as a view."""
        if isinstance(indices, np.ndarray) and not indices.flags.writeable:  # the rows of a split are read-only
            indices = indices.copy()
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        return Examples(self._images, self._labels.index_select(0, chosen), self._index.index_select(0, chosen))

    def relabel(self, labels: Tensor) -> Examples:
        """Return a view of the same images with other labels, int64 (n,) or (n, A); this view is unchanged."""
        return Examples(self._images, labels.to(self.device), self._index)

    def join(self, other: Examples) -> Examples:
        """Return these examples followed by others; images are copied only if the two share none."""
        labels = torch.cat([self._labels, other._labels])
        if self._images.data_ptr() == other._images.data_ptr() and self._images.shape == other._images.shape:
            return Examples(self._images, labels, torch.cat([self._index, other._index]))
        return Examples(torch.cat([self.images, other.images]), labels)

    def to(self, device: torch.device | str) -> Examples:
        """Return the same examples on another device; only the images of this view are copied."""
        if torch.device(device) == self.device:
            return self
        return Examples(self.images.to(device), self._labels.to(device))

    def batches(
        self, size: int, seed: int | None = None, augment: Sequence[str] = (), crop_padding: int = 4
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of (float images (B, C, H, W) in [0, 1], labels).

        With a seed, examples are shuffled. A last batch of one example joins the batch before it, since batch-norm
        needs the variance of at least two. Without a seed, examples are in order, and the last batch can have any size.

        Args:
            size: Examples per batch.
            seed: Seed of order and augmentation; None: in order, without augmentation.
            augment: Names of augmentations, as in a recipe.
            crop_padding: Pixels around the image from which a crop is drawn.
        """
        order, generator = self._order(seed)
        for rows in order.split(batch_sizes(len(self), size, merge_single=seed is not None)):
            index = self._index.index_select(0, rows)
            images = self._images.index_select(0, index)
            if augment and generator is not None:
                images = augment_batch(images, augment, crop_padding, generator)
            yield images.float().div_(255), self._labels.index_select(0, rows)

    def _order(self, seed: int | None) -> tuple[Tensor, torch.Generator | None]:
        if seed is None:
            return torch.arange(len(self), device=self.device), None
        generator = derive_generator(seed)
        return torch.randperm(len(self), generator=generator).to(self.device), generator


def batch_sizes(count: int, size: int, *, merge_single: bool = True) -> list[int]:
    """Return the number of examples of each batch of an epoch.

    Args:
        count: Number of examples.
        size: Examples per batch.
        merge_single: Whether a last batch of one example joins the batch before it.
    """
    sizes = [size] * (count // size) + ([count % size] if count % size else [])
    if merge_single and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


def augment_batch(images: Tensor, names: Sequence[str], padding: int, generator: torch.Generator) -> Tensor:
    """Crop and flip every image of a uint8 batch (B, C, H, W) at random, by one gather of pixels.

    Args:
        images: The batch.
        names: Any of "crop", "crop-reflect" and "flip".
        padding: Pixels around the image from which a crop is drawn.
        generator: Source of the randomness, on the CPU.

    Raises:
        UsageError: A name is unknown, or the padding is too large to reflect.
    """
    unknown_names = set(names) - {"crop", "crop-reflect", "flip"}
    if unknown_names:
        raise UsageError(f"Unknown augmentation {sorted(unknown_names)[0]!r}. Available: crop, crop-reflect, flip.")
    count, channels, height, width = images.shape
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if "flip" in names:
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flipped, width - 1 - columns, columns)
    span = width
    if "crop" in names or "crop-reflect" in names:
        shift = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
        rows, columns = rows + shift[0], columns + shift[1]
        images = _pad(images, padding, reflect="crop-reflect" in names)
        span = width + 2 * padding
    pixels = (rows[:, :, None] * span + columns[:, None, :]).view(count, 1, height * width).to(images.device)
    flat = images.flatten(2).gather(2, pixels.expand(count, channels, height * width))
    return flat.view(count, channels, height, width)


def _pad(images: Tensor, padding: int, *, reflect: bool) -> Tensor:
    if not reflect:
        return functional.pad(images, (padding,) * 4)
    height, width = images.shape[2:]
    if padding >= min(height, width):
        raise UsageError(f"crop_padding {padding} is too large to reflect images of {height} x {width} pixels.")
    # torch does not reflect bytes, so the reflection is an index
    rows, columns = (
        (size - 1 - (size - 1 - torch.arange(-padding, size + padding).abs()).abs()).to(images.device)
        for size in (height, width)
    )
    return images.index_select(2, rows).index_select(3, columns)
