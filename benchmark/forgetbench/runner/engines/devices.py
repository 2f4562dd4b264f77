"""The devices of this machine: which there are, and what they are called."""

from __future__ import annotations

import os
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


def visible_gpus(device: str = "cuda") -> tuple[str, ...]:
    """The GPUs of this machine that this process may use, each as a value of CUDA_VISIBLE_DEVICES for a worker.

    These are the entries of this process's own CUDA_VISIBLE_DEVICES, which a scheduler such as Slurm sets: numbers, or
    UUIDs of GPUs and of MIG instances. Without the variable they are all GPUs.

    Args:
        device: ``cuda`` for all of them, ``cuda:1`` for one by its position, or ``cpu`` for none.

    Raises:
        UsageError: There is none at the position.
    """
    kind, _, position = device.partition(":")
    if kind != "cuda":
        return ()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        import torch

        gpus = tuple(str(number) for number in range(torch.cuda.device_count()))
    else:
        entries = [entry.strip() for entry in listed.split(",")]
        ends = [place for place, entry in enumerate(entries) if entry in ("", "-1", "NoDevFiles")]
        gpus = tuple(entries[: ends[0]] if ends else entries)  # CUDA ignores what follows an invalid entry
    if not position:
        return gpus
    if int(position) >= len(gpus):
        raise UsageError(f"Device {device!r} is not available: there are {len(gpus)} GPUs. Use --device cuda or cpu.")
    return (gpus[int(position)],)


@cache
def hardware(device: str) -> str:
    """The name of a GPU, or of the processor with its vector instructions: results of different ones differ in bits."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()}, bfloat16 by {bfloat16_unit()})"
