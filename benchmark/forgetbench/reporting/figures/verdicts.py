"""Verdicts of methods on several boards: a matrix in colors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import median
from typing import NamedTuple

from forgetbench.reporting.figures.style import LETTER, LIGHT, Spec, Theme, category, finish, layer
from forgetbench.scoring.vocabulary import Verdict, caveat

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


CAPTION = (
    "Numbers: how much of the way from doing nothing to retraining was forgotten, in percent. Methods are in the order "
    "of the number of boards on which they are nearer to retraining than doing nothing, keep their accuracy, and are "
    "not undone by recalibration; among equals, of their median place. White: no row."
)
"""How to read the matrix."""


class Result(NamedTuple):
    """What a row of a board achieved."""

    verdict: str | None
    """The verdict of the row, if it was judged."""
    forgotten: float | None
    """The share forgotten."""
    forgotten_low: float | None
    """Lower end of its interval."""
    flags: Collection[str]
    """The flags of the row."""
    distance: float | None
    """Distance to retraining."""

    @property
    def says(self) -> str:
        """A key of `COLORS`."""
        if self.verdict is None:
            return ABSENT
        return PALE if caveat(self.verdict, self.forgotten_low, self.flags) else self.verdict

    @property
    def succeeds(self) -> bool:
        """Nearer to retraining than doing nothing, with its accuracy, and not undone by recalibration."""
        return self.says in (Verdict.REACHES_RETRAINING, Verdict.BETTER)


def in_order(boards: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """The rows of some boards, those that succeed on most boards first.

    Args:
        boards: Board -> row -> what it achieved. Rows without a verdict on any board are left out.
    """
    places: dict[str, list[int]] = {}
    succeeded: dict[str, int] = {}
    for rows in boards.values():
        judged = {name: result for name, result in rows.items() if result.verdict and result.distance is not None}
        for place, name in enumerate(sorted(judged, key=lambda name: judged[name].distance or 0.0)):
            places.setdefault(name, []).append(place)
            succeeded[name] = succeeded.get(name, 0) + judged[name].succeeds
    return sorted(places, key=lambda name: (-succeeded[name], median(places[name]), name))


def verdicts(boards: Mapping[str, Mapping[str, Result]], theme: Theme = LIGHT) -> Spec | None:
    """The matrix, a column for each board; None where no row has a verdict.

    Args:
        boards: Board -> row -> what it achieved.
        theme: Colors of letters and ground; verdicts have the same in every theme.
    """
    methods = in_order(boards)
    if not methods:
        return None
    absent = Result(None, None, None, (), None)
    cells = [_cell(method, board, rows.get(method, absent)) for method in methods for board, rows in boards.items()]
    said = {cell["says"] for cell in cells}
    shown = [says for says in COLORS if says in said - {ABSENT}]
    top = {"domain": False, "labelAngle": 0, "labelExpr": "split(datum.value, '/')", "orient": "top"}
    top |= {"labelPadding": 26, "ticks": False}  # labels have three lines, and the padding is that of the first
    x = category("board", axis={**top, "title": None}, scale={"domain": list(boards), "paddingInner": 0.04})
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
        layer(cells, "rect", {"x": x, "y": y, "color": color}),
        layer(cells, "text", letters, fontSize=LETTER, aria=False),
    ]
    return finish({"height": STEP * len(methods), "layer": layers, "width": COLUMN * len(boards)}, theme)


def _cell(method: str, board: str, result: Result) -> Spec:
    text = "" if result.says == ABSENT or result.forgotten is None else f"{round(100 * result.forgotten)}"
    return {"method": method, "board": board, "says": result.says, "text": text, "ink": COLORS[result.says][1]}
