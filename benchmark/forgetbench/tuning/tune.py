"""Hyper-parameters at equal budget: every method gets the same number of trials, on development draws and seeds.

The development task is the task under another name: since every stream of random numbers is derived from the name, its
forget sets, flipped labels, seeds and models are others than the reported ones (where a scenario names its classes,
those stay). Trial 0 is the method's defaults. In a round each method proposes one trial, and all of them run side by
side; trials are kept by optuna in the run's home, and models in the store, so a killed `tune` continues where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import Array, Logits
from forgetbench.methods import _card as cards
from forgetbench.methods import base
from forgetbench.runner.artifacts import LABELS
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.context import load_context
from forgetbench.runner.engines import Job, Result
from forgetbench.runner.jobs import JobRunner
from forgetbench.runner.method_spec import MethodSpec, trained_by
from forgetbench.scoring.scorer import scoring_code
from forgetbench.store import digest, source_digest
from forgetbench.tasks.task import Task
from forgetbench.tuning.selectors import Judgment, by_distance, development_bands, oracle_free
from forgetbench.tuning.study import Selector, Study, Trial

SEEDS: dict[Selector, int] = {"oracle-free": 2, "oracle": 4}
"""Development seeds; distances of populations need more of them."""
OUT_OF_RESOURCES = ("OSError", "MemoryError", "OutOfMemoryError")
"""What is the machine's fault and not the trial's."""
BUDGETS = (1, 10, 50)
"""Numbers of trials that a board knows."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found for one method."""

    contestant: MethodSpec
    """The method with the best trial's hyper-parameters; its row says how many trials there were."""
    trials: tuple[Trial, ...]
    """All trials, in order; empty where the method does not apply."""
    best: Trial | None
    """The trial that was chosen."""


def tune(
    task: Task,
    contestants: Sequence[MethodSpec],
    options: RunConfig,
    *,
    trials: int,
    selector: Selector = "oracle-free",
    seeds: int | None = None,
    watcher: ProgressCallback | None = None,
) -> list[Tuned]:
    """Tune methods on a task's development draws and seeds; trials that were made before are not made again.

    Args:
        task: The task.
        contestants: The methods; hyper-parameters that were named stay as they are.
        options: Where and how.
        trials: Trials of each method; 1 means its defaults.
        selector: By what a trial is judged.
        seeds: Development seeds; as many as the selector needs, if left out.
        watcher: Is told what goes on.

    Raises:
        UsageError: A method does not say what to search, or the selector cannot judge on this task.
        ForgetBenchError: A worker died, or an artifact was damaged while it was needed.
    """
    if trials < 1:
        raise UsageError("a method needs at least one trial: its defaults.")
    if selector == "oracle-free" and task.scenario.name == "subclass":
        raise UsageError(
            f"{task.name} forgets parts of classes, which validation labels do not tell apart: tune it with "
            "--selector oracle."
        )
    seeds = seeds or SEEDS[selector]
    development = task.development().with_counts(seeds=seeds)
    studies = [open_study(task, one, options, selector, seeds) for one in contestants]
    for study in studies:
        study.check(trials)
    if not all(study.has(trials) for study in studies):
        with options.open_executor() as executor:
            rehearsal = _Rehearsal(JobRunner(development, options, executor, watcher), _unfit(task, options))
            rehearsal.run(list(zip(contestants, studies, strict=True)), trials, selector)
    return [_tuned(one, study, trials) for one, study in zip(contestants, studies, strict=True)]


def tuned(
    task: Task, contestants: Sequence[MethodSpec], options: RunConfig, selector: Selector, seeds: int | None = None
) -> list[MethodSpec]:
    """The contestants with the best hyper-parameters of their finished studies in this home.

    Raises:
        UsageError: A study is missing or unfinished; the message names the command.
    """
    found = []
    for one in contestants:
        study = open_study(task, one, options, selector, seeds or SEEDS[selector])
        asked = study.asked
        if not asked or not study.has(asked):
            name = f"--method-file {one.file}" if one.file else f"--method {one.label}"
            raise UsageError(
                f"{one.label} was not tuned on {task.name} here"
                + (f" ({len(study.trials())} of {asked} trials are done)" if asked else "")
                + f": forgetbench tune {task.name} {name} --trials {asked or BUDGETS[1]} --selector {selector}"
            )
        found.append(_tuned(one, study, asked).contestant)
    return found


def open_study(task: Task, contestant: MethodSpec, options: RunConfig, selector: Selector, seeds: int) -> Study:
    """The study of a method on a task; other images, code, libraries or search space make another study."""
    development = task.development()
    bench = load_context({"task": development.model_dump(mode="json"), "site": options.site().__dict__})
    fixed = set(contestant.named)
    space = {
        fact.name: fact.search
        for fact in type(contestant.method).parameters()
        if fact.search is not None and fact.name not in fixed
    }
    recipe = {
        "task": development.key,
        "draws": development.draws,
        "seeds": seeds,
        "method": contestant.method.card.name,
        "source": contestant.method.source_hash(),
        "defaults": contestant.method.to_dict(),
        "space": {name: list(values) for name, values in space.items()},
        "selector": selector,
    }
    facts = {
        **recipe,
        **({"unfit": sorted(_unfit(task, options))} if selector == "oracle" else {}),
        "contract": source_digest(*(Path(str(module.__file__)) for module in (base, cards))),
        "scoring": scoring_code(),
        "made_from": bench.made_from("study"),
    }
    return Study(
        options.home / "tuning" / task.name / "studies.sqlite",
        f"{contestant.label} {selector} {digest(facts)[:12]}",
        space,
        contestant.method.to_dict(),
        seed=int(digest(recipe)[:8], 16),  # other code judges anew, but tries the same, which the store may hold
        facts=facts,
    )


