"""Reference results: recording boards of this package, and comparing a later run with the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from forgetbench.evidence.reference import ReferenceManifest
from forgetbench.evidence.run import Manifest, Record
from forgetbench.reproduction.reference_file import (
    Figures,
    RecalibrationRecord,
    ReferenceBoard,
    ReferenceRow,
    TrialRecord,
)
from forgetbench.runner.costs import SHIPPED
from forgetbench.scoring.ranking import differences, rank
from forgetbench.scoring.scorecards import Effect, MetricBand, Recovery, Scorecard
from forgetbench.scoring.scorer import NO_UNLEARNING, RankedRuns, reference_rows
from forgetbench.scoring.statistics import student_quantile
from forgetbench.store import digest, write_atomically

DIGITS = 6


class Difference(Record):
    """One metric of a row: recorded and measured again."""

    row: str
    """The row's label."""
    metric: str
    """The metric, or ``distance``, or ``status``."""
    recorded: float | None
    """The recorded value."""
    measured: float | None
    """The new value."""
    z: float | None
    """The difference over its expected scatter; 0 if they are equal, None if one is missing."""
    exceeds_tolerance: bool
    """Whether it exceeds the tolerance."""


def board_of(
    ranked: RankedRuns,
    card: ReferenceManifest,
    labels: Sequence[str],
    tried: Mapping[str, Sequence[TrialRecord]],
    *,
    command: str,
    environment: Mapping[str, str],
) -> ReferenceBoard:
    """A ranked board as a reference board. Ranks are among rows with the same budget: those that were tuned, if any.

    Args:
        ranked: The board.
        card: The manifest of its reference bundle.
        labels: The label of each row, without the reference rows.
        tried: Label -> its trials, for the rows that were tuned.
        command: The command that makes the board.
        environment: The environment in which it ran.
    """
    references = reference_rows(card.track)
    pairs = list(zip([*references, *labels], ranked.scorecards, ranked.manifests, strict=True))
    ranked_labels = set(tried) or set(labels)
    equal = [scorecard for label, scorecard, _ in pairs if label in ranked_labels]
    places = {equal[row.index].name: row for row in rank(equal).rows}
    untouched = ranked.scorecards[references.index(NO_UNLEARNING)]
    rows = []
    for label, scorecard, manifest in pairs:
        row = row_of(label, scorecard, manifest).model_copy(
            update={"tried": tuple(tried.get(label, ())), "delta_vs_no_unlearning": _delta(scorecard, untouched)}
        )
        place = places.get(scorecard.name) if label in ranked_labels else None
        if place is not None and place.low is not None and place.high is not None:
            row = row.model_copy(update={"rank": (place.low, place.high)})
        rows.append(row)
    rows[len(references) :] = sorted(rows[len(references) :], key=_order)
    bands = ranked.bands
    return ReferenceBoard(
        task=card.task,
        title=card.title,
        task_key=card.task_key,
        track=card.track,
        seeds=card.seeds,
        draws=card.draws,
        ranking=bands.ranking,
        family_limit=_short(bands.family_limit),
        unranked_reason=bands.unranked_reason,
        bands={name: _band(band) for name, band in sorted(bands.bands.items())},
        classes=card.classes,
        originals=digest(card.originals),
        index=digest(card.index_hashes),
        command=command,
        environment=dict(environment),
        rows=tuple(rows),
    )


def write_board(board: ReferenceBoard, folder: Path = SHIPPED) -> Path:
    """Write a board's file, one line per row."""
    about = board.model_dump(mode="json", exclude={"rows"})
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items()]
    rows = ",\n".join(json.dumps(row.model_dump(mode="json", exclude_defaults=True)) for row in board.rows)
    text = "{" + ",\n".join([*lines, f'"rows": [\n{rows}\n]']) + "}\n"
    path = folder / f"{board.task}.json"
    write_atomically(path, text.encode())
    return path


def compare(row: ReferenceRow, card: Scorecard, *, comparisons: int, changed: bool) -> list[Difference]:
    """A row metric by metric: the difference from the record, in units of the expected scatter.

    The ranking metrics and the distance decide: their pseudo-values are paired by seed, and the tolerance is such that
    a whole comparison exceeds it by chance in one of twenty cases (it is never below the metric's margin of practical
    indifference). The other metrics are informative; their scatter is that of both intervals. If a hyper-parameter
    changed, every difference of any metric exceeds the tolerance.

    Args:
        row: The record.
        card: The new scorecard.
        comparisons: Number of deciding values in all rows that are compared.
        changed: Whether a hyper-parameter differs from the record.
    """
    if card.status != row.status:
        return [
            Difference(row=row.label, metric="status", recorded=None, measured=None, z=None, exceeds_tolerance=True)
        ]
    limit = student_quantile(1 - 0.025 / max(comparisons, 1), max(card.seeds - 1, 1))
    values = _figures(card)
    recorded = dict(row.metrics) | ({"distance": row.distance} if row.distance else {})
    result = []
    for name, figures in recorded.items():
        now = values.get(name, (None, None, None, None))
        same = now[0] == figures[0]
        z = 0.0 if same else _z(row, card, name, figures, now)
        decides = name in row.pseudo or now[0] is None
        exceeds = not same and (changed or (decides and (z is None or abs(z) > limit)))
        result.append(
            Difference(row=row.label, metric=name, recorded=figures[0], measured=now[0], z=z, exceeds_tolerance=exceeds)
        )
    return result


