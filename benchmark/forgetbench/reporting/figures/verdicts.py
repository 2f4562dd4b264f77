"""Verdicts of methods on several boards: a matrix in colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forgetbench.reporting.figures.style import LETTER, LIGHT, Spec, Theme, category, finish, layer
from forgetbench.scoring.vocabulary import Verdict

STEP, COLUMN = 15, 62
"""Pixels: height of a row, width of a column."""
ABSENT = "not applicable, or not run"
PALE = "nearer, but nothing forgotten or it comes back"
COLORS = {
    Verdict.REACHES_RETRAINING: ("#00664b", "#ffffff"),
    Verdict.BETTER: ("#8ec5ea", "#0b3a57"),
    Verdict.AT_A_PRICE: ("#ffe08a", "#4d3800"),
    PALE: ("#dcedf8", "#3d444b"),
    Verdict.AS_NOTHING: ("#e6e9ec", "#3d444b"),
    Verdict.WORSE: ("#f7cbb9", "#6b1d00"),
    Verdict.COLLAPSED: ("#3a3f45", "#ffffff"),
    ABSENT: ("#ffffff", "#8a949e"),
}
"""What a cell says -> its color and that of its letters."""


class Cell(NamedTuple):
    """One method on one board."""

    method: str
    """The row."""
    board: str
    """The column."""
    says: str
    """A key of `COLORS`."""
    text: str
    """What is written in it."""


def verdicts(cells: Sequence[Cell], theme: Theme = LIGHT) -> Spec:
    """The matrix; rows and columns in the order in which the cells name them first.

    Args:
        cells: All cells, in any order.
        theme: Colors of letters and ground; verdicts have the same in every theme.
    """
    methods, boards = (list(dict.fromkeys(names)) for names in zip(*((c.method, c.board) for c in cells), strict=True))
    shown = [says for says in COLORS if says != ABSENT and any(cell.says == says for cell in cells)]
    rows = [{**cell._asdict(), "ink": COLORS[cell.says][1]} for cell in cells]
    top = {"domain": False, "labelAngle": 0, "labelExpr": "split(datum.value, '/')", "orient": "top"}
    top |= {"labelPadding": 26, "ticks": False}  # labels have three lines, and the padding is that of the first
    x = category("board", axis={**top, "title": None}, scale={"domain": boards, "paddingInner": 0.04})
    y = category(
        "method", axis={"domain": False, "ticks": False, "title": None}, scale={"domain": methods, "paddingInner": 0.08}
    )
    color = category(
        "says",
        scale={"domain": [*shown, ABSENT], "range": [COLORS[says][0] for says in (*shown, ABSENT)]},
        legend={
            "columns": 2,
            "labelLimit": 300,
            "orient": "bottom",
            "symbolType": "square",
            "title": None,
            "values": shown,
        },
    )
    letters = {"x": x, "y": y, "text": category("text"), "color": {"field": "ink", "type": "nominal", "scale": None}}
    layers = [
        layer(rows, "rect", {"x": x, "y": y, "color": color}),
        layer(rows, "text", letters, fontSize=LETTER, aria=False),
    ]
    return finish({"height": STEP * len(methods), "layer": layers, "width": COLUMN * len(boards)}, theme)
