"""Models that were unlearned elsewhere: their originals and index lists go out, and their checkpoints come in.

Somebody with code of his own takes the originals (`export`), unlearns them, and hands in one state dict for each draw
and seed (`observe`). What comes of it is a run like any other, marked as observed, without a cost unless it is told.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import Array, write_arrays
from forgetbench.evidence.run import CostRecord, MethodRecord, describe
from forgetbench.methods import methods
from forgetbench.runner.artifacts import ANSWERS, WEIGHTS, load_model, read_meta, require_artifact, write_meta
from forgetbench.runner.collect import Entry, Unlearned, write_run
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.method_spec import folder_name
from forgetbench.runner.run import train_originals
from forgetbench.runner.train import count, prepare
from forgetbench.runner.unlearn import share_changed
from forgetbench.store import digest, file_digest, write_atomically
from forgetbench.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILY = "observed"


@dataclass(frozen=True)
class ExternalMethod:
    """A row whose models were unlearned elsewhere, as its author describes it.

    Raises:
        UsageError: The name is empty, too long, or that of a method of the package.
    """

    name: str
    """The row's name."""
    title: str = ""
    """The method in words."""
    link: str | None = None
    """Paper or code."""
    flops: float | None = None
    """FLOPs of one unlearning, as told."""
    seconds: float | None = None
    """Wall time of one unlearning, as told."""

    def __post_init__(self) -> None:
        if not self.method or len(self.name) > 200:
            raise UsageError("give the row a name of at most 200 characters with a letter or digit in it (--name).")
        if self.method in methods.names():
            raise UsageError(
                f"{self.name!r} is a method of this package, and these models are not made by it: choose another name, "
                f"such as '{self.name}, own code'."
            )

    @property
    def method(self) -> str:
        """The method's name: the row's, with dashes for what no name may hold."""
        return re.sub(r"[^\w+]+", "-", self.name).strip("-+")[:80]


def export(task: Task, folder: Path, options: RunConfig, watcher: ProgressCallback | None = None) -> None:
    """Write what somebody with code of his own starts from: originals, index lists, and how to use them.

    Args:
        task: The task with its counts of seeds and draws; originals that are not there are trained.
        folder: A folder that is empty or not there yet.
        options: Where and how.
        watcher: Is told what goes on.

    Raises:
        UsageError: The folder holds something, or the task cannot be loaded.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty; name a folder that is not there yet.")
    bench = TaskContext(task, options.site())
    originals = train_originals(task, options, watcher)
    (folder / "originals").mkdir(parents=True)
    for seed, original in enumerate(originals):
        shutil.copyfile(original / WEIGHTS, folder / "originals" / f"s{seed}.safetensors")
    for draw in range(task.draws):
        split = bench.split(draw)
        lists: dict[str, Array] = {
            "forget": split.forget,
            "retain": split.retain,
            "withheld": split.withheld,
            "validation": split.validation,
            "labels": split.train_labels,
        }
        lists |= {f"request-{step}": rows for step, rows in enumerate(split.requests)}
        write_arrays(folder / f"split-d{draw}.npz", lists)
    write_atomically(folder / "README.md", _guide(task, len(originals)).encode())


def observe(task: Task, checkpoints: Path, observed: ExternalMethod, options: RunConfig) -> Path:
    """Ask models that were unlearned elsewhere what every unlearned model is asked; returns the run's folder.

    Args:
        task: The task with its counts of seeds and draws.
        checkpoints: A folder of state dicts, ``d<draw>-s<seed>.safetensors``, one for each draw and seed.
        observed: What is known of the method.
        options: Where and how.

    Raises:
        UsageError: A checkpoint or an original is missing, or a checkpoint does not fit the task's network.
        ForgetBenchError: A model gives answers that are not finite.
    """
    bench = TaskContext(task, options.site())
    files = _files(task, checkpoints)
    originals = _originals(bench, task)
    common = {"task": task.model_dump(mode="json"), "site": bench.site.__dict__}
    weights = {place: file_digest(path) for place, path in files.items()}
    _check_different(files, weights)
    results = []
    for (draw, seed), path in files.items():
        made_from = bench.made_from(
            "observed", weights=weights[draw, seed], original=originals[seed][1], draw=draw, asked=bench.asked(draw)
        )
        if bench.store.read(bench.store.key(made_from)) is None:
            network = _load(bench, path)
            meta = {
                "original": originals[seed][1],
                "weights": weights[draw, seed],
                "share_changed": share_changed(network, load_model(bench, originals[seed][0])),
            }
            arrays = _answers(bench, network, draw, path)
            bench.store.write(made_from, lambda place, arrays=arrays, meta=meta: _write(place, arrays, meta))  # type: ignore[misc]
        key = bench.store.key(made_from)
        results.append(({"draw": draw, "seed": seed}, {"status": "ok", "key": key, "steps": []}))
    folder = options.results.runs / task.name / folder_name(observed.name)
    method = MethodRecord(
        name=observed.method,
        label=observed.name,
        title=observed.title or f"{observed.name}, unlearned elsewhere",
        family=FAMILY,
        needs=(),
        parameters={},
        observed=True,
        source_sha256=digest([weights[place] for place in sorted(weights)]),
        link=observed.link,
    )
    cost = CostRecord(flops=observed.flops, seconds=observed.seconds, retrain_flops=count(common)["flops"])
    words = shlex.join(
        ["forgetbench", "import-checkpoints", task.name, "--checkpoints", "DIR", "--name", observed.name]
        + ["--seeds", str(task.seeds)]
        + (["--draws", str(task.draws)] if task.draws > 1 else [])
    )
    facts = prepare({**common, "methods": []})
    device = bench.site.device
    write_run(bench.store, folder, task, Entry(method, words), Unlearned(results, cost), facts=facts, device=device)
    return folder


def _files(task: Task, folder: Path) -> dict[tuple[int, int], Path]:
    """(draw, seed) -> its file.

    Raises:
        UsageError: The folder is not there, a file is missing, or there is one that nobody asked for.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    files = {
        (draw, seed): folder / f"d{draw}-s{seed}.safetensors"
        for draw in range(task.draws)
        for seed in range(task.seeds)
    }
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise UsageError(
            f"{folder} lacks {', '.join(missing)}: one state dict is needed for each of {task.draws} draws and "
            f"{task.seeds} seeds (--draws and --seeds say how many)."
        )
    known = {path.name for path in files.values()}
    extra = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in known)
    if extra:
        raise UsageError(
            f"{folder} also holds {', '.join(extra)}, which {task.draws} draws and {task.seeds} seeds do not ask for: "
            "raise --seeds or --draws, or take them away."
        )
    return files


