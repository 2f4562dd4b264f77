"""What a board knows before anybody submits: oracle bands, feasibility, the family band and the gate.

All of it depends on the pack alone (originals, reference oracles, control oracles), so it is computed once and kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from forgetbench.comparisons import Comparison, Labels, Population, compare
from forgetbench.errors import UsageError
from forgetbench.gates import gate_of
from forgetbench.metrics.arrays import FloatArray, IntArray
from forgetbench.metrics.spec import Track, metrics, ranking_metrics
from forgetbench.scorecards import Bands, MetricBand, Reference
from forgetbench.statistics import Band, band_of, family_limit, over_halvings, z_score

SEEDS_TO_RANK = 6
"""A board with fewer seeds shows scores but no ranks."""

FEASIBLE_Z = 3.0
"""An efficacy metric ranks only where No unlearning is farther than this from the oracles."""

SATURATED = 0.99
"""Beyond this AUC lira can rise no further, and the shift stands in for it."""

STAND_IN = {"lira.forget": "shift.forget", "lira.retain": "shift.retain"}


def reference_bands(
    labels: Labels, references: Population, controls: Population, originals: Population, track: Track
) -> Bands:
    """Bands, feasibility, family limit and gate of a board.

    Args:
        labels: For each draw, subset -> labels (n,) or (n, A).
        references: The reference oracles: for each draw, subset -> logits (S, n, K).
        controls: The control oracles, as many.
        originals: The originals, as many: the contestant No unlearning.
        track: What the task asks for.

    Raises:
        UsageError: The populations do not fit each other, or an answer is not finite.
    """
    seeds = count_models(references)
    if not seeds == count_models(controls) == count_models(originals):
        raise UsageError(
            f"As many originals, references and controls, please: {count_models(originals)}, {seeds}, "
            f"{count_models(controls)}."
        )
    oracles, missing = compare(references, controls, labels)
    halves: dict[str, FloatArray] = {}
    bands: dict[str, MetricBand] = {}
    for name, comparison in oracles.items():
        try:
            halves[name] = over_halvings(comparison.value, seeds, comparison.symmetry)
        except UsageError as error:
            missing[name] = str(error)
            continue
        mean, low, high, sd = band_of(halves[name])
        bands[name] = MetricBand(mean=mean, low=low, high=high, sd=sd, floor=metrics.get(name).floor)
    untouched, _ = compare(originals, references, labels)
    found = _references(untouched, seeds, bands, missing, track)
    ranking = tuple(
        spec.name
        for spec in ranking_metrics(track)
        if spec.name in bands and (spec.role(track) == "harm" or found[spec.name].feasible)
    )
    limit = None
    if ranking:
        largest = np.max([_absolute_z(halves[name], bands[name]) for name in ranking], axis=0)
        limit = family_limit(largest, seeds)
    return Bands(
        track=track,
        seeds=seeds,
        draws=len(labels),
        halvings=next((values.size for values in halves.values()), 0),
        bands=bands,
        references=found,
        ranking=ranking,
        family_limit=limit,
        gate=gate_of(originals, [references, controls], labels),
        informational=_informational(seeds, found, track),
    )


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
    found = {name: Reference(original=None, original_z=None, feasible=None, reason=missing[name]) for name in missing}
    values = {name: untouched[name].value(*sides(seeds)) for name in bands}
    for name, band in bands.items():
        z = z_in(values[name], band)
        other = stand_in(name, values[name])
        strength = abs(z) if other is None else max(abs(z), abs(z_in(values[other], bands[other])))
        efficacy = metrics.get(name).role(track) == "efficacy"
        found[name] = Reference(
            original=values[name],
            original_z=z if np.isfinite(z) else None,
            feasible=bool(strength > FEASIBLE_Z) if efficacy else None,
        )
    for spec in ranking_metrics(track):
        if spec.name not in found:
            absent = "; ".join(need for need in spec.requires)
            found[spec.name] = Reference(
                original=None, original_z=None, feasible=False, reason=f"not computable: needs {absent}"
            )
    return {name: found[name] for name in sorted(found)}


def _absolute_z(values: FloatArray, band: MetricBand) -> FloatArray:
    off: FloatArray = np.abs(values - band.mean)
    return off / band.width if band.width > 0 else np.zeros_like(off)


def _informational(seeds: int, found: Mapping[str, Reference], track: Track) -> str:
    if seeds < SEEDS_TO_RANK:
        return f"{seeds} seeds: a board needs {SEEDS_TO_RANK} for ranks"
    efficacy = [spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"]
    if any(found[name].feasible for name in efficacy):
        return ""
    said = [
        f"{name} {found[name].original_z:+.1f}" if found[name].original_z is not None else f"{name} not computable"
        for name in efficacy
    ]
    return f"No unlearning is not told from the oracles (z: {', '.join(said)}; beyond ±{FEASIBLE_Z:.0f} is needed)"
