"""The audit of a task: sentinels are made and scored by every metric, and metrics judged by where they put them."""

from __future__ import annotations

from dataclasses import dataclass

from forgetbench.auditing.criteria import LINE, Audit, audit, interpolate
from forgetbench.auditing.expectations import SENTINELS
from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import AuditVerdict, ReferenceBundle, with_verdict
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
class Audited:
    """An audit with what it was made from."""

    audit: Audit
    """The judgment."""
    standing: RankedRuns
    """The scorecards of the sentinels, and of the contestants that were run here."""


def audit_task(task: Task, options: RunConfig, watcher: ProgressCallback | None = None) -> Audited:
    """Test every metric of a task with sentinels.

    A third set of oracles, which no band uses, is trained as well. Contestants that were run on this machine before
    contribute to the agreement between metrics. The verdict on ranking metrics is stored with the results and in the
    reference bundle: unfit ones are shown but no longer rank, here and wherever the bundle is installed.

    Args:
        task: The task.
        options: Where and how jobs run.
        watcher: Progress callback.

    Raises:
        UsageError: The image set or an option is wrong.
    """
    [done] = run([task], lambda one: parse_methods(["sentinels"], [], one.network.name), options, watcher)
    if done.reference is None:
        raise UsageError("an audit needs the oracles; omit --skip-oracles.")
    judge = options.results.scorer(done.reference.without_audit)
    third = train_audit_oracles(task, options, watcher)
    controls, originals = done.reference.population("controls"), done.reference.population("originals")
    bands, labels = judge.bands, done.reference.labels

    def scored(population: list[Logits], name: str) -> Scorecard:
        return score(
            population, name=name, references=judge.references, originals=originals, labels=labels, bands=bands
        )

    cards = {"third": scored(third, "third")}
    line = []
    for share in LINE:
        between = [dict(draw) for draw in interpolate(controls, originals, share)]
        line.append(scored(between, f"{share:.2f}"))
    folders = [*done.runs, *options.results.finished([task.name]).get(done.reference.folder, [])]
    standing = rank_runs(judge, [read_run(folder) for folder in dict.fromkeys(folders)])
    names = {RETRAIN: "retrain", NO_UNLEARNING: "none"}
    contestants = []
    for card, manifest in zip(standing.scorecards, standing.manifests, strict=True):
        name = names.get(card.name, card.name)
        if card.status == "ok" and name in SENTINELS:
            cards[name] = card
        elif card.status == "ok" and manifest is not None:
            contestants.append(card)
    found = audit(cards, bands, line=line, contestants=contestants)
    _keep(found, done.reference, options)
    return Audited(found, standing)


def _keep(found: Audit, pack: ReferenceBundle, options: RunConfig) -> None:
    verdict = AuditVerdict(
        task=pack.card.task,
        task_key=pack.card.task_key,
        pack=pack.without_audit.digest,
        code=scoring_fingerprint(),
        unfit={one.metric: "; ".join(one.why) for one in found.metrics if one.metric in found.excluded_metrics},
    )
    options.results.write_verdict(verdict, pack.card)
    with_verdict(pack, verdict)
