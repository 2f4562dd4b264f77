"""Distributions of the logit-scaled confidence phi on the forget set, of unlearned models, oracles and originals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from scipy.stats import gaussian_kde

from forgetbench.evidence.run import Run
from forgetbench.metrics import phi
from forgetbench.metrics._validation import FloatArray
from forgetbench.reporting.figures._style import LETTER, LIGHT, Theme, finish, values
from forgetbench.scoring.pairwise import Population
from forgetbench.scoring.scorer import Scorer

SIDES = ("oracles", "originals", "unlearned")
COLUMNS, WIDTH, HEIGHT = 3, 150, 52
SHOWN = 9
"""Panels in a picture: the first rows of the board."""
GRID = 90


def confidences(judge: Scorer, runs: Sequence[Run]) -> dict[str, FloatArray]:
    """Phi of every forgotten example under every model: oracles, originals, then a row for each run, all flat."""
    card = judge.pack.card

    def flat(population: Population) -> FloatArray:
        pairs = zip(population, judge.pack.labels, strict=True)
        return np.concatenate([phi(answers["forget"], truth["forget"]).ravel() for answers, truth in pairs])

    found = {"oracles": flat(judge.references), "originals": flat(judge.originals)}
    return found | {run.manifest.row: flat(run.population(card.draws, card.seeds)) for run in runs}


def confidence(found: dict[str, FloatArray], theme: Theme = LIGHT) -> dict[str, Any] | None:
    """A panel for each method: its distribution over the oracles' and the originals'; each curve has its peak at 1.

    Args:
        found: `confidences`, the methods in the order in which they are to be shown.
        theme: Colors.
    """
    names = [name for name in found if name not in SIDES][:SHOWN]
    if not names or SIDES[0] not in found:
        return None
    low, high = _range([found["oracles"], found["originals"]], [found[name] for name in names])
    grid = np.linspace(low, high, GRID)
    curves = {name: _density(found[name], grid) for name in ("oracles", "originals", *names)}
    panels = []
    for number, name in enumerate(names):
        bottom = number + COLUMNS >= len(names)
        sides = dict(zip(SIDES, ("oracles", "originals", name), strict=True))
        rows = [
            {"side": side, "phi": round(float(x), 3), "density": round(float(y), 4)}
            for side, key in sides.items()
            for x, y in zip(grid, curves[key], strict=True)
        ]
        panels.append(_panel(rows, name, (low, high), theme, bottom=bottom))
    return finish(alt.concat(*panels, columns=COLUMNS, spacing=10), theme)


def _panel(rows: list[dict[str, Any]], name: str, ends: tuple[float, float], theme: Theme, *, bottom: bool) -> Any:
    title = "confidence φ on the forget set" if bottom else None
    guide = alt.Axis(grid=False, tickCount=5, labels=bottom)
    x = alt.X("phi:Q", title=title, scale=alt.Scale(domain=list(ends), nice=False), axis=guide)
    y = alt.Y("density:Q", title=None, axis=None, scale=alt.Scale(domain=[0, 1.05], nice=False))
    colors = [theme.oracle, theme.original, theme.ranked]
    legend = alt.Legend(orient="top", title=None, symbolType="stroke", symbolStrokeWidth=2, offset=5)
    color = alt.Color("side:N", scale=alt.Scale(domain=list(SIDES), range=colors), legend=legend)
    dash = alt.StrokeDash("side:N", scale=alt.Scale(domain=list(SIDES), range=[[1, 0], [4, 3], [1, 0]]), legend=legend)
    oracles = values([row for row in rows if row["side"] == SIDES[0]])
    area = oracles.mark_area(color=theme.oracle, opacity=0.18).encode(x=x, y=y)
    lines = values(rows).mark_line(strokeWidth=1.4).encode(x=x, y=y, color=color, strokeDash=dash)
    head = alt.TitleParams(name, anchor="start", fontSize=LETTER + 1, offset=1)
    return alt.layer(area, lines, title=head).properties(width=WIDTH, height=HEIGHT)


def _range(sides: Sequence[FloatArray], methods: Sequence[FloatArray]) -> tuple[float, float]:
    """What the axis spans: all of the reference models, and of the methods as much again at either end at most."""
    low, high = np.quantile(np.concatenate(sides), [0.003, 0.997])
    spare = (high - low) or 1.0
    quantiles = np.array([np.quantile(method, [0.03, 0.97]) for method in methods])
    return (
        float(max(low - spare, min(low, quantiles[:, 0].min()))),
        float(min(high + spare, max(high, quantiles[:, 1].max()))),
    )


def _density(sample: FloatArray, grid: FloatArray) -> FloatArray:
    """A kernel density with its peak at 1; values beyond the grid are gathered at its ends."""
    clipped = np.clip(sample, grid[0], grid[-1])
    step = float(grid[1] - grid[0])
    spread = float(clipped.std())
    if spread < step:  # nearly all at one value: a narrow bump
        shape: FloatArray = np.exp(-(((grid - clipped.mean()) / (1.5 * step)) ** 2) / 2)
    else:
        width = max(0.9 * spread * len(clipped) ** -0.2, 1.2 * step) / spread
        shape = gaussian_kde(clipped, bw_method=width)(grid)
    scaled: FloatArray = shape / shape.max()
    return scaled
