"""Two numbers for readers, comparable across boards: how much was forgotten, and how much accuracy was lost.

*Forgotten* is the share of the way from No unlearning (0) to Retrain (1), on a metric that has a side. *Harm* is the
accuracy lost on test or retain, whichever is larger, beyond Retrain's. Both have intervals from pseudo-values: seed s
is left out of the contestant, the originals, the reference oracles and Retrain alike (protocol section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forgetbench.metrics._validation import FloatArray
from forgetbench.metrics.board_rules import Labels, Population
from forgetbench.metrics.registry import Track
from forgetbench.scoring.pairwise import comparison_of, count_models, left_out_values
from forgetbench.scoring.scorecards import Anchors, Effect, Reference
from forgetbench.scoring.statistics import pseudo_interval, pseudo_values

FEASIBLE_Z = 3.0
"""A metric tells No unlearning from the oracles if its |z| there is above this."""

FORGETTING: dict[Track, tuple[str, ...]] = {
    "match-oracle": ("gap.forget", "shift.forget"),
    "erase": ("gap.test-forgotten",),
    "corrective": ("gap.attack-success", "gap.test-triggered", "gap.withheld", "gap.forget"),
}
"""Metrics with a side that *forgotten* can be computed from, the preferred one first."""

UTILITY = ("gap.test", "gap.retain")
"""Accuracy gaps that *harm* is computed from."""


def forgetting_metric(
    track: Track, references: Mapping[str, Reference], excluded_metrics: Sequence[str] = ()
) -> tuple[str | None, str]:
    """The metric that *forgotten* is computed from on a board.

    Args:
        track: The board's track.
        references: No unlearning on every metric.
        excluded_metrics: Metrics that failed the audit of the task.

    Returns:
        The first metric that tells No unlearning from the oracles, and ""; or None and the reason.
    """
    problems = []
    for metric in FORGETTING[track]:
        reference = references.get(metric)
        z = reference.original_z if reference is not None else None
        if metric in excluded_metrics:
            problems.append(f"{metric} failed the audit")
        elif z is None:
            problems.append(f"{metric} is not computable")
        elif abs(z) <= FEASIBLE_Z:
            problems.append(f"{metric} z {z:+.1f}")
        else:
            return metric, ""
    return None, f"No unlearning is not distinguishable from Retrain ({', '.join(problems)})"


def anchors(
    metric: str, originals: Population | None, controls: Population, references: Population, labels: Labels
) -> Anchors:
    """A metric with a side on No unlearning and Retrain, all in the same state (as they are, or changed alike).

    Args:
        metric: One of `FORGETTING` or `UTILITY`.
        originals: The originals: for each draw, subset -> logits (S, n, K). None if only harm is of interest.
        controls: The control oracles, which are Retrain.
        references: The reference oracles.
        labels: For each draw, subset -> labels. Only the subset of the metric is read.

    Raises:
        UsageError: The metric cannot be computed.
    """
    seeds = count_models(references)
    values = [
        left_out_values(comparison_of(metric, side, references, labels), seeds) if side is not None else ()
        for side in (originals, controls)
    ]
    return Anchors(metric=metric, original=values[0], retrain=values[1])


def forgotten_by(contestant: Population, references: Population, labels: Labels, scale: Anchors) -> Effect:
    """The share of the way from No unlearning to Retrain of a contestant, in the state of the anchors.

    Args:
        contestant: For each draw, subset -> logits (S, n, K).
        references: The reference oracles.
        labels: For each draw, subset -> labels.
        scale: `anchors` of the originals and the control oracles in the same state.

    Raises:
        UsageError: The metric cannot be computed.
    """
    comparison = comparison_of(scale.metric, contestant, references, labels)
    return forgotten(left_out_values(comparison, count_models(references)), scale)


def forgotten(values: Sequence[float], scale: Anchors) -> Effect:
    """The share of the way from No unlearning to Retrain.

    Args:
        values: `left_out_values` of the contestant on the metric of the anchors.
        scale: The anchors.

    Returns:
        (v_none - v) / (v_none - v_Retrain): 0 for No unlearning, 1 for Retrain, above 1 beyond retraining.
    """
    original, retrain, value = (np.array(side) for side in (scale.original, scale.retrain, values))
    if not len(original) or original[0] == retrain[0]:
        return Effect(metric=scale.metric, reason=f"No unlearning and Retrain are equal on {scale.metric}")
    parts = min(len(original), len(retrain), len(value))
    way = (original - retrain)[:parts]
    if (np.sign(way) != np.sign(way[0])).any():
        parts = 1
    shares = (original[:parts] - value[:parts]) / way[:parts] + 0.0  # no negative zero
    return _effect(shares, scale.metric)


def harm(values: Mapping[str, Sequence[float]], utility: Sequence[Anchors]) -> Effect:
    """The accuracy lost beyond Retrain's, on the subset where most is lost. Below 0: more accurate than Retrain.

    Args:
        values: Metric -> `left_out_values` of the contestant, for each metric of the anchors.
        utility: The anchors of `UTILITY`.
    """
    if not utility:
        return Effect(reason="it needs twice as many oracles as unlearned models")
    parts = min(len(side) for item in utility for side in (item.retrain, values[item.metric]))
    losses = np.array([np.subtract(item.retrain[:parts], values[item.metric][:parts]) for item in utility])
    return _effect(losses.max(axis=0), utility[int(losses[:, 0].argmax())].metric)


def _effect(parts: FloatArray, metric: str) -> Effect:
    """An effect from its value with all seeds and with each seed left out."""
    whole = float(parts[0])
    if len(parts) < 3:
        return Effect(value=whole, metric=metric)
    pseudo = pseudo_values(whole, parts[1:])
    _, low, high = pseudo_interval(whole, pseudo)
    return Effect(value=whole, low=low, high=high, pseudo_values=tuple(pseudo.tolist()), metric=metric)
