"""Entries of a scorecard that are no comparison of exchangeable sides: accuracies, LiRA statistics, erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.board_rules import (
    Labels,
    ModelValues,
    PerModelRule,
    PerSeedRule,
    Population,
    Populations,
    with_columns,
)
from forgetbench.metrics.columns import Answers
from forgetbench.metrics.correction import attack_success_by_seed
from forgetbench.metrics.erasure import generalization
from forgetbench.metrics.lira_mia import lira
from forgetbench.metrics.neurips_quality import neurips_score
from forgetbench.metrics.registry import declarations, metrics
from forgetbench.metrics.roc import clopper_pearson
from forgetbench.scoring.scorecards import Bands, MetricBand, Value
from forgetbench.scoring.statistics import half_width, pseudo_interval, pseudo_values

LIRA_STATISTICS = {
    "lira.forget.balanced": "balanced_accuracy",
    "lira.forget.tpr-1": "tpr_1",
    "lira.forget.tpr-0.1": "tpr_01",
    "lira.forget.worst-decile": "worst_decile",
}
"""Metric -> the field of the attack's result that it shows."""


def derived(populations: Populations, comparisons: Mapping[str, Value], bands: Bands) -> dict[str, Value]:
    """Compute everything that follows from the comparisons, or that one population has by itself.

    Args:
        populations: The logits of the contestant, the reference oracles and the originals.
        comparisons: The comparisons as they are so far; accuracies and per-model metrics replace their gaps.
        bands: The board's bands.
    """
    values = accuracies(populations, comparisons)
    values |= per_model(populations.values, comparisons, bands)
    values |= relative_to_band(comparisons)
    values |= neurips(values, populations)
    values |= lira_statistics(populations.unlearned, populations.oracles, populations.labels)
    values |= per_seed(populations)
    values |= erasure(populations)
    return values


def accuracies(populations: Populations, gaps: Mapping[str, Value]) -> dict[str, Value]:
    """Accuracies and attack success, with t intervals over seeds.

    Their bands are those of the gaps, moved to the oracles' value.
    """
    values = {}
    for metric in [name for name in gaps if name.startswith("gap.") and gaps[name].value is not None]:
        subset = metric.removeprefix("gap.")
        sides = (populations.unlearned, populations.oracles)
        if subset == "attack-success":
            unlearned, oracle = (attack_success_by_seed(side, populations.labels) for side in sides)
        else:
            unlearned, oracle = (accuracy_by_seed(side, populations.labels, subset) for side in sides)
        name = subset if subset == "attack-success" else f"accuracy.{subset}"
        values[name] = absolute(unlearned, oracle, gaps[metric])
    return values


def per_model(values: ModelValues, gaps: Mapping[str, Value], bands: Bands) -> dict[str, Value]:
    """Per-model metrics with t intervals over seeds, unless they are compared otherwise than by their means."""
    by_means = {
        spec.name
        for declaration in declarations
        if isinstance(declaration.board, PerModelRule) and declaration.board.compare is None
        for spec in declaration.specs
    }
    return {
        metric: absolute(array.mean(axis=0), np.array(bands.per_model[metric].references).mean(axis=0), gaps[metric])
        for metric, array in values.items()
        if metric in by_means and metric in gaps and metric in bands.per_model
    }


def absolute(values: FloatArray, oracle: FloatArray, gap: Value) -> Value:
    """The value of one population instead of the gap; the band is the gap's, moved to the oracles' value."""
    band = _moved(gap.band, float(oracle.mean())) if gap.band is not None else None
    return mean_over_seeds(values).model_copy(update={"band": band, "z": gap.z, "within_band": gap.within_band})


def relative_to_band(values: Mapping[str, Value]) -> dict[str, Value]:
    """Metrics that are shown minus the mean of their band, or divided by it."""
    found = {}
    for metric, value in values.items():
        relation = metrics.get(metric).relative_to_band
        if value.value is None or relation is None:
            continue
        if value.band is None:
            found[metric] = Value(reason="not computable: it needs twice as many oracles as unlearned models")
        elif relation == "difference":
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


def neurips(values: Mapping[str, Value], populations: Populations) -> dict[str, Value]:
    """The score of the NeurIPS 2023 challenge, if forgetting quality is known."""
    ratio = values.get("forgetting-quality")
    accuracies = [values.get(f"accuracy.{subset}") for subset in ("retain", "test")]
    unlearned = [value.value for value in accuracies if value is not None and value.value is not None]
    if ratio is None or ratio.value is None or len(unlearned) < len(accuracies):
        return {"neurips-score": Value(reason="not computable: no forgetting quality")}
    oracle = [
        float(accuracy_by_seed(populations.oracles, populations.labels, subset).mean()) for subset in ("retain", "test")
    ]
    if min(oracle) <= 0:
        return {"neurips-score": Value(reason="undefined: an oracle's accuracy is 0")}
    score = neurips_score(ratio.value, (unlearned[0], oracle[0]), (unlearned[1], oracle[1]))
    return {"neurips-score": Value(value=score)}


