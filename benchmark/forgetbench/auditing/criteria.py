"""The audit of the metrics themselves: does each put every sentinel where it must be (protocol section 5)?

A sentinel is a contestant whose place is known beforehand. The pipeline makes and scores them; `sentinels` says where
they are and must be; here metrics are judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.stats import kendalltau, norm

from forgetbench.auditing.expectations import (
    SENTINELS,
    Finding,
    about_forgetting,
    family_limit,
    of_metric,
    rising,
    whole,
    why_not,
)
from forgetbench.errors import UsageError
from forgetbench.metrics import metrics
from forgetbench.metrics.board_rules import Population
from forgetbench.scoring.scorecards import Bands, Record, Scorecard, Value

LINE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the way from a control oracle's logits to an original's."""

POWER = 0.9
CONTESTANTS = 3
"""Contestants that Kendall's tau needs."""

Fit = Literal["fit", "blind", "UNFIT", "not judged"]


class Fitness(Record):
    """One metric on this task."""

    metric: str
    """Its name."""
    fit: Fit
    """fit: every sentinel is where it must be. blind: it is about forgetting, and does not tell No unlearning from
    retraining here. UNFIT: a sentinel has a wrong result. not judged: no sentinel tests it."""
    ranks: bool
    """Whether it ranks on this board as things stand."""
    retrain: float | None
    """Oracles against oracles: Retrain's z."""
    third: float | None
    """The third set's z."""
    none: float | None
    """No unlearning's z."""
    detectable: float | None
    """The change of its value that is found outside the family band nine times in ten, in the metric's unit."""
    why: tuple[str, ...]
    """Wrong results, or why it is blind or not judged."""


class Audit(Record):
    """The audit of a task's metrics."""

    metrics: tuple[Fitness, ...]
    """All metrics, those that rank first."""
    findings: tuple[Finding, ...]
    """Every judgment."""
    excluded_metrics: tuple[str, ...]
    """Ranking metrics, and their fallbacks, that failed: ``reference_bands(excluded_metrics=...)`` keeps them from
    ranking."""
    contestants: int
    """Methods of the board that took part in the agreement between metrics."""
    taus: dict[str, dict[str, float]]
    """Kendall's tau-b between metrics' |z| over the contestants; empty with fewer than three."""


def interpolate(controls: Population, originals: Population, share: float) -> Population:
    """Logits on the straight line from a control oracle's (0) to an original's (1), model by model."""
    if not 0 <= share <= 1:
        raise UsageError(f"A place on the line is a share in [0, 1], not {share}.")
    return [
        {
            name: (1 - share) * np.asarray(start[name], np.float64) + share * np.asarray(end[name], np.float64)
            for name in start
            if name in end
        }
        for start, end in zip(controls, originals, strict=True)
    ]


def audit(
    sentinels: Mapping[str, Scorecard],
    bands: Bands,
    *,
    line: Sequence[Scorecard] = (),
    contestants: Sequence[Scorecard] = (),
) -> Audit:
    """Scorer the metrics of a board by its sentinels.

    Args:
        sentinels: Scorecards by sentinel name; those that a task has not (head-mask on attributes) may be left out.
        bands: The board's bands.
        line: Scorecards of ``interpolate`` at rising shares.
        contestants: Scorecards of the board's methods, for the agreement between metrics.

    Raises:
        UsageError: A sentinel has no such name.
    """
    wrong = sorted(set(sentinels) - set(SENTINELS))
    if wrong:
        raise UsageError(f"Unknown sentinel {wrong[0]!r}. Available: {', '.join(SENTINELS)}.")
    findings = [finding for name, card in sentinels.items() for finding in whole(name, card, bands)]
    if line:
        findings.append(rising(None, line, bands))
    kept = {name for name in metrics.names() if metrics.get(name).on_boards}
    ordered = sorted({*kept, *bands.bands}, key=lambda name: (name not in bands.ranking, name))
    ranks = {name for ranking in bands.ranking for name in (ranking, metrics.get(ranking).fallback) if name}
    fitness = []
    for metric in ordered:
        found = of_metric(metric, sentinels, bands)
        if line and metric in bands.bands:
            found.append(rising(metric, [card.metrics.get(metric, Value()) for card in line], bands))
        findings += found
        fitness.append(_fitness(metric, found, sentinels, bands))
    return Audit(
        metrics=tuple(fitness),
        findings=tuple(findings),
        excluded_metrics=tuple(item.metric for item in fitness if item.metric in ranks and item.fit == "UNFIT"),
        contestants=len(contestants),
        taus=agreement(contestants, ordered),
    )


def agreement(contestants: Sequence[Scorecard], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Kendall's tau-b between metrics' |z| over the contestants; a metric that is missing or constant is left out."""
    if len(contestants) < CONTESTANTS:
        return {}
    columns = {}
    for name in names:
        zs = [card.metrics[name].z if name in card.metrics else None for card in contestants]
        known = [abs(z) for z in zs if z is not None]
        if len(known) == len(zs) and len(set(known)) > 1:
            columns[name] = known
    return {
        one: {two: float(kendalltau(columns[one], columns[two]).statistic) for two in columns if two != one}
        for one in columns
    }


def _fitness(metric: str, findings: Sequence[Finding], cards: Mapping[str, Scorecard], bands: Bands) -> Fitness:
    fit, why = _judged(metric, findings)
    if fit == "not judged":
        why = (why_not(metric, cards, bands),)
    reach = family_limit(bands) + float(norm.ppf(POWER))
    width = bands.bands[metric].width if metric in bands.bands and metrics.get(metric).calibrated else 0.0
    z = {name: card.metrics[metric].z if metric in card.metrics else None for name, card in cards.items()}
    return Fitness(
        metric=metric,
        fit=fit,
        ranks=metric in bands.ranking,
        retrain=z.get("retrain"),
        third=z.get("third"),
        none=z.get("none"),
        detectable=reach * width if width else None,
        why=why,
    )


def _judged(metric: str, findings: Sequence[Finding]) -> tuple[Fit, tuple[str, ...]]:
    failures = tuple(f"{item.sentinel}: {item.detail}" for item in findings if item.passed is False)
    if failures:
        return "UNFIT", failures
    untold = next((item.detail for item in findings if item.sentinel == "none" and item.passed is None), None)
    if about_forgetting(metric) and untold is not None:
        return "blind", (f"none: {untold}",)
    informative = any(item.passed for item in findings if item.sentinel == "none" or not about_forgetting(metric))
    return "fit" if informative else "not judged", ()
