"""Import models that other code unlearned: originals and index lists are exported, checkpoints are imported.

Authors of other code export the originals (`export_originals`), unlearn them, and import one state dict for each draw
and seed (`import_checkpoints`). The result is a run like any other, marked as imported, with the cost that its author
states.
"""

from __future__ import annotations

import re
import shlex
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import Array, write_arrays
from forgetbench.evidence.run import CostRecord, MethodRecord, describe
from forgetbench.methods import check_own_name
from forgetbench.runner.artifacts import PREDICTIONS, WEIGHTS, read_meta, require_artifact, write_meta
from forgetbench.runner.collect import RunInfo, RunOutcome, write_run
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.jobs import CountTrainingJob, PrepareJob, UnlearnedModel, UnlearnOutcome
from forgetbench.runner.run import train_originals
from forgetbench.runner.train import count_training, prepare_task
from forgetbench.runner.unlearn import share_changed
from forgetbench.store import JsonObject, digest, file_digest, write_atomically
from forgetbench.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILY = "observed"
"""The family of imported rows."""
_PLACE = re.compile(r"d\d+-s\d+")
"""Name of a checkpoint's file without its ending."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of characters that no name shows; joiners (Cf) are part of words in some scripts."""


@dataclass(frozen=True)
class ExternalMethod:
    """A row whose models other code unlearned, as its author describes it.

    Raises:
        UsageError: The name is empty, too long, or that of a method of this package.
    """

    name: str
    """The row's name."""
    title: str = ""
    """The method in words."""
    link: str | None = None
    """Paper or code."""
    flops: float | None = None
    """FLOPs of one unlearning, as stated by the author."""
    seconds: float | None = None
    """Wall time of one unlearning in seconds, as stated by the author."""

    def __post_init__(self) -> None:
        name = unicodedata.normalize("NFC", self.name)  # the same name in two spellings is one row
        hidden = [one for one in name if unicodedata.category(one) in _HIDDEN and one not in "\u200c\u200d"]
        if hidden:
            raise UsageError(f"The row's name (--name) contains {hidden[0]!a}, which is not printable. Remove it.")
        object.__setattr__(self, "name", name)
        if not self.method or len(name) > 200:
            raise UsageError("The row needs a name (--name) of at most 200 characters with a letter or digit in it.")
        check_own_name(self.method)

    @property
    def method(self) -> str:
        """The method's name: the row's, with dashes for characters that a name cannot contain."""
        words = "".join(one if _is_word(one) else " " for one in self.name).replace("-", " ").split()
        return "-".join(words).strip("-+")[:80]


def _is_word(character: str) -> bool:
    """Whether a character can be part of `MethodName`: letters and their marks, digits, _ and +."""
    category = unicodedata.category(character)
    return category[0] in "LM" or character.isdecimal() or character in "_+"


