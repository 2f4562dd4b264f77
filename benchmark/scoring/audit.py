"""The audit of the metrics themselves: does each put every sentinel where it must be (protocol section 5)?

A sentinel is a contestant whose place is known beforehand. The pipeline makes and scores them; here they are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import kendalltau, norm

from forgetbench.errors import UsageError
from forgetbench.metrics import metrics
from forgetbench.scoring.bands import STAND_IN
from forgetbench.scoring.comparisons import Population
from forgetbench.scoring.scorecards import Bands, Record, Scorecard, Value
from forgetbench.statistics import half_width

SENTINELS = ("retrain", "third", "none", "sham", "collapse", "relabelled", "head-mask")
"""Retrain, a third set of oracles, No unlearning, and the sentinel methods; ``line`` is given apart."""

LINE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the way from a control oracle's logits to an original's."""

POWER = 0.9
GONE = 0.02
"""Test-forgotten accuracy of a masked head, at most; the argmax of equal logits may still hit."""
LEGIBLE = 0.8
"""Probe of a masked head, at least: the features are untouched."""


class Verdict(Record):
    """One sentinel on one metric, or as a whole."""

    sentinel: str
    """Which sentinel."""
    metric: str | None
    """Which metric; None where the whole scorecard is judged (gate, flags, distance)."""
    passed: bool | None
    """Whether it is where it must be; None where nothing is demanded or it cannot be told."""
    detail: str
    """What was found, in words."""


class Fitness(Record):
    """One metric on this task."""

    metric: str
    """Its name."""
    fit: bool
    """Whether every sentinel is where it must be."""
    ranks: bool
    """Whether it ranks on this board as things stand."""
    null: float | None
    """Oracles against oracles: Retrain's z."""
    detectable: float | None
    """The change of its value that is found outside the family band nine times in ten, in the metric's unit."""
    failures: tuple[str, ...]
    """What is out of place."""


class Audit(Record):
    """The audit of a task's metrics."""

    metrics: tuple[Fitness, ...]
    """Ranking metrics first."""
    verdicts: tuple[Verdict, ...]
    """Every judgement."""
    unfit: tuple[str, ...]
    """Metrics that rank, or stand in for one that does, and failed: given to ``reference_bands(unfit=...)`` they rank
    no longer."""
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
    """Judge the metrics of a board by its sentinels.

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
        raise UsageError(f"There is no sentinel {wrong[0]!r}. There are: {', '.join(SENTINELS)}.")
    verdicts = [verdict for name, card in sentinels.items() for verdict in _whole(name, card, bands)]
    for metric in bands.bands:
        for name, card in sentinels.items():
            verdict = _one(name, metric, sentinels, card, bands)
            if verdict is not None:
                verdicts.append(verdict)
        if line:
            verdicts.append(_rising(metric, [card.metrics.get(metric, Value()) for card in line], bands))
    if line:
        verdicts.append(_rising(None, line, bands))
    ordered = sorted(bands.bands, key=lambda name: (name not in bands.ranking, name))
    ranks = {*bands.ranking, *(STAND_IN[name] for name in bands.ranking if name in STAND_IN)}
    fitness = [_fitness(metric, verdicts, sentinels.get("retrain"), bands) for metric in ordered]
    return Audit(
        metrics=tuple(fitness),
        verdicts=tuple(verdicts),
        unfit=tuple(item.metric for item in fitness if item.metric in ranks and not item.fit),
        taus=agreement(contestants, ordered),
    )


def agreement(contestants: Sequence[Scorecard], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Kendall's tau-b between metrics' |z| over the contestants; a metric that is missing or constant is left out."""
    if len(contestants) < 3:
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


def _limit(bands: Bands) -> float:
    return bands.family_limit if bands.family_limit is not None else 3.0


def _whole(name: str, card: Scorecard, bands: Bands) -> list[Verdict]:
    """What is demanded of a sentinel's scorecard as a whole."""

    def say(*, passed: bool | None, detail: str) -> Verdict:
        return Verdict(sentinel=name, metric=None, passed=passed, detail=detail)

    distance = card.distance
    away = "no distance" if distance is None else f"distance {distance.value:.2f}, family band {_limit(bands):.2f}"
    feasible = any(reference.feasible for reference in bands.references.values())
    if name in {"retrain", "third"}:
        return [say(passed=distance.inside if distance else None, detail=away)]
    if name == "none":
        passed = (
            (distance is not None and not distance.inside and "under-forgotten" in card.flags) if feasible else None
        )
        return [say(passed=passed, detail=f"{away}; flags: {', '.join(card.flags) or 'none'}")]
    if name == "collapse":
        gated = card.gate is not None and card.gate.collapsed
        over = "over-forgotten" in card.flags
        return [say(passed=gated and over, detail=f"gated: {gated}; flags: {', '.join(card.flags) or 'none'}")]
    if name == "relabelled":
        detail = f"flags: {', '.join(card.flags) or 'none'}"
        if bands.track != "match-oracle" or _oracles_miss(card):
            return [say(passed=None, detail=f"{detail}; uniform outputs are not less than the oracles' here")]
        return [say(passed="over-forgotten" in card.flags, detail=detail)]
    return []


