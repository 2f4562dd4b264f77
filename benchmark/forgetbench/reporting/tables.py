"""The table of a board."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from forgetbench.evidence.reference import ReferenceManifest
from forgetbench.evidence.run import CHANGED_STATE
from forgetbench.metrics import metrics, ranking_metrics
from forgetbench.reporting.table_writer import Record, Table
from forgetbench.scoring.scorecards import Board, BoardRow, Effect, Scorecard, Value
from forgetbench.scoring.scorer import NO_UNLEARNING, PARTIAL, RankedRuns, competes
from forgetbench.scoring.vocabulary import RANK_INTERVALS, TRAINING_SEEDS_ONLY

EXTRA = ("accuracy.test", "attack-success", "accuracy.test-triggered")
"""Metrics that a table shows next to the ranking ones; records hold every metric."""


class Row(NamedTuple):
    """A row of a board."""

    card: Scorecard
    """Its scorecard."""
    place: BoardRow | None
    """Its rank; None for the reference rows and for rows that are not ranked by design."""


def rows_in_order(ranked: RankedRuns) -> list[Row]:
    """Ranked rows by rank, the reference rows, then rows without a rank."""
    contestants = [
        index for index, manifest in enumerate(ranked.manifests) if manifest is not None and competes(manifest)
    ]
    places = {contestants[row.index]: row for row in ranked.board.rows}
    order = [index for index, row in places.items() if row.rank is not None]
    order += [index for index, manifest in enumerate(ranked.manifests) if manifest is None]
    order += [index for index in range(len(ranked.manifests)) if index not in order]
    return [Row(ranked.scorecards[index], places.get(index)) for index in order]


def board_table(ranked: RankedRuns, card: ReferenceManifest) -> Table:
    """The table of a board: ranked rows, the reference rows, then rows without a rank."""
    computed = _computed(ranked)
    shown = [name for name in (*(spec.name for spec in ranking_metrics(card.track)), *EXTRA) if name in computed]
    rows, records = [], []
    for scorecard, place in rows_in_order(ranked):
        rows.append(
            (
                _place(place),
                scorecard.name,
                _distance(scorecard),
                scorecard.verdict or "–",
                _effect(scorecard.forgotten, " %", 0),
                _effect(scorecard.harm, "", 1),
                *(_cell(name, scorecard.metrics.get(name)) for name in shown),
                _percent(scorecard.cost.flops),
                ", ".join(scorecard.flags),
            )
        )
        records.append(_record(scorecard, place, sorted(computed)))
    header = (
        "rank",
        "method",
        "distance",
        "verdict",
        "forgotten",
        "harm, points",
        *(_head(name) for name in shown),
        "FLOPs",
        "flags",
    )
    return Table(f"{card.task}: {card.title}", header, tuple(rows), _notes(ranked, card), tuple(records))


def _computed(ranked: RankedRuns) -> set[str]:
    return {name for card in ranked.scorecards for name, value in card.metrics.items() if value.value is not None}


def _head(name: str) -> str:
    return f"{name} {metrics.get(name).arrow}"


def _place(row: BoardRow | None) -> str:
    if row is None or row.rank is None:
        return "–"
    return str(row.low) if row.low == row.high else f"{row.low}–{row.high}"


def _distance(card: Scorecard) -> str:
    if card.distance is None:
        return "–"
    value, low, high = card.distance.value, card.distance.low, card.distance.high
    half = f" ±{(high - low) / 2:.1f}" if low is not None and high is not None else ""
    return f"{value:.1f}{half}{' in' if card.distance.within_band else ''}"


def _effect(effect: Effect, unit: str, decimals: int) -> str:
    """A share in percent or points, with half of its 95 % interval."""
    if effect.value is None:
        return "–"
    half = (
        f" ±{(effect.high - effect.low) * 50:.{decimals}f}"
        if effect.low is not None and effect.high is not None
        else ""
    )
    return f"{effect.value * 100:.{decimals}f}{half}{unit}"


def _cell(name: str, value: Value | None) -> str:
    if value is None or value.value is None:
        return "–"
    z = f" (z {value.z:+.1f})" if value.z is not None else ""
    return f"{metrics.get(name).display.text(value.value)}{z}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _effect_record(name: str, effect: Effect) -> Record:
    return {name: effect.value, f"{name}_low": effect.low, f"{name}_high": effect.high}


def _record(card: Scorecard, place: BoardRow | None, shown: Sequence[str]) -> Record:
    delta = card.delta_vs_no_unlearning
    metric_values: dict[str, float | None] = {}
    for name in shown:
        value = card.metrics.get(name, Value())
        metric_values |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high, f"{name}_z": value.z}
    return {
        "method": card.name,
        "status": card.status,
        "rank_low": place.low if place else None,
        "rank_high": place.high if place else None,
        "detectable": place.detectable if place else None,
        "distance": card.distance.value if card.distance else None,
        "distance_low": card.distance.low if card.distance else None,
        "distance_high": card.distance.high if card.distance else None,
        "decided_by": card.distance.metric if card.distance else None,
        "inside_family_band": card.distance.within_band if card.distance else None,
        "verdict": card.verdict,
        "delta_vs_no_unlearning": delta.value if delta else None,
        "p_vs_no_unlearning": delta.p if delta else None,
        **_effect_record("forgotten", card.forgotten),
        **_effect_record("harm", card.harm),
        **_effect_record("recovered", card.recalibration.recovered),
        "recoverable": card.recalibration.recoverable,
        **metric_values,
        "flops_share": card.cost.flops,
        "seconds": card.cost.seconds,
        "own_originals_accuracy": card.own_originals,
        "training_flops_share": card.cost.training,
        "flags": " ".join(card.flags),
        "reason": card.reason or card.exclusion_reason,
    }


def _notes(ranked: RankedRuns, card: ReferenceManifest) -> tuple[str, ...]:
    bands, notes = ranked.bands, []
    if ranked.board.unranked_reason:
        notes.append(f"Informational board, no row is ranked: {ranked.board.unranked_reason}.")
    if bands.family_limit is not None:
        notes.append(
            f"{card.seeds} seeds, track {card.track}. Distance is the largest |z| over {', '.join(bands.ranking)}; "
            f"'in' marks rows inside the family band ({bands.family_limit:.2f}), indistinguishable from retraining."
        )
    if card.track == "corrective":
        notes.append(
            f"Distances and ranks refer to Retrain, which is trained without any harmful row. {PARTIAL!r} is what "
            "retraining gives where the harmful rows that were not found stay."
        )
    notes += [f"Not ranking: {name} {bands.references[name].reason}." for name in bands.excluded_metrics]
    infeasible = {
        name: reference.reason
        for name, reference in bands.references.items()
        if reference.feasible is False and name not in bands.excluded_metrics
    }
    notes += [f"Not ranking: {name}: {reason.rstrip('.')}." for name, reason in infeasible.items() if reason]
    alike = [name for name, reason in infeasible.items() if not reason]
    if alike:
        notes.append(f"Not ranking, because No unlearning looks like retraining by them: {', '.join(alike)}.")
    notes += _notes_on_power(ranked.board)
    if ranked.board.unranked_reason:
        unranked = [(card.name, f"{card.status}: {card.reason}") for card in ranked.scorecards if card.status != "ok"]
    else:
        unranked = [(row.name, row.reason) for row in ranked.board.rows if row.rank is None]
    notes += [f"{name}: {reason.rstrip('.')}." for name, reason in unranked]
    return tuple(notes) + _notes_on_originals(ranked) + _notes_on_state(ranked) + _notes_on_variance(ranked)


def _notes_on_power(board: Board) -> tuple[str, ...]:
    """What the rank intervals mean, and which differences of neighbors they find."""
    notes = () if board.unranked_reason else (RANK_INTERVALS,)
    pairs = [(row.detectable, row.name) for row in board.rows if row.detectable is not None]
    if not pairs:
        return notes
    (least, first), (most, last) = min(pairs), max(pairs)
    if len(pairs) == 1:
        return (*notes, f"The row after {first} is separated from it four times in five if it is {least:.2f} farther.")
    return (
        *notes,
        f"A row is separated from the next one four times in five if that is farther by {least:.2f} (after {first}) to "
        f"{most:.2f} (after {last}); half of the pairs need at most {median(size for size, _ in pairs):.2f}.",
        *_note_on_noise(board),
    )


def _note_on_noise(board: Board) -> tuple[str, ...]:
    """The rows whose next one no distance would separate."""
    ranked = [row for row in board.rows if row.rank is not None]
    noisy = [row.name for row in ranked[:-1] if row.detectable is None]
    return (f"No distance that this board can show separates the next row from: {', '.join(noisy)}.",) if noisy else ()


def _notes_on_state(ranked: RankedRuns) -> tuple[str, ...]:
    """The methods that changed global state of the process."""
    notes = []
    for card, manifest in zip(ranked.scorecards, ranked.manifests, strict=True):
        models = manifest.models if manifest else ()
        changes = {str(model.notes[CHANGED_STATE]) for model in models if CHANGED_STATE in model.notes}
        if changes:
            notes.append(
                f"{card.name}: {CHANGED_STATE} ({', '.join(sorted(changes))}), which was restored after each job. "
                "`forgetbench check-method` tests this."
            )
    return tuple(notes)


def _notes_on_variance(ranked: RankedRuns) -> tuple[str, ...]:
    """What intervals hold: the seeds of training, and where methods ran several times also their own."""
    rows = [card for card, manifest in zip(ranked.scorecards, ranked.manifests, strict=True) if manifest is not None]
    split = [(card.name, card.variance["distance"]) for card in rows if "distance" in card.variance]
    if not split:
        ok = any(card.status == "ok" for card in rows)
        return (TRAINING_SEEDS_ONLY,) if ok else ()
    return tuple(
        f"{name}: the distance has sd {one.training:.2f} between originals (training) and {one.unlearning:.2f} between "
        f"{one.repeats} runs on one original (unlearning)."
        for name, one in split
    )


def _notes_on_originals(ranked: RankedRuns) -> tuple[str, ...]:
    """Utility and cost of the originals that methods trained for themselves."""
    board = next(card for card in ranked.scorecards if card.name == NO_UNLEARNING).metrics["accuracy.test"].value
    notes = []
    for card in ranked.scorecards:
        if card.own_originals is None or board is None:
            continue
        cost = f", trained with {card.cost.training:.2f} times the FLOPs of retraining" if card.cost.training else ""
        notes.append(
            f"{card.name}: not ranked, because it starts from its own originals (test accuracy "
            f"{100 * card.own_originals:.1f} %, the board's {100 * board:.1f} %{cost})."
        )
    return tuple(notes)