def export_originals(task: Task, folder: Path, config: RunConfig, progress: ProgressCallback | None = None) -> None:
    """Write what other code starts from: originals, index lists, and instructions.

    Args:
        task: The task with its counts of seeds and draws; missing originals are trained.
        folder: A folder that is empty or does not exist.
        config: Where and how.
        progress: Progress callback.

    Raises:
        UsageError: The folder is not empty, or the task cannot be loaded.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty. Give a new folder.")
    data = TaskContext(task, config.env()).data
    originals = train_originals(task, config, progress)
    (folder / "originals").mkdir(parents=True)
    for seed, original in enumerate(originals):
        shutil.copyfile(original / WEIGHTS, folder / "originals" / f"s{seed}.safetensors")
    for draw in range(task.draws):
        split = data.split(draw)
        lists: dict[str, Array] = {
            "forget": split.forget,
            "retain": split.given,
            "withheld": np.setdiff1d(split.withheld, split.given),
            "validation": split.validation,
            "labels": split.train_labels,
        }
        lists |= {f"request-{step}": rows for step, rows in enumerate(split.requests)}
        write_arrays(folder / f"split-d{draw}.npz", lists)
    write_atomically(folder / "README.md", _guide(task, len(originals)).encode())


def import_checkpoints(task: Task, checkpoints: Path, method: ExternalMethod, config: RunConfig) -> Path:
    """Evaluate models that other code unlearned on the rows that every unlearned model is evaluated on.

    Args:
        task: The task with its counts of seeds and draws.
        checkpoints: A folder of state dicts, ``d<draw>-s<seed>.safetensors`` (or ``.pt``, ``.pth``, ``.bin``,
            ``.ckpt``), one for each draw and seed, as option ``checkpoint`` of a network reads them.
        method: The row.
        config: Where and how.

    Returns:
        The run's folder.

    Raises:
        UsageError: A checkpoint or an original is missing, or a checkpoint does not fit the task's network.
        ForgetBenchError: The predictions of a model are not finite.
    """
    env = config.env()
    context = load_context(task, env)
    store = context.store
    files = _files(task, checkpoints)
    originals = _originals(context, task)
    weights = {place: file_digest(path) for place, path in files.items()}
    _check_different(files, weights)
    results: list[tuple[int, int, UnlearnOutcome]] = []
    for (draw, seed), path in files.items():
        folder, original = originals[seed]
        key = context.keys.imported(weights[draw, seed], original, draw)
        if store.read(store.key(key)) is None:
            network = _load(context, path)
            meta = {
                "original": original,
                "weights": weights[draw, seed],
                "share_changed": share_changed(network, context.load_model(folder)),
            }
            arrays = _predictions(context, network, draw, path)
            store.write(key, lambda place, arrays=arrays, meta=meta: _write(place, arrays, meta))  # type: ignore[misc]
        results.append((draw, seed, UnlearnedModel(key=store.key(key))))
    record = MethodRecord(
        name=method.method,
        label=method.name,
        title=method.title or f"{method.name}, unlearned by other code",
        family=FAMILY,
        needs=(),
        parameters={},
        observed=True,
        fingerprint=digest([weights[place] for place in sorted(weights)]),
        link=method.link,
    )
    retrain_flops = count_training(CountTrainingJob(task=task, env=env)).flops
    cost = CostRecord(flops=method.flops, seconds=method.seconds, retrain_flops=retrain_flops)
    command = shlex.join(
        ["forgetbench", "import-checkpoints", task.name, "--checkpoints", "DIR", "--name", method.name]
        + ["--seeds", str(task.seeds)]
        + (["--draws", str(task.draws)] if task.draws > 1 else [])
    )
    run = config.results.run_folder(task.name, method.name)
    facts = prepare_task(PrepareJob(task=task, env=env))
    info, outcome = RunInfo(record, command), RunOutcome(results, cost)
    write_run(store, run, task, info, outcome, facts=facts, device=env.device)
    return run


def _files(task: Task, folder: Path) -> dict[tuple[int, int], Path]:
    """(draw, seed) -> its file.

    Raises:
        UsageError: The folder does not exist, a file is missing, or there is one too many.
    """
    from forgetbench.networks.pretrained import SUFFIXES

    if not folder.is_dir():
        raise UsageError(f"Folder {folder} does not exist. Give the folder of the checkpoints.")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and (_PLACE.fullmatch(path.stem) or path.suffix == ".safetensors"):
            found.setdefault(path.stem, []).append(path)
    twice = next((paths for paths in found.values() if len(paths) > 1), None)
    if twice:
        raise UsageError(f"{folder} contains both {' and '.join(path.name for path in twice)}. Remove one.")
    names = {(draw, seed): f"d{draw}-s{seed}" for draw in range(task.draws) for seed in range(task.seeds)}
    missing = [f"{name}.safetensors" for name in names.values() if name not in found]
    if missing:
        others = sorted(path.name for path in folder.iterdir() if path.stem not in names.values())
        contents = f"It contains {_first(others)}. " if others else "" if found else "It is empty. "
        raise UsageError(
            f"{folder} lacks {_first(missing)}: one state dict is needed for each of {task.draws} draws and "
            f"{task.seeds} seeds ({', '.join(SUFFIXES)}). {contents}Add the files under these names, or change --draws "
            "and --seeds."
        )
    extra = sorted(path.name for stem, [path] in found.items() if stem not in names.values())
    if extra:
        raise UsageError(
            f"{folder} also contains {', '.join(extra)}, but the run has {task.draws} draws and {task.seeds} seeds. "
            "Raise --seeds or --draws, or remove the files."
        )
    return {place: found[name][0] for place, name in names.items()}


def _originals(context: TaskContext, task: Task) -> list[tuple[Path, str]]:
    """The originals' folders and the hashes of their weights, by seed.

    Raises:
        UsageError: One is not in the store: the checkpoints then cannot have come from it.
    """
    store = context.store
    keys = [store.key(context.keys.model("original", 0, seed)) for seed in range(task.seeds)]
    missing = [seed for seed, key in enumerate(keys) if store.read(key) is None]
    if missing:
        raise UsageError(
            f"The originals of seeds {missing} of {task.name} are not in the store. Unlearn from those that "
            f"`forgetbench import-checkpoints {task.name} --export-originals DIR --seeds {task.seeds}` writes; fetch "
            f"a board's originals first with `forgetbench pack pull {task.name} --server URL`."
        )
    folders = [require_artifact(store, key) for key in keys]
    return [(folder, read_meta(folder)["weights"]) for folder in folders]


def _check_different(files: dict[tuple[int, int], Path], weights: dict[tuple[int, int], str]) -> None:
    from forgetbench.networks.pretrained import read_state

    seen: dict[str, str] = {}
    for place, path in files.items():
        twin = seen.setdefault(weights[place], path.name)
        if twin != path.name:
            read_state(path)  # two copies of a web page are first of all not weights
            raise UsageError(f"{path.name} is the same file as {twin}. Every seed needs its own model.")


def _load(context: TaskContext, path: Path) -> nn.Module:
    """The task's network with the weights of a file.

    Raises:
        UsageError: It is no state dict of this network, or contains values that are not finite.
    """
    from forgetbench.networks.pretrained import network_names, read_state

    network = context.data.network_spec.build(0, load_weights=False)
    state, expected = network_names(network, read_state(path)), network.state_dict()
    if not any(name in state for name in ("mean", "std")):  # a file in the format of timm
        state |= {name: expected[name] for name in ("mean", "std")}
    problems = _state_dict_errors(state, expected)
    if problems:
        raise UsageError(
            f"{path.name} does not fit the network of {context.task.name}: {'; '.join(problems)}. Save the state dict "
            f"of a copy of the original that `forgetbench import-checkpoints {context.task.name} --export-originals "
            "DIR` wrote."
        )
    broken = [name for name, one in state.items() if one.is_floating_point() and not bool(one.isfinite().all())]
    if broken:
        raise UsageError(
            f"{path.name} contains values that are not finite, in {_first(broken)}: the model diverged. Unlearn it "
            "again with other hyper-parameters."
        )
    network.load_state_dict(state)
    return network.to(context.data.device).eval()


def _state_dict_errors(state: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """What is wrong with a state dict, in phrases."""
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    problems = [f"missing {_first(missing)}"] if missing else []
    problems += [f"unknown {_first(extra)}"] if extra else []
    common = sorted(set(state) & set(expected))
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in common
        if state[name].shape != expected[name].shape
    ][:5]
    problems += [
        f"{name} has type {state[name].dtype}, expected {expected[name].dtype}"
        for name in common
        if state[name].is_complex() or state[name].is_floating_point() != expected[name].is_floating_point()
    ][:5]
    return problems


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _predictions(context: TaskContext, network: nn.Module, draw: int, path: Path) -> dict[str, Array]:
    arrays = context.evidence(network, draw)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ForgetBenchError(f"{path.name}: the predictions on {name} are not finite; the model diverged.")
    return arrays


def _write(folder: Path, arrays: dict[str, Array], meta: JsonObject) -> None:
    write_arrays(folder / PREDICTIONS, arrays)
    described = {name: record.model_dump(mode="json") for name, record in describe(arrays).items()}
    write_meta(folder, {**meta, "arrays": described})


def _guide(task: Task, seeds: int) -> str:
    return _GUIDE.format(task=task.name, seeds=seeds, last=seeds - 1).lstrip()


_GUIDE = """
# The originals of {task}

