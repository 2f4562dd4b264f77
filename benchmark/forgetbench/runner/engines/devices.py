"""The devices of this machine: which there are, and what they are called."""

from __future__ import annotations

from functools import cache

from forgetbench.errors import UsageError
from forgetbench.evidence.environment import bfloat16_unit, processor


def pick_device(name: str) -> str:
    """The torch device of a name, on the machine that this is called on; ``auto`` is the GPU if there is one.

    Raises:
        UsageError: The device is not supported, or not available.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] != "cuda":
        raise UsageError(f"Device {name!r} is not supported. Use --device cpu, cuda or cuda:NUMBER.")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"Device {name!r} is not available ({reason}). Use --device cpu.") from error
    return name


@cache
def hardware(device: str) -> str:
    """The name of a GPU, or of the processor with its vector instructions: results of different ones differ in bits."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()}, bfloat16 by {bfloat16_unit()})"
