"""What one model keeps and forgets, before and after its batch-norm statistics are estimated again: a Markdown table.

    python benchmarks/recalibration.py TASK --method ssd --method iau:lr=0.001

TASK is a task of the catalog or a task file with a network that has batch-norm. One original of seed 0 is trained, one
oracle, and one unlearned model of each method; images, device and store are those of `forgetbench run`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from forgetbench.evidence.arrays import RECALIBRATED, load_arrays, read_arrays
from forgetbench.runner.artifacts import LABELS, PREDICTIONS, require_artifact
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.engines import Step
from forgetbench.runner.jobs import JobRunner, MethodFailure, PrepareJob, UnlearnedModel, UnlearnJob, trained
from forgetbench.runner.method_spec import MethodSpec, parse_methods
from forgetbench.runner.train import prepare_task, train_model
from forgetbench.runner.unlearn import do_job
from forgetbench.tasks.task import Task, read_task


class Lines(NullProgress):
    """Says what is done."""

    def done(self, title: str, *, from_cache: bool) -> None:
        print(f"{title}{' (from the store)' if from_cache else ''}", flush=True)

    def note(self, text: str) -> None:
        print(text, flush=True)


def percents(folder: Path, labels: dict[str, np.ndarray]) -> list[float]:
    """Test and forget accuracy in percent, as the model is and after recalibration."""
    answers = read_arrays(folder / PREDICTIONS)
    if f"{RECALIBRATED}test" not in answers:
        raise SystemExit("The network of this task has no batch-norm: there is nothing to estimate again.")
    return [
        100 * float((answers[prefix + subset].argmax(1) == labels[subset]).mean())
        for subset in ("test", "forget")
        for prefix in ("", RECALIBRATED)
    ]


def table(task: Task, specs: list[MethodSpec], config: RunConfig) -> list[str]:
    """The lines of the table; each row is the model of seed 0."""
    with config.open_engine() as engine:
        runner = JobRunner(task, config, engine, Lines())
        env = runner.env
        [facts] = runner.map(prepare_task, [PrepareJob(task=task, env=env, methods=tuple(specs))])
        populations = (runner.originals(), runner.oracles("reference"))
        original, oracle = trained(runner.map(train_model, [jobs[0] for jobs in populations]))
        applicable = [spec for spec in specs if spec.key not in facts.refusals]
        unlearning = [
            Step.of(UnlearnJob(task=task, env=env, method=spec, draw=0, seed=0, original=original.model), 1.0)
            for spec in applicable
        ]
        outcomes = runner.try_map(do_job, unlearning)
    labels = load_arrays(require_artifact(config.store, facts.labels[0]) / LABELS)
    lines = ["| model | test | forget |", "| --- | --- | --- |"]
    keys = [("No unlearning", original.predictions[0]), ("Retrain", oracle.predictions[0])]
    keys += [
        (spec.label, outcome.key)
        for spec, outcome in zip(applicable, outcomes, strict=True)
        if isinstance(outcome, UnlearnedModel)
    ]
    for name, key in keys:
        test, test_again, forget, forget_again = percents(require_artifact(config.store, key), labels)
        lines.append(f"| {name} | {test:.1f} → {test_again:.1f} | {forget:.1f} → {forget_again:.1f} |")
    for spec, outcome in zip(applicable, outcomes, strict=True):
        if isinstance(outcome, MethodFailure):
            lines.append(f"| {spec.label} | {outcome.status}: {outcome.reason} | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--method", action="append", default=[], help="NAME[:option=value,...]; can be repeated.")
    parser.add_argument("--root", type=Path, help="Folder of the image sets on disk.")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    config = replace(RunConfig(), engine="processes", workers=options.workers, device="auto")
    if options.root:
        config = replace(config, root=options.root)
    task = read_task(options.task)
    print("\n".join(table(task, parse_methods(options.method or ["all"], [], task.setting), config)))


if __name__ == "__main__":
    main()
