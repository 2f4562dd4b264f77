"""Metrics of two populations as functions of which models stand on which side.

A band needs a metric on a thousand halvings, an interval needs it with each seed left out. So what depends on one model
(or one pair) is computed once for all pooled models, and a metric then only chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics import accuracy_gap as utility
from forgetbench.metrics import divergence
from forgetbench.metrics import divergence as pairs
from forgetbench.metrics import lira_mia as likelihood
from forgetbench.metrics import margin_distances as margins
from forgetbench.metrics import neurips_quality as quality
from forgetbench.metrics import population_mia as membership
from forgetbench.metrics._validation import FloatArray, IntArray, floats
from forgetbench.metrics.logit_statistics import confidence, phi
from forgetbench.metrics.probes import recoverability
from forgetbench.metrics.rmia_population import population_rmia

Arrays = Mapping[str, NDArray[Any]]
Population = Sequence[Arrays]
"""For each draw, subset -> logits (S, n, K); ``features:<subset>`` -> (S, n, F) where recorded."""
Labels = Sequence[Arrays]
"""For each draw, subset -> labels (n,) or (n, A); ``groups:<subset>`` -> group numbers (n,) where there are any."""
SingleValues = Mapping[str, FloatArray]
"""Metric name -> (G, S): what each model scores by itself."""

Metric = Callable[[IntArray, IntArray], float]
BySeed = Callable[[IntArray, IntArray], FloatArray]

SUBSETS = ("forget", "retain", "withheld", "validation", "test", "test-forgotten", "unseen")
SLOW_HALVINGS = 100
"""Halvings behind the band of a metric that is slow and ranks nothing."""
CONTROLS = 4
"""Halvings behind the control of forgetting quality."""
POPULATION_ROWS = 2500
"""Test rows that RMIA compares an example with; more are thinned out evenly."""


@dataclass(frozen=True)
class Comparison:
    """A metric of the models ``left`` against the models ``right``, both index arrays into the pool."""

    value: Metric
    """The metric."""
    symmetry: Literal["even", "odd"] | None = None
    """Whether exchanging the sides keeps the value or turns its sign."""
    by_seed: BySeed | None = None
    """One value per model on the left, for dots."""
    halvings: int | None = None
    """How many halvings its band is made of; all by default."""
    leave_out: bool = True
    """Whether it has an interval, from leaving out each seed."""


class Singles(NamedTuple):
    """Values of single models on both sides, and of the originals."""

    left: SingleValues
    right: SingleValues
    original: SingleValues


def compare(
    left: Population, right: Population, labels: Labels, singles: Singles | None = None, *, ranking_only: bool = False
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """All comparison metrics of two populations pooled: models 0..S-1 are the left ones, S..2S-1 the right ones.

    Args:
        left: The contestant (or, for the bands, the reference oracles).
        right: The reference oracles (or the control oracles).
        labels: The labels of every subset.
        singles: What single models score by themselves, where that was computed.
        ranking_only: Leave out what never ranks: for tuning, where only the distance counts.

    Returns:
        Metric name to comparison, averaged over draws; and the reason for each metric that cannot be computed.

    Raises:
        UsageError: The numbers of draws differ, or a subset is missing on one side.
    """
    if not len(left) == len(right) == len(labels) or not labels:
        raise UsageError(f"Draws differ: {len(left)} and {len(right)} of answers, {len(labels)} of labels.")
    found: list[dict[str, Comparison]] = []
    missing: dict[str, str] = {}
    for draw in range(len(labels)):
        correct: dict[str, FloatArray] = {}
        made = _compare_draw(left[draw], right[draw], labels[draw], correct)
        if not ranking_only:
            more, absent = _beside(left[draw], right[draw], labels[draw], correct)
            made |= more
            missing.update(absent)
        if singles is not None:
            made |= _of_singles(singles, draw, correct)
        found.append(made)
    common = set(found[0]).intersection(*found[1:])
    return {name: average([draw[name] for draw in found]) for name in sorted(common)}, missing


def average(parts: Sequence[Comparison]) -> Comparison:
    """The mean of a metric over draws; leaving out a model leaves it out of all."""
    if len(parts) == 1:
        return parts[0]
    seeds = [part.by_seed for part in parts if part.by_seed is not None]

    def value(left: IntArray, right: IntArray) -> float:
        return float(np.mean([part.value(left, right) for part in parts]))

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        mean: FloatArray = np.mean([part(left, right) for part in seeds], axis=0)
        return mean

    return replace(parts[0], value=value, by_seed=by_seed if len(seeds) == len(parts) else None)


def pooled(left: Arrays, right: Arrays, subset: str) -> FloatArray:
    """Logits of both sides on one subset, (S + S', n, K), checked."""
    sides = [floats(side[subset], f"{subset} logits", ndim=3) for side in (left, right)]
    if sides[0].shape[1:] != sides[1].shape[1:]:
        raise UsageError(f"{subset}: {sides[0].shape[1:]} rows and outputs against {sides[1].shape[1:]}.")
    return np.concatenate(sides)


def _compare_draw(left: Arrays, right: Arrays, labels: Arrays, correct: dict[str, FloatArray]) -> dict[str, Comparison]:
    """What ranks: gaps, lira and shift. Fills ``correct`` with the accuracies of all models on each subset."""
    made: dict[str, Comparison] = {}
    for name in [name for name in SUBSETS if name in labels and len(labels[name])]:
        if name not in left or name not in right:
            raise UsageError(f"The answers on {name!r} are missing on one side.")
        logits = pooled(left, right, name)
        correct[name] = utility.accuracy(logits, labels[name])
        made[f"gap.{name}"] = _gap(correct[name])
        if name in {"forget", "retain"}:
            confidences = phi(logits, labels[name])
            made |= {f"lira.{name}": _lira(confidences), f"shift.{name}": _shift(confidences)}
    return made


def _beside(
    left: Arrays, right: Arrays, labels: Arrays, correct: Mapping[str, FloatArray]
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """What is shown and never ranks, and the reason for what cannot be computed."""
    made: dict[str, Comparison] = {}
    missing: dict[str, str] = {}
    for name in sorted({"forget", "retain", "test"} & set(correct)):
        logits = pooled(left, right, name)
        confidences = phi(logits, labels[name])
        made |= {f"{metric}.{name}": _margin(metric, confidences) for metric in ("w1", "klom")}
        if name == "forget":
            made |= {"forgetting-quality": _quality(confidences)}
            made |= _of_pairs(logits, attributes=np.ndim(labels[name]) == 2)
    if {"forget", "retain", "test"} <= set(correct):
        made["tow"] = _paired(utility.tow_by_seed, {name: correct[name] for name in ("forget", "retain", "test")})
    for metric, members, others in (
        ("mia.population", "forget", ("test", "test-forgotten")),
        ("mia.retain", "retain", ("unseen",) if "unseen" in correct else ("test",)),
    ):
        try:
            made[metric] = _attack(left, right, labels, members, [name for name in others if name in correct])
        except UsageError as error:
            missing[metric] = str(error)
    if np.ndim(labels["forget"]) == 2:
        missing["rmia"] = "not computable: it is defined for classes, not for attributes"
    elif {"forget", "test"} <= set(correct):
        made["rmia"] = _rmia(left, right, labels)
    return made, missing


def _of_pairs(logits: FloatArray, *, attributes: bool) -> dict[str, Comparison]:
    """What compares every model with every other: centered divergence, activation distance, completeness."""
    js = divergence.js_pairs(logits, attributes=attributes)
    made = {"js": Comparison(lambda left, right: divergence.centered(js, left, right), "even")}
    for name, matrix in (
        ("activation-distance", pairs.distance_pairs(logits, attributes=attributes)),
        ("completeness", pairs.agreement_pairs(logits, attributes=attributes)),
    ):
        made[name] = _between(matrix)
    return made


def _of_singles(singles: Singles, draw: int, correct: Mapping[str, FloatArray]) -> dict[str, Comparison]:
    """Gaps of what single models score, the probe's ratio, and the summaries that contain an attack."""
    made = {}
    both = sorted(set(singles.left) & set(singles.right))
    pool = {name: np.concatenate([singles.left[name][draw], singles.right[name][draw]]) for name in both}
    for name in both:
        if name != "probe":
            made[name] = _gap(pool[name])
        elif name in singles.original:
            made[name] = _probe(pool[name], singles.original[name][draw])
    attack = pool.get("mia.svc-confidence")
    if attack is not None and {"forget", "retain", "test"} <= set(correct):
        quantities = {"MIA": attack} | {name: correct[name] for name in ("forget", "retain", "test")}
        made["avg-gap"] = _paired(utility.average_gap_by_seed, quantities)
        made["tow-mia"] = _paired(utility.tow_by_seed, {name: quantities[name] for name in ("MIA", "retain", "test")})
    return made


def _gap(values: FloatArray) -> Comparison:
    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        gaps: FloatArray = values[left] - values[right].mean()
        return gaps

    return Comparison(lambda left, right: utility.gap(values[left], values[right]), "odd", by_seed)


def _paired(
    metric: Callable[[Mapping[str, FloatArray], Mapping[str, FloatArray]], FloatArray], values: Mapping[str, FloatArray]
) -> Comparison:
    """A metric that pairs seed with seed and is then averaged."""

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        return metric({name: array[left] for name, array in values.items()}, {n: a[right] for n, a in values.items()})

    return Comparison(lambda left, right: float(by_seed(left, right).mean()), "even", by_seed)


def _between(matrix: FloatArray) -> Comparison:
    return Comparison(lambda left, right: float(matrix[np.ix_(left, right)].mean()), "even")


def _lira(confidences: FloatArray) -> Comparison:
    def value(left: IntArray, right: IntArray) -> float:
        if len(left) < 3:
            raise UsageError(f"The likelihood ratio attack needs at least three models a side; there are {len(left)}.")
        return likelihood.ratios_auc(likelihood.ratios(confidences[left], confidences[right]))

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        scores = likelihood.ratios(confidences[left], confidences[right])
        folds = [
            likelihood.ratios_auc(likelihood.Ratios(scores.unlearned[fold], scores.oracle[fold]))
            for fold in range(len(left))
        ]
        return np.array(folds)

    return Comparison(value, "even", by_seed)


def _shift(confidences: FloatArray) -> Comparison:
    def value(left: IntArray, right: IntArray) -> float:
        return likelihood.shift(confidences[left], confidences[right])

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        center = confidences[right].mean()
        shifts: FloatArray = (confidences[left].mean(axis=1) - center) / likelihood.within_sd(confidences[right])
        return shifts

    return Comparison(value, None, by_seed)


def _margin(metric: str, confidences: FloatArray) -> Comparison:
    def value(left: IntArray, right: IntArray) -> float:
        if metric == "klom" and len(left) < margins.KLOM_MODELS - 1:  # one may be left out
            raise UsageError(f"KLOM needs {margins.KLOM_MODELS} models a side, there are {len(left)}: see w1.")
        distance = margins.klom if metric == "klom" else margins.wasserstein
        return float(np.quantile(distance(confidences[left], confidences[right]), 0.95))

    return Comparison(value, "even" if metric == "w1" else None, halvings=SLOW_HALVINGS)


def _quality(confidences: FloatArray) -> Comparison:
    def value(left: IntArray, right: IntArray) -> float:
        if len(left) < 3:
            raise UsageError(f"Forgetting quality needs at least three models a side; there are {len(left)}.")
        return quality.forgetting_quality(quality.epsilons(confidences[left], confidences[right]), len(left))

    return Comparison(value, "even", halvings=CONTROLS, leave_out=False)


def _probe(values: FloatArray, original: FloatArray) -> Comparison:
    def value(left: IntArray, right: IntArray) -> float:
        ratio = recoverability(values[left], values[right], original)
        if ratio is None:
            raise UsageError("undefined: the probe reads the oracles' features as well as the originals'")
        return ratio

    return Comparison(value)


def _attack(left: Arrays, right: Arrays, labels: Arrays, members: str, others: Sequence[str]) -> Comparison:
    if members not in labels or not others:
        raise UsageError(f"The population attack needs {members} rows and test rows.")
    table = membership.attack_table(
        pooled(left, right, members),
        labels[members],
        np.concatenate([pooled(left, right, name) for name in others], axis=1),
        np.concatenate([labels[name] for name in others]),
    )

    def value(first: IntArray, second: IntArray) -> float:
        return membership.population(membership.select(table, first), membership.select(table, second))

    return Comparison(value, "odd")


def _rmia(left: Arrays, right: Arrays, labels: Arrays) -> Comparison:
    examples = confidence(pooled(left, right, "forget"), labels["forget"])
    rows = confidence(pooled(left, right, "test"), labels["test"])

    def value(first: IntArray, second: IntArray) -> float:
        sides = [(examples[side], rows[side]) for side in (first, second)]
        return population_rmia(sides[0], sides[1], most=POPULATION_ROWS)

    return Comparison(value, halvings=SLOW_HALVINGS)
