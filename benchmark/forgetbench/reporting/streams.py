"""Streams of requests: accuracy after each request, and whether forgotten data comes back. Shown, never ranked.

The files of a run hold the model after the last request, which is scored; ``steps/`` holds those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forgetbench.evidence.arrays import Array, Logits, stack
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import Run
from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.erasure import h_mean_by_seed, reemergence
from forgetbench.reporting.table_writer import Record, Table
from forgetbench.reporting.tables import board_table
from forgetbench.scoring.scorer import NO_UNLEARNING, RETRAIN, RankedRuns, cost_of

BEFORE = 0
"""Index of the originals in every curve: before the first request."""


@dataclass(frozen=True, eq=False)
class StreamCurves:
    """One row of a stream's board, request by request. NaN without a model (oracles before the last request)."""

    name: str
    """The row's name."""
    requested: FloatArray
    """(R + 1, R, S) accuracy before the first request and after each, on the data of every request, by seed.

    Measured on test images if requests remove classes, on the requested training images otherwise.
    """
    retained: FloatArray
    """(R + 1, S) accuracy on the test images that no request has named so far."""
    erased: bool
    """Whether the requests remove classes, so that their accuracy should drop to 0."""
    flops: float | None
    """FLOPs of a request over those of retraining, averaged over the requests."""

    @property
    def current(self) -> FloatArray:
        """(R, S) accuracy on the data of a request, right after it."""
        requests = self.requested.shape[1]
        return np.stack([self.requested[step + 1, step] for step in range(requests)])

    @property
    def earlier(self) -> FloatArray:
        """(R, S) accuracy after each request on the data of the requests before it; NaN after the first."""
        accuracies = np.full_like(self.current, np.nan)
        for step in range(1, len(accuracies)):
            accuracies[step] = self.requested[step + 1, :step].mean(axis=0)
        return accuracies

    @property
    def h_mean(self) -> FloatArray:
        """(R, S) harmonic mean of the retained accuracy and the drop on the requested classes; NaN without classes.

        The drop is measured from the original (Zhao et al. 2024).
        """
        means, before = np.full_like(self.current, np.nan), self.requested[BEFORE]
        for step, after in enumerate(self.current):
            if self.erased and np.isfinite(after).all():
                means[step] = h_mean_by_seed(self.retained[step + 1], before[step], after)
        return means

    @property
    def reemergence(self) -> float | None:
        """Largest rise of accuracy on the data of a request after it, averaged over seeds."""
        _, requests, seeds = self.requested.shape
        if not np.isfinite(self.requested).all():
            return None
        rises = [
            max(reemergence(self.requested[step + 1 :, step, seed].tolist()) for step in range(requests))
            for seed in range(seeds)
        ]
        return float(np.mean(rises))


def stream_curves(pack: ReferenceBundle, runs: Sequence[Run]) -> list[StreamCurves]:
    """The rows of a stream's board: Retrain (after the last request), No unlearning, then the completed runs.

    Raises:
        ForgetBenchError: A file of a run is missing or damaged.
    """
    requests = pack.card.requests
    originals = pack.population("originals")
    missing = [None] * (requests - 1)
    rows = [
        _curves(RETRAIN, pack, [originals, *missing, pack.population("controls")], 1.0),
        _curves(NO_UNLEARNING, pack, [originals] * (requests + 1), 0.0),
    ]
    rows += [_curves_of(pack, run, originals) for run in runs if run.manifest.status == "ok" and run.manifest.steps]
    return rows


def tables_of(ranked: RankedRuns, pack: ReferenceBundle, runs: Sequence[Run]) -> list[Table]:
    """The table of a board, and that of its requests if the task is a stream.

    Raises:
        ForgetBenchError: A file of a run is missing or damaged.
    """
    requests = stream_table(pack, runs)
    return [board_table(ranked, pack.card), *([requests] if requests else [])]


