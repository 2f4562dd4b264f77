"""Accuracy after each request of a stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetbench.metrics._validation import FloatArray
from forgetbench.reporting.figures.style import LETTER, LIGHT, Spec, Theme, category, finish, layer, quantity
from forgetbench.reporting.streams import StreamCurves

COLUMNS, WIDTH, HEIGHT = 3, 130, 80
SHOWN = 9
"""Panels in a chart: the reference rows and the first rows of the board."""
RETAINED = "retained"
REQUESTED = ("#c8500a", "#0060a8", "#b06fa8", "#a08200", "#5b6570")
"""Colors of the requests in turn; the retained data are drawn in the oracles' color."""


def steps(curves: Sequence[StreamCurves], theme: Theme = LIGHT) -> Spec | None:
    """A panel for each row: accuracy on the data of each request, and on retained data, before and after each request.

    Args:
        curves: The rows in the order in which they are shown.
        theme: Colors.
    """
    shown = list(curves)[:SHOWN]
    if not shown:
        return None
    requests = shown[0].requested.shape[1]
    names = [f"request {number + 1}" for number in range(requests)] + [RETAINED]
    colors = [REQUESTED[number % len(REQUESTED)] for number in range(requests)] + [theme.oracle]
    symbol = {"symbolOpacity": 1, "symbolStrokeWidth": 2, "symbolType": "stroke"}
    legend = {"offset": 4, "orient": "top", "title": None, **symbol}
    color = category("what", scale={"domain": names, "range": colors}, legend=legend)
    panels = [
        _panel(row, color, requests, first=number % COLUMNS == 0, bottom=number + COLUMNS >= len(shown))
        for number, row in enumerate(shown)
    ]
    return finish({"columns": COLUMNS, "concat": panels, "spacing": 12}, theme)


def _panel(row: StreamCurves, color: Spec, requests: int, *, first: bool, bottom: bool) -> Spec:
    lines = [(f"request {number + 1}", row.requested[:, number]) for number in range(requests)] + [
        (RETAINED, row.retained)
    ]
    points = [point for name, by_seed in lines for point in _points(name, by_seed)]
    title = "accuracy, %" if first else None
    scale = {"domain": [0, 102], "nice": False}
    x = quantity(
        "step",
        title="after request" if bottom else None,
        scale={"domain": [-0.15, requests + 0.15], "nice": False},
        axis={"format": "d", "grid": False, "labels": bottom, "values": list(range(requests + 1))},
    )
    y = quantity("mean", title=title, scale=scale, axis={"labels": first, "values": [0, 50, 100]})
    low = quantity("low", title=title, scale=scale)
    layers = [
        layer(points, "line", {"x": x, "y": y, "color": color, "detail": category("piece")}, strokeWidth=1.4),
        layer(points, "rule", {"x": x, "y": low, "y2": {"field": "high"}, "color": color}, opacity=0.5, strokeWidth=1),
        layer(points, "circle", {"x": x, "y": y, "color": color}, opacity=1, size=16),
    ]
    head = {"anchor": "start", "fontSize": LETTER + 1, "frame": "group", "offset": 3, "text": row.name}
    return {"height": HEIGHT, "layer": layers, "title": head, "width": WIDTH}


def _points(name: str, by_seed: FloatArray) -> list[Spec]:
    """Mean and range over seeds after each request; where there is no model there is no point, and no line across."""
    known = [bool(np.isfinite(values).all()) for values in by_seed]
    return [
        {
            "what": name,
            "piece": known[:step].count(False),
            "step": step,
            "mean": round(100 * float(values.mean()), 3),
            "low": round(100 * float(values.min()), 3),
            "high": round(100 * float(values.max()), 3),
        }
        for step, values in enumerate(by_seed)
        if known[step]
    ]
