"""Streams of requests: what is forgotten after each request, and whether it comes back. Shown, and never ranked.

A run's own files hold the model after the last request, which is what is scored; ``steps/`` holds those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetbench.evidence.arrays import Array, Logits, stack
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import Run
from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.erasure import h_mean_by_seed, reemergence
from forgetbench.reporting.tables import Table, board_table
from forgetbench.scoring.scorer import NO_UNLEARNING, RETRAIN, RankedRuns, cost_of

FIRST = 0
"""Place of the originals in every curve: before the first request."""


@dataclass(frozen=True, eq=False)
class StreamCurves:
    """One row of a stream's board, request by request. NaN where there is no such model (an oracle before the end)."""

    name: str
    """The row's name."""
    requested: FloatArray
    """(R + 1, R, S) accuracy before the first request and after each, on what every request asks for, by seed.

    On test images of the classes that it takes away, where it takes any; on its own training images otherwise.
    """
    kept: FloatArray
    """(R + 1, S) accuracy on the test images that nobody has asked away so far."""
    erased: bool
    """Whether the requests take classes away, so that dropping to nothing is what is wanted."""
    flops: float | None
    """FLOPs of a request over retraining's, the mean of all requests."""

    @property
    def asked(self) -> FloatArray:
        """(R, S) accuracy on what a request asks for, straight after it."""
        requests = self.requested.shape[1]
        return np.stack([self.requested[step + 1, step] for step in range(requests)])

    @property
    def earlier(self) -> FloatArray:
        """(R, S) accuracy after each request on what the requests before it asked for; NaN after the first."""
        found = np.full_like(self.asked, np.nan)
        for step in range(1, len(found)):
            found[step] = self.requested[step + 1, :step].mean(axis=0)
        return found

    @property
    def h_mean(self) -> FloatArray:
        """(R, S) harmonic mean of the accuracy kept and that dropped on the classes asked for; NaN without classes.

        The drop is that from the original (Zhao et al. 2024).
        """
        found, before = np.full_like(self.asked, np.nan), self.requested[FIRST]
        for step, after in enumerate(self.asked):
            if self.erased and np.isfinite(after).all():
                found[step] = h_mean_by_seed(self.kept[step + 1], before[step], after)
        return found

    @property
    def reemergence(self) -> float | None:
        """Largest rise of accuracy on what a request asked for, after it; by seed, then averaged."""
        _, requests, seeds = self.requested.shape
        if not np.isfinite(self.requested).all():
            return None
        rises = [
            max(reemergence(self.requested[step + 1 :, step, seed].tolist()) for step in range(requests))
            for seed in range(seeds)
        ]
        return float(np.mean(rises))


def stream_curves(pack: ReferenceBundle, runs: Sequence[Run]) -> list[StreamCurves]:
    """The rows of a stream's board: Retrain (after the last request), No unlearning, then the runs that completed.

    Raises:
        ForgetBenchError: A file of a run is missing or damaged.
    """
    requests = pack.card.requests
    originals = pack.population("originals")
    unknown = [None] * (requests - 1)
    rows = [
        _curves(RETRAIN, pack, [originals, *unknown, pack.population("controls")], 1.0),
        _curves(NO_UNLEARNING, pack, [originals] * (requests + 1), 0.0),
    ]
    rows += [_curves_of(pack, run, originals) for run in runs if run.manifest.status == "ok" and run.manifest.steps]
    return rows


def tables_of(standing: RankedRuns, pack: ReferenceBundle, runs: Sequence[Run]) -> list[Table]:
    """A board's table, and that of its requests where the task is a stream.

    Raises:
        ForgetBenchError: A file of a run is missing or damaged.
    """
    requests = stream_table(pack, runs)
    return [board_table(standing, pack.card), *([requests] if requests else [])]


def stream_table(pack: ReferenceBundle, runs: Sequence[Run]) -> Table | None:
    """A stream, request by request; None where the task is no stream.

    Raises:
        ForgetBenchError: A file of a run is missing or damaged.
    """
    if not pack.card.requests:
        return None
    rows, records, erased = [], list[dict[str, Any]](), False
    for curves in stream_curves(pack, runs):
        erased = curves.erased
        told = [_record(curves, step) for step in range(pack.card.requests)]
        records += told
        rows += [_line(record) for record in told if record["asked"] is not None]
    notes = (
        "asked: accuracy on what the request takes away"
        + (" (test images of its classes); " if erased else " (its training images); ")
        + "earlier: on what the requests before it took away; kept: on test images that nobody has asked away so far.",
        "Re-emergence is the largest rise of accuracy on what a request took away, by seed, then averaged. Only the "
        "model after the last request is scored and ranked; FLOPs are the mean of a request over retraining's.",
    )
    header = ("method", "request", "kept", "asked", "earlier", "H-mean", "re-emergence", "FLOPs")
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
    """Curves from the models before the first request and after each, None where there are none."""
    requests, seeds = pack.card.requests, pack.card.seeds
    requested = np.full((requests + 1, requests, seeds), np.nan)
    kept = np.full((requests + 1, seeds), np.nan)
    for place, population in enumerate(populations):
        if population is None:
            continue
        draws = list(zip(population, pack.labels, pack.requests, strict=True))
        requested[place] = np.mean([_requested(*draw, requests) for draw in draws], axis=0)
        kept[place] = np.mean([_kept(*draw, place) for draw in draws], axis=0)
    return StreamCurves(name, requested, kept, "test-forgotten" in pack.requests[0], flops)


def _requested(answers: Logits, labels: Mapping[str, Array], numbers: Mapping[str, Array], requests: int) -> FloatArray:
    """(R, S) accuracy on what every request asks for."""
    subset = "test-forgotten" if "test-forgotten" in numbers else "forget"
    rows = [numbers[subset] == request for request in range(requests)]
    return np.stack([accuracy(answers[subset][:, mine], labels[subset][mine]) for mine in rows])


def _kept(answers: Logits, labels: Mapping[str, Array], numbers: Mapping[str, Array], place: int) -> FloatArray:
    """(S,) accuracy on the test rows that are not asked away before the first request, or after request ``place``."""
    parts = [(answers["test"], labels["test"])]
    if "test-forgotten" in numbers:
        later = numbers["test-forgotten"] >= place
        parts.append((answers["test-forgotten"][:, later], labels["test-forgotten"][later]))
    together = np.concatenate([part for part, _ in parts], axis=1), np.concatenate([truth for _, truth in parts])
    found: FloatArray = accuracy(*together)
    return found


def _record(curves: StreamCurves, step: int) -> dict[str, Any]:
    last = step + 1 == len(curves.asked)
    return {
        "method": curves.name,
        "request": step + 1,
        "kept": _mean(curves.kept[step + 1]),
        "asked": _mean(curves.asked[step]),
        "earlier": _mean(curves.earlier[step]),
        "h-mean": _mean(curves.h_mean[step]),
        "by_request": [_mean(values) for values in curves.requested[step + 1]],
        "before": _mean(curves.requested[FIRST, step]),
        "re-emergence": curves.reemergence if last else None,
        "flops_share": curves.flops if last else None,
    }


def _line(record: Mapping[str, Any]) -> tuple[str, ...]:
    shares = [record[name] for name in ("kept", "asked", "earlier", "h-mean", "re-emergence", "flops_share")]
    return (record["method"], str(record["request"]), *(_percent(share) for share in shares))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _mean(values: FloatArray) -> float | None:
    mean = float(values.mean())
    return mean if np.isfinite(mean) else None
