"""Checks of the weights that a method's process returned, before anything is computed from them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from forgetbench.errors import ForgetBenchError
from forgetbench.user_files import describe_content

if TYPE_CHECKING:
    from torch import Tensor, nn

_HEADER = 2**20
"""Bytes that safetensors may add to the tensors themselves."""


class WeightsError(ForgetBenchError):
    """What a method's process returned is not the weights of its network."""


def max_bytes(network: nn.Module) -> int:
    """Largest size of a network's weights as safetensors."""
    size: int = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return size + _HEADER


def load_weights(data: bytes, original: nn.Module) -> nn.Module:
    """A copy of a network with the weights of a safetensors file; nothing else of the file is used.

    Args:
        data: The file.
        original: The network that the method was given.

    Raises:
        WeightsError: It is no safetensors, or has other tensors, types or shapes than the network.
    """
    state = _read(data)
    expected = original.state_dict()
    names = sorted(state.keys() ^ expected.keys())
    if names:
        raise WeightsError(f"The result has other tensors than the original network: {', '.join(names[:3])}.")
    for name, tensor in expected.items():
        found = state[name]
        if found.dtype != tensor.dtype or found.shape != tensor.shape:
            raise WeightsError(
                f"The result's {name} is {found.dtype} {tuple(found.shape)} instead of {tensor.dtype} "
                f"{tuple(tensor.shape)}."
            )
    network = copy.deepcopy(original)
    network.load_state_dict(state)
    return network.eval()


def _read(data: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    kind = describe_content(data[:1024])
    if kind:
        raise WeightsError(f"The result is not safetensors; it is {kind}. Nothing of it was read.")
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"The result is not safetensors ({error}). Nothing of it was read.") from error