def _unfit(task: Task, options: RunConfig) -> Mapping[str, str]:
    """Metrics that an audit of the task by the present code found out of place: they choose no trial either."""
    told = options.results.verdicts(task.name, task.key)
    return {name: why for verdict in told if verdict.code == scoring_code() for name, why in verdict.unfit.items()}


def _tuned(contestant: MethodSpec, study: Study, trials: int) -> Tuned:
    made = tuple(study.trials()[:trials])
    best = choose_trial(made)
    if best is None:
        return Tuned(contestant, made, None)
    method = type(contestant.method).from_dict({**contestant.method.to_dict(), **best.parameters})
    changed = replace(contestant, method=method, trials=len(made), selector=study.selector)
    return Tuned(changed.over(contestant), made, best)


def choose_trial(trials: Sequence[Trial]) -> Trial | None:
    """The best trial: the least value among those that hold, else among the collapsed ones, else the defaults."""
    for status in ("ok", "collapsed"):
        found = [trial for trial in trials if trial.status == status and trial.value is not None]
        if found:
            return min(found, key=lambda trial: (trial.value, trial.number))
    return trials[0] if trials else None


class _Rehearsal:
    """The jobs of a development task: originals once, oracles where they are asked for, then rounds of trials."""

    def __init__(self, crew: JobRunner, unfit: Mapping[str, str]) -> None:
        self.crew, self.task, self.unfit = crew, crew.task, unfit
        self.originals: dict[str, list[Result]] = {}

    def run(self, studies: Sequence[tuple[MethodSpec, Study]], trials: int, selector: Selector) -> None:
        """Rounds, until every study has its trials."""
        specs = [contestant.as_json() for contestant, _ in studies]
        [facts] = self.crew.do("runner.train:prepare", [{"methods": specs}], ["images and splits"])
        refused = facts["refusals"]
        live = []
        for (contestant, study), spec in zip(studies, specs, strict=True):
            if digest(spec) in refused:
                study.refuse(refused[digest(spec)])
            else:
                live.append((contestant, study))
        missing = sum(max(0, trials - len(study.trials())) for _, study in live)
        self.crew.watcher.begin(self.task.name, missing * len(self.crew.places()))
        if missing:
            judge = self._judge(facts, selector)
            while batch := [pair for pair in live if len(pair[1].trials()) < trials]:
                self._round(batch, judge)
        for _, study in live:
            study.ask(trials)
        self.crew.watcher.end(self.task.name)

    def _judge(self, facts: Result, selector: Selector) -> Callable[[list[Logits]], Judgment]:
        labels = [_labels(self.crew.options.store.path(key) / LABELS) for key in facts["labels"]]
        self.originals[""] = self.crew.train(self.crew.originals())
        originals = self.crew.answers_of(self.originals[""])
        if selector == "oracle-free":
            mislabelled = self.task.scenario.name == "mislabelled"
            return lambda population: oracle_free(population, originals, labels, mislabelled=mislabelled)
        references, controls = (
            self.crew.answers_of(self.crew.train(self.crew.oracles(role))) for role in ("reference", "control")
        )
        bands = development_bands(labels, references, controls, originals, facts["track"], self.unfit)
        return lambda population: by_distance(population, references, originals, labels, bands)

    def _round(self, batch: Sequence[tuple[MethodSpec, Study]], judge: Callable[[list[Logits]], Judgment]) -> None:
        """One trial of each study, side by side."""
        proposals = [study.propose() for _, study in batch]
        jobs: list[Job] = []
        untrained: dict[int, Result] = {}
        for number, ((contestant, _), values) in enumerate(zip(batch, proposals, strict=True)):
            method = type(contestant.method).from_dict({**contestant.method.to_dict(), **values})
            trial = replace(contestant, method=method)
            originals = self._originals(trial)
            if bad := next((result for result in originals if "reason" in result), None):
                untrained[number] = bad
                continue
            jobs += [
                {"method": trial.as_json(), **place, "original": originals[place["seed"]]["model"], "of": number}
                for place in self.crew.places()
            ]
        names = [f"{job['method']['label']}, trial {len(batch[job['of']][1].trials())}" for job in jobs]
        results = self.crew.do("runner.unlearn:unlearn", jobs, names)
        for number, ((_, study), values) in enumerate(zip(batch, proposals, strict=True)):
            made = [result for job, result in zip(jobs, results, strict=True) if job["of"] == number]
            made += [untrained[number]] if number in untrained else []
            study.tell(values, **self._outcome(made, judge))

    def _outcome(self, made: Sequence[Result], judge: Callable[[list[Logits]], Judgment]) -> dict[str, Any]:
        bad = next((result for result in made if result["status"] != "ok"), None)
        if bad is not None and bad["reason"].startswith(OUT_OF_RESOURCES):
            raise ForgetBenchError(f"a trial could not be made here, and is not counted ({bad['reason']}).")
        if bad is not None:
            return {"status": bad["status"], "reason": bad["reason"]}
        population = self.crew.population([result["key"] for result in made])
        if not all(np.isfinite(array).all() for answers in population for array in answers.values()):
            return {"status": "diverged", "reason": "a model answers NaN or infinity"}
        judged = judge(population)
        status = "collapsed" if judged.collapsed else "ok"
        return {"status": status, "value": judged.value, "parts": dict(judged.parts)}

    def _originals(self, contestant: MethodSpec) -> list[Result]:
        """By seed, the originals that a trial starts from: the task's, or its own."""
        if not contestant.trains_originals:
            return self.originals[""]
        spec = contestant.as_json()
        key = digest(trained_by(spec))
        if key not in self.originals:
            self.originals[key] = self.crew.train(self.crew.originals(spec))
        return self.originals[key]


def _labels(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
