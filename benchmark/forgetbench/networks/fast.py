"""Networks for boards that need hundreds of oracles: resnet9, and one modeled on airbench."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.networks.base import Architecture, Body, ImageShape
from forgetbench.options import option


class FastBody(Body):
    """Convolutional stages in order, global max pooling, and a constant scale."""

    similar_to: ClassVar[str] = "resnet18"  # type: ignore[misc]

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
        """Compute features (B, width) of normalized images (B, C, H, W)."""
        for stage in self.stages:
            images = stage(images)
        pooled: Tensor = functional.adaptive_max_pool2d(images, 1)
        return pooled.flatten(1) * self._scale


class Residual(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_convolution(width, width, nn.ReLU()), _convolution(width, width, nn.ReLU()))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return images + cast("Tensor", self.inner(images))


class Whitening(nn.Module):
    """Projections of patches of 2x2 pixels to uncorrelated directions of unit variance, and their negatives.

    airbench computes the directions from training images, which would show forgotten images to an oracle. Here they are
    closed forms for patches of natural images in general: neighboring pixels correlate by 0.95 and colors by 0.9, so
    that the directions are sums and differences (Walsh's along the pixels, Helmert's along the colors). Only a bias is
    learned.
    """

    filters: Tensor

    def __init__(self, channels: int, neighbors: float = 0.95, colors: float = 0.9, floor: float = 5e-4) -> None:
        super().__init__()
        signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
        spread = torch.tensor([1 + neighbors, 1 - neighbors])
        mixing, color_variance = _helmert(channels), torch.full((channels,), 1 - colors)
        color_variance[0] = 1 + (channels - 1) * colors
        directions = torch.einsum("ac,py,qx->apqcyx", mixing, signs, signs).reshape(-1, channels, 2, 2)
        variance = torch.einsum("a,p,q->apq", color_variance, spread, spread).reshape(-1, 1, 1, 1)
        whitened = directions / (variance + floor).sqrt()
        self.register_buffer("filters", torch.cat([whitened, -whitened]))
        self.bias = nn.Parameter(torch.zeros(len(self.filters)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 8 C, H-1, W-1)."""
        return functional.gelu(functional.conv2d(images, self.filters, self.bias))


@networks.register("resnet9")
@dataclass(frozen=True, kw_only=True)
class ResNet9(Architecture):
    """ResNet-9 of the data-attribution literature (TRAK, data-unlearning-bench), 2.3 million weights at width 64.

    Convolutions of 1, 2 (5x5, stride 2), 4 and 2 times `width` channels, each with batch-norm and ReLU, a residual pair
    after the second and the third, features by the maximum, scaled by 0.2.
    """

    option_owner = "network 'resnet9'"

    width: int = option(64, help="Channels of the first convolution.", ge=1, le=1024)

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body.

        Raises:
            UsageError: Images are smaller than 12 pixels.
        """
        _check_size("resnet9", shape)
        width, relu = self.width, nn.ReLU()
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
@dataclass(frozen=True, kw_only=True)
class Fast(Architecture):
    """A network modeled on airbench94 (Jordan 2024): whitening and three pairs of convolutions, 2 million weights.

    The pairs have 1, 4 and 4 times `width` channels, with batch-norm and GELU; the first of each pair halves the image.
    Convolutions are initialized close to the identity, and features, by the maximum, are divided by 9. Unlike in
    airbench, the whitening does not depend on training images, all of batch-norm is learned, and the head has a bias.
    """

    option_owner = "network 'fast'"

    width: int = option(64, help="Channels of the first pair of convolutions.", ge=1, le=1024)

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body.

        Raises:
            UsageError: Images are smaller than 12 pixels.
        """
        _check_size("fast", shape)
        stem = Whitening(shape.channels)
        sizes = (len(stem.bias), self.width, 4 * self.width, 4 * self.width)
        pairs = [_convolution_pair(inputs, outputs) for inputs, outputs in pairwise(sizes)]
        return FastBody([stem, *pairs], sizes[-1], 1 / 9)


def _convolution_pair(inputs: int, outputs: int) -> nn.Module:
    first, second = (nn.Conv2d(size, outputs, 3, padding=1, bias=False) for size in (inputs, outputs))
    for convolution in (first, second):
        nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
    return nn.Sequential(
        first, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.GELU(), second, nn.BatchNorm2d(outputs), nn.GELU()
    )


def _convolution(
    inputs: int, outputs: int, activation: nn.Module, kernel: int = 3, stride: int = 1, padding: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), activation)


def _helmert(size: int) -> Tensor:
    """Return orthonormal rows (size, size): the mean, and each color against the mean of those before it."""
    rows = torch.zeros(size, size)
    rows[0] = 1 / math.sqrt(size)
    for row in range(1, size):
        rows[row, :row] = 1 / math.sqrt(row * (row + 1))
        rows[row, row] = -row / math.sqrt(row * (row + 1))
    return rows


def _check_size(network: str, shape: ImageShape) -> None:
    if min(shape.height, shape.width) < 12:
        raise UsageError(f"Network {network} needs images of at least 12 pixels, not {shape.height} x {shape.width}.")
