"""Comparisons of two populations, as the metrics declare them: functions of which models are on which side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray
from forgetbench.metrics.board_rules import (
    SUBSETS,
    Comparison,
    Draw,
    Labels,
    LogitsRule,
    ModelValues,
    PairwiseRule,
    PerModelRule,
    Population,
    difference_of_means,
)
from forgetbench.metrics.registry import Declaration, MetricSpec, Track, declarations, ranking_metrics

TRACKS: tuple[Track, ...] = ("match-oracle", "erase", "corrective")


class PerModelValues(NamedTuple):
    """Per-model metrics of both sides, and of the originals."""

    unlearned: ModelValues
    oracle: ModelValues
    original: ModelValues


def compare(
    unlearned: Population,
    oracle: Population,
    labels: Labels,
    per_model: PerModelValues | None = None,
    *,
    ranking_only: bool = False,
    all_rows: bool = False,
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """Compute all comparisons of two populations. In the pool, models 0..S-1 are unlearned, S..2S-1 oracles.

    Args:
        unlearned: The contestant (or, for the bands, the reference oracles).
        oracle: The reference oracles (or the control oracles).
        labels: The labels of every subset.
        per_model: Per-model metrics, if already computed.
        ranking_only: Skip metrics that never rank: for tuning, which needs only the distance.
        all_rows: Compute metrics that never rank from all rows, and not from a fixed number of them.

    Returns:
        Metric name to comparison, averaged over draws; and metric name to the reason why it cannot be computed.

    Raises:
        UsageError: The numbers of draws differ, or a subset is missing on one side.
    """
    if not len(unlearned) == len(oracle) == len(labels) or not labels:
        raise UsageError(
            f"The numbers of draws differ: {len(unlearned)} and {len(oracle)} of logits, {len(labels)} of labels."
        )
    by_draw: list[dict[str, Comparison]] = []
    missing: dict[str, str] = {}
    for index, truth in enumerate(labels):
        draw = Draw((unlearned[index], oracle[index]), truth, *_values_of(per_model, index), all_rows=all_rows)
        _require_subsets(draw)
        comparisons: dict[str, Comparison] = {}
        for declaration in board_declarations(ranking_only=ranking_only):
            for spec in declaration.specs:
                try:
                    comparison = _compare(declaration, spec, draw)
                except UsageError as error:
                    missing[spec.name] = str(error)
                else:
                    if comparison is not None:
                        comparisons[spec.name] = comparison
        by_draw.append(comparisons)
    common = set(by_draw[0]).intersection(*by_draw[1:])
    return {name: average([draw[name] for draw in by_draw]) for name in sorted(common)}, missing


def count_models(population: Population) -> int:
    """The number of models of a population.

    Raises:
        UsageError: It differs between subsets or draws.
    """
    counts = {len(array) for answers in population for array in answers.values()}
    if len(counts) != 1 or 0 in counts:
        raise UsageError(f"Every subset of every draw needs the same number of models, not {sorted(counts)}.")
    return counts.pop()


def sides(seeds: int, without: int | None = None) -> tuple[IntArray, IntArray]:
    """The two sides of a pool of 2 * seeds models, with one seed left out of both."""
    left = np.array([seed for seed in range(seeds) if seed != without], dtype=np.int64)
    return left, seeds + left


def left_out_values(comparison: Comparison, seeds: int) -> tuple[float, ...]:
    """A metric with all seeds, then with each seed left out of both sides; one value if none can be left out.

    Raises:
        UsageError: The metric cannot be computed even with all seeds.
    """
    if seeds not in comparison.left_out:
        values: tuple[float, ...] = (comparison.value(*sides(seeds)),)
        if seeds > 1 and comparison.leave_out:
            with suppress(UsageError):  # with too few seeds to leave one out, the value has no interval
                values += tuple(comparison.value(*sides(seeds, seed)) for seed in range(seeds))
        comparison.left_out[seeds] = values
    return comparison.left_out[seeds]


def comparison_of(metric: str, unlearned: Population, oracle: Population, labels: Labels) -> Comparison:
    """One metric of two populations, averaged over draws. Only the subsets that the metric reads are needed.

    Args:
        metric: A metric that compares two populations, such as ``gap.forget``.
        unlearned: For each draw, subset -> logits (S, n, K).
        oracle: The same of the reference oracles.
        labels: For each draw, subset -> labels.

    Raises:
        UsageError: The metric is not a comparison, or a draw lacks what it needs.
    """
    declaration, spec = next((one, spec) for one in declarations for spec in one.specs if spec.name == metric)
    parts = []
    for answers, oracles, truth in zip(unlearned, oracle, labels, strict=True):
        comparison = _compare(declaration, spec, Draw([answers, oracles], truth))
        if comparison is None:
            raise UsageError(f"{metric} is not computable: needs {', '.join(spec.requires)}.")
        parts.append(comparison)
    return average(parts)


def board_declarations(*, ranking_only: bool = False) -> list[Declaration]:
    """The declarations with a board rule.

    Args:
        ranking_only: Only those of metrics that rank on some track, or that are the fallback of one that does.
    """
    declared = [declaration for declaration in declarations if declaration.board is not None]
    if not ranking_only:
        return declared
    ranking = [spec for track in TRACKS for spec in ranking_metrics(track)]
    needed = {name for spec in ranking for name in (spec.name, spec.fallback)}
    return [declaration for declaration in declared if any(spec.name in needed for spec in declaration.specs)]


def average(parts: Sequence[Comparison]) -> Comparison:
    """The mean of a comparison over draws. Leaving out a model leaves it out of all draws."""
    if len(parts) == 1:
        return parts[0]
    seeds = [part.by_seed for part in parts if part.by_seed is not None]

    def value(left: IntArray, right: IntArray) -> float:
        return float(np.mean([part.value(left, right) for part in parts]))

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        mean: FloatArray = np.mean([part(left, right) for part in seeds], axis=0)
        return mean

    return replace(parts[0], value=value, by_seed=by_seed if len(seeds) == len(parts) else None)


def _compare(declaration: Declaration, spec: MetricSpec, draw: Draw) -> Comparison | None:
    """The comparison that a metric declares; None if it declares none, or if the board lacks what it needs."""
    rule = declaration.board
    if isinstance(rule, PerModelRule):
        values = draw.values.get(spec.name)
        if values is None:
            return None
        return rule.compare(draw, values) if rule.compare is not None else difference_of_means(values)
    if not isinstance(rule, PairwiseRule | LogitsRule) or not draw.has(*spec.subsets):
        return None
    if isinstance(rule, PairwiseRule):
        return rule.prepare(draw, *spec.subsets)
    comparison = rule.comparison(draw, spec.subsets[0], declaration.function)
    # The family limit needs all ranking metrics on the same splits.
    return replace(comparison, max_splits=None) if spec.efficacy or spec.harm else comparison


def _require_subsets(draw: Draw) -> None:
    """Validate the logits and labels of every subset.

    Raises:
        UsageError: A subset is missing on one side, a value is not finite, or the shapes differ.
    """
    for subset in SUBSETS:
        if draw.has(subset):
            draw.column("correct", subset)


def _values_of(
    per_model: PerModelValues | None, draw: int
) -> tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]]:
    """Per-model metrics of the pooled models of one draw, and of its originals."""
    if per_model is None:
        return {}, {}
    common = sorted(set(per_model.unlearned) & set(per_model.oracle))
    pooled = {name: np.concatenate([per_model.unlearned[name][draw], per_model.oracle[name][draw]]) for name in common}
    return pooled, {name: values[draw] for name, values in per_model.original.items()}