def _originals(bench: TaskContext, task: Task) -> list[tuple[Path, str]]:
    """The originals' folders and the hashes of their weights, by seed.

    Raises:
        UsageError: One is not in the store: the checkpoints then cannot have come from it.
    """
    keys = [bench.store.key(bench.model_facts("original", 0, seed, None)) for seed in range(task.seeds)]
    missing = [seed for seed, key in enumerate(keys) if bench.store.read(key) is None]
    if missing:
        raise UsageError(
            f"the originals of seeds {missing} of {task.name} are not in the store. Unlearn from those that "
            f"`forgetbench import-checkpoints {task.name} --export-originals DIR --seeds {task.seeds}` "
            f"writes; a board's are fetched before it with `forgetbench pack pull {task.name} --server URL`."
        )
    folders = [require_artifact(bench.store, key) for key in keys]
    return [(folder, read_meta(folder)["weights"]) for folder in folders]


def _check_different(files: dict[tuple[int, int], Path], weights: dict[tuple[int, int], str]) -> None:
    seen: dict[str, str] = {}
    for place, path in files.items():
        twin = seen.setdefault(weights[place], path.name)
        if twin != path.name:
            raise UsageError(f"{path.name} is the same file as {twin}: every seed needs a model of its own.")


def _load(bench: TaskContext, path: Path) -> nn.Module:
    """The task's network with the weights of a file.

    Raises:
        UsageError: It is no state dict of this network, or holds numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a readable safetensors file: {error}") from error
    network = bench.spec.build(0, start=False)
    problems = _misfits(state, network.state_dict())
    if problems:
        raise UsageError(f"{path.name} does not fit the network of {bench.task.name}: {'; '.join(problems)}.")
    network.load_state_dict(state)
    return network.to(bench.device).eval()


def _misfits(state: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """What is wrong with a state dict, in phrases."""
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    problems = [f"missing {_some(missing)}"] if missing else []
    problems += [f"unknown {_some(extra)}"] if extra else []
    common = sorted(set(state) & set(expected))
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in common
        if state[name].shape != expected[name].shape
    ][:5]
    problems += [
        f"{name} holds numbers that are not finite"
        for name in common
        if state[name].is_floating_point() and not bool(state[name].isfinite().all())
    ][:5]
    return problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _answers(bench: TaskContext, network: nn.Module, draw: int, path: Path) -> dict[str, Array]:
    arrays = bench.observe(network, draw)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ForgetBenchError(f"{path.name}: the model's answers on {name} are not finite; it diverged.")
    return arrays


def _write(place: Path, arrays: dict[str, Array], meta: dict[str, Any]) -> None:
    write_arrays(place / ANSWERS, arrays)
    described = {name: record.model_dump(mode="json") for name, record in describe(arrays).items()}
    write_meta(place, {**meta, "arrays": described})


def _guide(task: Task, seeds: int) -> str:
    return re.sub(r"\n +", "\n", _GUIDE).format(task=task.name, seeds=seeds, last=seeds - 1).lstrip()


_GUIDE = """
# The originals of {task}

`originals/s<seed>.safetensors` are the {seeds} models that were trained on everything, `split-d<draw>.npz` the row
numbers of the training set: `forget`, `retain` (what a method may keep), `withheld` (given to nobody), `validation`
(row numbers of the validation set), `labels` (of all training rows, as trained on), and for a stream `request-<k>`.
Load a model and the images they count in:

```python
import numpy as np
from forgetbench.runner.context import TaskContext
from forgetbench.runner.config import RunConfig
from forgetbench.tasks.task import read_task
from safetensors.torch import load_file, save_file

bench = TaskContext(read_task("{task}"), RunConfig(device="cpu").site())
network = bench.spec.build(0)
network.load_state_dict(load_file("originals/s0.safetensors"))
split = np.load("split-d0.npz")
images = bench.partition.train.images[split["forget"]]  # uint8 (n, C, H, W); the network takes floats in [0, 1]
```

Unlearn every original for every draw with seeds of your own, in whatever code, and write one state dict for each,
with the names and shapes of the original's: `save_file(network.state_dict(), "unlearned/d0-s0.safetensors")`, and so on
to seed {last}. Then

```
forgetbench import-checkpoints {task} --checkpoints unlearned --name "my method" --seeds {seeds}
```

makes the run, which is scored, reported and submitted like any other, marked as observed. Nothing of test images may
have been used, and no oracle.
"""
