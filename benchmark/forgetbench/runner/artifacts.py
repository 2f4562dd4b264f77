"""What jobs leave in the store: names of files, and how models and notes are written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.errors import ForgetBenchError
from forgetbench.runner.context import TaskContext
from forgetbench.store import Store, canonical_json

if TYPE_CHECKING:
    from torch import nn

ANSWERS = "answers.npz"
LABELS = "labels.npz"
ROWS = "rows.npz"
REQUESTS = "requests.npz"
META = "meta.json"
WEIGHTS = "weights.safetensors"


def load_model(bench: TaskContext, folder: Path) -> nn.Module:
    """A stored model on the bench's device, in eval mode."""
    from safetensors.torch import load_file

    network = bench.spec.build(0, start=False)
    network.load_state_dict(load_file(folder / WEIGHTS, device=str(bench.device)))
    return network.to(bench.device).eval()


def write_weights(place: Path, network: nn.Module) -> None:
    """Store a model's weights."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, place / WEIGHTS
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """What an artifact says of itself."""
    meta: dict[str, Any] = json.loads((folder / META).read_bytes())
    return meta


def write_meta(place: Path, meta: Mapping[str, Any]) -> None:
    """Let an artifact say something of itself."""
    (place / META).write_bytes(canonical_json(dict(meta)))


def require_artifact(store: Store, key: str) -> Path:
    """The folder of an artifact that was made before.

    Raises:
        ForgetBenchError: It is gone or damaged; the same command makes it again.
    """
    folder = store.read(key)
    if folder is None:
        raise ForgetBenchError(f"artifact {key[:12]} was damaged after it was made; run the same command again.")
    return folder


def failure(method: str, error: Exception, where: str = "") -> dict[str, Any]:
    """What a job returns where a method raised: the state of its row and the reason, which names the method."""
    from forgetbench.training import DivergedError

    if not isinstance(error, DivergedError):
        return {"status": "failed", "reason": f"{where}{type(error).__name__}: {error}", "fresh": True}
    reason = str(error)
    named = reason if reason.startswith(method) else f"{method}: {reason}"
    return {"status": "diverged", "reason": where + named, "fresh": True}


def cached_flops(bench: TaskContext, facts: Mapping[str, Any], measure: Callable[[], float]) -> dict[str, Any]:
    """FLOPs that were counted before, or are now. Counting never stops a row: where it fails, the cost is missing."""
    made_from = bench.made_from("flops", **facts, retain=bench.row_hashes(0)["retain"])
    folder = bench.store.read(bench.store.key(made_from))
    if folder is None:
        try:
            flops = measure()
        except Exception as error:  # noqa: BLE001 - see above
            return {"flops": None, "reason": f"{type(error).__name__}: {error}"}
        folder = bench.store.write(made_from, lambda place: write_meta(place, {"flops": flops}))
    return {"flops": read_meta(folder)["flops"]}
