"""Metrics of two populations as functions of which models stand on which side.

A band needs a metric on a thousand halvings, an interval needs it with each seed left out. So what depends on one model
(or one pair) is computed once for all pooled models, and a metric then only chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics import divergence, likelihood, membership, utility
from forgetbench.metrics.arrays import FloatArray, IntArray, floats
from forgetbench.metrics.confidence import phi

Arrays = Mapping[str, NDArray[Any]]
Population = Sequence[Arrays]
"""For each draw, subset -> logits (S, n, K); ``features:<subset>`` -> (S, n, F) where recorded."""
Labels = Sequence[Arrays]
"""For each draw, subset -> labels (n,) or (n, A); ``groups:<subset>`` -> group numbers (n,) where there are any."""

Metric = Callable[[IntArray, IntArray], float]
BySeed = Callable[[IntArray, IntArray], FloatArray]

GAPS = ("forget", "retain", "withheld", "validation", "test", "test-forgotten", "unseen")


@dataclass(frozen=True)
class Comparison:
    """A metric of the models ``left`` against the models ``right``, both index arrays into the pool."""

    value: Metric
    """The metric."""
    symmetry: Literal["even", "odd"] | None = None
    """Whether exchanging the sides keeps the value or turns its sign."""
    by_seed: BySeed | None = None
    """One value per model on the left, for dots."""


def compare(left: Population, right: Population, labels: Labels) -> tuple[dict[str, Comparison], dict[str, str]]:
    """All comparison metrics of two populations pooled: models 0..S-1 are the left ones, S..2S-1 the right ones.

    Args:
        left: The contestant (or, for the bands, the reference oracles).
        right: The reference oracles (or the control oracles).
        labels: The labels of every subset.

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
        made, absent = _compare_draw(left[draw], right[draw], labels[draw])
        found.append(made)
        missing.update(absent)
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

    return Comparison(value, parts[0].symmetry, by_seed if len(seeds) == len(parts) else None)


def pooled(left: Arrays, right: Arrays, subset: str) -> FloatArray:
    """Logits of both sides on one subset, (S + S', n, K), checked."""
    sides = [floats(side[subset], f"{subset} logits", ndim=3) for side in (left, right)]
    if sides[0].shape[1:] != sides[1].shape[1:]:
        raise UsageError(f"{subset}: {sides[0].shape[1:]} rows and outputs against {sides[1].shape[1:]}.")
    return np.concatenate(sides)


def _compare_draw(left: Arrays, right: Arrays, labels: Arrays) -> tuple[dict[str, Comparison], dict[str, str]]:
    made: dict[str, Comparison] = {}
    missing: dict[str, str] = {}
    subsets = [name for name in GAPS if name in labels and len(labels[name])]
    for name in subsets:
        if name not in left or name not in right:
            raise UsageError(f"The answers on {name!r} are missing on one side.")
    correct: dict[str, FloatArray] = {}
    for name in subsets:
        logits = pooled(left, right, name)
        correct[name] = utility.accuracy(logits, labels[name])
        made[f"gap.{name}"] = _gap(correct[name])
        if name in {"forget", "retain"}:
            confidences = phi(logits, labels[name])
            made[f"lira.{name}"] = _lira(confidences)
            made[f"shift.{name}"] = _shift(confidences)
        if name == "forget":
            made["js"] = _js(divergence.js_pairs(logits, attributes=labels[name].ndim == 2))
    if {"forget", "retain", "test"} <= set(correct):
        made["tow"] = _tow({name: correct[name] for name in ("forget", "retain", "test")})
    try:
        made["mia.population"] = _population(left, right, labels)
    except UsageError as error:
        missing["mia.population"] = str(error)
    return made, missing


def _gap(correct: FloatArray) -> Comparison:
    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        gaps: FloatArray = correct[left] - correct[right].mean()
        return gaps

    return Comparison(lambda left, right: utility.gap(correct[left], correct[right]), "odd", by_seed)


def _tow(correct: Mapping[str, FloatArray]) -> Comparison:
    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        sides = [{name: values[side] for name, values in correct.items()} for side in (left, right)]
        return utility.tow_by_seed(sides[0], sides[1])

    return Comparison(lambda left, right: float(by_seed(left, right).mean()), "even", by_seed)


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
        centre = confidences[right].mean()
        shifts: FloatArray = (confidences[left].mean(axis=1) - centre) / likelihood.within_sd(confidences[right])
        return shifts

    return Comparison(value, None, by_seed)


def _js(pairs: FloatArray) -> Comparison:
    return Comparison(lambda left, right: divergence.centred(pairs, left, right), "even")


def _population(left: Arrays, right: Arrays, labels: Arrays) -> Comparison:
    others = [name for name in ("test", "test-forgotten") if name in labels and len(labels[name])]
    if "forget" not in labels or not others:
        raise UsageError("The population attack needs the forget set and test rows.")
    table = membership.attack_table(
        pooled(left, right, "forget"),
        labels["forget"],
        np.concatenate([pooled(left, right, name) for name in others], axis=1),
        np.concatenate([labels[name] for name in others]),
    )

    def value(first: IntArray, second: IntArray) -> float:
        return membership.population(membership.select(table, first), membership.select(table, second))

    return Comparison(value, "odd")
