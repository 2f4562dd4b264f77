"""All models of timm as networks: ``timm/NAME``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from logging import CRITICAL
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.networks.base import Architecture, Body, ImageShape
from forgetbench.options import option

SMALL = 64
"""Below this number of pixels, a stem made for large images would reduce an image to almost nothing."""
SEQUENCES = ("blocks", "stages", "layers", "features")
"""Attributes of timm's models that hold their stages in one sequence; other models number them, layer1 or s1."""


@networks.family("timm")
class TimmModels:
    """Any model of timm, such as timm/resnet34; `forgetbench list networks "timm/*"` lists them.

    Options: pretrained, stem, enlarge and arguments, in addition to checkpoint and sha256.
    """

    def names(self) -> list[str]:
        """Return the names of all models."""
        import timm

        return list(timm.list_models())

    def get(self, name: str) -> type[TimmArchitecture]:
        """Return the architecture of one model, with or without the tag of its pretrained weights.

        Raises:
            UsageError: timm has no such model (the message has the nearest names), or no such tag (it has all tags).
        """
        import timm

        base = name.partition(".")[0]
        if not timm.is_model(base):
            prefixed = [known for known in self.names() if known.startswith(base)]
            nearest = prefixed[:3] or difflib.get_close_matches(base, self.names(), n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(repr(f'timm/{known}') for known in nearest)}?" if nearest else ""
            raise UsageError(
                f'timm has no model {base!r}.{hint} `forgetbench list networks "timm/*{base[:4]}*"` lists its models.'
            )
        tags = _tags(name)
        if "." in name and name not in tags:
            known = f"it has {', '.join(f'timm/{tag}' for tag in tags)}" if tags else "it has none"
            raise UsageError(f"timm has no weights timm/{name}; {known}. Without a tag the network is timm/{base}.")
        return _architecture(name)


@dataclass(frozen=True, kw_only=True)
class TimmArchitecture(Architecture):
    """A model of timm without its classifier; every model is a subclass."""

    pretrained: bool = option(False, help="Whether to start from timm's pretrained weights, named by their tag.")
    stem: Literal["auto", "own", "small"] = option(
        "auto", help="'small' keeps small images large, 'own' is timm's stem, 'auto' is small below 64 pixels."
    )
    enlarge: int | None = option(None, help="Side to which images are scaled up, in pixels.", ge=8, le=1024)
    arguments: Mapping[str, Any] | None = option(None, help="More arguments of timm.create_model.")

    model: ClassVar[str]
    """Name in timm."""

    def build_body(self, shape: ImageShape) -> Body:
        """Build the body.

        Raises:
            UsageError: timm cannot build the model with these options, or the model does not fit the shape.
        """
        size = (shape.height, shape.width) if self.enlarge is None else (self.enlarge, self.enlarge)
        arguments = dict(self.arguments or {})
        model = _create(self.model, shape.channels, size, arguments, pretrained=self.pretrained)
        new_stem = None
        if self.stem == "small" or (self.stem == "auto" and min(size) < SMALL):
            new_stem = _make_stem_small(model, shape.channels)
            if new_stem is None and self.stem == "small":
                raise UsageError(f"{self.option_owner}: its stem cannot be made smaller. Remove option stem.")
        for part in model.modules():
            # fused kernels have no second derivative, which Hessian methods need, and no FLOP formula on a CPU
            if hasattr(part, "fused_attn"):
                setattr(part, "fused_attn", False)  # noqa: B010 - modules declare no such attribute
        return TimmBody(model, shape, new_stem, self.enlarge)


@cache
def _architecture(name: str) -> type[TimmArchitecture]:
    attributes = {
        "model": name,
        "option_owner": f"network 'timm/{name}'",
        "__doc__": f"{name} of timm without its classifier.",
        "__module__": __name__,
    }
    return cast("type[TimmArchitecture]", type(f"timm/{name}", (TimmArchitecture,), attributes))


