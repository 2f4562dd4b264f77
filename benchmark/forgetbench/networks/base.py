"""Networks: what all of them have in common, how one is built by name, and cnn, mlp, resnet18 and vit.

Every network takes float images in [0, 1] and normalizes them inside, so that normalization cannot be forgotten. It has
`features` (the penultimate layer), a linear `head`, and an ordered list `blocks`, whatever library its body comes from.

Every stored model depends on this file: put a new network into a file of its own, on which only the models that use it
depend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.options import Options, option
from forgetbench.training.compute import seeded


class ImageShape(NamedTuple):
    """Shape of the images that a network receives."""

    channels: int
    height: int
    width: int


class Body(nn.Module):
    """A network without its head: normalized images (B, C, H, W) -> features (B, `width`)."""

    width: int
    similar_to: str = ""
    """Name of a similar network of this file, if any: methods that support that one also support this one."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The stages in the order of the forward pass."""
        raise NotImplementedError

    def convert_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a state dict of the library that the body comes from; unchanged if there is no such library.

        Args:
            state: Parameter name -> tensor.
        """
        return dict(state)


@dataclass(frozen=True, kw_only=True)
class Architecture(Options, ABC):
    """A kind of network with its options: a frozen, keyword-only dataclass that builds the body for images of a shape.

    Every architecture also has these options: its networks can start from the weights of a file, and their logits can
    be cosines.
    """

    checkpoint: str = option("", help="File of weights to start from; none: random initial weights.")
    sha256: str = option("", help="SHA-256 of that file.")
    cosine: float | None = option(
        None, gt=0, help="Logits are this many times the cosines of features and class vectors; None: a linear head."
    )

    @abstractmethod
    def build_body(self, shape: ImageShape) -> Body:
        """Build a newly initialized body; initial weights are drawn from torch's global random state.

        Args:
            shape: Shape of the images.

        Raises:
            UsageError: The options do not fit each other or the shape.
        """


WEIGHT_OPTIONS: tuple[str, ...] = ("pretrained", "checkpoint", "sha256")
"""Options that determine the weights that a network starts from."""


class CosineHead(nn.Linear):
    """A head whose logits are scaled cosines of features and class vectors (CosFace, Wang et al. 2018); it has no bias.

    Args:
        features: Number of features.
        outputs: Number of classes.
        scale: Factor of the cosines.
    """

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__(features, outputs, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits (B, outputs) of features (B, F)."""
        return self.scale * functional.linear(functional.normalize(features), functional.normalize(self.weight))


class Network(nn.Module):
    """A body and a linear head, with the normalization in front.

    Args:
        body: Normalized images to features.
        outputs: Number of classes or attributes: one logit each.
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel, above zero.
        cosine: Factor of the cosines of a `CosineHead`; None is a linear head.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, body: Body, outputs: int, mean: Sequence[float], std: Sequence[float], cosine: float | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.body = body
        self.head = nn.Linear(body.width, outputs) if cosine is None else CosineHead(body.width, outputs, cosine)

    @property
    def blocks(self) -> list[nn.Module]:
        """The body's stages in order, without the head."""
        return self.body.blocks

    def features(self, images: Tensor) -> Tensor:
        """Compute penultimate features (B, F) of images (B, C, H, W) in [0, 1]."""
        return cast("Tensor", self.body((images - self.mean) / self.std))

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, outputs) of images (B, C, H, W) in [0, 1]."""
        return cast("Tensor", self.head(self.features(images)))


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Arguments of `build_network` except the seed; part of the cache key of every model."""

    name: str
    channels: int
    height: int
    width: int
    outputs: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, Any]

    def build(self, seed: int, *, load_weights: bool = True) -> Network:
        """Build a newly initialized network.

        Args:
            seed: Seed of the initial weights.
            load_weights: Whether to load pretrained weights or a checkpoint, if the options name any; not needed if the
                weights are replaced afterwards.
        """
        return build_network(
            self.name,
            options={key: value for key, value in self.options.items() if load_weights or key not in WEIGHT_OPTIONS},
            channels=self.channels,
            height=self.height,
            width=self.width,
            outputs=self.outputs,
            mean=self.mean,
            std=self.std,
            seed=seed,
        )


