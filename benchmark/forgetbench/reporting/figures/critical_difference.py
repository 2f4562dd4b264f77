"""Methods across tasks: mean ranks with Nemenyi's critical difference (Demsar 2006)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
from scipy.stats import rankdata

from forgetbench.reporting.figures._label_placement import text_width
from forgetbench.reporting.figures._style import LETTER, LIGHT, Theme, finish, values, written
from forgetbench.reporting.significance import friedman_of_ranks, pairwise_holm
from forgetbench.reporting.tables import Row
from forgetbench.scoring.scorer import REFERENCES
from forgetbench.scoring.statistics import LEVEL

AXIS, LINE = 34.0, 12.0
"""Pixels: height of the axis below the upper edge, and of a line of names."""


class Ranks(NamedTuple):
    """Methods that stand on every task, best first."""

    names: tuple[str, ...]
    """Their names."""
    mean: tuple[float, ...]
    """Mean rank over the tasks, 1 = best."""
    critical: float
    """Two methods differ where their mean ranks are at least this far apart (Nemenyi, 5 %)."""
    p: float
    """Of Iman and Davenport's test that all methods are alike."""
    tasks: int
    """How many tasks."""
    left_out: tuple[str, ...]
    """Methods that do not stand on every task."""
    apart: tuple[tuple[str, str], ...]
    """Pairs that Wilcoxon's test tells apart after Holm's correction (5 %), the better one first: unlike Nemenyi's
    difference it does not depend on the other methods."""


def mean_ranks(boards: Mapping[str, Sequence[Row]]) -> Ranks | None:
    """Rank the methods on each task by distance; rows that take no place because they collapsed share the last rank.

    Args:
        boards: Task -> its rows. Boards on which nobody is ranked are left out.

    Returns:
        None where fewer than two tasks, or three methods that stand on all of them, are left.
    """
    tables = []
    for rows in boards.values():
        distances = {row.card.name: _worth(row) for row in rows if row.card.name not in REFERENCES}
        if any(row.place is not None and row.place.rank is not None for row in rows):
            tables.append({name: worth for name, worth in distances.items() if worth is not None})
    if len(tables) < 2:
        return None
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    if len(shared) < 3:
        return None
    by_task = np.array([rankdata([table[name] for name in shared]) for table in tables])
    ranked = by_task.mean(axis=0)
    found = friedman_of_ranks(ranked, len(tables))
    order = np.argsort(ranked, kind="stable")
    best_first = [shared[index] for index in order]
    return Ranks(
        names=tuple(best_first),
        mean=tuple(float(ranked[index]) for index in order),
        critical=found.critical_difference,
        p=found.iman_davenport.p,
        tasks=len(tables),
        left_out=tuple(sorted(set().union(*tables) - set(shared))),
        apart=tuple(pair for pair, p in pairwise_holm(by_task[:, order], best_first).items() if p <= LEVEL),
    )


def _worth(row: Row) -> float | None:
    """What a row is ranked by: infinite where it collapsed, None where it was not run or is no contestant."""
    if row.place is None or row.card.distance is None or row.card.status != "ok":
        return None
    return row.card.distance.value if row.place.rank is not None else float(np.inf)


def cliques(mean: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """The longest runs of neighbors (first, last) that are closer than the critical difference, none in another."""
    runs: list[tuple[int, int]] = []
    for first in range(len(mean)):
        last = max(index for index in range(first, len(mean)) if mean[index] - mean[first] < critical)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def critical_difference(ranks: Ranks, theme: Theme = LIGHT) -> dict[str, Any]:
    """The diagram: methods at their mean ranks, and bars over those that are not told apart."""
    count = len(ranks.names)
    joined = cliques(ranks.mean, ranks.critical)
    left = (count + 1) // 2
    top = AXIS + 8 + 6 * len(joined)
    height = top + LINE * left
    named = [f"{name} {rank:.1f}" for name, rank in zip(ranks.names, ranks.mean, strict=True)]
    widths = [max(text_width(text, LETTER) for text in side) + 6 for side in (named[:left], named[left:])]
    inner, high = 270.0, max(float(count), 1 + ranks.critical)

    def at(rank: float) -> float:
        return widths[0] + (rank - 1) / (high - 1) * inner

    width = widths[0] + inner + widths[1]
    lines, texts = _axis_and_bars(ranks, joined, at, count)
    before: list[dict[str, Any]] = []
    for index, (text, rank) in enumerate(zip(named, ranks.mean, strict=True)):
        first = index < left
        row = index if first else count - 1 - index
        y = top + LINE * (row + 0.5)
        end = widths[0] - 3 if first else width - widths[1] + 3
        lines += [_line(at(rank), AXIS, at(rank), y, 0.8), _line(at(rank), y, end, y, 0.8)]
        (before if first else texts).append({"text": text, "x": end - 2 if first else end + 2, "y": y})
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False))
    y_ = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[0, height], nice=False, reverse=True))
    strokes = values(lines).mark_rule(color=theme.ink, strokeCap="square")
    rules = strokes.encode(x=x, y=y_, x2="to_x:Q", y2="to_y:Q", strokeWidth=alt.StrokeWidth("width:Q", scale=None))
    right = written(before, theme, None, "right", x=x, y=y_, text="text:N")
    layers = [rules, *right, *written(texts, theme, x=x, y=y_, text="text:N")]
    return finish(alt.layer(*layers).properties(width=width, height=height), theme)


def _axis_and_bars(
    ranks: Ranks, joined: Sequence[tuple[int, int]], at: Any, count: int
) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    step = 1 if count <= 12 else 5
    ticks = [1, *range(1 + step if step == 1 else step, count + 1, step)]
    lines = [_line(at(1), AXIS, at(count), AXIS, 1)]
    lines += [_line(at(tick), AXIS - 4, at(tick), AXIS, 1) for tick in ticks]
    texts: list[dict[str, Any]] = [
        {"text": str(tick), "x": at(tick) - text_width(str(tick), LETTER) / 2, "y": AXIS - 10} for tick in ticks
    ]
    lines += [_line(at(1), 12, at(1 + ranks.critical), 12, 1.5)]
    lines += [_line(at(end), 9, at(end), 15, 1.5) for end in (1, 1 + ranks.critical)]
    texts.append({"text": f"critical difference {ranks.critical:.1f}", "x": at(1), "y": 3})
    for number, (first, last) in enumerate(joined):
        y = AXIS + 6 + 6 * number
        lines.append(_line(at(ranks.mean[first]) - 2, y, at(ranks.mean[last]) + 2, y, 3))
    return lines, texts


def _line(x: float, y: float, to_x: float, to_y: float, width: float) -> dict[str, float]:
    return {"x": x, "y": y, "to_x": to_x, "to_y": to_y, "width": width}
