"""Small drawings of one entry: the seeds of a metric over the oracle band, and the distribution of phi."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forgetbench.leaderboard.boards.queries import Band
from forgetbench.reporting.figures.distributions import Models, histogram
from forgetbench.reporting.figures.style import PAGE, Spec

WIDTH, MARGIN = 150.0, 6.0
PHI_SIZE = (590.0, 140.0)


class PhiChart(NamedTuple):
    """Three distributions over the same bins."""

    specification: Spec
    """Vega-Lite."""
    text: str
    """The same in words."""


def phi_chart(
    board: Mapping[str, Sequence[float]] | None, entry: Mapping[str, Sequence[float]] | None
) -> PhiChart | None:
    """The distributions of phi of an entry, its board's oracles and originals; None where they are not known.

    Args:
        board: ``edges`` of the bins, and the shares of ``oracles`` and ``originals`` in each bin.
        entry: ``shares`` of the entry's models.
    """
    if not board or not entry or len(entry["shares"]) + 1 != len(board["edges"]):
        return None
    edges = board["edges"]
    shares: dict[Models, Sequence[float]] = {
        "oracles": board["oracles"],
        "originals": board["originals"],
        "unlearned": entry["shares"],
    }
    named = (("this entry", entry["shares"]), ("oracles", board["oracles"]), ("originals", board["originals"]))
    text = ", ".join(f"median of {name} about {_median(edges, values):.1f}" for name, values in named)
    return PhiChart(histogram(edges, shares, PAGE, PHI_SIZE), text)


def _median(edges: Sequence[float], shares: Sequence[float]) -> float:
    """The middle of the bin with the median."""
    total = 0.0
    for share, low, high in zip(shares, edges, edges[1:], strict=False):
        total += share
        if total >= 0.5:
            return float(low + high) / 2
    return float(edges[-1])


class Strip(NamedTuple):
    """Positions in a table cell, in pixels from the left; None where a part is not known."""

    band: tuple[float, float] | None
    """Left end and width of the oracle band."""
    interval: tuple[float, float] | None
    """Ends of the value's interval."""
    value: float | None
    """The value."""
    seeds: list[float]
    """One position per seed."""
    text: str
    """The same in words."""


def strip(
    value: float | None,
    low: float | None,
    high: float | None,
    seeds: Sequence[float],
    band: Band | None,
    others: Sequence[float] = (),
) -> Strip | None:
    """The strip of one metric; None without a value.

    Args:
        value: The value.
        low: Lower end of its interval.
        high: Upper end.
        seeds: One value per seed.
        band: The oracle band.
        others: Numbers of other strips that share the scale.
    """
    numbers = [
        number
        for number in (value, low, high, *seeds, *others, *((band.low, band.high) if band else ()))
        if number is not None and math.isfinite(number)
    ]
    if value is None or not numbers:
        return None
    least: float = min(numbers)
    span = (max(numbers) - least) or 1.0

    def position(number: float) -> float:
        return round(MARGIN + (number - least) / span * (WIDTH - 2 * MARGIN), 1)

    text = f"{len(seeds)} seeds from {min(seeds):.4g} to {max(seeds):.4g}" if seeds else f"value {value:.4g}"
    if band:
        text += f"; oracles from {band.low:.4g} to {band.high:.4g}"
    return Strip(
        band=(position(band.low), max(2.0, round(position(band.high) - position(band.low), 1))) if band else None,
        interval=(position(low), position(high)) if low is not None and high is not None else None,
        value=position(value),
        seeds=[position(seed) for seed in seeds if math.isfinite(seed)],
        text=text,
    )