def build_network(
    name: str,
    *,
    options: Mapping[str, Any],
    channels: int,
    height: int,
    width: int,
    outputs: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> Network:
    """Build a newly initialized network in eval mode; equal seeds give equal bits.

    The caller's random state is neither used nor changed.

    Args:
        name: Name in the registry.
        options: Options of the network.
        channels: Channels of an image.
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        outputs: Number of classes or attributes.
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel.
        seed: Seed of the initial weights.

    Raises:
        UsageError: The network or an option is unknown, an option is out of range or does not fit the shape, or the
            weights to start from are missing or have another SHA-256.
    """
    architecture = networks.get(name).from_dict(options)
    if not len(mean) == len(std) == channels or min(std) <= 0:
        raise UsageError(
            f"mean {tuple(mean)} and std {tuple(std)} must have {channels} values each, and std must be > 0."
        )
    if outputs < 1:
        raise UsageError(f"A network needs at least one output, not {outputs}.")
    with seeded(seed):
        body = architecture.build_body(ImageShape(channels, height, width))
        network = Network(body, outputs, mean, std, architecture.cosine)
    if architecture.checkpoint or architecture.sha256:
        from forgetbench.networks.pretrained import load_checkpoint

        load_checkpoint(network, architecture.checkpoint, architecture.sha256)
    return network.eval()


def source_modules(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modules, other than this one, that a network depends on.

    Args:
        name: Name in the registry.
        options: Options of the network.
    """
    modules = {networks.get(name).__module__}
    if {"checkpoint", "sha256"} & set(options):
        modules.add("forgetbench.networks.pretrained")
    return tuple(sorted(modules - {__name__}))


class _Stages(Body):
    def __init__(self, stages: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.width = width

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.stages)

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return images if images.ndim == 2 else images.mean((2, 3))


@networks.register("cnn")
@dataclass(frozen=True, kw_only=True)
class Cnn(Architecture):
    """Three convolutions of `width`, 2 and 4 times as many channels, each with batch-norm; features by the mean.

    From 24 pixels the first one has stride 2, and from 48 pixels stride 4: one CPU thread then trains several thousand
    images per second.
    """

    option_owner = "network 'cnn'"

    width: int = option(32, help="Channels of the first convolution.", ge=1, le=1024)

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body.

        Raises:
            UsageError: Images are smaller than 8 pixels.
        """
        smallest = min(shape.height, shape.width)
        if smallest < 8:
            raise UsageError(f"Network cnn needs images of at least 8 pixels, not {shape.height} x {shape.width}.")
        stride = 1 if smallest < 24 else 2 if smallest < 48 else 4
        sizes = (shape.channels, self.width, 2 * self.width, 4 * self.width)
        return _Stages(
            [
                nn.Sequential(
                    nn.Conv2d(
                        inputs, outputs, 3 if number or stride < 4 else 5, stride if number == 0 else 1, 1, bias=False
                    ),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                    nn.MaxPool2d(2) if number < 2 else nn.Identity(),
                )
                for number, (inputs, outputs) in enumerate(pairwise(sizes))
            ],
            sizes[-1],
        )


@networks.register("mlp")
@dataclass(frozen=True, kw_only=True)
class Mlp(Architecture):
    """Linear layers of the sizes `hidden` with ReLU, optionally with batch-norm before it."""

    option_owner = "network 'mlp'"

    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1)] = option(
        (256, 128), help="Sizes of the hidden layers."
    )
    batch_norm: bool = option(False, help="Whether every layer has batch-norm.")

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body."""
        stages = []
        sizes = (shape.channels * shape.height * shape.width, *self.hidden)
        for number, (inputs, outputs) in enumerate(pairwise(sizes)):
            flatten = [nn.Flatten()] if number == 0 else []
            norm = [nn.BatchNorm1d(outputs)] if self.batch_norm else []
            stages.append(nn.Sequential(*flatten, nn.Linear(inputs, outputs), *norm, nn.ReLU()))
        return _Stages(stages, self.hidden[-1])


class _TimmBody(Body):
    """A model of timm without its classifier."""

    def __init__(self, model: nn.Module, stages: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.width = int(cast("int", model.num_features))
        self._stages = tuple(stages)

    @property
    def blocks(self) -> list[nn.Module]:
        return [block for name in self._stages for block in cast("nn.Sequential", getattr(self.model, name))]

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.model(images))


@networks.register("resnet18")
@dataclass(frozen=True, kw_only=True)
class ResNet18(Architecture):
    """ResNet-18 of timm; below 64 pixels its stem is one 3x3 convolution of stride 1, without pooling."""

    option_owner = "network 'resnet18'"

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body."""
        import timm

        model = timm.create_model("resnet18", num_classes=0, in_chans=shape.channels)
        if min(shape.height, shape.width) < 64:
            model.conv1 = nn.Conv2d(shape.channels, 64, 3, 1, 1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        return _TimmBody(model, ("layer1", "layer2", "layer3", "layer4"))


@networks.register("vit")
@dataclass(frozen=True, kw_only=True)
class Vit(Architecture):
    """A small vision transformer of timm, features by the mean over patches, without dropout.

    The default patch is the smallest that divides the image into at most 8 x 8 patches (4 x 4 below 24 pixels).
    """

    option_owner = "network 'vit'"

    patch: int | None = option(None, help="Side of a patch in pixels; none: chosen by the size.", ge=1, le=4096)
    dim: int = option(64, help="Width of the embedding, a multiple of `heads`.", ge=1, le=4096)
    depth: int = option(4, help="Number of blocks.", ge=1, le=4096)
    heads: int = option(4, help="Attention heads.", ge=1, le=4096)
    mlp_ratio: float = option(2.0, help="Width of the feed-forward layers, as a multiple of `dim`.", gt=0)

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body.

        Raises:
            UsageError: `heads` does not divide `dim`, or `patch` does not divide the image.
        """
        from timm.models.vision_transformer import VisionTransformer

        if self.dim % self.heads:
            raise UsageError(
                f"{self.option_owner}: dim must be a multiple of heads; {self.dim} is not a multiple of {self.heads}."
            )
        side = _default_patch(shape) if self.patch is None else self.patch
        if shape.height % side or shape.width % side:
            raise UsageError(f"{self.option_owner}: patch must divide {shape.height} and {shape.width}, not be {side}.")
        model = VisionTransformer(
            img_size=(shape.height, shape.width),
            patch_size=side,
            in_chans=shape.channels,
            num_classes=0,
            global_pool="avg",
            class_token=False,
            embed_dim=self.dim,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=self.mlp_ratio,
        )
        for block in cast("Any", model).blocks:
            # fused kernels have no second derivative, which Hessian methods need, and no FLOP formula on a CPU
            block.attn.fused_attn = False
        return _TimmBody(model, ("blocks",))


def _default_patch(shape: ImageShape) -> int:
    longest = max(shape.height, shape.width)
    most = 8 if longest >= 24 else 4
    fitting = [side for side in range(1, longest + 1) if shape.height % side == 0 and shape.width % side == 0]
    return next((side for side in fitting if longest / side <= most), fitting[-1])
