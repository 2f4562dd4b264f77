"""Hyper-parameter tuning at equal budget: every method gets the same number of trials, on development draws and seeds.

The development task is the task under another name: since every stream of random numbers is derived from the name, its
forget sets, flipped labels, seeds and models differ from the reported ones (a scenario that names its classes keeps
them). Trial 0 is the method's defaults. In a round each method proposes one trial, and all of them run in parallel;
optuna keeps trials in the run's home, and the store keeps models, so an interrupted `tune` resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import Logits, load_arrays
from forgetbench.fingerprints import scoring_fingerprint
from forgetbench.runner.artifacts import LABELS
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.context import load_context
from forgetbench.runner.jobs import (
    JobRunner,
    MethodFailure,
    PreparedTask,
    PrepareJob,
    TrainedModel,
    TrainOutcome,
    UnlearnedModel,
    UnlearnJob,
    UnlearnOutcome,
    trained,
)
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import digest
from forgetbench.tasks.task import Task
from forgetbench.tuning.selectors import (
    Judgment,
    by_distance,
    check_labels,
    development_bands,
    oracle_free,
    pooling_note,
    same_predictions,
)
from forgetbench.tuning.study import Outcome, Selector, Study, Trial

SEEDS: dict[Selector, int] = {"oracle-free": 2, "oracle": 4}
"""Development seeds; distances of populations need more of them."""
BUDGETS = (1, 10, 50)
"""Tuning budgets, in trials, that a board distinguishes."""

WRONG_LABELS = ("mislabelled", "poisoned", "confused")
"""Scenarios whose forget set has wrong labels."""


@dataclass(frozen=True)
class TunedMethod:
    """The outcome of tuning one method."""

    spec: MethodSpec
    """The method with the best trial's hyper-parameters; its row records how many trials were spent."""
    trials: tuple[Trial, ...]
    """All trials, in order; empty if the method does not apply to the task."""
    best: Trial | None
    """The trial that was chosen."""
    untouched: float | None = None
    """The selector's value of No unlearning; None where it was not computed."""
    notes: tuple[str, ...] = ()
    """What a reader should know: that labels were pooled, that tuning ended at doing nothing."""


