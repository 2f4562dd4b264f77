"""Methods across tasks: mean ranks with Nemenyi's critical difference (Demsar 2006)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from forgetbench.reporting.figures._label_placement import text_width
from forgetbench.reporting.figures.style import (
    LETTER,
    LIGHT,
    Spec,
    Theme,
    category,
    finish,
    layer,
    quantity,
    text_layers,
)
from forgetbench.reporting.significance import friedman_of_ranks, pairwise_holm
from forgetbench.reporting.tables import Row
from forgetbench.scoring.scorer import ALL_REFERENCES
from forgetbench.scoring.statistics import ALPHA

AXIS, LINE = 34.0, 12.0
"""Pixels: height of the axis below the upper edge, and of a line of names."""
INNER = 270.0
"""Length of the axis, in pixels."""


class Ranks(NamedTuple):
    """Methods that were run on every task, best first."""

    names: tuple[str, ...]
    """Their names."""
    mean: tuple[float, ...]
    """Mean rank over the tasks, 1 = best."""
    critical: float
    """Two methods differ where their mean ranks differ by at least this (Nemenyi, 5 %)."""
    p: float
    """Of Iman and Davenport's test that all methods are alike."""
    tasks: int
    """How many tasks."""
    left_out: tuple[str, ...]
    """Methods that were not run on every task."""
    separated: tuple[tuple[str, str], ...]
    """Pairs that Wilcoxon's test distinguishes after Holm's correction (5 %), the better one first: unlike Nemenyi's
    difference it does not depend on the other methods."""


def mean_ranks(boards: Mapping[str, Sequence[Row]]) -> Ranks | None:
    """Rank the methods on each task by distance; rows without a rank because they collapsed share the last rank.

    Args:
        boards: Task -> its rows. Boards without ranks are ignored, and so are those of correction next to others: they
            have another goal.

    Returns:
        None where fewer than two tasks, or three methods that were run on all of them, are left.
    """
    tables = []
    of_correction = [rows for rows in boards.values() if any(row.card.track == "corrective" for row in rows)]
    others = [rows for rows in boards.values() if rows not in of_correction]
    for rows in others or of_correction:
        distances = {row.card.name: _ranked_by(row) for row in rows if row.card.name not in ALL_REFERENCES}
        if any(row.place is not None and row.place.rank is not None for row in rows):
            tables.append({name: distance for name, distance in distances.items() if distance is not None})
    return ranks_across(tables)


def ranks_across(tables: Sequence[Mapping[str, float]]) -> Ranks | None:
    """Rank methods across tasks.

    Args:
        tables: For each task, method -> distance; infinite for rows that share the last rank.

    Returns:
        None where fewer than two tasks, or three methods that were run on all of them, are left.
    """
    if len(tables) < 2:
        return None
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    if len(shared) < 3:
        return None
    by_task = np.array([rankdata([table[name] for name in shared]) for table in tables])
    ranked = by_task.mean(axis=0)
    friedman = friedman_of_ranks(ranked, len(tables))
    order = np.argsort(ranked, kind="stable")
    best_first = [shared[index] for index in order]
    return Ranks(
        names=tuple(best_first),
        mean=tuple(float(ranked[index]) for index in order),
        critical=friedman.critical_difference,
        p=friedman.iman_davenport.p,
        tasks=len(tables),
        left_out=tuple(sorted(set().union(*tables) - set(shared))),
        separated=tuple(pair for pair, p in pairwise_holm(by_task[:, order], best_first).items() if p <= ALPHA),
    )


def _ranked_by(row: Row) -> float | None:
    """The distance of a row: infinite where it collapsed, None where it was not run or is not ranked by design."""
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


def critical_difference(ranks: Ranks, theme: Theme = LIGHT) -> Spec:
    """The diagram: methods at their mean ranks, and bars over those that are statistically tied."""
    count = len(ranks.names)
    tied = cliques(ranks.mean, ranks.critical)
    left = (count + 1) // 2
    top = AXIS + 8 + 6 * len(tied)
    height = top + LINE * left
    named = [f"{name} {rank:.1f}" for name, rank in zip(ranks.names, ranks.mean, strict=True)]
    widths = [max(text_width(text, LETTER) for text in side) + 6 for side in (named[:left], named[left:])]
    highest = max(float(count), 1 + ranks.critical)

    def pixel(rank: float) -> float:
        return widths[0] + (rank - 1) / (highest - 1) * INNER

    width = widths[0] + INNER + widths[1]
    lines, texts = _axis_and_bars(ranks, tied, pixel, count)
    left_texts: list[Spec] = []
    for index, (text, rank) in enumerate(zip(named, ranks.mean, strict=True)):
        is_left = index < left
        row = index if is_left else count - 1 - index
        y = top + LINE * (row + 0.5)
        end = widths[0] - 3 if is_left else width - widths[1] + 3
        lines += [_line(pixel(rank), AXIS, pixel(rank), y, 0.8), _line(pixel(rank), y, end, y, 0.8)]
        (left_texts if is_left else texts).append({"text": text, "x": end - 2 if is_left else end + 2, "y": y})
    across = quantity("x", axis=None, scale={"domain": [0, width], "nice": False})
    down = quantity("y", axis=None, scale={"domain": [0, height], "nice": False, "reverse": True})
    ends = {"x": across, "y": down, "x2": {"field": "to_x"}, "y2": {"field": "to_y"}}
    rules = {**ends, "strokeWidth": quantity("width", scale=None)}
    label = {"x": across, "y": down, "text": category("text")}
    layers = [
        layer(lines, "rule", rules, color=theme.ink, strokeCap="square"),
        *text_layers(left_texts, theme, label, align="right"),
        *text_layers(texts, theme, label),
    ]
    return finish({"height": height, "layer": layers, "width": width}, theme)


def _axis_and_bars(
    ranks: Ranks, tied: Sequence[tuple[int, int]], pixel: Callable[[float], float], count: int
) -> tuple[list[Spec], list[Spec]]:
    step = 1 if count <= 12 else 5
    ticks = [1, *range(1 + step if step == 1 else step, count + 1, step)]
    lines = [_line(pixel(1), AXIS, pixel(count), AXIS, 1)]
    lines += [_line(pixel(tick), AXIS - 4, pixel(tick), AXIS, 1) for tick in ticks]
    texts: list[Spec] = [
        {"text": str(tick), "x": pixel(tick) - text_width(str(tick), LETTER) / 2, "y": AXIS - 10} for tick in ticks
    ]
    lines += [_line(pixel(1), 12, pixel(1 + ranks.critical), 12, 1.5)]
    lines += [_line(pixel(end), 9, pixel(end), 15, 1.5) for end in (1, 1 + ranks.critical)]
    texts.append({"text": f"critical difference {ranks.critical:.1f}", "x": pixel(1), "y": 3})
    for number, (first, last) in enumerate(tied):
        y = AXIS + 6 + 6 * number
        lines.append(_line(pixel(ranks.mean[first]) - 2, y, pixel(ranks.mean[last]) + 2, y, 3))
    return lines, texts


def _line(x: float, y: float, to_x: float, to_y: float, width: float) -> Spec:
    return {"x": x, "y": y, "to_x": to_x, "to_y": to_y, "width": width}
