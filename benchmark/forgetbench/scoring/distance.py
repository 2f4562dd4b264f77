"""The distance of a row: the largest |z| over the board's ranking metrics, with pseudo-values (protocol section 4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics.board_rules import Comparison
from forgetbench.metrics.registry import metrics
from forgetbench.scoring.pairwise import left_out_values, sides
from forgetbench.scoring.scorecards import Bands, Distance, MetricBand, Value
from forgetbench.scoring.statistics import Band, pseudo_interval, pseudo_values, z_score

SATURATED = 0.99
"""Above this AUC lira is saturated, and its fallback, the shift, counts as well."""


def z_in(value: float, band: MetricBand) -> float:
    """The z of a value in a band; infinite if the band has no width and the value differs from its mean."""
    return z_score(value, Band(band.mean, band.low, band.high, band.sd), band.floor)


def fallback_metric(name: str, value: float) -> str | None:
    """The metric that counts as well if this one is saturated at its value; None if there is none or it is not."""
    return metrics.get(name).fallback or None if value > SATURATED else None


def value_of(metric: str, comparison: Comparison, bands: Bands) -> Value:
    """A comparison metric with its pseudo-values, interval, band and z."""
    band, seeds = bands.bands.get(metric), bands.seeds
    try:
        value, *parts = left_out_values(comparison, seeds)
    except UsageError as error:
        return Value(reason=str(error))
    pseudo: tuple[float, ...] = ()
    low = high = None
    if parts:
        array = pseudo_values(value, parts)
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


def counting_metrics(values: Mapping[str, Value], bands: Bands) -> list[str] | None:
    """The metrics that count towards a row's distance: the board's ranking metrics, and shifts where lira is saturated.

    Args:
        values: Every metric of the row.
        bands: The board's bands.

    Returns:
        None where a ranking metric is missing.
    """
    names: list[str] = []
    for metric in bands.ranking:
        value = values[metric].value
        if value is None:
            return None
        names.append(metric)
        fallback = fallback_metric(metric, value)
        if fallback is not None and fallback not in bands.excluded_metrics:
            names.append(fallback)
    return names


def distance_of(comparisons: Mapping[str, Comparison], values: Mapping[str, Value], bands: Bands) -> Distance | None:
    """The largest |z| over the ranking metrics, its pseudo-values and interval; None where one is missing."""
    names = counting_metrics(values, bands)
    if not names or bands.family_limit is None:
        return None

    parts = {name: left_out_values(comparisons[name], bands.seeds) for name in names}

    def farthest(part: int) -> tuple[float, str]:
        return max((abs(z_in(parts[name][part], bands.bands[name])), name) for name in names)

    whole, metric = farthest(0)
    low = high = None
    pseudo: tuple[float, ...] = ()
    if all(values[name].pseudo_values for name in names):
        array = pseudo_values(whole, [farthest(1 + seed)[0] for seed in range(bands.seeds)])
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
