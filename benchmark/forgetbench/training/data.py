"""Examples: images on the device as bytes, indexed and returned in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        for rows, draws in self.plan(size, seed, augment, crop_padding).steps():
            yield self.gather(rows, draws, augment, crop_padding)

    def plan(self, size: int, seed: int | None = None, augment: Sequence[str] = (), crop_padding: int = 4) -> EpochPlan:
        """Draw an epoch's order and augmentation, and send them to the device at once; arguments as in `batches`."""
        sizes = batch_sizes(len(self), size, merge_single=seed is not None)
        if seed is None:
            return EpochPlan(sizes, torch.arange(len(self), device=self.device), None)
        generator = derive_generator(seed)
        order = torch.randperm(len(self), generator=generator)
        draws = None
        if augment:
            parts = [draw_augmentation(count, augment, crop_padding, generator) for count in sizes]
            draws = _send(torch.cat(parts, 1), self.device)
        return EpochPlan(sizes, _send(order, self.device), draws)

    def gather(
        self, rows: Tensor, draws: Tensor | None = None, augment: Sequence[str] = (), crop_padding: int = 4
    ) -> tuple[Tensor, Tensor]:
        """Return one batch of a plan: (float images (B, C, H, W) in [0, 1], labels).

        Args:
            rows: int64 (B,), positions of the examples.
            draws: int64 (3, B), their augmentation; None: images as they are.
            augment: Names of augmentations.
            crop_padding: Pixels around the image from which a crop is drawn.
        """
        images = self._images.index_select(0, self._index.index_select(0, rows))
        if draws is not None:
            images = apply_augmentation(images, augment, crop_padding, draws)
        return images.float().div_(255), self._labels.index_select(0, rows)


class EpochPlan(NamedTuple):
    """An epoch's order and augmentation, drawn on the CPU and sent to the device once."""

    sizes: list[int]
    """Number of examples of each batch."""
    order: Tensor
    """int64 (n,), positions of the examples, batch by batch."""
    draws: Tensor | None
    """int64 (3, n), see `draw_augmentation`; None without augmentation."""

    def steps(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the rows and draws of each batch, as views."""
        if self.draws is None:
            yield from zip(self.order.split(self.sizes), repeat(None))
        else:
            yield from zip(self.order.split(self.sizes), self.draws.split(self.sizes, 1), strict=True)


def _send(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device; a GPU gets it without waiting."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


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
    draws = draw_augmentation(len(images), names, padding, generator)
    return apply_augmentation(images, names, padding, _send(draws, images.device))


def draw_augmentation(count: int, names: Sequence[str], padding: int, generator: torch.Generator) -> Tensor:
    """Draw what augments a batch: int64 (3, count) with whether to flip, and the crop's shift down and to the right.

    Args:
        count: Number of images.
        names: Any of "crop", "crop-reflect" and "flip".
        padding: Pixels around the image from which a crop is drawn.
        generator: Source of the randomness, on the CPU.

    Raises:
        UsageError: A name is unknown.
    """
    unknown_names = set(names) - {"crop", "crop-reflect", "flip"}
    if unknown_names:
        raise UsageError(f"Unknown augmentation {sorted(unknown_names)[0]!r}. Available: crop, crop-reflect, flip.")
    draws = torch.zeros(3, count, dtype=torch.int64)
    if "flip" in names:
        draws[0] = (torch.rand(count, 1, generator=generator) < 0.5)[:, 0]
    if "crop" in names or "crop-reflect" in names:
        draws[1:] = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)[:, :, 0]
    return draws


def apply_augmentation(images: Tensor, names: Sequence[str], padding: int, draws: Tensor) -> Tensor:
    """Crop and flip a uint8 batch (B, C, H, W) as drawn; everything is computed on the device of the images.

    Args:
        images: The batch.
        names: The names that were drawn for.
        padding: The padding that was drawn for.
        draws: int64 (3, B), on the same device.

    Raises:
        UsageError: The padding is too large to reflect.
    """
    count, channels, height, width = images.shape
    reflect, crop = "crop-reflect" in names, "crop" in names
    if reflect and padding >= min(height, width):
        raise UsageError(f"crop_padding {padding} is too large to reflect images of {height} x {width} pixels.")
    rows = torch.arange(height, device=images.device).expand(count, height)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if "flip" in names:
        columns = torch.where(draws[0][:, None] > 0, width - 1 - columns, columns)
    if reflect or crop:
        rows, columns = rows + (draws[1][:, None] - padding), columns + (draws[2][:, None] - padding)
    if reflect:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    outside = None
    if crop:
        outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    flat = images.flatten(2).gather(2, pixels.expand(count, channels, height * width))
    augmented = flat.view(count, channels, height, width)
    return augmented if outside is None else augmented.masked_fill_(outside[:, None], 0)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """The positions in an image that a reflection of its border shows at these ones."""
    return size - 1 - (size - 1 - positions.abs()).abs()
