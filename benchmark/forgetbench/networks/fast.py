"""Networks for boards that need hundreds of oracles: resnet9, and one after airbench."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.networks.base import Body, ImageShape, check_whole


class FastBody(Body):
    """Convolutional stages in order, the maximum over what is left of the image, and a constant scale."""

    like: ClassVar[str] = "resnet18"  # type: ignore[misc]

    def __init__(self, stages: list[nn.Module], width: int, scale: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.width = width
        self._scale: float = scale

    @property
    def blocks(self) -> list[nn.Module]:
        """The stages."""
        return list(self.stages)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, width) of normalized images (B,C,H,W)."""
        for stage in self.stages:
            images = stage(images)
        pooled: Tensor = functional.adaptive_max_pool2d(images, 1)
        return pooled.flatten(1) * self._scale


class Residual(nn.Module):
    """What two convolutions make of an image, added to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_convolution(width, width, nn.ReLU()), _convolution(width, width, nn.ReLU()))

    def forward(self, images: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        return images + cast("Tensor", self.inner(images))


class Whitening(nn.Module):
    """Patches of 2x2 pixels to their uncorrelated directions, each of unit variance, and the same negated.

    airbench takes the directions from training images, which would let an oracle see what it must not. They are closed
    forms here, for patches of natural images as such: neighboring pixels correlate by 0.95 and colors by 0.9, so the
    directions are sums and differences (Walsh's along the pixels, Helmert's along the colors). Nothing of them is
    learned but a bias.
    """

    filters: Tensor

    def __init__(self, channels: int, neighbors: float = 0.95, colors: float = 0.9, floor: float = 5e-4) -> None:
        super().__init__()
        signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
        spread = torch.tensor([1 + neighbors, 1 - neighbors])
        mixing, shares = _helmert(channels), torch.full((channels,), 1 - colors)
        shares[0] = 1 + (channels - 1) * colors
        directions = torch.einsum("ac,py,qx->apqcyx", mixing, signs, signs).reshape(-1, channels, 2, 2)
        variance = torch.einsum("a,p,q->apq", shares, spread, spread).reshape(-1, 1, 1, 1)
        whitened = directions / (variance + floor).sqrt()
        self.register_buffer("filters", torch.cat([whitened, -whitened]))
        self.bias = nn.Parameter(torch.zeros(len(self.filters)))

    def forward(self, images: Tensor) -> Tensor:
        """(B,C,H,W) -> (B, 8 C, H-1, W-1)."""
        return functional.gelu(functional.conv2d(images, self.filters, self.bias))


@networks.register("resnet9")
def resnet9(shape: ImageShape, *, width: int = 64) -> Body:
    """ResNet-9 of the data-attribution literature (TRAK, data-unlearning-bench), 2.3 million weights at width 64.

    Convolutions of 1, 2 (5x5, stride 2), 4 and 2 times `width` channels, each with batch-norm and ReLU, a residual pair
    after the second and the third, features by the maximum; they are scaled by 0.2.
    """
    _check("resnet9", shape, width)
    relu = nn.ReLU()
    return FastBody(
        [
            _convolution(shape.channels, width, relu),
            _convolution(width, 2 * width, relu, kernel=5, stride=2, padding=2),
            Residual(2 * width),
            nn.Sequential(_convolution(2 * width, 4 * width, relu), nn.MaxPool2d(2)),
            Residual(4 * width),
            _convolution(4 * width, 2 * width, relu, padding=0),
        ],
        2 * width,
        0.2,
    )


@networks.register("fast")
def fast(shape: ImageShape, *, width: int = 64) -> Body:
    """A network after airbench94 (Jordan 2024): a whitening layer and three pairs of convolutions, 2 million weights.

    The pairs have 1, 4 and 4 times `width` channels, with batch-norm and GELU; the first of each pair halves the image.
    Convolutions start as near to the identity as they can, and features, by the maximum, are divided by 9. Unlike
    airbench's, the whitening sees no training image, all of batch-norm is learned, and the head has a bias.
    """
    _check("fast", shape, width)
    stem = Whitening(shape.channels)
    sizes = (len(stem.bias), width, 4 * width, 4 * width)
    return FastBody([stem, *(_pair(before, after) for before, after in pairwise(sizes))], sizes[-1], 1 / 9)


def _pair(before: int, after: int) -> nn.Module:
    halved, second = (nn.Conv2d(size, after, 3, padding=1, bias=False) for size in (before, after))
    for convolution in (halved, second):
        nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
    return nn.Sequential(
        halved, nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.GELU(), second, nn.BatchNorm2d(after), nn.GELU()
    )


def _convolution(
    before: int, after: int, activation: nn.Module, kernel: int = 3, stride: int = 1, padding: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), activation)


def _helmert(size: int) -> Tensor:
    """Orthonormal rows (size, size): the mean, and each color against the mean of those before it."""
    rows = torch.zeros(size, size)
    rows[0] = 1 / math.sqrt(size)
    for row in range(1, size):
        rows[row, :row] = 1 / math.sqrt(row * (row + 1))
        rows[row, row] = -row / math.sqrt(row * (row + 1))
    return rows


def _check(network: str, shape: ImageShape, width: object) -> None:
    check_whole(network, "width", width, 1, 1024)
    if min(shape.height, shape.width) < 12:
        raise UsageError(f"network {network} needs images of 12 pixels and more, not {shape.height} x {shape.width}")