def _oracles_miss(card: Scorecard) -> bool:
    """Whether oracles mostly answer the forget set otherwise than it was labelled, as on mislabelled tasks."""
    bands = [card.metrics[name].band if name in card.metrics else None for name in ("accuracy.forget", "accuracy.test")]
    return bands[0] is not None and bands[1] is not None and bands[0].mean < bands[1].mean / 2


def _one(name: str, metric: str, cards: Mapping[str, Scorecard], card: Scorecard, bands: Bands) -> Verdict | None:
    """What is demanded of a sentinel on one metric; None where nothing is."""
    value = card.metrics.get(metric)
    if value is None or value.z is None:
        return None
    found: tuple[bool | None, str] | None = None
    if name in {"retrain", "third"}:
        found = abs(value.z) < max(_limit(bands), 3.0), f"z {value.z:+.2f}"
    elif name == "none" and bands.references[metric].feasible:
        found = abs(value.z) > _limit(bands), f"z {value.z:+.2f}"
    elif name == "sham" and "none" in cards:
        found = _same(value, cards["none"].metrics.get(metric))
    elif name == "head-mask" and metric in {"gap.test-forgotten", "probe"}:
        found = _masked(metric, card)
    if found is None:
        return None
    return Verdict(sentinel=name, metric=metric, passed=found[0], detail=found[1])


def _same(sham: Value, untouched: Value | None) -> tuple[bool | None, str]:
    """Whether two records cannot be told apart: a paired 99 % interval of pseudo-values, or the band's width."""
    if untouched is None or not sham.pseudo or len(sham.pseudo) != len(untouched.pseudo) or sham.band is None:
        return None, "no intervals"
    difference = np.array(sham.pseudo) - np.array(untouched.pseudo)
    mean, margin = float(difference.mean()), max(half_width(difference, 0.01), sham.band.width)
    return abs(mean) <= margin, f"differs from No unlearning by {mean:+.4f}, {margin:.4f} allowed"


def _masked(metric: str, card: Scorecard) -> tuple[bool, str]:
    """A masked head: nothing of the class is answered, and all of it is still in the features."""
    if metric == "probe":
        found = card.metrics["probe"].value
        return found is not None and found >= LEGIBLE, f"probe {found}"
    found = card.metrics["accuracy.test-forgotten"].value
    return found is not None and found <= GONE, f"test-forgotten accuracy {found}"


def _rising(metric: str | None, line: Sequence[Scorecard] | Sequence[Value], bands: Bands) -> Verdict:
    """Whether |z| (or the distance) rises along the line, and never falls by more than noise."""
    heights: list[float] = []
    for item in line:
        if isinstance(item, Scorecard):
            heights.append(item.distance.value if item.distance is not None else float("nan"))
        else:
            heights.append(abs(item.z) if item.z is not None else float("nan"))
    detail = "|z| along the line: " + ", ".join(f"{height:.2f}" for height in heights)
    demanded = metric is None or bands.references[metric].feasible
    if not demanded or not np.isfinite(heights).all():
        return Verdict(sentinel="line", metric=metric, passed=None, detail=detail)
    fall = float((np.maximum.accumulate(heights) - heights).max())
    passed = bool(fall <= max(1.0, 0.1 * max(heights)) and heights[-1] > heights[0] + 1.0)
    return Verdict(sentinel="line", metric=metric, passed=passed, detail=detail)


def _fitness(metric: str, verdicts: Sequence[Verdict], retrain: Scorecard | None, bands: Bands) -> Fitness:
    failures = tuple(
        f"{item.sentinel}: {item.detail}" for item in verdicts if item.metric == metric and item.passed is False
    )
    null = retrain.metrics[metric].z if retrain is not None and metric in retrain.metrics else None
    calibrated = metrics.get(metric).calibrated
    reach = _limit(bands) + float(norm.ppf(POWER))
    return Fitness(
        metric=metric,
        fit=not failures,
        ranks=metric in bands.ranking,
        null=null,
        detectable=reach * bands.bands[metric].width if calibrated else None,
        failures=failures,
    )
