"""Distributions of the logit-scaled confidence phi on the forget set, of unlearned models, oracles and originals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetbench.reporting.figures.style import LETTER, LIGHT, Spec, Theme, category, finish, layer, quantity

if TYPE_CHECKING:
    from forgetbench.evidence.run import Run
    from forgetbench.metrics._validation import FloatArray
    from forgetbench.metrics.board_rules import Population
    from forgetbench.scoring.scorer import Scorer

Models = Literal["oracles", "originals", "unlearned"]
MODELS: tuple[Models, ...] = ("oracles", "originals", "unlearned")
COLUMNS, WIDTH, HEIGHT = 3, 150, 52
SHOWN = 9
"""Panels in a chart: the first rows of the board."""
GRID = 90
"""Points of a curve."""
PHI = "confidence φ on the forget set"
Curve = Sequence[tuple[float, float]]
"""Points of a density: phi, and its height."""


def confidences(scorer: Scorer, runs: Sequence[Run]) -> dict[str, FloatArray]:
    """Phi of every forgotten example under every model: oracles, originals, then a row for each run, all flat."""
    from forgetbench.metrics import phi

    card = scorer.bundle.card

    def flat(population: Population) -> FloatArray:
        pairs = zip(population, scorer.bundle.labels, strict=True)
        return np.concatenate([phi(logits["forget"], labels["forget"]).ravel() for logits, labels in pairs])

    samples = {"oracles": flat(scorer.references), "originals": flat(scorer.originals)}
    return samples | {run.manifest.row: flat(run.population(card.draws, card.seeds)) for run in runs}


def confidence(samples: Mapping[str, FloatArray], theme: Theme = LIGHT) -> Spec | None:
    """A panel for each method: its distribution over the oracles' and the originals'; each curve has its peak at 1.

    Args:
        samples: `confidences`, the methods in the order in which they are shown.
        theme: Colors.
    """
    names = [name for name in samples if name not in MODELS][:SHOWN]
    if not names or "oracles" not in samples:
        return None
    low, high = _range([samples["oracles"], samples["originals"]], [samples[name] for name in names])
    grid = np.linspace(low, high, GRID)
    curves = {name: _curve(samples[name], grid) for name in ("oracles", "originals", *names)}
    panels = [
        panel(
            {"oracles": curves["oracles"], "originals": curves["originals"], "unlearned": curves[name]},
            (low, high),
            theme,
            title=name,
            labels=number + COLUMNS >= len(names),
        )
        for number, name in enumerate(names)
    ]
    return finish({"columns": COLUMNS, "concat": panels, "spacing": 10}, theme)


def histogram(
    edges: Sequence[float], shares: Mapping[Models, Sequence[float]], theme: Theme, size: tuple[float, float]
) -> Spec:
    """One method's distribution over the oracles' and the originals', from shares of the examples in bins.

    Args:
        edges: (bins + 1,) ends of the bins.
        shares: (bins,) share of each group of models in each bin.
        theme: Colors.
        size: Width and height, in pixels.
    """
    top = max(max(shares[models]) for models in MODELS)
    curves: dict[Models, Curve] = {}
    for models in MODELS:
        heights = [share / top for share in shares[models]]
        curves[models] = [(edges[0], 0.0), *zip(edges, heights, strict=False), (edges[-1], heights[-1]), (edges[-1], 0)]
    return finish(panel(curves, (edges[0], edges[-1]), theme, size=size, interpolate="step-after"), theme, 11)


def panel(
    curves: Mapping[Models, Curve],
    ends: tuple[float, float],
    theme: Theme,
    *,
    title: str | None = None,
    size: tuple[float, float] = (WIDTH, HEIGHT),
    interpolate: str = "linear",
    labels: bool = True,
) -> Spec:
    """The curves of three groups of models in one frame.

    Args:
        curves: Points of each curve; heights between 0 and 1.
        ends: Least and largest phi shown.
        theme: Colors.
        title: Title of the figure.
        size: Width and height, in pixels.
        interpolate: How Vega-Lite joins the points.
        labels: Whether the axis bears numbers and a title.
    """
    rows = [
        {"side": models, "phi": round(float(x), 3), "density": round(float(y), 4)}
        for models in MODELS
        for x, y in curves[models]
    ]
    guide = {"grid": False, "labels": labels, "tickCount": 5}
    scale = {"domain": list(ends), "nice": False}
    x = quantity("phi", title=PHI if labels else None, scale=scale, axis=guide)
    y = quantity("density", title=None, axis=None, scale={"domain": [0, 1.05], "nice": False})
    symbol = {"symbolStrokeWidth": 2, "symbolType": "stroke"}
    legend = {"offset": 5, "orient": "top", "title": None, **symbol}
    colors = {"domain": list(MODELS), "range": [theme.oracle, theme.original, theme.ranked]}
    dashes = {"domain": list(MODELS), "range": [[1, 0], [4, 3], [1, 0]]}
    encoding = {
        "x": x,
        "y": y,
        "color": category("side", scale=colors, legend=legend),
        "strokeDash": category("side", scale=dashes, legend=legend),
    }
    filled = [row for row in rows if row["side"] == "oracles"]
    layers = [
        layer(filled, "area", {"x": x, "y": y}, color=theme.oracle, interpolate=interpolate, opacity=0.18),
        layer(rows, "line", encoding, interpolate=interpolate, strokeWidth=1.4),
    ]
    head = {} if title is None else {"title": {"anchor": "start", "fontSize": LETTER + 1, "offset": 1, "text": title}}
    return {"height": size[1], "layer": layers, "width": size[0], **head}


def _range(references: Sequence[FloatArray], methods: Sequence[FloatArray]) -> tuple[float, float]:
    """What the axis spans: all of the reference models, and of the methods as much again at either end at most."""
    low, high = np.quantile(np.concatenate(references), [0.003, 0.997])
    spare = (high - low) or 1.0
    quantiles = np.array([np.quantile(method, [0.03, 0.97]) for method in methods])
    return (
        float(max(low - spare, min(low, quantiles[:, 0].min()))),
        float(min(high + spare, max(high, quantiles[:, 1].max()))),
    )


def _curve(sample: FloatArray, grid: FloatArray) -> Curve:
    """A kernel density with its peak at 1; values beyond the grid are gathered at its ends."""
    from scipy.stats import gaussian_kde

    clipped = np.clip(sample, grid[0], grid[-1])
    step = float(grid[1] - grid[0])
    spread = float(clipped.std())
    if spread < step:  # nearly all at one value: a narrow bump
        shape: FloatArray = np.exp(-(((grid - clipped.mean()) / (1.5 * step)) ** 2) / 2)
    else:
        width = max(0.9 * spread * len(clipped) ** -0.2, 1.2 * step) / spread
        shape = gaussian_kde(clipped, bw_method=width)(grid)
    scaled = shape / shape.max()
    return list(zip(grid.tolist(), scaled.tolist(), strict=True))
