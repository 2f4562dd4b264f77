"""Metrics of a scorecard that are no comparison of exchangeable sides: accuracies, attack readings, erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.erasure import generalization, h_mean_by_seed
from forgetbench.metrics.lira_mia import lira
from forgetbench.metrics.literature import adaptive_unlearning_score, indiscernibility, retention_deviation
from forgetbench.metrics.logit_statistics import phi
from forgetbench.metrics.neurips_quality import neurips_score
from forgetbench.metrics.roc import clopper_pearson
from forgetbench.scoring.pairwise import Labels, Population, SingleValues
from forgetbench.scoring.scorecards import Bands, MetricBand, Value
from forgetbench.scoring.statistics import half_width, pseudo_interval, pseudo_values

LIRA_READINGS = {
    "lira.forget.balanced": "balanced_accuracy",
    "lira.forget.tpr-1": "tpr_1",
    "lira.forget.tpr-0.1": "tpr_01",
    "lira.forget.worst-decile": "worst_decile",
}
"""Metric -> the field of the attack's result that it shows."""


def accuracy_by_seed(population: Population, labels: Labels, subset: str) -> FloatArray:
    """Accuracy of each seed on a subset, the mean over draws, (S,)."""
    draws = [accuracy(answers[subset], truth[subset]) for answers, truth in zip(population, labels, strict=True)]
    mean: FloatArray = np.mean(draws, axis=0)
    return mean


def accuracies(
    contestant: Population, references: Population, labels: Labels, gaps: Mapping[str, Value]
) -> dict[str, Value]:
    """Accuracies with t intervals over seeds; their bands are those of the gaps, moved to the oracles' accuracy."""
    found = {}
    for metric in [name for name in gaps if name.startswith("gap.") and gaps[name].value is not None]:
        subset = metric.removeprefix("gap.")
        oracle = accuracy_by_seed(references, labels, subset)
        found[f"accuracy.{subset}"] = absolute(accuracy_by_seed(contestant, labels, subset), oracle, gaps[metric])
    return found


def singles(values: SingleValues, gaps: Mapping[str, Value], bands: Bands) -> dict[str, Value]:
    """What single models score, with t intervals over seeds; the probe stays the ratio that it is."""
    return {
        metric: absolute(array.mean(axis=0), np.array(bands.per_model[metric].references).mean(axis=0), gaps[metric])
        for metric, array in values.items()
        if metric != "probe" and metric in gaps and metric in bands.per_model
    }


def absolute(values: FloatArray, oracle: FloatArray, gap: Value) -> Value:
    """A value of its own in place of its gap: the band is the gap's, moved to the oracles' value."""
    band = _moved(gap.band, float(oracle.mean())) if gap.band is not None else None
    return over_seeds(values).model_copy(update={"band": band, "z": gap.z, "within_band": gap.within_band})


def relative(values: Mapping[str, Value]) -> dict[str, Value]:
    """What is shown against its band alone: margin distances minus its mean, forgetting quality over the control's."""
    found = {}
    for metric, value in values.items():
        distance = metric.startswith(("w1.", "klom."))
        if value.value is None or not (distance or metric == "forgetting-quality"):
            continue
        if value.band is None:
            found[metric] = Value(reason="not computable: it is told against twice as many oracles as unlearned models")
        elif distance:
            by = -value.band.mean
            ends = [None if end is None else end + by for end in (value.low, value.high)]
            found[metric] = value.model_copy(
                update={
                    "value": value.value + by,
                    "low": ends[0],
                    "high": ends[1],
                    "pseudo_values": tuple(part + by for part in value.pseudo_values),
                    "band": _moved(value.band, by),
                }
            )
        else:
            control = value.band.mean
            found[metric] = (
                Value(value=value.value / control) if control > 0 else Value(reason="undefined: the control's F is 0")
            )
    return found


def neurips(values: Mapping[str, Value], references: Population, labels: Labels) -> dict[str, Value]:
    """The challenge's score, where forgetting quality is there."""
    ratio = values.get("forgetting-quality")
    needed = [values.get(f"accuracy.{subset}") for subset in ("retain", "test")]
    if ratio is None or ratio.value is None or any(value is None or value.value is None for value in needed):
        return {"neurips-score": Value(reason="not computable: no forgetting quality")}
    oracle = [float(accuracy_by_seed(references, labels, subset).mean()) for subset in ("retain", "test")]
    if min(oracle) <= 0:
        return {"neurips-score": Value(reason="undefined: an oracle's accuracy is 0")}
    mine = [value.value for value in needed if value is not None and value.value is not None]
    return {"neurips-score": Value(value=neurips_score(ratio.value, (mine[0], oracle[0]), (mine[1], oracle[1])))}


def over_seeds(values: FloatArray) -> Value:
    """The mean of one value per seed, with its t interval, clipped to nothing."""
    half = half_width(values) if len(values) > 1 else None
    mean = float(values.mean())
    return Value(
        value=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        seeds=tuple(values.tolist()),
    )


def summaries(contestant: Population, references: Population, labels: Labels, alone: SingleValues) -> dict[str, Value]:
    """Retention deviation and indiscernibility, seed by seed."""
    found = {}
    if _has(labels, "retain") and _has(labels, "test"):
        sides = [
            {subset: accuracy_by_seed(side, labels, subset) for subset in ("retain", "test")}
            for side in (contestant, references)
        ]
        oracle = {subset: float(values.mean()) for subset, values in sides[1].items()}
        if min(oracle.values()) > 0:
            seeds = range(len(sides[0]["test"]))
            found["retention-deviation"] = over_seeds(
                np.array(
                    [
                        retention_deviation({name: float(values[seed]) for name, values in sides[0].items()}, oracle)
                        for seed in seeds
                    ]
                )
            )
    if "mia.loss" in alone:
        found["indiscernibility"] = over_seeds(np.vectorize(indiscernibility)(alone["mia.loss"].mean(axis=0)))
    return found


