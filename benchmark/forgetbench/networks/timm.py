"""Any model of timm as a network: ``timm/NAME``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from logging import CRITICAL
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import UsageError
from forgetbench.networks import networks
from forgetbench.networks.base import Body, ImageShape, check_whole

Stem = Literal["auto", "own", "small"]
SMALL = 64
"""Below so many pixels a stem made for large pictures would leave next to nothing of an image."""
SEQUENCES = ("blocks", "stages", "layers", "features")
"""Under which names timm's models keep their stages, if in one sequence; else they are numbered, layer1 or s1."""


@networks.family("timm")
class TimmModels:
    """Any model of timm, such as timm/resnet34; `forgetbench list networks "timm/*"` shows them.

    RunConfig: pretrained, stem, enlarge and arguments, beside checkpoint and sha256.
    """

    def names(self) -> list[str]:
        """All architectures."""
        import timm

        return list(timm.list_models())

    def get(self, name: str) -> Callable[..., Body]:
        """The builder of one architecture, with or without the tag of its pretrained weights.

        Raises:
            UsageError: timm knows no such model (the message holds the nearest), or no such tag (it holds all).
        """
        import timm

        base = name.partition(".")[0]
        if not timm.is_model(base):
            begun = [known for known in self.names() if known.startswith(base)]
            near = begun[:3] or difflib.get_close_matches(base, self.names(), n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(repr(f'timm/{known}') for known in near)}?" if near else ""
            raise UsageError(
                f'timm has no model {base!r}.{hint} `forgetbench list networks "timm/*{base[:4]}*"` shows what it has.'
            )
        tags = _tags(name)
        if "." in name and name not in tags:
            known = f"it has {', '.join(f'timm/{tag}' for tag in tags)}" if tags else "it has none"
            raise UsageError(f"timm has no weights timm/{name}; {known}. Without a tag the network is timm/{base}.")
        return _builder(name)


class TimmBody(Body):
    """A model of timm without its classifier."""

    def __init__(self, model: nn.Module, shape: ImageShape, stem: str | None, enlarge: int | None) -> None:
        super().__init__()
        self.model = model
        self._channels, self._new_stem, self._enlarge = shape.channels, stem, enlarge
        self.like = _likeness(self.blocks)
        name = model.pretrained_cfg["architecture"]  # type: ignore[index]
        try:
            with torch.inference_mode():
                features = self.eval()(torch.zeros(1, *shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(
                f"network timm/{name} cannot take images of {shape.height} x {shape.width} pixels: {error}. Option "
                "enlarge scales them up, arguments changes the model."
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise UsageError(f"network timm/{name} gives no features (B, F) without its classifier; take another one")
        self.width = features.shape[1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The model's blocks, or its stages where something stands between their blocks."""
        return _blocks(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, width) of normalized images (B,C,H,W)."""
        if self._enlarge is not None:
            size = (self._enlarge, self._enlarge)
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        return cast("Tensor", self.model(images))

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of timm, fitted as timm fits its own to another number of channels and size of image."""
        from timm.models import adapt_input_conv

        fitted = dict(state)
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            fitted = convert(fitted, self.model)
        first = self.model.pretrained_cfg["first_conv"]  # type: ignore[index]
        key = f"{first}.weight"
        if key in fitted and fitted[key].ndim == 4 and fitted[key].shape[1] == 3 != self._channels:
            fitted[key] = adapt_input_conv(self._channels, fitted[key])
        if self._new_stem:
            fitted[f"{self._new_stem}.weight"] = self.model.get_parameter(f"{self._new_stem}.weight")
        return {f"model.{name}": tensor for name, tensor in fitted.items()}


def _builder(name: str) -> Callable[..., Body]:
    def build(
        shape: ImageShape,
        *,
        pretrained: bool = False,
        stem: Stem = "auto",
        enlarge: int | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Body:
        if str(stem) not in get_args(Stem):
            raise UsageError(f"option stem of network timm/{name} is auto, own or small, not {stem!r}")
        if enlarge is not None:
            check_whole(f"timm/{name}", "enlarge", enlarge, 8, 1024)
        seen = (shape.height, shape.width) if enlarge is None else (enlarge, enlarge)
        model = _create(name, shape.channels, seen, dict(arguments or {}), pretrained=pretrained)
        new_stem = None
        if stem == "small" or (stem == "auto" and min(seen) < SMALL):
            new_stem = _small_stem(model, shape.channels)
            if new_stem is None and stem == "small":
                raise UsageError(f"network timm/{name} has no stem that can be made smaller; leave out option stem")
        for part in model.modules():
            # the fused kernels have no second derivative, which Hessian methods need, and no FLOP formula on a CPU
            if hasattr(part, "fused_attn"):
                setattr(part, "fused_attn", False)  # noqa: B010 - modules declare no such attribute
        return TimmBody(model, shape, new_stem, enlarge)

    build.__doc__ = f"{name} of timm, whole but for its classifier."
    return build


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
            else f"timm has no pretrained weights of {name}; leave out option pretrained."
        )
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config and config.fixed_input_size:
        arguments.setdefault("img_size", size)
    hub = (config.hf_hub_id if config else None) or ""
    try:
        if pretrained and hub:
            _ask_once(hub)
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels, **arguments)
    except Exception as error:  # what a missing connection raises depends on the hub's client
        if isinstance(error, TypeError | RuntimeError | AssertionError | ValueError) and not isinstance(error, OSError):
            raise UsageError(f"timm cannot make {name} with {arguments}: {error}") from error
        if not pretrained:
            raise
        raise UsageError(
            f"The pretrained weights of timm/{name} could not be fetched ({_first_line(error)}). On a machine with a "
            f"connection, get model.safetensors of {hub or name} from the Hugging Face hub; name that file with the "
            "options checkpoint and sha256 instead of pretrained."
        ) from error


def _tags(name: str) -> list[str]:
    """The names of a model with the tags of its pretrained weights."""
    import timm

    return list(timm.list_pretrained(f"{name.partition('.')[0]}.*"))


def _ask_once(repository: str) -> None:
    """Fail at once where the hub cannot be reached: a download would try again for a minute, and say so line by line.

    Raises:
        Exception: What the hub's client raises; none where a copy is kept here, or the file has another name.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import logging

    names = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        return
    said = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        get_hf_file_metadata(hf_hub_url(repository, names[0]), timeout=5)
    except EntryNotFoundError:
        return
    finally:
        logging.set_verbosity(said)


def _small_stem(model: nn.Module, channels: int) -> str | None:
    """Let a stem keep small images large, as resnet18's.

    A large convolution with pooling becomes one of 3x3 pixels without; a convolution of stride 2 gets stride 1.

    Returns:
        The name of the new convolution, nothing ("") where the old one was kept, or None where the stem is of neither
        kind: one that cuts patches is made smaller by the model's arguments.
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
    found: list[nn.Module] = []
    for sequence in sequences if numbered else sequences[:1]:
        inner = list(sequence.children()) if isinstance(sequence, nn.Sequential | nn.ModuleList) else [sequence]
        found += [block for block in inner if any(True for _ in block.parameters())]
    return found


def _likeness(blocks: list[nn.Module]) -> str:
    """A transformer's feed-forward layers make it like `vit`, convolutions of more than a pixel like `resnet18`."""
    layers = [getattr(getattr(block, "mlp", None), name, None) for block in blocks for name in ("fc1", "fc2")]
    if all(isinstance(layer, nn.Linear) for layer in layers):
        return "vit"
    inner = [part for block in blocks for part in block.modules()]
    return "resnet18" if any(isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1 for part in inner) else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