def tune(
    task: Task,
    methods: Sequence[MethodSpec],
    config: RunConfig,
    *,
    trials: int,
    selector: Selector = "oracle-free",
    seeds: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[TunedMethod]:
    """Tune methods on a task's development draws and seeds; finished trials are not repeated.

    Args:
        task: The task.
        methods: The methods; hyper-parameters that a label names stay fixed.
        config: Where and how.
        trials: Trials of each method; 1 means its defaults.
        selector: How a trial is judged.
        seeds: Development seeds; None is as many as the selector needs.
        progress: Progress callback.

    Raises:
        UsageError: A method does not declare what to search, or the selector cannot judge this task.
        JobsFailedError: Jobs failed for another reason than a method's error; the round's other jobs are finished.
    """
    if trials < 1:
        raise UsageError("A method needs at least one trial, which is its defaults. Give --trials 1 or more.")
    check_tunable(task, config, selector)
    seeds = seeds or SEEDS[selector]
    development = task.development().with_counts(seeds=seeds)
    studies = [open_study(task, spec, config, selector, seeds) for spec in methods]
    for study in studies:
        study.check(trials)
    if not all(study.has(trials) for study in studies):
        with config.open_engine() as engine:
            tuning = _TuningRun(JobRunner(development, config, engine, progress), _excluded_metrics(task, config))
            tuning.run(list(zip(methods, studies, strict=True)), trials, selector)
    return [_tuned(spec, study, trials) for spec, study in zip(methods, studies, strict=True)]


def check_tunable(task: Task, config: RunConfig, selector: Selector) -> None:
    """Check before any training that a selector can judge trials on a task.

    Raises:
        UsageError: It cannot; or the image set, network or scenario is wrong.
    """
    if selector == "oracle":
        return
    if task.scenario.name == "subclass":
        raise UsageError(
            f"{task.name} forgets parts of classes, which validation labels do not distinguish. Tune it with "
            "--selector oracle."
        )
    development = task.development()
    data = load_context(development, config.env()).data
    labels = [data.labels(draw) for draw in range(development.draws)]
    outputs = len(data.partition.train.classes)
    try:
        check_labels(labels, outputs, mislabelled=task.scenario.name in WRONG_LABELS)
    except UsageError as error:
        raise UsageError(f"{task.name}: {error}") from error


def load_best(
    task: Task, methods: Sequence[MethodSpec], config: RunConfig, selector: Selector, seeds: int | None = None
) -> list[MethodSpec]:
    """The methods with the best hyper-parameters of their finished studies in this home.

    Raises:
        UsageError: A study is missing or unfinished; the message names the command.
    """
    best = []
    for spec in methods:
        study = open_study(task, spec, config, selector, seeds or SEEDS[selector])
        budget = study.budget
        if not budget or not study.has(budget):
            name = f"--method-file {spec.file}" if spec.file else f"--method {spec.label}"
            other: Selector = "oracle" if selector == "oracle-free" else "oracle-free"
            rest = open_study(task, spec, config, other, seeds or SEEDS[other])
            if rest.budget and rest.has(rest.budget):
                raise UsageError(
                    f"{spec.label} was tuned on {task.name} with the selector {other}, and not with {selector}. To use "
                    f"that result, add --selector {other}."
                )
            raise UsageError(
                f"{spec.label} was not tuned on {task.name} here with the selector {selector}"
                + (f" ({len(study.trials())} of {budget} trials are done)" if budget else "")
                + f". Run: forgetbench tune {task.name} {name} --trials {budget or BUDGETS[1]} --selector {selector}"
            )
        best.append(_tuned(spec, study, budget).spec)
    return best


def open_study(task: Task, spec: MethodSpec, config: RunConfig, selector: Selector, seeds: int) -> Study:
    """The study of a method on a task; other images, code, libraries or search space make another study."""
    development = task.development()
    context = load_context(development, config.env())
    fixed = set(spec.named)
    space = {
        option.name: option.search
        for option in spec.kind.parameters()
        if option.search is not None and option.name not in fixed
    }
    recipe = {
        "task": development.key,
        "draws": development.draws,
        "seeds": seeds,
        "method": spec.name,
        "fingerprint": spec.fingerprint,
        "defaults": dict(spec.parameters),
        "space": {name: list(values) for name, values in space.items()},
        "selector": selector,
    }
    facts = {
        **recipe,
        **({"excluded": sorted(_excluded_metrics(task, config))} if selector == "oracle" else {}),
        "scoring": scoring_fingerprint(),
        "key": context.keys.study(),
    }
    return Study(
        config.home / "tuning" / task.name / "studies.sqlite",
        f"{spec.label} {selector} {digest(facts)[:12]}",
        space,
        spec.parameters,
        seed=int(digest(recipe)[:8], 16),  # after a change of scoring, the same trials are proposed and judged again
        facts=facts,
    )


def _excluded_metrics(task: Task, config: RunConfig) -> Mapping[str, str]:
    """Metrics that failed an audit of the task by the present scoring code: they choose no trial either."""
    records = config.results.fitness_records(task.name, task.key)
    return {name: why for one in records if one.code == scoring_fingerprint() for name, why in one.unfit.items()}


def _tuned(spec: MethodSpec, study: Study, budget: int) -> TunedMethod:
    trials = tuple(study.trials()[:budget])
    best = choose_trial(trials)
    if best is None:
        return TunedMethod(spec, trials, None)
    chosen = replace(spec.with_parameters(best.parameters), trials=len(trials), selector=study.selector)
    notes = tuple(note for note in (study.note, _note_on_nothing(spec, best, study.untouched)) if note)
    return TunedMethod(chosen.with_label_diff(spec), trials, best, study.untouched, notes)


def _note_on_nothing(spec: MethodSpec, best: Trial, untouched: float | None) -> str:
    """That tuning ended at doing nothing; "" where it did not."""
    if best.unchanged:
        return f"{spec.label}: tuning ended at doing nothing. The chosen models answer exactly as the originals."
    if untouched is not None and best.value is not None and best.value >= untouched:
        return (
            f"{spec.label}: tuning ended at doing nothing. By this selector no trial is better than No unlearning "
            f"({best.value:.3f}, No unlearning {untouched:.3f}; smaller is better)."
        )
    return ""


def choose_trial(trials: Sequence[Trial]) -> Trial | None:
    """The best trial: the least value among those with status ok, else harmed, else collapsed, else the defaults."""
    for status in ("ok", "harmed", "collapsed"):
        candidates = [trial for trial in trials if trial.status == status and trial.value is not None]
        if candidates:
            return min(candidates, key=lambda trial: (trial.value, trial.number))
    return trials[0] if trials else None


Judge = Callable[[list[Logits]], Judgment]


class _TuningRun:
    """The jobs of a development task: originals once, oracles if the selector needs them, then rounds of trials."""

    def __init__(self, runner: JobRunner, excluded: Mapping[str, str]) -> None:
        self.runner, self.task, self.excluded = runner, runner.task, excluded
        self.originals: dict[str, list[TrainOutcome]] = {}

    def run(self, studies: Sequence[tuple[MethodSpec, Study]], trials: int, selector: Selector) -> None:
        """Rounds, until every study has its trials."""
        from forgetbench.runner.train import prepare_task

        job = PrepareJob(task=self.task, env=self.runner.env, methods=tuple(spec for spec, _ in studies))
        [facts] = self.runner.map(prepare_task, [job])
        active = []
        for spec, study in studies:
            if spec.key in facts.refusals:
                study.refuse(facts.refusals[spec.key])
            else:
                active.append((spec, study))
        missing = sum(max(0, trials - len(study.trials())) for _, study in active)
        self.runner.progress.begin(self.task.name, missing * len(self.runner.places()))
        if missing:
            judge = self._judge(facts, selector)
            note, untouched = self._pooling_note(selector), judge(self._predictions(None)).value
            if note:
                self.runner.progress.note(f"{self.task.name}: {note}")
            for _, study in active:
                study.describe(note, untouched)
            while batch := [pair for pair in active if len(pair[1].trials()) < trials]:
                self._round(batch, judge)
        for _, study in active:
            study.set_budget(trials)
        self.runner.progress.end(self.task.name)

    def _predictions(self, trainer: MethodSpec | None) -> list[Logits]:
        """The predictions of the originals."""
        return self.runner.predictions_of(self._train_originals(trainer))

    def _pooling_note(self, selector: Selector) -> str:
        if selector == "oracle":
            return ""
        data = load_context(self.task, self.runner.env).data
        labels = [data.labels(draw) for draw in range(self.task.draws)]
        return pooling_note(
            labels, len(data.partition.train.classes), mislabelled=self.task.scenario.name in WRONG_LABELS
        )

    def _judge(self, facts: PreparedTask, selector: Selector) -> Judge:
        labels = [load_arrays(self.runner.config.store.path(key) / LABELS) for key in facts.labels]
        originals = self._predictions(None)
        if selector == "oracle-free":
            mislabelled = self.task.scenario.name in WRONG_LABELS
            return lambda population: oracle_free(population, originals, labels, mislabelled=mislabelled)
        references, controls = (
            self.runner.predictions_of(self._train_oracles(role)) for role in ("reference", "control")
        )
        bands = development_bands(labels, references, controls, originals, facts.track, self.excluded)
        return lambda population: by_distance(population, references, originals, labels, bands)

    def _train_oracles(self, role: Literal["reference", "control"]) -> list[TrainedModel]:
        from forgetbench.runner.train import train_model

        return trained(self.runner.map(train_model, self.runner.oracles(role)))

    def _train_originals(self, trainer: MethodSpec | None) -> list[TrainedModel]:
        from forgetbench.runner.train import train_model

        key = digest(trainer.training_identity()) if trainer else ""
        if key not in self.originals:
            self.originals[key] = self.runner.map(train_model, self.runner.originals(trainer))
        return trained(self.originals[key])

    def _round(self, batch: Sequence[tuple[MethodSpec, Study]], judge: Judge) -> None:
        """One trial of each study, in parallel."""
        from forgetbench.runner.unlearn import unlearn

        proposals = [study.propose() for _, study in batch]
        jobs: list[_TrialJob] = []
        untrained: dict[int, UnlearnOutcome] = {}
        for number, ((spec, study), values) in enumerate(zip(batch, proposals, strict=True)):
            trial = spec.with_parameters(values)
            originals = self._originals(trial)
            failure = next((model for model in originals if isinstance(model, MethodFailure)), None)
            if failure is not None:
                untrained[number] = failure
                continue
            keys = [model.model for model in trained(originals)]
            jobs += [
                _TrialJob(
                    task=self.task,
                    env=self.runner.env,
                    method=trial,
                    draw=draw,
                    seed=seed,
                    original=keys[seed],
                    study=number,
                    trial=len(study.trials()),
                )
                for draw, seed in self.runner.places()
            ]
        outcomes = self.runner.map(unlearn, jobs)
        for number, ((spec, study), values) in enumerate(zip(batch, proposals, strict=True)):
            results = [outcome for job, outcome in zip(jobs, outcomes, strict=True) if job.study == number]
            results += [untrained[number]] if number in untrained else []
            study.add(values, self._outcome(spec.with_parameters(values), results, judge))

    def _outcome(self, trial: MethodSpec, results: Sequence[UnlearnOutcome], judge: Judge) -> Outcome:
        failure = next((result for result in results if isinstance(result, MethodFailure)), None)
        if failure is not None:
            return Outcome(failure.status, reason=failure.reason)
        keys = [result.key for result in results if isinstance(result, UnlearnedModel)]
        population = self.runner.population(keys)
        if not all(np.isfinite(array).all() for arrays in population for array in arrays.values()):
            return Outcome("diverged", reason="the predictions are NaN or infinite")
        judgment = judge(population)
        originals = self._predictions(trial if trial.trains_originals else None)
        unchanged = same_predictions(population, originals)
        return Outcome(judgment.utility, judgment.value, judgment.parts, unchanged=unchanged)

    def _originals(self, spec: MethodSpec) -> list[TrainOutcome]:
        """By seed, the originals that a trial starts from: the task's, or its own."""
        trainer = spec if spec.trains_originals else None
        self._train_originals(trainer)
        return self.originals[digest(trainer.training_identity()) if trainer else ""]


@dataclass(frozen=True, kw_only=True)
class _TrialJob(UnlearnJob):
    """One unlearning of a trial."""

    study: int
    """Position of the study in the round."""
    trial: int
    """Number of the trial."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return f"{self.method.label}, trial {self.trial}"
