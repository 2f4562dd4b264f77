"""Cost of scoring: scorecards at demo and CIFAR-10 size, many oracles, memory, and attacks against released code.

    python benchmarks/metrics.py [--small] [--before CHECKOUT] [--released FOLDER]

All times are CPU seconds of one thread. With ``--before``, every scorecard is also computed by another checkout (``git
worktree add CHECKOUT COMMIT``), alternately, and the ratio of medians is printed. With ``--released``, a folder outside
this repository with ``SVC_MIA.py`` (OPTML-Group/Unlearn-Sparse, ``evaluation/``) and ``metric.py``
(google-deepmind/unlearning_evaluation), attacks and forgetting quality are compared with that code on a CPU. The
released ``metric.py`` asks for a GPU and asserts an array; both are replaced before it is loaded.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZES: dict[str, tuple[int, dict[str, int], int]] = {
    "demo": (6, {"forget": 150, "retain": 1000, "validation": 250, "test": 500}, 10),
    "demo-64": (64, {"forget": 150, "retain": 1000, "validation": 250, "test": 500}, 10),
    "cifar": (10, {"forget": 5000, "retain": 10_000, "test": 10_000}, 10),
    "thousand-classes": (20, {"forget": 100, "retain": 450, "test": 450}, 1000),
}
"""Name -> seeds, rows of each subset, classes. The last is a fiftieth of 50,000 rows."""
FITTED_BANDS = 8
"""Splits behind the bands here: a scorecard's cost does not depend on them."""


def seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the CPU seconds that it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def populations(size: str) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Labels, and in float16 the references, control oracles, originals and a contestant."""
    seeds, rows, classes = SIZES[size]
    generator = np.random.default_rng(0)
    labels = {name: generator.integers(0, classes, count) for name, count in rows.items()}
    base = {name: generator.normal(0, 1.5, (count, classes)).astype(np.float16) for name, count in rows.items()}

    def models(memory: float) -> list[dict[str, Any]]:
        answers = {}
        for name, truth in labels.items():
            logits = np.empty((seeds, *base[name].shape), np.float16)
            for model in logits:
                model[:] = base[name] + generator.normal(0, 1, model.shape)
            logits[:, np.arange(len(truth)), truth] += {"forget": 1.5 + memory, "retain": 6.0}.get(name, 1.5)
            answers[name] = logits
        return [answers]

    return [labels], [models(memory) for memory in (0.0, 0.0, 3.0, 1.0)]


def scorecard(size: str) -> None:
    """Print CPU seconds of the bands and of one scorecard, and peak memory beyond the evidence in its bytes."""
    from forgetbench.scoring import statistics as splits

    splits.split_halves = functools.partial(splits.split_halves, limit=FITTED_BANDS)
    from forgetbench.scoring.score import reference_bands, score

    labels, (references, controls, originals, contestant) = populations(size)
    evidence = sum(array.nbytes for side in (references, controls, originals, contestant) for array in side[0].values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bands, first = seconds(lambda: reference_bands(labels, references, controls, originals, "match-oracle"))

    def row() -> Any:
        return score(contestant, name="x", references=references, labels=labels, bands=bands, originals=originals)

    _, second = seconds(row)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(first, second, 1 + more / evidence, evidence)


def measured(size: str, checkout: Path) -> list[float]:
    """What `scorecard` prints under the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "benchmark")} | dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    command = [sys.executable, __file__, "--one", size]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in answer.stdout.split()]


def scorecards(size: str, checkouts: dict[str, Path], rounds: int) -> None:
    found: dict[str, list[list[float]]] = {name: [] for name in checkouts}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            found[name].append(measured(size, checkout))
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    for name, (_, row, memory, evidence) in medians.items():
        print(
            f"{size}, {name}: a scorecard {row:.2f} s; peak {memory:.2f} times {evidence / 2**20:.0f} MiB", flush=True
        )
    if len(medians) > 1:
        after, before = (medians[name] for name in ("this code", "before"))
        print(f"{size}: {after[1] / before[1]:.3f} of the time before, {after[2] / before[2]:.3f} of the memory")


def released_svc(folder: Path) -> Any:
    """The released attack; what it imports for image sets is not needed."""
    sys.modules["imagenet"] = types.SimpleNamespace(get_x_y_from_data_dict=None)  # type: ignore[assignment]
    return _load(folder / "SVC_MIA.py", lambda text: text).SVC_fit_predict


def released_quality(folder: Path) -> Any:
    """The released forgetting quality, without a GPU."""

    def repaired(text: str) -> str:
        return re.sub(r"assert (\w+),", r"assert len(\1),", text.replace(".cuda()", ""))

    return _load(folder / "metric.py", repaired).compute_forget_score_from_confs


def _load(path: Path, repair: Callable[[str], str]) -> types.ModuleType:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        copy.write_text(repair(path.read_text(encoding="utf-8")), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, copy)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def against_released(folder: Path, rows: int, examples: int) -> None:
    import torch

    from forgetbench.metrics import classic_mia as attacks
    from forgetbench.metrics import neurips_quality as quality

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    inside, outside = generator.beta(6, 1, rows), generator.beta(3, 1, rows)
    targets = generator.beta(4, 1, rows // 2)
    published = released_svc(folder)
    tensors = [torch.from_numpy(side)[:, None] for side in (inside, outside, targets)]
    theirs, slow = seconds(lambda: published(tensors[0], tensors[1], torch.zeros(0, 1), tensors[2]))
    for limit in (attacks.SVC_ROWS, attacks.BOARD_SVC_ROWS):
        attack = functools.partial(attacks.svc_non_members, seed=None, max_rows=limit)
        ours, fast = seconds(lambda attack=attack: attack(inside, outside, targets))
        values = f"{ours:.3f}, released {theirs:.3f}"
        print(f"SVC attack, {limit} of {rows} rows: {fast / slow:.4f} of released code ({values})")
    models = 64
    left, right = generator.normal(0, 2, (2, models, 50 * examples))
    few = left[:, :examples], right[:, :examples]
    theirs, slow = seconds(lambda: released_quality(folder)(*few))
    ours = quality.forgetting_quality(quality.epsilons(*few), models)
    _, fast = seconds(lambda: quality.forgetting_quality(quality.epsilons(left, right), models))
    ratio = fast / 50 / slow
    print(f"forgetting quality, {models} models: {ratio:.5f} of released code ({ours:.3f}, released {theirs:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="demo size only, and a tenth of the rest")
    parser.add_argument("--before", type=Path, help="checkout of another commit")
    parser.add_argument("--released", type=Path, help="folder with SVC_MIA.py and metric.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=None)
    parser.add_argument("--one", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        scorecard(options.one)
        return
    checkouts = {"this code": Path(__file__).parents[1]} | ({"before": options.before} if options.before else {})
    for size in options.sizes or (["demo"] if options.small else SIZES):
        scorecards(size, checkouts, 1 if options.small else options.rounds)
    if options.released:
        against_released(options.released, *((1000, 2) if options.small else (10_000, 8)))


if __name__ == "__main__":
    main()
