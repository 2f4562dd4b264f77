"""What jobs write into the store: file names, and how models and their metadata are written and read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.errors import ForgetBenchError
from forgetbench.leases import wait_for_other
from forgetbench.store import JsonObject, Store, canonical_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from forgetbench.networks import NetworkSpec

PREDICTIONS = "predictions.npz"
LABELS = "labels.npz"
ROWS = "rows.npz"
REQUESTS = "requests.npz"
META = "meta.json"
WEIGHTS = "weights.safetensors"
CONDITIONS = ("hardware", "exclusive")
"""Metadata on where an artifact was made: the processor or GPU, and whether no other job used it at the same time."""


def load_model(spec: NetworkSpec, folder: Path, device: torch.device) -> nn.Module:
    """A stored model on a device, in eval mode."""
    from safetensors.torch import load_file

    from forgetbench.training.compute import skip_initialization

    with skip_initialization():
        network = spec.build(0, load_weights=False)
    network.load_state_dict(load_file(folder / WEIGHTS, device=str(device)))
    return network.to(device).eval()


def write_weights(folder: Path, network: nn.Module) -> None:
    """Write a model's weights into an artifact's folder.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    try:
        save_file(state, folder / WEIGHTS)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder / WEIGHTS)) from error


def read_meta(folder: Path) -> JsonObject:
    """An artifact's metadata."""
    meta: JsonObject = json.loads((folder / META).read_bytes())
    return meta


def wall_time(meta: JsonObject) -> float | None:
    """The wall time of the work whose metadata is given; None if it is unknown, or other jobs used the device, too."""
    seconds: float | None = meta.get("seconds")
    return seconds if meta.get("exclusive", True) else None


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write an artifact's metadata."""
    (folder / META).write_bytes(canonical_json(dict(meta)))


def make_once(
    store: Store, cache_key: JsonObject, writer: Callable[[Path], None], *, replace: bool = False
) -> tuple[Path, bool]:
    """Compute an artifact that is not in the store, unless another run on the same store computes it: then wait.

    Args:
        store: The store.
        cache_key: Everything that shapes the artifact.
        writer: Writes its files into the folder that it is given.
        replace: Whether it is computed although the store has one, with fewer files.

    Returns:
        Its folder, and whether it was computed here.

    Raises:
        BusyError: Another run computes it, and the caller is an engine's job, which is tried again later.
    """
    key = store.key(cache_key)
    while True:
        with store.lease(key) as mine:
            if mine:
                folder = None if replace else store.read(key)  # another run may just have finished it
                return (store.write(cache_key, writer, replace=replace), True) if folder is None else (folder, False)
        wait_for_other(key)
        if not replace and (folder := store.read(key)) is not None:
            return folder, False


def require_artifact(store: Store, key: str) -> Path:
    """The folder of an artifact that was made before, perhaps by another machine.

    Raises:
        ForgetBenchError: It is gone or damaged; the same command makes it again.
    """
    folder = store.read(key, expected=True)
    if folder is None:
        raise ForgetBenchError(f"Artifact {key[:12]} was damaged after it was made. Run the same command again.")
    return folder
