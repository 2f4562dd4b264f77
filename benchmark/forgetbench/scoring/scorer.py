"""Runs and packs on disk to scorecards: what command line and server both call, so that they agree to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import ReferenceBundle, check_run
from forgetbench.evidence.run import CostRecord, Manifest, ModelRecord, Run
from forgetbench.fingerprints import scoring_fingerprint
from forgetbench.metrics import Cost
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.cost import cost_ratio
from forgetbench.metrics.erasure import anamnesis_index
from forgetbench.scoring.derived import mean_over_seeds
from forgetbench.scoring.score import rank, reference_bands, score, unscored
from forgetbench.scoring.scorecards import Bands, Board, Scorecard, Value
from forgetbench.store import digest, file_digest, write_atomically

BEYOND_RECORDS = {
    "ulira": Value(reason="not computable: the originals of this task are not trained on random halves"),
    "zrf": Value(reason="not computable: a board holds no answers of a random network"),
    "layer-distance": Value(
        reason="not computable: oracles have initializations of their own, between which it measures nothing else"
    ),
}
"""Metrics of the literature that no record of a board can tell, and why."""
NO_UNLEARNING = "No unlearning"
RETRAIN = "Retrain"
REFERENCES = (RETRAIN, NO_UNLEARNING)
"""The two rows that stand on every board: the control oracles, and the originals as they are."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores runs against one pack. The bands are computed once, and kept in ``cache`` if one is given.

    Args:
        pack: What runs are scored against.
        cache: Folder for the bands; stored bands are used only if they come from this bundle and this code.
        kept: A folder for scorecards; one is used again only if it came from this pack, this code and the very files of
            the run, so that a file that was damaged since is found as it is without.
    """

    pack: ReferenceBundle
    cache: Path | None = None
    kept: Path | None = None

    @cached_property
    def references(self) -> list[Logits]:
        """The reference oracles' answers."""
        return self.pack.population("references")

    @cached_property
    def originals(self) -> list[Logits]:
        """The originals' answers."""
        return self.pack.population("originals")

    @cached_property
    def bands(self) -> Bands:
        """Oracle bands, feasibility, family limit and gate of the board."""
        made_of = f"{self.pack.digest}-{scoring_fingerprint()}"
        path = self.cache / f"bands-{made_of[:16]}-{made_of[-16:]}.json" if self.cache else None
        if path is not None and path.is_file():
            return Bands.model_validate_json(path.read_bytes())
        bands = reference_bands(
            self.pack.labels,
            self.references,
            self.pack.population("controls"),
            self.originals,
            self.pack.card.track,
            excluded_metrics=self.pack.excluded_metrics,
        )
        if path is not None:
            write_atomically(path, bands.model_dump_json().encode())
        return bands

    def score_reference(self, name: str) -> Scorecard:
        """The scorecard of Retrain or of No unlearning."""

        def scored() -> Scorecard:
            if name == RETRAIN:
                return self._score(self.pack.population("controls"), name, Cost(flops=1.0, changed=1.0))
            return self._score(self.originals, name, Cost(flops=0.0, changed=0.0))

        return self._keep([name], scored)

    def score(self, run: Run) -> Scorecard:
        """The scorecard of a run. A run that did not complete is a row with its reason.

        Raises:
            ForgetBenchError: The run is no evidence for this pack's task; the message lists everything that is wrong.
        """
        files = sorted(path for path in run.folder.rglob("*") if path.is_file()) if self.kept else []
        return self._keep([file_digest(path) for path in files], lambda: self._score_run(run))

    def _keep(self, made_of: Sequence[str], scored: Callable[[], Scorecard]) -> Scorecard:
        """A scorecard from the folder of those that are kept, or made and kept."""
        if self.kept is None:
            return scored()
        key = digest([self.pack.digest, scoring_fingerprint(), *made_of])
        path = self.kept / f"{key}.json"
        if path.is_file():
            return Scorecard.model_validate_json(path.read_bytes())
        card = scored()
        write_atomically(path, card.model_dump_json().encode())
        return card

    def _score_run(self, run: Run) -> Scorecard:
        manifest = run.manifest
        cost = cost_of(manifest.cost, manifest.models).model_copy(update={"requests": self.pack.card.requests or 1})
        if manifest.status != "ok":
            return unscored(manifest.row, manifest.status, manifest.reason, self.bands, cost)
        problems = check_run(run, self.pack)
        if problems:
            raise ForgetBenchError(f"{run.folder}: " + "; ".join(problems))
        counts = self.pack.card.draws, self.pack.card.seeds
        own = run.originals(*counts)
        card = self._score(run.population(*counts), manifest.row, cost, own)
        values = {**card.metrics, **relearned(manifest.models), **BEYOND_RECORDS}
        card = card.model_copy(update={"metrics": {name: values[name] for name in sorted(values)}})
        if own is None:
            return card
        return card.model_copy(update={"own_originals": float(accuracy_by_seed(own, self.pack.labels, "test").mean())})

    def _score(
        self, population: list[Logits], name: str, cost: Cost, originals: list[Logits] | None = None
    ) -> Scorecard:
        return score(
            population,
            name=name,
            references=self.references,
            originals=originals or self.originals,
            labels=self.pack.labels,
            bands=self.bands,
            cost=cost,
        )


