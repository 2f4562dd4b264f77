"""Initial weights from a file, identified by its hash."""

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
"""Keys under which training scripts store the state dict."""


def load_checkpoint(network: Network, path: str, sha256: str) -> None:
    """Load the weights of a file into a network, in place.

    The file contains a state dict: of a network of this package (as in the store and in reference bundles), or of the
    library that the network's body comes from, with or without a classifier. The head keeps its initial weights unless
    the file is of the first kind and its head has the same shape. The normalization is always that of the image set.

    Args:
        network: A newly initialized network.
        path: A .safetensors file, or a file that torch.save wrote and that contains only tensors; other pickles are
            refused.
        sha256: SHA-256 of the file.

    Raises:
        UsageError: The file is missing, has another SHA-256, contains no state dict, or lacks tensors of the body.
    """
    file = _verified(path, sha256)
    state = read_state(file)
    if any(name.startswith("body.") for name in state):
        body = {name.removeprefix("body."): tensor for name, tensor in state.items() if name.startswith("body.")}
        head = {
            name: state[f"head.{name}"]
            for name, initial in network.head.state_dict().items()
            if f"head.{name}" in state and state[f"head.{name}"].shape == initial.shape
        }
    else:
        body, head = network.body.convert_state(state), {}
    expected = network.body.state_dict()
    missing = [name for name in expected if name not in body]
    if missing:
        raise UsageError(
            f"{file} lacks {len(missing)} of the {len(expected)} tensors of the network's body: {_first(missing)}. It "
            f"contains {_first(list(state))}. {_missing_fix(expected, state)}"
        )
    other = [
        f"{name} {tuple(body[name].shape)} instead of {tuple(initial.shape)}"
        for name, initial in expected.items()
        if body[name].shape != initial.shape
    ]
    if other:
        raise UsageError(
            f"{file} has tensors of other shapes: {_first(other)}. Give the network the options that it was trained "
            "with."
        )
    network.body.load_state_dict({name: body[name] for name in expected})
    if len(head) == len(network.head.state_dict()):
        network.head.load_state_dict(head)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file, on the CPU.

    Raises:
        UsageError: The file contains no state dict, or more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} contains more than tensors, and ForgetBench never runs pickled code. Save only the weights: "
            "torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise UsageError(f"{path} cannot be read as weights: {error}") from error
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} contains no state dict (names to tensors), but {type(state).__name__}.")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _verified(path: str, sha256: str) -> Path:
    if not path:
        raise UsageError("Option sha256 is the hash of the file that option checkpoint names: give both, or neither.")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"The checkpoint {file} does not exist. Correct option checkpoint of the network.")
    actual = file_digest(file)
    if not sha256:
        raise UsageError(
            f"Option checkpoint needs option sha256, so that the weights cannot change; {file} has {actual}."
        )
    if actual != sha256.lower():
        raise UsageError(f"{file} has SHA-256 {actual}, not {sha256} as in option sha256: it is another file.")
    return file


def _missing_fix(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Say what to do about a file that lacks tensors."""
    if {f"model.{name}" for name in state} >= set(expected):
        return (
            "It has the format of timm and torchvision, which the networks timm/NAME read: use timm/resnet18 instead "
            "of resnet18."
        )
    return "Use the network that the weights were trained with."


def _first(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
