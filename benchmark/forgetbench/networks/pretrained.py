"""Weights that a network starts from: a file of one's own, known by its hash."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forgetbench.errors import UsageError
from forgetbench.store import file_digest

if TYPE_CHECKING:
    from forgetbench.networks.base import Network

WRAPPERS = ("state_dict", "model", "model_state", "net")
"""Under which keys training scripts put the state dict."""


def start_from(network: Network, path: object, sha256: object) -> None:
    """Give a network the weights of a file, in place.

    The file holds a state dict: of a network of this package (which is how the store and packs keep them), or of the
    library that the network's body comes from, with or without a classifier. The head starts anew unless the file is
    of the former kind and its head fits. The normalization stays the image set's.

    Args:
        network: A newly initialized network.
        path: A .safetensors file, or what torch.save wrote of tensors (no other pickle is read).
        sha256: Its SHA-256.

    Raises:
        UsageError: The file is missing, is another one, holds no state dict, or lacks tensors of the body.
    """
    file = _checked(path, sha256)
    state = read_state(file)
    if any(name.startswith("body.") for name in state):
        body = {name.removeprefix("body."): tensor for name, tensor in state.items() if name.startswith("body.")}
        fitting = {
            name: state[f"head.{name}"]
            for name, now in network.head.state_dict().items()
            if f"head.{name}" in state and state[f"head.{name}"].shape == now.shape
        }
    else:
        body, fitting = network.body.adapted(state), {}
    wanted = network.body.state_dict()
    missing = [name for name in wanted if name not in body]
    if missing:
        raise UsageError(
            f"{file} lacks {len(missing)} of the {len(wanted)} tensors of the network's body: {_some(missing)}; it "
            f"holds {_some(list(state))}. {_mend(wanted, state)}"
        )
    other = [
        f"{name} {tuple(body[name].shape)} instead of {tuple(now.shape)}"
        for name, now in wanted.items()
        if body[name].shape != now.shape
    ]
    if other:
        raise UsageError(
            f"{file} holds tensors of other shapes: {_some(other)}. Give the network the options that it was trained "
            "with."
        )
    network.body.load_state_dict({name: body[name] for name in wanted})
    if len(fitting) == len(network.head.state_dict()):
        network.head.load_state_dict(fitting)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    Raises:
        UsageError: It holds none, or more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than tensors, and pickled code is never run here. Save its weights alone: "
            "torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise UsageError(f"{path} cannot be read as weights: {error}") from error
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} holds no state dict (names to tensors), but {type(state).__name__}.")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _checked(path: object, sha256: object) -> Path:
    if not isinstance(path, str) or not path:
        raise UsageError("option checkpoint names the file whose hash option sha256 is: give both, or neither.")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"There is no checkpoint {file}; option checkpoint of the network names it.")
    found = file_digest(file)
    if not isinstance(sha256, str) or not sha256:
        raise UsageError(f"{file} needs option sha256 beside it, so that nobody starts from other weights: {found}.")
    if found != sha256.lower():
        raise UsageError(f"{file} has SHA-256 {found}, and option sha256 asks for {sha256}: it is another file.")
    return file


def _mend(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What to do about a file that lacks tensors."""
    if {f"model.{name}" for name in state} >= set(wanted):
        return (
            "It is in the format of timm and torchvision, which the networks timm/NAME read: name timm/resnet18 "
            "instead of resnet18."
        )
    return "Name the network that it was trained as."


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
