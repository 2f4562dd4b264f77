"""Build a network by name: two small ones that need torch alone, resnet18 and vit out of timm, and others by file.

Every network takes float images in [0,1] and normalizes inside, so that nobody forgets to. It has `features` (the
penultimate layer), a linear `head`, and an ordered list `blocks`, whatever library its body came from.
This file shapes every model that was ever stored: a new network belongs into a file of its own, which shapes only the
models that use it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.registry import unknown
from forgetbench.training.compute import seeded


class ImageShape(NamedTuple):
    """What a network looks at."""

    channels: int
    height: int
    width: int


class Body(nn.Module):
    """All of a network but its head: normalized images (B,C,H,W) -> features (B, `width`)."""

    width: int
    like: str = ""
    """The network of this file that it is built like, if any: what methods say of that one holds for it."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The stages in the order in which an image passes them."""
        raise NotImplementedError

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the library that the body came from, as one of this body; as it is where there is none."""
        return dict(state)


class BodyBuilder(Protocol):
    """Makes the body of a network from the shape of an image and the options of its kind."""

    def __call__(self, shape: ImageShape, **options: Any) -> Body: ...  # noqa: D102


START: tuple[str, ...] = ("pretrained", "checkpoint", "sha256")
"""RunConfig that say from what weights a network starts; the last two are known to all networks."""


class Network(nn.Module):
    """A body and a linear head, with the normalization in front.

    Args:
        body: Normalized images to features.
        outputs: Classes, or attributes: one logit each.
        mean: Mean of each channel, of pixels in [0,1].
        std: Standard deviation of each channel, above zero.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: Body, outputs: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.body = body
        self.head = nn.Linear(body.width, outputs)

    @property
    def blocks(self) -> list[nn.Module]:
        """The body's stages in order; the head is not among them."""
        return self.body.blocks

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (B, F) of images (B,C,H,W) in [0,1]."""
        return cast("Tensor", self.body((images - self.mean) / self.std))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, outputs) of images (B,C,H,W) in [0,1]."""
        return cast("Tensor", self.head(self.features(images)))


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """All that `build_network` needs but the seed."""

    name: str
    channels: int
    height: int
    width: int
    outputs: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, Any]

    def build(self, seed: int, *, start: bool = True) -> Network:
        """A newly initialized network of this kind; without `start`, one whose weights are to be replaced anyway."""
        return build_network(
            self.name,
            options={key: value for key, value in self.options.items() if start or key not in START},
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
    """A newly initialized network in eval mode, the same bits for the same seed.

    The caller's random state is neither read nor changed.

    Args:
        name: Its name in the registry.
        options: RunConfig of the network; with `checkpoint` (a file) and `sha256` (of it) it starts from those weights.
        channels: Of an image.
        height: Of an image.
        width: Of an image.
        outputs: Classes, or attributes.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        seed: Of the initial weights.

    Raises:
        UsageError: There is no such network or option, an option is out of range, the shape does not suit it, or the
            weights to start from are missing or others than expected.
    """
    builder = networks.get(name)
    parameters = inspect.signature(builder).parameters.items()
    own = [key for key, value in parameters if value.kind is value.KEYWORD_ONLY]
    known = [*own, *(key for key in START[1:] if key not in own)]
    for key in options:
        if key not in known:
            raise UsageError(unknown(f"option of network {name}", key, known))
    if not len(mean) == len(std) == channels or min(std) <= 0:
        raise UsageError(f"mean {tuple(mean)} and std {tuple(std)} need {channels} values each, std above 0")
    if outputs < 1:
        raise UsageError(f"a network needs at least one output, not {outputs}")
    with seeded(seed):
        body = builder(ImageShape(channels, height, width), **{key: options[key] for key in options if key in own})
        network = Network(body, outputs, mean, std)
    if {"checkpoint", "sha256"} & set(options):
        from forgetbench.networks.pretrained import start_from

        start_from(network, options.get("checkpoint", ""), options.get("sha256", ""))
    return network.eval()


def source_modules(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules other than this one that shape a network."""
    modules = {inspect.unwrap(networks.get(name)).__module__}
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
def cnn(shape: ImageShape, *, width: int = 32) -> Body:
    """Three convolutions of `width`, 2 and 4 times as many channels, each with batch-norm; features by the mean.

    From 24 pixels the first one has stride 2 and from 48 stride 4: one thread then trains several thousand images
    per second on a CPU.
    """
    check_whole("cnn", "width", width, 1, 1024)
    smallest = min(shape.height, shape.width)
    if smallest < 8:
        raise UsageError(f"network cnn needs images of 8 pixels and more, not {shape.height} x {shape.width}")
    stride = 1 if smallest < 24 else 2 if smallest < 48 else 4
    sizes = (shape.channels, width, 2 * width, 4 * width)
    return _Stages(
        [
            nn.Sequential(
                nn.Conv2d(before, after, 3 if place or stride < 4 else 5, stride if place == 0 else 1, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2) if place < 2 else nn.Identity(),
            )
            for place, (before, after) in enumerate(pairwise(sizes))
        ],
        sizes[-1],
    )


@networks.register("mlp")
def mlp(shape: ImageShape, *, hidden: Sequence[int] = (256, 128), batch_norm: bool = False) -> Body:
    """Linear layers of the sizes `hidden` with ReLU, and with batch-norm before it if asked for."""
    if isinstance(hidden, int) or not hidden:
        raise UsageError(f"option hidden of network mlp is a list of layer sizes, such as [256, 128], not {hidden!r}")
    for size in hidden:
        check_whole("mlp", "hidden", size, 1, 65536)
    stages = []
    for place, (before, after) in enumerate(pairwise((shape.channels * shape.height * shape.width, *hidden))):
        flatten = [nn.Flatten()] if place == 0 else []
        norm = [nn.BatchNorm1d(after)] if batch_norm else []
        stages.append(nn.Sequential(*flatten, nn.Linear(before, after), *norm, nn.ReLU()))
    return _Stages(stages, hidden[-1])


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
def resnet18(shape: ImageShape) -> Body:
    """ResNet-18 of timm; below 64 pixels its stem is one 3x3 convolution of stride 1, without pooling."""
    import timm

    model = timm.create_model("resnet18", num_classes=0, in_chans=shape.channels)
    if min(shape.height, shape.width) < 64:
        model.conv1 = nn.Conv2d(shape.channels, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return _TimmBody(model, ("layer1", "layer2", "layer3", "layer4"))


@networks.register("vit")
def vit(
    shape: ImageShape,
    *,
    patch: int | None = None,
    dim: int = 64,
    depth: int = 4,
    heads: int = 4,
    mlp_ratio: float = 2.0,
) -> Body:
    """A small vision transformer of timm, features by the mean over patches, without dropout.

    The default patch is the smallest that cuts the image into at most 8 x 8 of them (4 x 4 below 24 pixels).
    """
    from timm.models.vision_transformer import VisionTransformer

    for name, value in (("dim", dim), ("depth", depth), ("heads", heads)):
        check_whole("vit", name, value, 1, 4096)
    if dim % heads:
        raise UsageError(f"option dim of network vit must be a multiple of heads, not {dim} with {heads} heads")
    side = _patch(shape) if patch is None else patch
    check_whole("vit", "patch", side, 1, 4096)
    if shape.height % side or shape.width % side:
        raise UsageError(f"option patch of network vit must divide {shape.height} and {shape.width}, not {side}")
    model = VisionTransformer(
        img_size=(shape.height, shape.width),
        patch_size=side,
        in_chans=shape.channels,
        num_classes=0,
        global_pool="avg",
        class_token=False,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
    )
    for block in cast("Any", model).blocks:
        # the fused kernels have no second derivative, which Hessian methods need, and no FLOP formula on a CPU
        block.attn.fused_attn = False
    return _TimmBody(model, ("blocks",))


def _patch(shape: ImageShape) -> int:
    longest = max(shape.height, shape.width)
    most = 8 if longest >= 24 else 4
    fitting = [side for side in range(1, longest + 1) if shape.height % side == 0 and shape.width % side == 0]
    return next((side for side in fitting if longest / side <= most), fitting[-1])


def check_whole(network: str, name: str, value: object, low: int, high: int) -> None:
    """Refuse (UsageError) a value of an option that is no whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"option {name} of network {network} must be a whole number in [{low}, {high}], not {value!r}")
