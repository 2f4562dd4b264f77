"""Properties of a board that do not depend on contestants: oracle bands, feasibility, family limit and gate.

They depend only on the reference bundle (originals, reference oracles, control oracles), so they are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.board_rules import Comparison, Labels, PerModelRule, Population, with_columns
from forgetbench.metrics.registry import Track, declarations, metrics, ranking_metrics
from forgetbench.scoring.distance import distance_of, fallback_metric, value_of, z_in
from forgetbench.scoring.forgotten import FEASIBLE_Z, UTILITY, anchors, forgetting_metric
from forgetbench.scoring.gates import gate_of
from forgetbench.scoring.pairwise import PerModelValues, compare, count_models, left_out_values
from forgetbench.scoring.per_model import per_model_values
from forgetbench.scoring.recovery import recovery_scale
from forgetbench.scoring.scorecards import Bands, MetricBand, Reference, ReferenceValues
from forgetbench.scoring.statistics import band_of, family_limit, over_split_halves, split_halves

SEEDS_TO_RANK = 6
"""A board with fewer seeds shows scores but no ranks."""

NO_ORIGINALS = "no originals were given: it is unknown whether forgetting is measurable here"

DRIFT = {"lira.forget": "lira.retain"}
"""Efficacy metric -> the same attack on retained rows. To be feasible it must exceed that by `FEASIBLE_Z` widths."""


def reference_bands(
    labels: Labels,
    references: Population,
    controls: Population,
    originals: Population | None,
    track: Track,
    *,
    excluded_metrics: Mapping[str, str] = MappingProxyType({}),
    ranking_only: bool = False,
    all_rows: bool = False,
) -> Bands:
    """Compute bands, feasibility, family limit and gate of a board.

    Args:
        labels: For each draw, subset -> labels (n,) or (n, A).
        references: The reference oracles: for each draw, subset -> logits (S, n, K).
        controls: The same number of control oracles.
        originals: The same number of originals: the contestant No unlearning. Without them feasibility is unknown, and
            the board is informational.
        track: The task's track.
        excluded_metrics: Metric to the reason why it failed the audit of the task: it is shown but does not rank.
        ranking_only: Skip metrics that never rank: for tuning, which needs only the distance.
        all_rows: Compute metrics that never rank from all rows, as published, and not from a fixed number of them. It
            also holds for the scorecards by these bands.

    Raises:
        UsageError: The populations do not fit each other, or a logit is not finite.
    """
    seeds = count_models(references)
    counts = [count_models(side) for side in (controls, originals) if side is not None]
    if set(counts) != {seeds}:
        raise UsageError(
            "A board needs the same number of originals, reference oracles and control oracles; there are "
            f"{seeds} reference oracles, but {' and '.join(map(str, counts))} others."
        )
    references, controls = with_columns(references, labels), with_columns(controls, labels)
    originals = with_columns(originals, labels) if originals is not None else None
    chosen = {"ranking_only": ranking_only, "all_rows": all_rows}
    populations = {"references": references, "controls": controls, "originals": originals}
    measured = {
        role: per_model_values(side, labels, **chosen) if side is not None else ({}, {})
        for role, side in populations.items()
    }
    values = {role: of_role for role, (of_role, _) in measured.items()}
    per_model = PerModelValues(values["references"], values["controls"], values["originals"])
    oracles, missing = compare(references, controls, labels, per_model, **chosen)
    halves, undefined = _over_split_halves(oracles, seeds)
    missing |= measured["references"][1] | undefined
    bands = {name: _band(name, array) for name, array in halves.items()}
    no_unlearning: dict[str, Comparison] = {}
    if originals is not None:
        pair = PerModelValues(values["originals"], values["references"], values["originals"])
        no_unlearning, _ = compare(originals, references, labels, pair, **chosen)
    rows = _references(no_unlearning, seeds, bands, missing, track)
    for name, array in values["originals"].items():
        if name in rows and _compared_by_means(name):  # compared by the gap, but shown as the value of one population
            rows[name] = rows[name].model_copy(update={"original": float(array.mean())})
    for name in set(excluded_metrics) & set(rows):
        rows[name] = rows[name].model_copy(update={"reason": f"failed the audit: {excluded_metrics[name]}"})
    ranking = _ranking(rows, bands, track, excluded_metrics, known=originals is not None)
    forgetting, reason = forgetting_metric(track, rows, tuple(excluded_metrics))
    before = anchors(forgetting, originals, controls, references, labels) if forgetting else None
    after, not_tested = None, ""
    if not ranking_only:
        after, not_tested = recovery_scale(before, originals, controls, references, labels)
    board = Bands(
        track=track,
        seeds=seeds,
        draws=len(labels),
        split_halves=2 * len(split_halves(seeds)),
        all_rows=all_rows,
        bands=bands,
        references=rows,
        ranking=ranking,
        excluded_metrics=tuple(sorted(set(excluded_metrics) & set(rows))),
        family_limit=_family(ranking, halves, bands, seeds),
        gate=gate_of(originals, [references, controls], labels),
        per_model={
            name: _reference_values(array, values["originals"].get(name))
            for name, array in sorted(values["references"].items())
        },
        forgetting=before,
        forgetting_reason=reason if originals is not None else NO_ORIGINALS,
        recalibration=after,
        recalibration_reason=not_tested,
        utility=tuple(anchors(metric, None, controls, references, labels) for metric in UTILITY),
        unranked_reason=_unranked_reason(seeds, rows, ranking, track) if originals is not None else NO_ORIGINALS,
    )
    shown = {name: value_of(name, comparison, board) for name, comparison in no_unlearning.items()}
    untouched = distance_of(no_unlearning, shown, board) if set(ranking) <= set(shown) else None
    return board.model_copy(update={"no_unlearning": untouched})


def _reference_values(references: FloatArray, originals: FloatArray | None) -> ReferenceValues:
    rows = [tuple(tuple(row) for row in values.tolist()) for values in (references, originals) if values is not None]
    return ReferenceValues(references=rows[0], originals=rows[1] if len(rows) > 1 else ())


def _compared_by_means(name: str) -> bool:
    """Whether a per-model metric is compared by the difference of means, and shown as the value of one population."""
    rules = [declaration.board for declaration in declarations for spec in declaration.specs if spec.name == name]
    return any(isinstance(rule, PerModelRule) and rule.compare is None for rule in rules)


def _over_split_halves(oracles: Mapping[str, Comparison], seeds: int) -> tuple[dict[str, FloatArray], dict[str, str]]:
    halves: dict[str, FloatArray] = {}
    undefined: dict[str, str] = {}
    for name, comparison in oracles.items():
        try:
            halves[name] = over_split_halves(comparison.value, seeds, comparison.symmetry, comparison.max_splits)
        except UsageError as error:
            undefined[name] = str(error)
    return halves, undefined


def _band(name: str, halves: FloatArray) -> MetricBand:
    mean, low, high, sd = band_of(halves)
    return MetricBand(mean=mean, low=low, high=high, sd=sd, floor=metrics.get(name).floor)


def _ranking(
    rows: Mapping[str, Reference],
    bands: Mapping[str, MetricBand],
    track: Track,
    excluded_metrics: Mapping[str, str],
    *,
    known: bool,
) -> tuple[str, ...]:
    """Feasible efficacy metrics, then harm metrics; all efficacy metrics if feasibility is unknown.

    A metric that takes the place of the purpose of a track ranks only where the purpose itself does not.
    """
    eligible = [spec for spec in ranking_metrics(track) if spec.name in bands and spec.name not in excluded_metrics]
    names = [spec.name for spec in eligible if spec.role(track) == "harm" or rows[spec.name].feasible or not known]
    left_out = IN_ITS_PLACE if PURPOSE in names else ()
    return tuple(name for name in names if name not in left_out)


PURPOSE, IN_ITS_PLACE = "gap.attack-success", ("gap.withheld", "gap.forget")
"""The purpose of correction, and what takes its place where it cannot be measured: labels of harmful training rows."""


def _family(
    ranking: Sequence[str], halves: Mapping[str, FloatArray], bands: Mapping[str, MetricBand], seeds: int
) -> float | None:
    if not ranking:
        return None
    return family_limit(np.max([_absolute_z(halves[name], bands[name]) for name in ranking], axis=0), seeds)


def _references(
    no_unlearning: Mapping[str, Comparison],
    seeds: int,
    bands: Mapping[str, MetricBand],
    missing: Mapping[str, str],
    track: Track,
) -> dict[str, Reference]:
    """No unlearning on every metric with a band, and the reason for every metric without one."""
    efficacy = {spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"}

    def missing_row(name: str, reason: str) -> Reference:
        return Reference(original=None, original_z=None, feasible=False if name in efficacy else None, reason=reason)

    rows = {name: missing_row(name, reason) for name, reason in missing.items()}
    values = {}
    for name in bands:
        if not no_unlearning:
            rows[name] = Reference(original=None, original_z=None, feasible=None)
            continue
        try:
            values[name] = left_out_values(no_unlearning[name], seeds)[0]
        except (KeyError, UsageError) as error:
            rows[name] = missing_row(name, str(error))
    for name, value in values.items():
        z = z_in(value, bands[name])
        fallback = fallback_metric(name, value)
        strength = abs(z) if fallback is None else max(abs(z), abs(z_in(values[fallback], bands[fallback])))
        drift = _drift(name, values, bands[name])
        has_z = np.isfinite(z) and metrics.get(name).relative_to_band != "ratio"  # a ratio has a control, not a band
        rows[name] = Reference(
            original=_shown(name, value, bands[name]),
            original_z=z if has_z else None,
            feasible=bool(strength > FEASIBLE_Z and not drift) if name in efficacy else None,
            reason=drift,
        )
    for spec in ranking_metrics(track):
        if spec.name not in rows:
            rows[spec.name] = missing_row(spec.name, f"not computable: needs {', '.join(spec.requires)}")
    return {name: rows[name] for name in sorted(rows)}


def _drift(name: str, values: Mapping[str, float], band: MetricBand) -> str:
    """Why an attack measures drift rather than membership; "" if it measures membership.

    Originals have seen more data than oracles, and differ from them on every row. An attack that finds retained rows as
    easily as forgotten ones has found that difference, not the forgotten data.
    """
    control = DRIFT.get(name)
    if control is None or control not in values or values[name] - values[control] > FEASIBLE_Z * band.width:
        return ""
    return f"drift: {values[name]:.3f} on forgotten rows, {values[control]:.3f} on retained ones"


def _shown(name: str, value: float, band: MetricBand) -> float | None:
    """A value as scorecards show it: as it is, minus the mean of its band, or divided by it."""
    relation = metrics.get(name).relative_to_band
    if relation == "difference":
        return value - band.mean
    if relation == "ratio":
        return value / band.mean if band.mean > 0 else None
    return value


def _absolute_z(values: FloatArray, band: MetricBand) -> FloatArray:
    deviations: FloatArray = np.abs(values - band.mean)
    return deviations / band.width if band.width > 0 else np.zeros_like(deviations)


def _unranked_reason(seeds: int, rows: Mapping[str, Reference], ranking: Sequence[str], track: Track) -> str:
    if seeds < SEEDS_TO_RANK:
        return f"{seeds} seeds: a board needs {SEEDS_TO_RANK} for ranks"
    efficacy = [spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"]
    if any(name in ranking for name in efficacy):
        return ""
    if any(rows[name].feasible for name in efficacy):
        return "every metric that could distinguish No unlearning from the oracles failed the audit"
    details = [
        f"{name} {rows[name].original_z:+.1f}{f' but {rows[name].reason}' if rows[name].reason else ''}"
        if rows[name].original_z is not None
        else f"{name} not computable"
        for name in efficacy
    ]
    needed = f"beyond ±{FEASIBLE_Z:.0f} is needed"
    return f"No unlearning is not distinguishable from the oracles (z: {', '.join(details)}; {needed})"
