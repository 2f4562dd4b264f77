"""Colors, letters and marks that all pictures share."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import altair as alt

Kind = Literal["ranked", "not ranked", "No unlearning", "Retrain"]
KINDS: tuple[Kind, ...] = ("ranked", "not ranked", "No unlearning", "Retrain")
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
LETTER = 9
"""Size of labels, in pixels; a picture as wide as a paper's column prints a pixel as 0.75 points."""


class Theme(NamedTuple):
    """Colors of a picture."""

    ink: str
    """Text."""
    quiet: str
    """Numbers on axes, and lines from a label to its mark."""
    grid: str
    """Lines behind the marks."""
    ranked: str
    """Contestants that take a place."""
    unranked: str
    """Those that take none."""
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
DARK = Theme("#e4e8eb", "#a1abb5", "#30373d", "#77aee8", "#7e8993", "#f0955a", "#4cc79f", "#00000000")
SHAPES = ["circle", "cross", "square", "diamond"]
"""In the order of `KINDS`."""


def values(rows: list[dict[str, Any]]) -> alt.Chart:
    """A chart whose data stand in its specification."""
    return alt.Chart(alt.InlineData(values=rows))


def color_of(theme: Theme) -> alt.Color:
    """Color by kind of row."""
    return alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=theme.kinds), legend=_legend())


def shape_of() -> alt.Shape:
    """Shape by kind of row."""
    return alt.Shape("kind:N", scale=alt.Scale(domain=list(KINDS), range=SHAPES), legend=_legend())


def _legend() -> alt.Legend:
    """The same on every layer, or none is drawn; the reference rows bear their names in the picture."""
    return alt.Legend(orient="top", title=None, values=list(KINDS[:2]), offset=2, symbolOpacity=1)


def written(
    rows: list[dict[str, Any]],
    theme: Theme,
    color: str | None = None,
    align: Literal["left", "right"] = "left",
    **encodings: Any,
) -> list[alt.Chart]:
    """Two layers of text: a halo in the color of the background, and the letters, to be read on lines."""
    chart = values(rows)
    style: dict[str, Any] = {"align": align, "baseline": "middle", "fontSize": LETTER}
    halo = chart.mark_text(**style, stroke=theme.background, strokeWidth=2.5, strokeJoin="round", opacity=0.85)
    return [halo.encode(**encodings), chart.mark_text(**style, color=color or theme.ink).encode(**encodings)]


def finish(chart: Any, theme: Theme = LIGHT) -> dict[str, Any]:
    """The specification of a picture in its colors and letters."""
    axis: dict[str, Any] = {
        "labelColor": theme.quiet,
        "titleColor": theme.ink,
        "titleFontWeight": "normal",
        "titleFontSize": LETTER + 1,
        "labelFontSize": LETTER,
        "gridColor": theme.grid,
        "domainColor": theme.quiet,
        "tickColor": theme.quiet,
        "tickSize": 3,
        "titlePadding": 5,
    }
    styled = (
        chart.configure(font=FONT, background=theme.background, padding=4)
        .configure_axis(**axis)
        .configure_view(stroke=None)
        .configure_legend(labelColor=theme.ink, labelFontSize=LETTER, titleFontSize=LETTER, symbolSize=40)
        .configure_header(labelColor=theme.ink, labelFontSize=LETTER + 1, titleColor=theme.ink)
        .configure_title(color=theme.ink, fontSize=LETTER + 2, fontWeight="normal", anchor="start", offset=6)
    )
    return dict(styled.to_dict())
