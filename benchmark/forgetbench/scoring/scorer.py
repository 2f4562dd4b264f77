"""Scorecards of runs and reference bundles on disk. The command line and the server share this code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from threadpoolctl import threadpool_limits

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.environment import cores
from forgetbench.evidence.reference import ReferenceBundle, check_run
from forgetbench.evidence.run import CostRecord, Manifest, ModelRecord, Run
from forgetbench.fingerprints import scoring_fingerprint
from forgetbench.metrics import Cost, metrics
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.board_rules import Population, with_columns
from forgetbench.metrics.columns import Answers
from forgetbench.metrics.cost import cost_ratio
from forgetbench.scoring import vocabulary
from forgetbench.scoring.recovery import EARLIER_VERSION, NO_BATCH_NORM, NOT_RECORDED
from forgetbench.scoring.score import rank, reference_bands, score, unscored
from forgetbench.scoring.scorecards import Bands, Board, Scorecard, Value
from forgetbench.scoring.variance import with_variance
from forgetbench.store import digest, file_digest, write_atomically
from forgetbench.tasks.task import NOT_THE_BOARD

Document = TypeVar("Document", bound=BaseModel)

NO_UNLEARNING, RETRAIN, PARTIAL = vocabulary.NO_UNLEARNING, vocabulary.RETRAIN, vocabulary.PARTIAL
REFERENCES, ALL_REFERENCES = vocabulary.REFERENCES, vocabulary.ALL_REFERENCES
reference_rows = vocabulary.reference_rows


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores runs against one reference bundle. The bands are computed once.

    Args:
        bundle: The reference bundle.
        cache: Folder of cached bands; those of this bundle and this scoring code are used.
        scorecard_cache: Folder of cached scorecards. One is used if the bundle, the scoring code and the hashes of all
            files of the run are the same, so that a damaged file is noticed as without a cache.
        all_rows: Compute metrics that never rank from all rows, as published, and not from a fixed number of them.
        workers: Rows that are scored at a time, in threads that share the references; None is one for each core.
    """

    bundle: ReferenceBundle
    cache: Path | None = None
    scorecard_cache: Path | None = None
    all_rows: bool = False
    workers: int | None = None
    _loading: RLock = field(default_factory=RLock, init=False, repr=False)

    @cached_property
    def references(self) -> list[Answers]:
        """Logits of the reference oracles, with the columns that all rows share."""
        return with_columns(self.bundle.population("references"), self.bundle.labels)

    @cached_property
    def originals(self) -> list[Answers]:
        """Logits of the originals, with the columns that all rows share."""
        return with_columns(self.bundle.population("originals"), self.bundle.labels)

    @cached_property
    def bands(self) -> Bands:
        """Oracle bands, feasibility, family limit and gate of the board."""
        key = f"{self.bundle.digest}-{scoring_fingerprint()}"
        rows = "-all-rows" if self.all_rows else ""
        path = self.cache / f"bands-{key[:16]}-{key[-16:]}{rows}.json" if self.cache else None
        if path is not None and (cached := _read_cached(Bands, path)) is not None:
            return cached
        bands = reference_bands(
            self.bundle.labels,
            self.references,
            self.bundle.population("controls"),
            self.originals,
            self.bundle.card.track,
            excluded_metrics=self.bundle.excluded_metrics,
            all_rows=self.all_rows,
        )
        if bands.recalibration_reason == NOT_RECORDED:
            reason = EARLIER_VERSION if self.bundle.card.schema_version == 1 else NO_BATCH_NORM
            bands = bands.model_copy(update={"recalibration_reason": reason})
        if path is not None:
            write_atomically(path, bands.model_dump_json().encode())
        return bands

    @property
    def reference_rows(self) -> tuple[str, ...]:
        """The names of the rows that come from the bundle."""
        return reference_rows(self.bundle.card.track)

    def score_reference(self, name: str) -> Scorecard:
        """The scorecard of one of the board's `reference_rows`."""

        def compute() -> Scorecard:
            if name == PARTIAL:
                return self._score(self.bundle.population("partials"), name, Cost(flops=1.0, changed=1.0))
            if name == RETRAIN:
                return self._score(self.bundle.population("controls"), name, Cost(flops=1.0, changed=1.0))
            return self._score(self.originals, name, Cost(flops=0.0, changed=0.0))

        return self._cached([name], compute)

    def score(self, run: Run) -> Scorecard:
        """The scorecard of a run. A run that did not complete has a scorecard with the reason.

        Raises:
            ForgetBenchError: The run does not match the bundle; the message lists all problems.
        """
        files = sorted(path for path in run.folder.rglob("*") if path.is_file()) if self.scorecard_cache else []
        return self._cached([file_digest(path) for path in files], lambda: self._score_run(run))

    def _cached(self, inputs: Sequence[str], compute: Callable[[], Scorecard]) -> Scorecard:
        """The scorecard of these inputs from the cache, or computed and cached."""
        if self.scorecard_cache is None:
            return self._labelled(compute())
        key = digest([self.bundle.digest, scoring_fingerprint(), *inputs, *(["all rows"] if self.all_rows else [])])
        path = self.scorecard_cache / f"{key}.json"
        if (cached := _read_cached(Scorecard, path)) is not None:
            return cached
        card = self._labelled(compute())
        write_atomically(path, card.model_dump_json().encode())
        return card

    def _labelled(self, card: Scorecard) -> Scorecard:
        """A scorecard that says, wherever it is shown, that it comes from a development bundle."""
        if self.bundle.card.kind != "development":
            return card
        return card.model_copy(update={"flags": (*card.flags, NOT_THE_BOARD)})

    def _score_run(self, run: Run) -> Scorecard:
        manifest = run.manifest
        cost = cost_of(manifest.cost, manifest.models).model_copy(update={"requests": self.bundle.card.requests or 1})
        if manifest.status != "ok":
            return unscored(manifest.row, manifest.status, manifest.reason, self.bands, cost)
        problems = check_run(run, self.bundle)
        if problems:
            raise ForgetBenchError(f"{run.folder}: " + "; ".join(problems))
        counts = self.bundle.card.draws, self.bundle.card.seeds
        own = run.originals(*counts)
        card = self._score(run.population(*counts), manifest.row, cost, own)
        values = {**card.metrics, **_unavailable()}
        card = card.model_copy(update={"metrics": {name: values[name] for name in sorted(values)}})
        if own is None:
            return card
        return card.model_copy(
            update={"own_originals": float(accuracy_by_seed(own, self.bundle.labels, "test").mean())}
        )

    def _score(self, population: Population, name: str, cost: Cost, originals: Population | None = None) -> Scorecard:
        with self._loading:  # rows that are scored at the same time share them
            references, untouched = self.references, self.originals
        return score(
            population,
            name=name,
            references=references,
            originals=originals or untouched,
            labels=self.bundle.labels,
            bands=self.bands,
            cost=cost,
        )


