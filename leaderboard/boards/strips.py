"""Small pictures in table cells: where the seeds of a metric fall beside the oracles' band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from forgetbench.leaderboard.boards.charts import make_scale
from forgetbench.leaderboard.boards.queries import Band

WIDTH, HEIGHT, MARGIN = 150.0, 18.0, 6.0


class Histograms(NamedTuple):
    """Three distributions over the same bins, as paths in a box of 620 by 180 pixels."""

    oracles: str
    originals: str
    mine: str
    ticks: list[tuple[float, str]]
    text: str


def histograms(board: dict[str, Any] | None, mine: dict[str, Any] | None) -> Histograms | None:
    """The distributions of phi of an entry, its board's oracles and originals; None where they are not known.

    Args:
        board: ``edges``, and the shares of ``oracles`` and ``originals`` in each bin.
        mine: ``shares`` of the entry's models.
    """
    if not board or not mine or len(mine["shares"]) + 1 != len(board["edges"]):
        return None
    edges = board["edges"]
    across = make_scale("linear", [edges[0], edges[-1]], 8.0, 612.0)
    top = max(*board["oracles"], *board["originals"], *mine["shares"])

    def path(shares: Sequence[float]) -> str:
        steps = "".join(
            f"V{150 - 140 * share / top:.1f}H{across.at(end):.1f}" for share, end in zip(shares, edges[1:], strict=True)
        )
        return f"M{across.at(edges[0]):.1f} 150{steps}V150"

    def middle(shares: Sequence[float]) -> float:
        total = 0.0
        for share, low, high in zip(shares, edges, edges[1:], strict=False):
            total += share
            if total >= 0.5:
                return float(low + high) / 2
        return float(edges[-1])

    text = ", ".join(
        f"median of {name} about {middle(shares):.1f}"
        for name, shares in (("this entry", mine["shares"]), *((key, board[key]) for key in ("oracles", "originals")))
    )
    paths = (path(board["oracles"]), path(board["originals"]), path(mine["shares"]))
    return Histograms(*paths, across.ticks(70.0), text)


class Strip(NamedTuple):
    """Where to draw what, in pixels from the left; None where there is nothing to draw."""

    band: tuple[float, float] | None
    """Left end and width of the oracle band."""
    interval: tuple[float, float] | None
    """Ends of the value's interval."""
    value: float | None
    """The value."""
    seeds: list[float]
    """One per seed."""
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
    """The strip of one metric; None where there is nothing to see.

    Args:
        value: The value.
        low: Lower end of its interval.
        high: Upper end.
        seeds: One value per seed.
        band: Where the oracles fall.
        others: Numbers of other strips that share the scale.
    """
    numbers = [
        number
        for number in (value, low, high, *seeds, *others, *((band.low, band.high) if band else ()))
        if number is not None
    ]
    numbers = [number for number in numbers if math.isfinite(number)]
    if value is None or not numbers:
        return None
    least: float = min(numbers)
    most: float = max(numbers)
    span = (most - least) or 1.0

    def at(number: float) -> float:
        return round(MARGIN + (number - least) / span * (WIDTH - 2 * MARGIN), 1)

    text = f"{len(seeds)} seeds from {min(seeds):.4g} to {max(seeds):.4g}" if seeds else f"value {value:.4g}"
    if band:
        text += f"; oracles from {band.low:.4g} to {band.high:.4g}"
    return Strip(
        band=(at(band.low), max(2.0, round(at(band.high) - at(band.low), 1))) if band else None,
        interval=(at(low), at(high)) if low is not None and high is not None else None,
        value=at(value),
        seeds=[at(seed) for seed in seeds if math.isfinite(seed)],
        text=text,
    )