def evidence_digest(manifest: Manifest) -> str:
    """SHA-256 over the hashes of all arrays of a run."""
    arrays = [
        [model.draw, model.seed, name, array.sha256]
        for model in manifest.models
        for name, array in sorted(model.arrays.items())
    ]
    return digest(arrays)


def row_of(label: str, card: Scorecard, manifest: Manifest | None) -> ReferenceRow:
    """A scorecard and its manifest as a row that is kept."""
    found = _figures(card)
    distance = found.pop("distance", None)
    pseudo = {name: card.metrics[name].pseudo_values for name in card.ranking if card.status == "ok"}
    if card.distance is not None:
        pseudo["distance"] = card.distance.pseudo_values
    costs = {name: getattr(card.cost, name) for name in ("flops", "changed", "seconds")}
    row = ReferenceRow(
        label=label,
        status=card.status,
        reason=card.exclusion_reason,
        distance=distance,
        decided_by=card.distance.metric if card.distance else "",
        within_band=card.distance.within_band if card.distance else None,
        p_vs_no_unlearning=_short(card.delta_vs_no_unlearning.p) if card.delta_vs_no_unlearning else None,
        flags=card.flags,
        verdict=card.verdict,
        forgotten=_effect(card.forgotten),
        forgotten_by=card.forgotten.metric,
        harm=_effect(card.harm),
        gate=card.gate.reasons if card.gate else (),
        recalibration=_recalibration(card.recalibration) if card.status == "ok" else None,
        class_accuracy={
            subset: dict(zip(shares, _all(list(shares.values())), strict=True))
            for subset, shares in card.class_accuracy.items()
        },
        metrics=found,
        pseudo={name: _all(values) for name, values in pseudo.items() if values},
        cost={name: _all([value])[0] for name, value in costs.items() if value is not None},
    )
    if manifest is None:
        return row
    return row.model_copy(
        update={
            "parameters": manifest.method.parameters,
            "trials": manifest.cost.tuning_trials,
            "selector": manifest.cost.tuning_selector,
            "fingerprint": manifest.method.fingerprint,
            "evidence": evidence_digest(manifest),
        }
    )


def _effect(effect: Effect) -> Figures | None:
    return None if effect.value is None else (_short(effect.value), _short(effect.low), _short(effect.high), None)


def _recalibration(found: Recovery) -> RecalibrationRecord:
    return RecalibrationRecord(
        before=_effect(found.before),
        after=_effect(found.after),
        recovered=_effect(found.recovered),
        p=_short(found.p),
        recoverable=found.recoverable,
        accuracies={
            subset: (float(f"{change.before:.{DIGITS}g}"), float(f"{change.after:.{DIGITS}g}"))
            for subset, change in found.accuracies.items()
        },
        reason=found.reason,
    )


def _delta(card: Scorecard, untouched: Scorecard) -> tuple[float, ...] | None:
    """Its distance minus No unlearning's, and the paired interval."""
    if card is untouched or card.distance is None:
        return None
    found = differences(card, untouched).get("distance")
    return None if found is None else _all(found)


def _figures(card: Scorecard) -> dict[str, Figures]:
    """Every metric of a scorecard as it is kept, and the distance."""
    found: dict[str, Figures] = {
        name: (_short(value.value), _short(value.low), _short(value.high), _short(value.z))
        for name, value in card.metrics.items()
        if value.value is not None
    }
    if card.distance is not None:
        one = card.distance
        found["distance"] = (_short(one.value), _short(one.low), _short(one.high), None)
    return found


def _z(row: ReferenceRow, card: Scorecard, name: str, then: Figures, now: Figures) -> float | None:
    """The difference over its scatter: paired by seed where there are pseudo-values, else by both intervals."""
    if then[0] is None or now[0] is None:
        return None
    value = card.metrics.get(name)
    band = value.band if value is not None else None
    pseudo = (
        (card.distance.pseudo_values if card.distance else ())
        if name == "distance"
        else value.pseudo_values
        if value
        else ()
    )
    before = row.pseudo.get(name, ())
    if len(before) == len(pseudo) > 1:
        scatter = float(np.std(np.subtract(pseudo, before), ddof=1) / np.sqrt(len(before)))
    else:
        halves = [(high - low) / 2 for _, low, high, _ in (then, now) if low is not None and high is not None]
        scatter = float(np.sqrt(sum(half**2 for half in halves)) / student_quantile(0.975, max(card.seeds - 1, 1)))
        if not halves and band is not None:
            scatter = band.sd * float(np.sqrt(2))
    floor = band.floor if band is not None else 1.0 if name == "distance" else 0.0
    width = max(scatter, floor)
    return _short((now[0] - then[0]) / width) if width > 0 else None


def _order(row: ReferenceRow) -> tuple[bool, bool, float, str]:
    value = row.distance[0] if row.distance and row.distance[0] is not None else float("inf")
    return (row.status != "ok", row.distance is None, value, row.label)


def _band(band: MetricBand) -> tuple[float, float, float, float, float]:
    mean, low, high, sd, floor = _all([band.mean, band.low, band.high, band.sd, band.floor])
    return (mean, low, high, sd, floor)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def _all(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
