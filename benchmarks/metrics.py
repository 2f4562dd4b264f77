"""Speed and memory of scoring: bands and scorecards at demo and CIFAR-10 size, forgetting quality, attacks.

    python benchmarks/metrics.py [--small]

Each size runs in a separate process, so that its peak memory is measured separately.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from forgetbench.metrics import classic_mia as attacks
from forgetbench.metrics import neurips_quality as quality
from forgetbench.scoring.score import rank, reference_bands, score

DEMO = {"forget": 150, "retain": 1000, "validation": 250, "test": 500}
CIFAR = {"forget": 5000, "retain": 10_000, "test": 10_000}


def timed(name: str, work: Callable[[], Any], limit: str = "") -> Any:
    start = time.perf_counter()
    result = work()
    print(f"{name:<58} {time.perf_counter() - start:8.2f} s {limit}", flush=True)
    return result


def board(title: str, seeds: int, rows: dict[str, int], classes: int = 10) -> None:
    generator = np.random.default_rng(0)
    labels = [{name: generator.integers(0, classes, count) for name, count in rows.items()}]
    base = {name: generator.normal(0, 1.5, (count, classes)) for name, count in rows.items()}

    def models(memory: float) -> list[dict[str, np.ndarray]]:
        answers = {}
        for name, truth in labels[0].items():
            logits = base[name] + generator.normal(0, 1, (seeds, *base[name].shape))
            logits[:, np.arange(len(truth)), truth] += {"forget": 1.5 + memory, "retain": 6.0}.get(name, 1.5)
            answers[name] = logits.astype(np.float16)
        return [answers]

    references, controls, originals = models(0.0), models(0.0), models(3.0)
    bands = timed(
        f"{title}: bands, once per board",
        lambda: reference_bands(labels, references, controls, originals, "match-oracle"),
    )
    card = timed(
        f"{title}: one scorecard",
        lambda: score(models(1.0), name="x", references=references, labels=labels, bands=bands, originals=originals),
        "(limit at CIFAR-10 size: 20 s)",
    )
    timed(f"{title}: ranking 1,000 rows", lambda: rank([card.model_copy(update={"name": str(i)}) for i in range(1000)]))
    memory(title)


def slow_parts(examples: int, models: int) -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, models, examples))
    timed(
        f"forgetting quality: {examples} examples, {models} + {models} models",
        lambda: quality.forgetting_quality(quality.epsilons(left, right), models),
        "(limit at 5,000 and 512: 300 s)",
    )
    rows = generator.uniform(size=(3, 10_000))
    timed(
        f"SVC attack on 10,000 rows, fitted on {attacks.SVC_ROWS} a side",
        lambda: attacks.svc_non_members(rows[0], rows[1] ** 2, rows[2]),
    )
    timed("loss attack on 10,000 rows", lambda: attacks.loss_attack(rows[0], rows[1]))
    memory("slow parts")


def memory(title: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{title + ': peak memory':<58} {peak:8.2f} GiB (limit: 2 GiB)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="demo size only, and a tenth of the rest")
    small = parser.parse_args().small
    jobs: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(board, ("demo, S = 6", 6, DEMO))]
    if not small:
        jobs.append((board, ("CIFAR-10, S = 10", 10, CIFAR)))
    jobs.append((slow_parts, (500, 64) if small else (5000, 512)))
    context = multiprocessing.get_context("spawn")
    for function, arguments in jobs:
        process = context.Process(target=function, args=arguments)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
