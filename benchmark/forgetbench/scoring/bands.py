"""What a board knows before anybody submits: oracle bands, feasibility, the family band and the gate.

All of it depends on the pack alone (originals, reference oracles, control oracles), so it is computed once and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray
from forgetbench.metrics.registry import Track, metrics, ranking_metrics
from forgetbench.scoring.gates import gate_of
from forgetbench.scoring.pairwise import Comparison, Labels, Population, Singles, compare
from forgetbench.scoring.per_model import single_values
from forgetbench.scoring.scorecards import Bands, MetricBand, Reference, SingleModels
from forgetbench.scoring.statistics import Band, band_of, family_limit, over_split_halves, split_halves, z_score

SEEDS_TO_RANK = 6
"""A board with fewer seeds shows scores but no ranks."""

FEASIBLE_Z = 3.0
"""An efficacy metric ranks only where No unlearning is farther than this from the oracles."""

SATURATED = 0.99
"""Beyond this AUC lira can rise no further, and the shift stands in for it."""

NO_ORIGINALS = "no originals were given: nothing tells whether forgetting can be seen here"

DRIFT = {"lira.forget": "lira.retain"}
"""Efficacy metric -> the same attack on retained rows, which it must exceed by as much to be feasible."""

STAND_IN = {"lira.forget": "shift.forget", "lira.retain": "shift.retain"}


def reference_bands(
    labels: Labels,
    references: Population,
    controls: Population,
    originals: Population | None,
    track: Track,
    *,
    excluded_metrics: Mapping[str, str] = MappingProxyType({}),
    ranking_only: bool = False,
) -> Bands:
    """Bands, feasibility, family limit and gate of a board.

    Args:
        labels: For each draw, subset -> labels (n,) or (n, A).
        references: The reference oracles: for each draw, subset -> logits (S, n, K).
        controls: The control oracles, as many.
        originals: The originals, as many: the contestant No unlearning. Without them nothing tells what is feasible,
            and the board is informational.
        track: What the task asks for.
        excluded_metrics: Metric to the reason why it failed the audit of the task: it is shown but does not rank.
        ranking_only: Leave out what never ranks: for tuning, where only the distance counts.

    Raises:
        UsageError: The populations do not fit each other, or an answer is not finite.
    """
    seeds = count_models(references)
    counts = [count_models(side) for side in (controls, originals) if side is not None]
    if set(counts) != {seeds}:
        raise UsageError(
            f"As many originals, references and controls, please: {seeds} references, but {counts} others."
        )
    everyone = {"references": references, "controls": controls, "originals": originals}
    alone = {
        role: single_values(side, labels, ranking_only=ranking_only) if side is not None else ({}, {})
        for role, side in everyone.items()
    }
    values = {role: found for role, (found, _) in alone.items()}
    singles = Singles(values["references"], values["controls"], values["originals"])
    oracles, missing = compare(references, controls, labels, singles, ranking_only=ranking_only)
    halves, undefined = _over_split_halves(oracles, seeds)
    missing |= alone["references"][1] | undefined
    bands = {name: _band(name, values) for name, values in halves.items()}
    untouched: dict[str, Comparison] = {}
    if originals is not None:
        pair = Singles(values["originals"], values["references"], values["originals"])
        untouched, _ = compare(originals, references, labels, pair, ranking_only=ranking_only)
    found = _references(untouched, seeds, bands, missing, track)
    for name, array in values["originals"].items():
        if name != "probe" and name in found:  # compared as a gap, shown as it is
            found[name] = found[name].model_copy(update={"original": float(array.mean())})
    for name in set(excluded_metrics) & set(found):
        found[name] = found[name].model_copy(update={"reason": f"failed the audit: {excluded_metrics[name]}"})
    ranking = _ranking(found, bands, track, excluded_metrics, known=originals is not None)
    return Bands(
        track=track,
        seeds=seeds,
        draws=len(labels),
        split_halves=2 * len(split_halves(seeds)),
        bands=bands,
        references=found,
        ranking=ranking,
        excluded_metrics=tuple(sorted(set(excluded_metrics) & set(found))),
        family_limit=_family(ranking, halves, bands, seeds),
        gate=gate_of(originals, [references, controls], labels),
        per_model={
            name: _single_models(array, values["originals"].get(name))
            for name, array in sorted(values["references"].items())
        },
        unranked_reason=_unranked_reason(seeds, found, ranking, track) if originals is not None else NO_ORIGINALS,
    )


def _single_models(references: FloatArray, originals: FloatArray | None) -> SingleModels:
    rows = [tuple(tuple(row) for row in values.tolist()) for values in (references, originals) if values is not None]
    return SingleModels(references=rows[0], originals=rows[1] if len(rows) > 1 else ())


def _over_split_halves(oracles: Mapping[str, Comparison], seeds: int) -> tuple[dict[str, FloatArray], dict[str, str]]:
    halves: dict[str, FloatArray] = {}
    undefined: dict[str, str] = {}
    for name, comparison in oracles.items():
        try:
            halves[name] = over_split_halves(comparison.value, seeds, comparison.symmetry, comparison.halvings)
        except UsageError as error:
            undefined[name] = str(error)
    return halves, undefined


def _band(name: str, halves: FloatArray) -> MetricBand:
    mean, low, high, sd = band_of(halves)
    return MetricBand(mean=mean, low=low, high=high, sd=sd, floor=metrics.get(name).floor)


def _ranking(
    found: Mapping[str, Reference],
    bands: Mapping[str, MetricBand],
    track: Track,
    excluded_metrics: Mapping[str, str],
    *,
    known: bool,
) -> tuple[str, ...]:
    """Feasible efficacy metrics, then harm metrics; all efficacy metrics where feasibility is not known."""
    fit = [spec for spec in ranking_metrics(track) if spec.name in bands and spec.name not in excluded_metrics]
    return tuple(spec.name for spec in fit if spec.role(track) == "harm" or found[spec.name].feasible or not known)


def _family(
    ranking: Sequence[str], halves: Mapping[str, FloatArray], bands: Mapping[str, MetricBand], seeds: int
) -> float | None:
    if not ranking:
        return None
    return family_limit(np.max([_absolute_z(halves[name], bands[name]) for name in ranking], axis=0), seeds)


def count_models(population: Population) -> int:
    """The number of models of a population.

    Raises:
        UsageError: It is not the same for every subset and draw.
    """
    counts = {len(array) for answers in population for array in answers.values()}
    if len(counts) != 1 or 0 in counts:
        raise UsageError(f"Every subset of every draw needs the same number of models, not {sorted(counts)}.")
    return counts.pop()


def sides(seeds: int, without: int | None = None) -> tuple[IntArray, IntArray]:
    """The two sides of a pool of 2 * seeds models, with one seed left out of both."""
    kept = np.array([seed for seed in range(seeds) if seed != without], dtype=np.int64)
    return kept, seeds + kept


def z_in(value: float, band: MetricBand) -> float:
    """The z of a value in a band; infinite where the band has no width and the value is another."""
    return z_score(value, Band(band.mean, band.low, band.high, band.sd), band.floor)


def stand_in(name: str, value: float) -> str | None:
    """The metric that stands in for one that is saturated at this value, if any."""
    return STAND_IN.get(name) if value > SATURATED else None


def _references(
    untouched: Mapping[str, Comparison],
    seeds: int,
    bands: Mapping[str, MetricBand],
    missing: Mapping[str, str],
    track: Track,
) -> dict[str, Reference]:
    """No unlearning on every metric with a band, and the reason for every metric without."""
    efficacy = {spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"}

    def absent(name: str, reason: str) -> Reference:
        return Reference(original=None, original_z=None, feasible=False if name in efficacy else None, reason=reason)

    found = {name: absent(name, reason) for name, reason in missing.items()}
    values = {}
    for name in bands:
        if not untouched:
            found[name] = Reference(original=None, original_z=None, feasible=None)
            continue
        try:
            values[name] = untouched[name].value(*sides(seeds))
        except (KeyError, UsageError) as error:
            found[name] = absent(name, str(error))
    for name, value in values.items():
        z = z_in(value, bands[name])
        other = stand_in(name, value)
        strength = abs(z) if other is None else max(abs(z), abs(z_in(values[other], bands[other])))
        drift = _drift(name, values, bands[name])
        found[name] = Reference(
            original=_shown(name, value, bands[name]),
            original_z=z if np.isfinite(z) and name != "forgetting-quality" else None,  # it has a control, and no band
            feasible=bool(strength > FEASIBLE_Z and not drift) if name in efficacy else None,
            reason=drift,
        )
    for spec in ranking_metrics(track):
        if spec.name not in found:
            found[spec.name] = absent(spec.name, f"not computable: needs {', '.join(spec.requires)}")
    return {name: found[name] for name in sorted(found)}


def _drift(name: str, values: Mapping[str, float], band: MetricBand) -> str:
    """Why an attack tells drift rather than membership; "" where it tells more.

    Originals have seen more data than oracles, and differ from them on every row. An attack that finds retained rows as
    well as forgotten ones has found that difference, not the forgotten data.
    """
    beside = DRIFT.get(name)
    if beside is None or beside not in values or values[name] - values[beside] > FEASIBLE_Z * band.width:
        return ""
    return f"drift: {values[name]:.3f} on forgotten rows, {values[beside]:.3f} on retained ones"


def _shown(name: str, value: float, band: MetricBand) -> float | None:
    """A value as scorecards show it: margin distances minus the band's mean, forgetting quality over the control's."""
    if name.startswith(("w1.", "klom.")):
        return value - band.mean
    if name == "forgetting-quality":
        return value / band.mean if band.mean > 0 else None
    return value


def _absolute_z(values: FloatArray, band: MetricBand) -> FloatArray:
    off: FloatArray = np.abs(values - band.mean)
    return off / band.width if band.width > 0 else np.zeros_like(off)


def _unranked_reason(seeds: int, found: Mapping[str, Reference], ranking: Sequence[str], track: Track) -> str:
    if seeds < SEEDS_TO_RANK:
        return f"{seeds} seeds: a board needs {SEEDS_TO_RANK} for ranks"
    efficacy = [spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"]
    if any(name in ranking for name in efficacy):
        return ""
    if any(found[name].feasible for name in efficacy):
        return "every metric that could tell No unlearning from the oracles failed the audit"
    said = [
        f"{name} {found[name].original_z:+.1f}{f' but {found[name].reason}' if found[name].reason else ''}"
        if found[name].original_z is not None
        else f"{name} not computable"
        for name in efficacy
    ]
    return f"No unlearning is not told from the oracles (z: {', '.join(said)}; beyond ±{FEASIBLE_Z:.0f} is needed)"
