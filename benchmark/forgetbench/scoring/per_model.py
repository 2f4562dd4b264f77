"""Metrics of single models: the attacks of the literature, and the linear probe.

They are slow, so the values of oracles and originals are computed once, with the bands.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.board_rules import Draw, Labels, ModelValues, PerModelRule, Population
from forgetbench.scoring.pairwise import board_declarations


def per_model_values(
    population: Population, labels: Labels, *, ranking_only: bool = False, all_rows: bool = False
) -> tuple[ModelValues, dict[str, str]]:
    """Compute the per-model metrics of a population.

    Args:
        population: For each draw, subset -> logits (S, n, K), and features if recorded.
        labels: For each draw, subset -> labels.
        ranking_only: Only metrics that may rank.
        all_rows: Whether they read all rows, and not a fixed number of them.

    Returns:
        Metric name to (G, S) values; and metric name to the reason why it cannot be computed.
    """
    rules = [
        (spec.name, declaration.board)
        for declaration in board_declarations(ranking_only=ranking_only)
        if isinstance(declaration.board, PerModelRule)
        for spec in declaration.specs
    ]
    values: dict[str, FloatArray] = {}
    missing: dict[str, str] = {}
    draws = [Draw([answers], truth, all_rows=all_rows) for answers, truth in zip(population, labels, strict=True)]
    # One thread: results do not depend on the number of cores, and small fits do not wait for threads.
    with threadpool_limits(limits=1):
        for name, rule in sorted(rules, key=lambda item: bool(item[1].reads)):  # what others read comes first
            if not set(rule.reads) <= set(values):
                continue
            try:
                measured = [rule.measure(draw) for draw in draws]
            except UsageError as error:
                missing[name] = str(error)
                continue
            values[name] = np.array(measured)
            for draw, of_models in zip(draws, measured, strict=True):
                draw.values[name] = of_models
    return values, missing