class TimmBody(Body):
    """A model of timm without its classifier."""

    new_stem: str | None
    """Name of the first convolution if it was newly made for small images."""

    def __init__(self, model: nn.Module, shape: ImageShape, stem: str | None, enlarge: int | None) -> None:
        super().__init__()
        self.model = model
        self._channels, self.new_stem, self._enlarge = shape.channels, stem, enlarge
        self.similar_to = _similar_network(self.blocks)
        name = model.pretrained_cfg["architecture"]  # type: ignore[index]
        try:
            with torch.inference_mode():
                features = self.eval()(torch.zeros(1, *shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(
                f"Network timm/{name} cannot process images of {shape.height} x {shape.width} pixels: {error}. Scale "
                "them up with option enlarge, or change the model with option arguments."
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise UsageError(
                f"Network timm/{name} returns no features (B, F) without its classifier. Use another network."
            )
        self.width = features.shape[1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The model's blocks, or its stages if there are layers between their blocks."""
        return _blocks(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (B, width) of normalized images (B, C, H, W)."""
        if self._enlarge is not None:
            size = (self._enlarge, self._enlarge)
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        return cast("Tensor", self.model(images))

    def convert_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights of timm to this number of channels and size of image, as timm does with its own weights."""
        from timm.models import adapt_input_conv

        converted = dict(state)
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            converted = convert(converted, self.model)
        first = self.model.pretrained_cfg["first_conv"]  # type: ignore[index]
        key = f"{first}.weight"
        if key in converted and converted[key].ndim == 4 and converted[key].shape[1] == 3 != self._channels:
            converted[key] = adapt_input_conv(self._channels, converted[key])
        if self.new_stem:
            name = f"{self.new_stem}.weight"
            stem = self.model.get_parameter(name)
            if name in converted and converted[name].shape != stem.shape:
                converted[name] = stem
        return {f"model.{name}": tensor for name, tensor in converted.items()}


def _create(
    name: str, channels: int, size: tuple[int, int], arguments: dict[str, Any], *, pretrained: bool
) -> nn.Module:
    import timm

    tags = _tags(name)
    if pretrained and name not in tags:
        known = ", ".join(f"timm/{tag}" for tag in tags)
        raise UsageError(
            f"Pretrained weights of timm/{name} are named by their tag: {known}."
            if tags
            else f"timm has no pretrained weights of {name}. Remove option pretrained."
        )
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config and config.fixed_input_size:
        arguments.setdefault("img_size", size)
    hub = (config.hf_hub_id if config else None) or ""
    try:
        if pretrained and hub:
            _check_hub(hub)
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels, **arguments)
    except Exception as error:  # what a missing connection raises depends on the hub's client
        if isinstance(error, TypeError | RuntimeError | AssertionError | ValueError) and not isinstance(error, OSError):
            raise UsageError(f"timm cannot build {name} with {arguments}: {error}") from error
        if not pretrained:
            raise
        raise UsageError(
            f"The pretrained weights of timm/{name} could not be downloaded ({_first_line(error)}). On a machine with "
            f"a connection, get model.safetensors of {hub or name} from the Hugging Face hub, and name that file by "
            "options checkpoint and sha256 instead of pretrained."
        ) from error


def _tags(name: str) -> list[str]:
    """Return the names of a model with the tags of its pretrained weights."""
    import timm

    return list(timm.list_pretrained(f"{name.partition('.')[0]}.*"))


def _check_hub(repository: str) -> None:
    """Fail at once if the hub cannot be reached: a download would retry for a minute and log every attempt.

    Raises:
        Exception: What the hub's client raises; nothing if there is a local copy or the file has another name.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import logging

    names = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        return
    verbosity = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        get_hf_file_metadata(hf_hub_url(repository, names[0]), timeout=5)
    except EntryNotFoundError:
        return
    finally:
        logging.set_verbosity(verbosity)


def _make_stem_small(model: nn.Module, channels: int) -> str | None:
    """Change a stem so that it keeps small images large, like that of resnet18.

    A large convolution with pooling becomes a 3x3 convolution without; a convolution of stride 2 gets stride 1.

    Returns:
        The name of the new convolution, "" if the old one was kept, or None if the stem is of neither kind: one that
        cuts patches is made smaller by the model's arguments.
    """
    name: object = model.pretrained_cfg["first_conv"]  # type: ignore[index]
    if not isinstance(name, str):
        return None
    first = model.get_submodule(name)
    if not isinstance(first, nn.Conv2d) or first.kernel_size == first.stride:
        return None
    if isinstance(getattr(model, "maxpool", None), nn.Module) and "." not in name:
        convolution = nn.Conv2d(channels, first.out_channels, 3, 1, 1, bias=first.bias is not None)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        setattr(model, name, convolution)
        model.maxpool = nn.Identity()
        return name
    first.stride = (1, 1)
    return ""


def _blocks(model: nn.Module) -> list[nn.Module]:
    numbered = [child for name, child in model.named_children() if name.rstrip("0123456789") in {"layer", "s", "stage"}]
    sequences = numbered or [child for name in SEQUENCES if (child := getattr(model, name, None)) is not None]
    if not sequences:
        return [child for name, child in model.named_children() if any(True for _ in child.parameters())]
    blocks: list[nn.Module] = []
    for sequence in sequences if numbered else sequences[:1]:
        inner = list(sequence.children()) if isinstance(sequence, nn.Sequential | nn.ModuleList) else [sequence]
        blocks += [block for block in inner if any(True for _ in block.parameters())]
    return blocks


def _similar_network(blocks: list[nn.Module]) -> str:
    """Return "vit" for blocks with feed-forward layers, "resnet18" for convolutions larger than one pixel, or ""."""
    layers = [getattr(getattr(block, "mlp", None), name, None) for block in blocks for name in ("fc1", "fc2")]
    if all(isinstance(layer, nn.Linear) for layer in layers):
        return "vit"
    inner = [part for block in blocks for part in block.modules()]
    return "resnet18" if any(isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1 for part in inner) else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