@dataclass(frozen=True)
class RankedRuns:
    """A board in memory: scorecards, their manifests where they have one, and the ranking."""

    scorecards: tuple[Scorecard, ...]
    """The reference rows first, then the contestants as they were given."""
    manifests: tuple[Manifest | None, ...]
    """The manifest of each; None for the reference rows."""
    board: Board
    """The ranking of the contestants (sentinels and the reference rows are shown, but not ranked)."""
    bands: Bands
    """The board's bands."""


def rank_runs(scorer: Scorer, runs: Sequence[Run]) -> RankedRuns:
    """Score runs and rank the contestants among them. A run that is no evidence for the task is a failed row."""
    references = [scorer.score_reference(name) for name in REFERENCES]
    cards = [_score_or_say(scorer, run) for run in runs]
    ranked = [card for card, run in zip(cards, runs, strict=True) if contends(run.manifest)]
    manifests = (*(None for _ in references), *(run.manifest for run in runs))
    return RankedRuns((*references, *cards), manifests, rank(ranked), scorer.bands)


def _score_or_say(scorer: Scorer, run: Run) -> Scorecard:
    try:
        return scorer.score(run)
    except ForgetBenchError as error:
        cost = cost_of(run.manifest.cost, run.manifest.models)
        return unscored(run.manifest.row, "failed", str(error), scorer.bands, cost)


def contends(manifest: Manifest) -> bool:
    """Whether a row takes a place: not a sentinel, and unlearned from the board's own originals."""
    return not manifest.method.sentinel and not manifest.method.changes_training


def relearned(models: Sequence[ModelRecord]) -> dict[str, Value]:
    """Relearn time and anamnesis index, as recorded by the run, over all models.

    A model that did not come back by the last step is censored: a bound is given in words, without mean and interval.
    """
    names = ("relearn", "relearn.back", "relearn.oracle", "relearn.oracle.back")
    if not all(name in model.measured for model in models for name in names):
        return dict.fromkeys(
            ("relearn", "ain"), Value(reason="not measured: `run --measure-relearning` does, on erase boards")
        )
    seeds = sorted({model.seed for model in models})
    mine, oracle = (
        np.array([np.mean([model.measured[name] for model in models if model.seed == seed]) for seed in seeds])
        for name in ("relearn", "relearn.oracle")
    )
    gone, gone_oracle = (
        sum(not model.measured[name] for model in models) for name in ("relearn.back", "relearn.oracle.back")
    )
    lost = f"{gone} of {len(models)} unlearned models never came back"
    time = Value(reason=f"censored: at least {mine.mean():.0f} steps, {lost}") if gone else mean_over_seeds(mine)
    index = anamnesis_index([*mine], [*oracle])
    if not gone and not gone_oracle:
        return {"relearn": time, "ain": Value(value=index)}
    lost_oracle = f"{gone_oracle} of {len(models)} oracles never came back"
    if gone and gone_oracle:
        return {"relearn": time, "ain": Value(reason=f"censored: {lost}, {lost_oracle}")}
    bound = f"at least {index:.2f}, {lost}" if gone else f"at most {index:.2f}, {lost_oracle}"
    return {"relearn": time, "ain": Value(reason=f"censored: {bound}")}


def cost_of(record: CostRecord, models: Sequence[ModelRecord]) -> Cost:
    """A manifest's costs as shares of retraining's."""
    changed = [model.share_changed for model in models if model.share_changed is not None]
    return Cost(
        flops=_share(record.flops, record.retrain_flops),
        training=_share(record.training_flops, record.retrain_flops),
        wall=_share(record.seconds, record.retrain_seconds),
        changed=sum(changed) / len(changed) if changed else None,
        seconds=record.seconds,
        trials=record.tuning_trials,
    )


def _share(value: float | None, of: float | None) -> float | None:
    return cost_ratio(value, of) if value is not None and of else None
