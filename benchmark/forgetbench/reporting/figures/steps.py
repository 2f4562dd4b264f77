"""Accuracy after each request of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from forgetbench.metrics._validation import FloatArray
from forgetbench.reporting.figures._style import LETTER, LIGHT, Theme, finish, values
from forgetbench.reporting.streams import StreamCurves

COLUMNS, WIDTH, HEIGHT = 3, 130, 80
SHOWN = 9
"""Panels in a picture: the reference rows and the first rows of the board."""
KEPT = "kept"
REQUESTED = ("#c8500a", "#0060a8", "#b06fa8", "#a08200", "#5b6570")
"""Colors of the requests in turn; what is kept is drawn in the oracles' color."""


def steps(curves: Sequence[StreamCurves], theme: Theme = LIGHT) -> dict[str, Any] | None:
    """A panel for each row: accuracy on what each request takes away, and on what is kept, before and after each.

    Args:
        curves: The rows in the order in which they are to be shown.
        theme: Colors.
    """
    shown = list(curves)[:SHOWN]
    if not shown:
        return None
    requests = shown[0].requested.shape[1]
    names = [f"request {number + 1}" for number in range(requests)] + [KEPT]
    colors = [REQUESTED[number % len(REQUESTED)] for number in range(requests)] + [theme.oracle]
    legend = alt.Legend(orient="top", title=None, symbolType="stroke", symbolStrokeWidth=2, symbolOpacity=1, offset=4)
    color = alt.Color("what:N", scale=alt.Scale(domain=names, range=colors), legend=legend)
    panels = []
    for number, row in enumerate(shown):
        place = (number % COLUMNS == 0, number + COLUMNS >= len(shown))
        panels.append(_panel(row, color, requests, place))
    return finish(alt.concat(*panels, columns=COLUMNS, spacing=12), theme)


def _panel(row: StreamCurves, color: alt.Color, requests: int, place: tuple[bool, bool]) -> Any:
    first, bottom = place
    lines = [(f"request {number + 1}", row.requested[:, number]) for number in range(requests)] + [(KEPT, row.kept)]
    points = [point for name, by_seed in lines for point in _points(name, by_seed)]
    x = alt.X(
        "step:Q",
        title="after request" if bottom else None,
        scale=alt.Scale(domain=[-0.15, requests + 0.15], nice=False),
        axis=alt.Axis(values=list(range(requests + 1)), format="d", grid=False, labels=bottom),
    )
    y = alt.Y(
        "mean:Q",
        title="accuracy, %" if first else None,
        scale=alt.Scale(domain=[0, 102], nice=False),
        axis=alt.Axis(values=[0, 50, 100], labels=first),
    )
    data = values(points)
    low = alt.Y("low:Q", scale=alt.Scale(domain=[0, 102], nice=False), title="accuracy, %" if first else None)
    layers = [
        data.mark_line(strokeWidth=1.4).encode(x=x, y=y, color=color, detail="piece:N"),
        data.mark_rule(strokeWidth=1, opacity=0.5).encode(x=x, y=low, y2="high:Q", color=color),
        data.mark_circle(size=16, opacity=1).encode(x=x, y=y, color=color),
    ]
    head = alt.TitleParams(row.name, anchor="start", frame="group", fontSize=LETTER + 1, offset=3)
    return alt.layer(*layers, title=head).properties(width=WIDTH, height=HEIGHT)


def _points(name: str, by_seed: FloatArray) -> list[dict[str, Any]]:
    """Mean and range over seeds after each request; where there is no model there is no point, and no line across."""
    known = [bool(np.isfinite(found).all()) for found in by_seed]
    return [
        {
            "what": name,
            "piece": known[:step].count(False),
            "step": step,
            "mean": round(100 * float(found.mean()), 3),
            "low": round(100 * float(found.min()), 3),
            "high": round(100 * float(found.max()), 3),
        }
        for step, found in enumerate(by_seed)
        if known[step]
    ]
