"""LeNet-5 with ReLU and max pooling, as unlearning papers use it on CIFAR-10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.networks.base import Architecture, Body, ImageShape

SMALLEST = 16
"""Least side of an image: below it nothing is left after the second convolution."""


@networks.register("lenet")
@dataclass(frozen=True, kw_only=True)
class LeNet(Architecture):
    """LeNet-5 with ReLU: two convolutions of 5 x 5 with pooling, two hidden layers of 120 and 84."""

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body.

        Raises:
            UsageError: The images are too small.
        """
        if min(shape.height, shape.width) < SMALLEST:
            raise UsageError(
                f"Network lenet needs images of at least {SMALLEST} x {SMALLEST} pixels, not {shape.height} x "
                f"{shape.width}."
            )
        return LeNetBody(shape)


class LeNetBody(Body):
    """The layers before the head; 84 features."""

    width = 84

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(shape.channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        height, width = (((side - 4) // 2 - 4) // 2 for side in (shape.height, shape.width))
        self.third = nn.Sequential(nn.Linear(16 * height * width, 120), nn.ReLU())
        self.fourth = nn.Sequential(nn.Linear(120, self.width), nn.ReLU())

    @property
    def blocks(self) -> list[nn.Module]:
        """The four layers."""
        return [self.first, self.second, self.third, self.fourth]

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (B, 84) of normalized images (B, C, H, W)."""
        return cast("Tensor", self.fourth(self.third(self.second(self.first(images)))))
