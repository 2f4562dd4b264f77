"""Accuracy on what was forgotten, over the budget of each attack."""

from __future__ import annotations

from collections.abc import Mapping

from forgetbench.reporting.figures.style import LETTER, LIGHT, Spec, Theme, category, finish, layer, quantity
from forgetbench.scoring.attacks import AttackBands, AttackScale, RowAttacks
from forgetbench.scoring.vocabulary import NO_UNLEARNING, RETRAIN

COLUMNS, WIDTH, HEIGHT = 3, 150, 100
METHODS = ("#0060a8", "#b06fa8", "#a08200", "#5b6570", "#3aa6b9", "#7a4a1e", "#d0417e", "#6a9a1f", "#8c6bd1", "#1c2024")
"""Colors of the methods in turn; those after the last have dashed lines."""


def recovery(rows: Mapping[str, RowAttacks], bands: AttackBands, theme: Theme = LIGHT) -> Spec | None:
    """A panel for each attack: accuracy on test images of forgotten classes (else on the forget set) over the budget.

    Args:
        rows: What the attacks found, by row; the reference rows among them.
        bands: The bands of all attacks on the board.
        theme: Colors.

    Returns:
        None where no attack answers with the classes of the model.
    """
    attacks: dict[str, list[AttackScale]] = {}
    for scale in bands.scales:
        if scale.accuracies:
            attacks.setdefault(scale.name, []).append(scale)
    if not attacks:
        return None
    methods = [name for name in rows if name not in (RETRAIN, NO_UNLEARNING)]
    names = [NO_UNLEARNING, RETRAIN, *methods]
    colors = [theme.original, theme.oracle, *(METHODS[place % len(METHODS)] for place in range(len(methods)))]
    symbol = {"symbolOpacity": 1, "symbolStrokeWidth": 2, "symbolType": "stroke"}
    legend = {"columns": 5, "offset": 4, "orient": "top", "title": None, **symbol}
    color = category("row", scale={"domain": names, "range": colors}, legend=legend)
    dashes = [[1, 0] if place < len(METHODS) + 2 else [4, 2] for place in range(len(names))]
    dash = category("row", scale={"domain": names, "range": dashes}, legend=None)
    panels = [
        _panel(name, scales, rows, color, dash, theme, first=place % COLUMNS == 0)
        for place, (name, scales) in enumerate(attacks.items())
    ]
    return finish({"columns": COLUMNS, "concat": panels, "spacing": 14}, theme)


def _panel(
    name: str,
    scales: list[AttackScale],
    rows: Mapping[str, RowAttacks],
    color: Spec,
    dash: Spec,
    theme: Theme,
    *,
    first: bool,
) -> Spec:
    subset = "test-forgotten" if "test-forgotten" in scales[0].accuracies else "forget"
    budgets = ["none", *(str(scale.value) if scale.budget else "all" for scale in scales)]
    points, areas = [], []
    for scale, budget in zip(scales, budgets[1:], strict=True):
        after = scale.accuracies[subset]
        ends = (after.oracle + after.band.low, after.oracle + after.band.high)
        areas.append({"budget": budget, "low": _percent(ends[0]), "high": _percent(ends[1])})
    for row, found in rows.items():
        scores = {score.label: score for score in found.scores}
        values = [scores[scale.label].accuracies.get(subset) for scale in scales]
        if known := next((value for value in values if value is not None), None):
            points.append({"row": row, "budget": "none", "accuracy": _percent(known.before)})
        points += [
            {"row": row, "budget": budget, "accuracy": _percent(value.after)}
            for budget, value in zip(budgets[1:], values, strict=True)
            if value is not None
        ]
    vertical = {"domain": [0, 102], "nice": False}
    axis = {"grid": False, "labelAngle": 0}
    x = {"field": "budget", "type": "ordinal", "sort": budgets, "title": scales[0].budget or None, "axis": axis}
    y_axis = {"labels": first, "values": [0, 50, 100]}
    y = quantity("accuracy", title="accuracy, %" if first else None, scale=vertical, axis=y_axis)
    low = quantity("low", title=y["title"], scale=vertical, axis=y_axis)
    layers = [
        layer(areas, "bar", {"x": x, "y": low, "y2": {"field": "high"}}, color=theme.oracle, opacity=0.25, width=14),
        layer(points, "line", {"x": x, "y": y, "color": color, "strokeDash": dash}, strokeWidth=1.4),
        layer(points, "circle", {"x": x, "y": y, "color": color}, opacity=1, size=16),
    ]
    head = {"anchor": "start", "fontSize": LETTER + 1, "frame": "group", "offset": 3, "text": name}
    return {"height": HEIGHT, "layer": layers, "title": head, "width": WIDTH}


def _percent(share: float) -> float:
    return round(100 * min(1.0, max(0.0, share)), 3)
