"""Evidence to scorecard: every metric of a contestant with its interval, oracle band and flags, and the distance.

A population is a sequence that has, for each draw, a mapping from subset to logits (S, n, K). The same arrays give
bit-identical scores here and on a leaderboard's server.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics import Cost, metrics
from forgetbench.metrics.board_rules import Comparison, Labels, ModelValues, Population, Populations
from forgetbench.scoring.bands import count_models, fallback_metric, reference_bands, sides, z_in
from forgetbench.scoring.derived import derived
from forgetbench.scoring.gates import flags_of, pass_gate
from forgetbench.scoring.pairwise import PerModelValues, compare
from forgetbench.scoring.per_model import per_model_values
from forgetbench.scoring.ranking import differences, rank, reproduced
from forgetbench.scoring.scorecards import Bands, Board, Distance, MetricBand, Scorecard, Status, Value
from forgetbench.scoring.statistics import pseudo_interval, pseudo_values

__all__ = [
    "Bands",
    "Board",
    "Scorecard",
    "differences",
    "rank",
    "reference_bands",
    "reproduced",
    "score",
    "unscored",
]


def score(
    contestant: Population,
    *,
    name: str,
    references: Population,
    labels: Labels,
    bands: Bands,
    originals: Population | None = None,
    cost: Cost | None = None,
    ranking_only: bool = False,
) -> Scorecard:
    """Compute the scorecard of one contestant.

    Retrain is scored from the control oracles, No unlearning from the originals.

    Args:
        contestant: Its logits: for each draw, subset -> (S, n, K).
        name: The row's name.
        references: The board's reference oracles.
        labels: The board's labels.
        bands: ``reference_bands`` of the board.
        originals: The originals that it started from (its own, if it changes original training). Without them, metrics
            that compare with the original (h-mean, generalization, aus) are missing.
        cost: Its cost, which is copied to the scorecard.
        ranking_only: Skip metrics that never rank: for tuning, which needs only the distance.

    Raises:
        UsageError: A subset, a draw or a seed is missing, or a logit is not finite.
    """
    counts = (count_models(contestant), count_models(references))
    if set(counts) != {bands.seeds} or len(contestant) != bands.draws:
        raise UsageError(
            f"The board has {bands.draws} draws and {bands.seeds} seeds; {name} has {len(contestant)} draws and "
            f"{counts[0]} seeds, and there are {counts[1]} reference oracles."
        )
    comparisons, values = _measure(contestant, references, labels, bands, originals, ranking_only=ranking_only)
    gate = pass_gate(contestant, labels, bands.gate)
    return Scorecard(
        name=name,
        track=bands.track,
        seeds=bands.seeds,
        draws=bands.draws,
        metrics={metric: values[metric] for metric in sorted(values)},
        ranking=bands.ranking,
        distance=_distance(comparisons, values, bands),
        gate=gate,
        flags=flags_of(values, bands, gate),
        cost=cost or Cost(),
        unranked_reason=bands.unranked_reason,
    )


def _measure(
    contestant: Population,
    references: Population,
    labels: Labels,
    bands: Bands,
    originals: Population | None,
    *,
    ranking_only: bool,
) -> tuple[dict[str, Comparison], dict[str, Value]]:
    """The comparisons, as the distance needs them, and every metric as it is shown."""
    unlearned, missing_per_model = per_model_values(contestant, labels, ranking_only=ranking_only)
    oracle, original = (_per_model_of(bands, role) for role in ("references", "originals"))
    per_model = PerModelValues(unlearned, oracle, original)
    comparisons, missing = compare(contestant, references, labels, per_model, ranking_only=ranking_only)
    missing |= missing_per_model
    values = {metric: _value(metric, item, bands) for metric, item in comparisons.items()}
    values |= {metric: Value(reason=reason) for metric, reason in missing.items()}
    values |= {
        metric: Value(reason=bands.references[metric].reason) for metric in bands.references if metric not in values
    }
    values |= derived(Populations(contestant, references, originals, labels, unlearned), values, bands)
    return comparisons, values


def unscored(name: str, status: Status, reason: str, bands: Bands, cost: Cost | None = None) -> Scorecard:
    """The scorecard of a row that diverged, failed or does not apply, with the reason."""
    return Scorecard(
        name=name,
        status=status,
        reason=reason,
        track=bands.track,
        seeds=bands.seeds,
        draws=bands.draws,
        ranking=bands.ranking,
        flags=(status,),
        cost=cost or Cost(),
        unranked_reason=bands.unranked_reason,
    )


def _per_model_of(bands: Bands, role: Literal["references", "originals"]) -> ModelValues:
    arrays = {metric: np.array(getattr(models, role)) for metric, models in bands.per_model.items()}
    return {metric: values for metric, values in arrays.items() if values.size}


def _value(metric: str, comparison: Comparison, bands: Bands) -> Value:
    """A comparison metric with its pseudo-values, interval, band and z."""
    band, seeds = bands.bands.get(metric), bands.seeds
    try:
        value = comparison.value(*sides(seeds))
    except UsageError as error:
        return Value(reason=str(error))
    pseudo: tuple[float, ...] = ()
    low = high = None
    with suppress(UsageError):  # with too few seeds to leave one out, the value has no interval
        if seeds > 1 and comparison.leave_out:
            array = pseudo_values(value, [comparison.value(*sides(seeds, seed)) for seed in range(seeds)])
            _, low, high = pseudo_interval(value, array)
            pseudo = tuple(array.tolist())
    by_seed = comparison.by_seed(*sides(seeds)) if comparison.by_seed is not None else np.zeros(0)
    z = z_in(value, band) if band is not None else None
    return Value(
        value=value,
        low=low,
        high=high,
        seeds=tuple(by_seed.tolist()),
        pseudo_values=pseudo,
        band=band,
        z=z if z is not None and np.isfinite(z) else None,
        within_band=_is_within(value, band) if band is not None and metrics.get(metric).calibrated else None,
    )


def _is_within(value: float, band: MetricBand) -> bool:
    """Whether a value is in its own band, whose width is at least that of the floor."""
    return band.low <= value <= band.high or abs(value - band.mean) <= 1.96 * band.width


def _distance(comparisons: Mapping[str, Comparison], values: Mapping[str, Value], bands: Bands) -> Distance | None:
    """The largest |z| over the ranking metrics, its pseudo-values and interval; None where one is missing."""
    if not bands.ranking or bands.family_limit is None:
        return None
    names: list[str] = []
    for metric in bands.ranking:
        value = values[metric].value
        if value is None:
            return None
        names.append(metric)
        fallback = fallback_metric(metric, value)
        if fallback is not None and fallback not in bands.excluded_metrics:
            names.append(fallback)

    def farthest(without: int | None) -> tuple[float, str]:
        return max(
            (abs(z_in(comparisons[name].value(*sides(bands.seeds, without)), bands.bands[name])), name)
            for name in names
        )

    whole, metric = farthest(None)
    low = high = None
    pseudo: tuple[float, ...] = ()
    if all(values[name].pseudo_values for name in names):
        array = pseudo_values(whole, [farthest(seed)[0] for seed in range(bands.seeds)])
        _, low, high = pseudo_interval(whole, array)
        pseudo = tuple(array.tolist())
    return Distance(
        value=whole,
        low=low,
        high=high,
        metric=metric,
        pseudo_values=pseudo,
        within_band=bool(whole < bands.family_limit),
    )