- `originals/s<seed>.safetensors`: the {seeds} models that were trained on all training images.
- `split-d<draw>.npz`: row numbers of the training set: `forget`, `retain` (available to a method), `withheld`
  (available to no method), `validation` (row numbers of the validation set), `labels` (of all training rows, as trained
  on), and for a stream `request-<k>`.

Load a model and the images:

```python
import numpy as np
from safetensors.torch import load_file

import forgetbench
from forgetbench.runner.context import TaskContext

config = forgetbench.RunConfig(device="cpu")
data = TaskContext(forgetbench.load_task("{task}"), config.env()).data
network = data.network_spec.build(0)
network.load_state_dict(load_file("originals/s0.safetensors"))
split = np.load("split-d0.npz")
images = data.partition.train.images[split["forget"]]  # uint8 (n, C, H, W); the network takes floats in [0, 1]
```

Unlearn every original for every draw, in any code, and write one state dict for each with the names and shapes of the
original: `save_file(network.state_dict(), "unlearned/d0-s0.safetensors")`, and so on to seed {last}. Then run

```
forgetbench import-checkpoints {task} --checkpoints unlearned --name "my method" --seeds {seeds}
```

It writes a run, which is scored, reported and submitted like any other, marked as imported. Test images and oracles
must not have been used.
"""
