"""The audit of a task: run its sentinels, score them, and scorer the metrics by the results."""

from __future__ import annotations

from dataclasses import dataclass

from forgetbench.auditing.criteria import LINE, Audit, audit, interpolate
from forgetbench.auditing.expectations import SENTINELS
from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import AuditFitness, ReferenceBundle, with_fitness
from forgetbench.evidence.run import read_run
from forgetbench.fingerprints import scoring_fingerprint
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run, train_audit_oracles
from forgetbench.scoring.score import score
from forgetbench.scoring.scorecards import Scorecard
from forgetbench.scoring.scorer import NO_UNLEARNING, RETRAIN, RankedRuns, rank_runs
from forgetbench.tasks.task import Task


@dataclass(frozen=True)
class TaskAudit:
    """An audit with its inputs."""

    audit: Audit
    """The fitness of each metric, and the findings."""
    ranked: RankedRuns
    """The scorecards of the sentinels, and of the contestants that were run here."""


def audit_task(task: Task, options: RunConfig, watcher: ProgressCallback | None = None) -> TaskAudit:
    """Run the sentinels of a task, and judge every metric by their results.

    A third set of oracles, which is in no band, is trained as well. Contestants that were run here before contribute to
    the agreement between metrics. The names of ranking metrics that fail are stored with the results and in the
    reference bundle: from then on they are shown but do not rank, here and on every server with that bundle.

    Args:
        task: The task.
        options: Folders, device and numbers of workers.
        watcher: Progress callback.

    Raises:
        UsageError: The image set or an option is wrong.
    """
    [done] = run([task], lambda one: parse_methods(["sentinels"], [], one.setting), options, watcher)
    if done.reference is None:
        raise UsageError("An audit needs the oracles: omit --skip-oracles.")
    scorer = options.results.scorer(done.reference.without_audit)
    third = train_audit_oracles(task, options, watcher)
    controls, originals = done.reference.population("controls"), done.reference.population("originals")
    bands, labels = scorer.bands, done.reference.labels

    def scored(population: list[Logits], name: str) -> Scorecard:
        return score(
            population, name=name, references=scorer.references, originals=originals, labels=labels, bands=bands
        )

    cards = {"third": scored(third, "third")}
    line = []
    for share in LINE:
        between = [dict(draw) for draw in interpolate(controls, originals, share)]
        line.append(scored(between, f"{share:.2f}"))
    folders = [*done.runs, *options.results.finished([task.name]).get(done.reference.folder, [])]
    ranked = rank_runs(scorer, [read_run(folder) for folder in dict.fromkeys(folders)])
    names = {RETRAIN: "retrain", NO_UNLEARNING: "none"}
    contestants = []
    for card, manifest in zip(ranked.scorecards, ranked.manifests, strict=True):
        name = names.get(card.name, card.name)
        if card.status == "ok" and name in SENTINELS:
            cards[name] = card
        elif card.status == "ok" and manifest is not None:
            contestants.append(card)
    result = audit(cards, bands, line=line, contestants=contestants)
    _store_fitness(result, done.reference, options)
    return TaskAudit(result, ranked)


def _store_fitness(result: Audit, bundle: ReferenceBundle, options: RunConfig) -> None:
    fitness = AuditFitness(
        task=bundle.card.task,
        task_key=bundle.card.task_key,
        pack=bundle.without_audit.digest,
        code=scoring_fingerprint(),
        unfit={one.metric: "; ".join(one.why) for one in result.metrics if one.metric in result.excluded_metrics},
    )
    options.results.write_fitness(fitness, bundle.card)
    with_fitness(bundle, fitness)