def _read_cached(model: type[Document], path: Path) -> Document | None:
    """A document from a cache; None if there is none or it is damaged, so that it is computed again."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@dataclass(frozen=True)
class RankedRuns:
    """A board in memory: scorecards, their manifests, and the ranking."""

    scorecards: tuple[Scorecard, ...]
    """The reference rows, then the contestants in the given order."""
    manifests: tuple[Manifest | None, ...]
    """The manifest of each; None for the reference rows."""
    board: Board
    """The ranking of the contestants (sentinels and the reference rows are shown, but not ranked)."""
    bands: Bands
    """The board's bands."""

    @property
    def references(self) -> int:
        """Number of reference rows."""
        return len(reference_rows(self.bands.track))


def rank_runs(scorer: Scorer, runs: Sequence[Run], repeats: Sequence[Run] = ()) -> RankedRuns:
    """Score runs and rank the contestants among them. A run that does not match the bundle is a failed row.

    Rows are scored at the same time, in threads: they share the columns of the references, which the two rows of every
    board have read before. A row does not depend on the others, so their number changes nothing.

    Args:
        scorer: The scorer of the board.
        runs: One run of each row.
        repeats: Further runs of rows with other seeds of the method, which split the variance of their row.
    """
    workers, bands = scorer.workers or cores(), scorer.bands
    with threadpool_limits(limits=1), ThreadPoolExecutor(workers) as pool:  # limits hold for the whole process
        references = [scorer.score_reference(name) for name in scorer.reference_rows]
        cards, others = (list(pool.map(partial(_score_or_fail, scorer), part)) for part in (runs, repeats))
    if repeats:
        cards = [with_variance(card, [other for other in others if other.name == card.name]) for card in cards]
    ranked = [card for card, run in zip(cards, runs, strict=True) if competes(run.manifest)]
    manifests = (*(None for _ in references), *(run.manifest for run in runs))
    return RankedRuns((*references, *cards), manifests, rank(ranked), bands)


def _score_or_fail(scorer: Scorer, run: Run) -> Scorecard:
    try:
        return scorer.score(run)
    except ForgetBenchError as error:
        cost = cost_of(run.manifest.cost, run.manifest.models)
        return unscored(run.manifest.row, "failed", str(error), scorer.bands, cost)


def competes(manifest: Manifest) -> bool:
    """Whether a row is ranked: it is not a sentinel, and unlearned from the board's own originals."""
    return not manifest.method.sentinel and not manifest.method.changes_training


def _unavailable() -> dict[str, Value]:
    """The metrics that no board can compute, with the reasons that they declare."""
    specs = [metrics.get(name) for name in metrics.names()]
    return {spec.name: Value(reason=spec.unavailable) for spec in specs if spec.unavailable}


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
