"""Which methods differ across tasks: mean ranks with their critical difference, and win rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from forgetbench.leaderboard.render.matrix import Matrix
from forgetbench.leaderboard.render.rows import Interval, ShownRow
from forgetbench.leaderboard.render.vega import inline_svg
from forgetbench.reporting.figures.style import PAGE


class WinRate(NamedTuple):
    """How often a method is nearer to retraining than another method."""

    method: str
    rate: Interval
    """Share of the other methods that are farther, ties counted half: mean over tasks, with its t interval."""
    tasks: int


class Across(NamedTuple):
    """Methods across the tasks of a matrix."""

    tasks: list[str]
    """Tasks that rank."""
    chart: Markup
    """The diagram of mean ranks; "" where there is too little for one."""
    separated: Sequence[tuple[str, str]]
    """Pairs of methods that Wilcoxon's test with Holm's correction separates, the better one first."""
    critical: float | None
    p: float | None
    """That all methods are alike (Iman and Davenport)."""
    left_out: Sequence[str]
    """Methods that were not run on every task."""
    rates: Sequence[WinRate]
    """Methods that were run on every task first, the best first."""


def across(matrix: Matrix) -> Across:
    """Compare the methods of a matrix across its tasks; claimed rows do not count."""
    from forgetbench.reporting.figures import critical_difference as diagrams  # loads scipy

    tables = {
        column.task: {name: found for name, row in column.rows.items() if (found := _distance(row)) is not None}
        for column in matrix.columns
        if column.ranked
    }
    ranks = diagrams.ranks_across(list(tables.values()))
    chart = Markup()
    if ranks is not None:
        text = f"Mean ranks over {ranks.tasks} tasks: " + ", ".join(
            f"{name} {mean:.1f}" for name, mean in zip(ranks.names, ranks.mean, strict=True)
        )
        chart = inline_svg(diagrams.critical_difference(ranks, PAGE), text)
    return Across(
        tasks=list(tables),
        chart=chart,
        separated=ranks.separated if ranks else (),
        critical=ranks.critical if ranks else None,
        p=ranks.p if ranks else None,
        left_out=ranks.left_out if ranks else (),
        rates=win_rates(tables),
    )


def _distance(row: ShownRow) -> float | None:
    """A row's distance: infinite where it collapsed, None where it does not count."""
    if row.distance is None or row.tier == "claimed":
        return None
    return row.distance.value if row.place else math.inf


def win_rates(tables: Mapping[str, Mapping[str, float]]) -> list[WinRate]:
    """The win rate of each method over the tasks on which it was run next to another one.

    Args:
        tables: Task -> method -> distance.
    """
    from forgetbench.reporting.significance import t_interval

    shares: dict[str, list[float]] = {}
    for table in tables.values():
        for name, own in table.items():
            others = [other for rival, other in table.items() if rival != name]
            if others:
                wins = sum((own < other) + 0.5 * (own == other) for other in others)
                shares.setdefault(name, []).append(wins / len(others))
    rates = []
    for name, values in shares.items():
        mean = sum(values) / len(values)
        low = high = None
        if len(values) > 1:
            _, lower, upper = t_interval(values)
            low, high = max(0.0, lower), min(1.0, upper)
        rates.append(WinRate(name, Interval(mean, low, high), len(values)))
    return sorted(rates, key=lambda rate: (rate.tasks < len(tables), -rate.rate.value, rate.method))