def lira_readings(contestant: Population, references: Population, labels: Labels) -> dict[str, Value]:
    """The other readings of the attack on the forget set, averaged over draws.

    Intervals are those of pseudo-values; of true positive rates, which lie too near 0 for these, Clopper and Pearson's
    over all scores.
    """
    try:
        sides = [
            (phi(mine["forget"], truth["forget"]), phi(theirs["forget"], truth["forget"]))
            for mine, theirs, truth in zip(contestant, references, labels, strict=True)
        ]
        whole = _lira_over_draws(sides)
    except UsageError as error:
        return {metric: Value(reason=str(error)) for metric in LIRA_READINGS}
    seeds = len(sides[0][0])
    left_out: list[dict[str, float | None]] = []
    if seeds > 3:  # the attack needs three models a side
        left_out = [
            _lira_over_draws(
                [(np.delete(mine, seed, axis=0), np.delete(theirs, seed, axis=0)) for mine, theirs in sides]
            )
            for seed in range(seeds)
        ]
    scores = sum(mine.size for mine, _ in sides)
    return {
        metric: _reading(metric, value, [part[metric] for part in left_out], scores) for metric, value in whole.items()
    }


def _lira_over_draws(sides: Sequence[tuple[FloatArray, FloatArray]]) -> dict[str, float | None]:
    """Each reading as the mean over draws; None where a draw has too few models or examples for it."""
    draws = [lira(mine, theirs) for mine, theirs in sides]
    found: dict[str, float | None] = {}
    for metric, field in LIRA_READINGS.items():
        parts = [getattr(draw, field) for draw in draws]
        found[metric] = None if any(part is None for part in parts) else float(np.mean(parts))
    return found


def _reading(metric: str, value: float | None, parts: Sequence[float | None], scores: int) -> Value:
    if value is None:
        return Value(reason="too few models or examples for this reading")
    known = [part for part in parts if part is not None]
    pseudo = pseudo_values(value, known) if known and len(known) == len(parts) else np.zeros(0)
    low = high = None
    if metric.startswith("lira.forget.tpr"):
        low, high = clopper_pearson(round(value * scores), scores)
    elif len(pseudo):
        _, low, high = pseudo_interval(value, pseudo)
    return Value(value=value, low=low, high=high, pseudo_values=tuple(pseudo.tolist()))


def erasure(contestant: Population, originals: Population, labels: Labels) -> dict[str, Value]:
    """H-mean and generalization, where the task has rows for them."""
    found = {}
    if _has(labels, "test-forgotten") and _has(labels, "test"):
        kept = accuracy_by_seed(contestant, labels, "test")
        sides = [accuracy_by_seed(side, labels, "test-forgotten") for side in (originals, contestant)]
        found["h-mean"] = over_seeds(h_mean_by_seed(kept, sides[0], sides[1]))
    if _has(labels, "test"):
        found["aus"] = _adaptive_score(contestant, originals, labels)
    others = next((name for name in ("withheld", "test-forgotten") if _has(labels, name)), None)
    if others is not None:
        found["generalization"] = _generalization(contestant, originals, labels, others)
    return found


def _adaptive_score(contestant: Population, originals: Population, labels: Labels) -> Value:
    """AUS seed by seed; on class tasks of the forgotten classes' test rows."""
    classes = _has(labels, "test-forgotten")
    before, after = (accuracy_by_seed(side, labels, "test") for side in (originals, contestant))
    forgotten = accuracy_by_seed(contestant, labels, "test-forgotten" if classes else "forget")
    return over_seeds(
        np.array(
            [
                adaptive_unlearning_score(float(o), float(t), float(f), classes=classes)
                for o, t, f in zip(before, after, forgotten, strict=True)
            ]
        )
    )


def _generalization(contestant: Population, originals: Population, labels: Labels, others: str) -> Value:
    truth = np.asarray(labels[0]["forget"])
    chance = 0.5 if truth.ndim == 2 else 1.0 / np.shape(contestant[0]["forget"])[-1]
    rates = {
        name: [accuracy_by_seed(side, labels, name) for side in (originals, contestant)] for name in ("forget", others)
    }

    def value(kept: list[int]) -> float | None:
        seen, away = ((rates[name][0][kept], rates[name][1][kept]) for name in ("forget", others))
        return generalization(seen, away, chance)

    seeds = list(range(len(rates["forget"][0])))
    whole = value(seeds)
    if whole is None:
        return Value(reason="undefined: the forget set was hardly forgotten, or the original is near chance on it")
    parts = [value([seed for seed in seeds if seed != without]) for without in seeds] if len(seeds) > 1 else []
    defined = [part for part in parts if part is not None]
    if not parts or len(defined) < len(parts):
        return Value(value=whole)
    pseudo = pseudo_values(whole, defined)
    _, low, high = pseudo_interval(whole, pseudo)
    return Value(value=whole, low=low, high=high, pseudo_values=tuple(pseudo.tolist()))


def _has(labels: Labels, subset: str) -> bool:
    return all(subset in truth and len(truth[subset]) for truth in labels)


def _moved(band: MetricBand, by: float) -> MetricBand:
    return MetricBand(mean=band.mean + by, low=band.low + by, high=band.high + by, sd=band.sd, floor=band.floor)
