"""Colors, letters and marks that all charts share, and the parts of a Vega-Lite specification.

A chart is a Vega-Lite specification in plain Python objects. It is built without Altair, whose validation takes two
hundred milliseconds per chart, so that the pages of a leaderboard draw with the same code as a report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

Spec: TypeAlias = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""
Kind = Literal["ranked", "not ranked", "No unlearning", "Retrain", "claimed"]
"""What a row is; a leaderboard's claimed rows have hollow, dashed marks and are on no front."""
KINDS: tuple[Kind, ...] = ("ranked", "not ranked", "No unlearning", "Retrain")
SHAPES = ["circle", "cross", "square", "diamond"]
"""In the order of `KINDS`."""
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
LETTER = 9
"""Size of labels, in pixels; a chart as wide as a paper's column prints a pixel as 0.75 points."""
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


class Theme(NamedTuple):
    """Colors of a chart."""

    ink: str
    """Text."""
    quiet: str
    """Numbers on axes, and lines from a label to its mark."""
    grid: str
    """Lines behind the marks."""
    ranked: str
    """Rows with a rank."""
    unranked: str
    """Rows without one."""
    original: str
    """No unlearning."""
    oracle: str
    """Retrain, and the band of the oracles."""
    background: str
    """Behind everything."""

    @property
    def kinds(self) -> list[str]:
        """Colors in the order of `KINDS`."""
        return [self.ranked, self.unranked, self.original, self.oracle]


LIGHT = Theme("#1c2024", "#5b6570", "#e6e9ec", "#0060a8", "#8a949e", "#c8500a", "#00805f", "#ffffff")
DARK = Theme("#e4e8eb", "#a1abb5", "#30373d", "#77aee8", "#7e8993", "#f0955a", "#4cc79f", "#14171a")
PAGE = Theme(
    *(f"var(--{name})" for name in ("ink", "quiet", "line", "accent", "quiet", "warn", "good", "ground")),
)
"""Custom properties of the leaderboard's style sheet: a drawing inside a page follows the reader's color scheme."""


def quantity(field: str, **options: object) -> Spec:
    """The encoding of a field of numbers."""
    return {"field": field, "type": "quantitative", **options}


def category(field: str, **options: object) -> Spec:
    """The encoding of a field of names."""
    return {"field": field, "type": "nominal", **options}


def layer(rows: Iterable[Mapping[str, object]], mark: str, encoding: Spec, **style: object) -> Spec:
    """A layer whose data are part of the specification."""
    return {"data": {"values": [dict(row) for row in rows]}, "mark": {"type": mark, **style}, "encoding": encoding}


def color_by_kind(theme: Theme, *, legend: bool = True) -> Spec:
    """Color by kind of row."""
    return category("kind", scale={"domain": list(KINDS), "range": theme.kinds}, legend=_LEGEND if legend else None)


def shape_by_kind(*, legend: bool = True) -> Spec:
    """Shape by kind of row."""
    return category("kind", scale={"domain": list(KINDS), "range": SHAPES}, legend=_LEGEND if legend else None)


_LEGEND = {"offset": 2, "orient": "top", "symbolOpacity": 1, "title": None, "values": list(KINDS[:2])}
"""The same on every layer, or Vega draws none; the reference rows bear their names in the chart."""


def text_layers(
    rows: list[Spec],
    theme: Theme,
    encoding: Spec,
    *,
    color: str | None = None,
    align: Literal["left", "right"] = "left",
    size: float = LETTER,
) -> list[Spec]:
    """Two layers of text: a halo in the color of the background, and the letters, so that lines do not cross them."""
    style: Spec = {"align": align, "baseline": "middle", "fontSize": size, "aria": False}
    halo: Spec = {"opacity": 0.85, "stroke": theme.background, "strokeJoin": "round", "strokeWidth": 2.5}
    return [
        layer(rows, "text", encoding, **style, **halo),
        layer(rows, "text", encoding, **style, color=color or theme.ink),
    ]


def finish(chart: Spec, theme: Theme = LIGHT, letter: float = LETTER) -> Spec:
    """The specification of a chart with its colors and letters."""
    axis = {
        "domainColor": theme.quiet,
        "gridColor": theme.grid,
        "labelColor": theme.quiet,
        "labelFontSize": letter,
        "tickColor": theme.quiet,
        "tickSize": 3,
        "titleColor": theme.ink,
        "titleFontSize": letter + 1,
        "titleFontWeight": "normal",
        "titlePadding": 5,
    }
    legend = {"labelColor": theme.ink, "labelFontSize": letter, "symbolSize": 40, "titleFontSize": letter}
    title = {"anchor": "start", "color": theme.ink, "fontSize": letter + 2, "fontWeight": "normal", "offset": 6}
    header = {"labelColor": theme.ink, "labelFontSize": letter + 1, "titleColor": theme.ink}
    config = {
        "axis": axis,
        "background": theme.background,
        "font": FONT,
        "header": header,
        "legend": legend,
        "padding": 4,
        "title": title,
        "view": {"stroke": None},
    }
    return {"$schema": SCHEMA, "config": config, **chart}