def class_accuracy(population: Population, labels: Labels) -> dict[str, dict[int, float]]:
    """Accuracy on test images of each class, or of each attribute, the mean over the draws that have it and over seeds.

    Args:
        population: For each draw, subset -> logits (S, n, K).
        labels: For each draw, subset -> labels.

    Returns:
        ``test``, and ``test-forgotten`` where there are such rows -> class or attribute -> accuracy.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for logits, truth in zip(population, labels, strict=True):
        for subset in ("test", "test-forgotten"):
            answers = np.asarray(truth.get(subset, ()))
            if not len(answers):
                continue
            by_class = found.setdefault(subset, {})
            columns = Answers.of(logits, truth)
            if answers.ndim == 2:
                shares = (columns.column("predicted", subset) == (answers == 1)).mean(axis=(0, 1))
                parts = dict(enumerate(shares.tolist()))
            else:
                right = columns.column("correct", subset).mean(axis=0)
                parts = {int(key): float(right[answers == key].mean()) for key in np.unique(answers)}
            for key, share in parts.items():
                by_class.setdefault(key, []).append(share)
    return {
        subset: {key: float(np.mean(by_class[key])) for key in sorted(by_class)} for subset, by_class in found.items()
    }


def mean_over_seeds(values: FloatArray) -> Value:
    """The mean of one value per seed (S,), with its t interval, which is not clipped."""
    half = half_width(values) if len(values) > 1 else None
    mean = float(values.mean())
    return Value(
        value=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        seeds=tuple(values.tolist()),
    )


def per_seed(populations: Populations) -> dict[str, Value]:
    """Metrics that declare one value per seed, if the board has the subsets that they need."""
    found = {}
    for declaration in declarations:
        if isinstance(declaration.board, PerSeedRule):
            for spec in declaration.specs:
                values = declaration.board.measure(populations) if populations.has(*spec.subsets) else None
                if values is not None:
                    found[spec.name] = mean_over_seeds(values)
    return found


def lira_statistics(contestant: Population, references: Population, labels: Labels) -> dict[str, Value]:
    """The other statistics of the attack on the forget set, averaged over draws.

    Intervals are those of pseudo-values; for true positive rates, which are too close to 0 for these, Clopper and
    Pearson's over all scores.
    """
    try:
        sides = [
            (unlearned.column("phi", "forget"), oracle.column("phi", "forget"))
            for unlearned, oracle in zip(
                with_columns(contestant, labels), with_columns(references, labels), strict=True
            )
        ]
        whole = _lira_over_draws(sides)
    except UsageError as error:
        return {metric: Value(reason=str(error)) for metric in LIRA_STATISTICS}
    seeds = len(sides[0][0])
    left_out: list[dict[str, float | None]] = []
    if seeds > 3:  # the attack needs three models a side
        left_out = [
            _lira_over_draws(
                [(np.delete(unlearned, seed, axis=0), np.delete(oracle, seed, axis=0)) for unlearned, oracle in sides]
            )
            for seed in range(seeds)
        ]
    scores = sum(unlearned.size for unlearned, _ in sides)
    return {
        metric: _lira_value(metric, value, [part[metric] for part in left_out], scores)
        for metric, value in whole.items()
    }


def _lira_over_draws(sides: Sequence[tuple[FloatArray, FloatArray]]) -> dict[str, float | None]:
    """Each statistic as the mean over draws; None if a draw has too few models or examples for it."""
    draws = [lira(unlearned, oracle) for unlearned, oracle in sides]
    found: dict[str, float | None] = {}
    for metric, field in LIRA_STATISTICS.items():
        parts = [getattr(draw, field) for draw in draws]
        found[metric] = None if any(part is None for part in parts) else float(np.mean(parts))
    return found


def _lira_value(metric: str, value: float | None, parts: Sequence[float | None], scores: int) -> Value:
    if value is None:
        return Value(reason="too few models or examples for this statistic")
    known = [part for part in parts if part is not None]
    pseudo = pseudo_values(value, known) if known and len(known) == len(parts) else np.zeros(0)
    low = high = None
    if metric.startswith("lira.forget.tpr"):
        low, high = clopper_pearson(round(value * scores), scores)
    elif len(pseudo):
        _, low, high = pseudo_interval(value, pseudo)
    return Value(value=value, low=low, high=high, pseudo_values=tuple(pseudo.tolist()))


def erasure(populations: Populations) -> dict[str, Value]:
    """Generalization, if the task has rows of the same class or person that no method was given."""
    others = next((subset for subset in ("withheld", "test-forgotten") if populations.has(subset)), None)
    if others is None or populations.originals is None:
        return {}
    return {"generalization": _generalization(populations, populations.originals, others)}


def _generalization(populations: Populations, originals: Population, others: str) -> Value:
    labels = populations.labels
    attributes = np.asarray(labels[0]["forget"]).ndim == 2
    chance = 0.5 if attributes else 1.0 / np.shape(populations.unlearned[0]["forget"])[-1]
    accuracy = {
        subset: [accuracy_by_seed(side, labels, subset) for side in (originals, populations.unlearned)]
        for subset in ("forget", others)
    }

    def value(seeds: list[int]) -> float | None:
        seen, withheld = ((accuracy[subset][0][seeds], accuracy[subset][1][seeds]) for subset in ("forget", others))
        return generalization(seen, withheld, chance)

    seeds = list(range(len(accuracy["forget"][0])))
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


def _moved(band: MetricBand, by: float) -> MetricBand:
    return MetricBand(mean=band.mean + by, low=band.low + by, high=band.high + by, sd=band.sd, floor=band.floor)