def stream_table(pack: ReferenceBundle, runs: Sequence[Run]) -> Table | None:
    """The table of a stream, request by request; None for other tasks.

    Raises:
        ForgetBenchError: A file of a run is missing or damaged.
    """
    if not pack.card.requests:
        return None
    rows, records, erased = [], list[Record](), False
    for curves in stream_curves(pack, runs):
        erased = curves.erased
        steps = [_record(curves, step) for step in range(pack.card.requests)]
        records += steps
        rows += [_line(record) for record in steps if record["requested"] is not None]
    notes = (
        "requested: accuracy on the data of the request"
        + (" (test images of its classes); " if erased else " (its training images); ")
        + "earlier: on the data of the requests before it; retained: on test images that no request has named so far.",
        "Re-emergence is the largest rise of accuracy on the data of a request after it, averaged over seeds. Only the "
        "model after the last request is scored and ranked; FLOPs are the mean of a request over those of retraining.",
    )
    header = ("method", "request", "retained", "requested", "earlier", "H-mean", "re-emergence", "FLOPs")
    return Table(f"{pack.card.task}: after each request", header, tuple(rows), notes, tuple(records))


def _curves_of(pack: ReferenceBundle, run: Run, originals: list[Logits]) -> StreamCurves:
    draws, seeds = pack.card.draws, pack.card.seeds
    records = {(record.step, record.draw, record.seed): record for record in run.manifest.steps}
    steps = [
        [stack([run.answers(records[step, draw, seed]) for seed in range(seeds)]) for draw in range(draws)]
        for step in range(pack.card.requests - 1)
    ]
    own = run.originals(draws, seeds)
    cost = cost_of(run.manifest.cost, run.manifest.models)
    return _curves(run.manifest.row, pack, [own or originals, *steps, run.population(draws, seeds)], cost.flops)


def _curves(
    name: str, pack: ReferenceBundle, populations: Sequence[Sequence[Logits] | None], flops: float | None
) -> StreamCurves:
    """Curves from the models before the first request and after each; None for steps without models."""
    requests, seeds = pack.card.requests, pack.card.seeds
    requested = np.full((requests + 1, requests, seeds), np.nan)
    retained = np.full((requests + 1, seeds), np.nan)
    for step, population in enumerate(populations):
        if population is None:
            continue
        draws = list(zip(population, pack.labels, pack.requests, strict=True))
        requested[step] = np.mean([_requested(*draw, requests) for draw in draws], axis=0)
        retained[step] = np.mean([_retained(*draw, step) for draw in draws], axis=0)
    return StreamCurves(name, requested, retained, "test-forgotten" in pack.requests[0], flops)


def _requested(logits: Logits, labels: Mapping[str, Array], numbers: Mapping[str, Array], requests: int) -> FloatArray:
    """(R, S) accuracy on the data of every request."""
    subset = "test-forgotten" if "test-forgotten" in numbers else "forget"
    rows = [numbers[subset] == request for request in range(requests)]
    return np.stack([accuracy(logits[subset][:, chosen], labels[subset][chosen]) for chosen in rows])


def _retained(logits: Logits, labels: Mapping[str, Array], numbers: Mapping[str, Array], step: int) -> FloatArray:
    """(S,) accuracy on the test rows that the first ``step`` requests do not name."""
    parts = [(logits["test"], labels["test"])]
    if "test-forgotten" in numbers:
        later = numbers["test-forgotten"] >= step
        parts.append((logits["test-forgotten"][:, later], labels["test-forgotten"][later]))
    merged = np.concatenate([part for part, _ in parts], axis=1), np.concatenate([truth for _, truth in parts])
    accuracies: FloatArray = accuracy(*merged)
    return accuracies


def _record(curves: StreamCurves, step: int) -> Record:
    last = step + 1 == len(curves.current)
    return {
        "method": curves.name,
        "request": step + 1,
        "retained": _mean(curves.retained[step + 1]),
        "requested": _mean(curves.current[step]),
        "earlier": _mean(curves.earlier[step]),
        "h-mean": _mean(curves.h_mean[step]),
        "by_request": [_mean(values) for values in curves.requested[step + 1]],
        "before": _mean(curves.requested[BEFORE, step]),
        "re-emergence": curves.reemergence if last else None,
        "flops_share": curves.flops if last else None,
    }


def _line(record: Record) -> tuple[str, ...]:
    shares = [record[name] for name in ("retained", "requested", "earlier", "h-mean", "re-emergence", "flops_share")]
    return (str(record["method"]), str(record["request"]), *map(_percent, shares))


def _percent(share: object) -> str:
    return f"{100 * share:.1f} %" if isinstance(share, float) else "–"


def _mean(values: FloatArray) -> float | None:
    mean = float(values.mean())
    return mean if np.isfinite(mean) else None
