"""The audit of metrics: does every sentinel have its expected result on each metric (protocol section 5)?

A sentinel is a contestant whose result is known beforehand. `expectations` compares sentinels with what is expected of
them; here metrics are judged by these findings.
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
    check_line,
    check_metric,
    check_scorecard,
    family_limit,
    not_judged_reason,
)
from forgetbench.errors import UsageError
from forgetbench.metrics import metrics
from forgetbench.metrics.board_rules import Population
from forgetbench.scoring.scorecards import Bands, Record, Scorecard, Value

LINE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Positions on the line from a control oracle's logits (0) to an original's (1)."""

POWER = 0.9
"""Power of the detectable difference."""
CONTESTANTS = 3
"""Fewest contestants for Kendall's tau."""

Fit = Literal["fit", "blind", "UNFIT", "not judged"]


class Fitness(Record):
    """The fitness of one metric on a task."""

    metric: str
    """Its name."""
    fit: Fit
    """fit: every sentinel has its expected result. blind: the metric is about forgetting, but does not distinguish No
    unlearning from retraining here. UNFIT: a sentinel has a wrong result. not judged: no sentinel judges it."""
    ranks: bool
    """Whether it currently ranks on this board."""
    retrain: float | None
    """Oracles against oracles: Retrain's z."""
    third: float | None
    """The third set's z."""
    none: float | None
    """No unlearning's z."""
    detectable: float | None
    """The change of its value that is outside the family band nine times in ten, in the metric's unit."""
    why: tuple[str, ...]
    """The wrong results, or why it is blind or not judged."""


class Audit(Record):
    """The audit of a task's metrics."""

    metrics: tuple[Fitness, ...]
    """All metrics, ranking ones first."""
    findings: tuple[Finding, ...]
    """Results of all sentinels."""
    excluded_metrics: tuple[str, ...]
    """Ranking metrics, and their fallbacks, that failed: ``reference_bands(excluded_metrics=...)`` keeps them from
    ranking."""
    contestants: int
    """Number of methods behind the agreement between metrics."""
    taus: dict[str, dict[str, float]]
    """Kendall's tau-b between metrics' |z| over the contestants; empty with fewer than three."""


def interpolate(controls: Population, originals: Population, share: float) -> Population:
    """Interpolate linearly between a control oracle's logits (0) and an original's (1), model by model."""
    if not 0 <= share <= 1:
        raise UsageError(f"share must be in [0, 1], not {share}.")
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
    """Judge the metrics of a board by its sentinels.

    Args:
        sentinels: Sentinel name to scorecard. A task need not have all of them, such as head-mask for attributes.
        bands: The board's bands.
        line: Scorecards of ``interpolate`` at increasing shares.
        contestants: Scorecards of the board's methods, for the agreement between metrics.

    Raises:
        UsageError: The name of a sentinel is unknown.
    """
    unknown = sorted(set(sentinels) - set(SENTINELS))
    if unknown:
        raise UsageError(f"Unknown sentinel {unknown[0]!r}. Available: {', '.join(SENTINELS)}.")
    findings = [finding for name, card in sentinels.items() for finding in check_scorecard(name, card, bands)]
    if line:
        findings.append(check_line(None, line, bands))
    shown = {name for name in metrics.names() if metrics.get(name).on_boards}
    ordered = sorted({*shown, *bands.bands}, key=lambda name: (name not in bands.ranking, name))
    ranks = {name for ranking in bands.ranking for name in (ranking, metrics.get(ranking).fallback) if name}
    fitness = []
    for metric in ordered:
        of_metric = check_metric(metric, sentinels, bands)
        if line and metric in bands.bands:
            of_metric.append(check_line(metric, [card.metrics.get(metric, Value()) for card in line], bands))
        findings += of_metric
        fitness.append(_fitness(metric, of_metric, sentinels, bands))
    return Audit(
        metrics=tuple(fitness),
        findings=tuple(findings),
        excluded_metrics=tuple(item.metric for item in fitness if item.metric in ranks and item.fit == "UNFIT"),
        contestants=len(contestants),
        taus=agreement(contestants, ordered),
    )


def agreement(contestants: Sequence[Scorecard], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Kendall's tau-b between metrics' |z| over the contestants, without metrics that are missing or constant."""
    if len(contestants) < CONTESTANTS:
        return {}
    columns = {}
    for name in names:
        zs = [card.metrics[name].z if name in card.metrics else None for card in contestants]
        known = [abs(z) for z in zs if z is not None]
        if len(known) == len(zs) and len(set(known)) > 1:
            columns[name] = known
    return {
        name: {other: float(kendalltau(columns[name], columns[other]).statistic) for other in columns if other != name}
        for name in columns
    }


def _fitness(metric: str, findings: Sequence[Finding], cards: Mapping[str, Scorecard], bands: Bands) -> Fitness:
    fit, why = _fit_of(metric, findings)
    if fit == "not judged":
        why = (not_judged_reason(metric, cards, bands),)
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


def _fit_of(metric: str, findings: Sequence[Finding]) -> tuple[Fit, tuple[str, ...]]:
    failures = tuple(f"{item.sentinel}: {item.detail}" for item in findings if item.passed is False)
    if failures:
        return "UNFIT", failures
    undecided = next((item.detail for item in findings if item.sentinel == "none" and item.passed is None), None)
    if about_forgetting(metric) and undecided is not None:
        return "blind", (f"none: {undecided}",)
    confirmed = any(item.passed for item in findings if item.sentinel == "none" or not about_forgetting(metric))
    return "fit" if confirmed else "not judged", ()
