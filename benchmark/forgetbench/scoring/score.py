"""Evidence to scorecard: every metric of a contestant with its interval, oracle band and flags, and the distance.

A population is a sequence that has, for each draw, a mapping from subset to logits (S, n, K). The same arrays give
bit-identical scores here and on a leaderboard's server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics import Cost
from forgetbench.metrics.board_rules import Comparison, Labels, ModelValues, Population, Populations, with_columns
from forgetbench.scoring.bands import reference_bands
from forgetbench.scoring.derived import class_accuracy, derived
from forgetbench.scoring.distance import distance_of, value_of
from forgetbench.scoring.flags import flags_of, sides_of
from forgetbench.scoring.forgotten import forgotten, harm
from forgetbench.scoring.gates import pass_gate
from forgetbench.scoring.pairwise import PerModelValues, compare, count_models, left_out_values
from forgetbench.scoring.per_model import per_model_values
from forgetbench.scoring.ranking import differences, rank, reproduced
from forgetbench.scoring.recovery import recovery_of
from forgetbench.scoring.scorecards import Bands, Board, Effect, Recovery, Scorecard, Status, Value
from forgetbench.scoring.verdicts import RECOVERABLE, with_verdict

__all__ = [
    "Bands",
    "Board",
    "Scorecard",
    "differences",
    "rank",
    "reference_bands",
    "reproduced",
    "score",
    "unscored",
]


def score(
    contestant: Population,
    *,
    name: str,
    references: Population,
    labels: Labels,
    bands: Bands,
    originals: Population | None = None,
    cost: Cost | None = None,
    ranking_only: bool = False,
) -> Scorecard:
    """Compute the scorecard of one contestant.

    Retrain is scored from the control oracles, No unlearning from the originals.

    Args:
        contestant: Its logits: for each draw, subset -> (S, n, K).
        name: The row's name.
        references: The board's reference oracles.
        labels: The board's labels.
        bands: ``reference_bands`` of the board.
        originals: The originals that it started from (its own, if it changes original training). Without them, metrics
            that compare with the original (h-mean, generalization, aus) are missing.
        cost: Its cost, which is copied to the scorecard.
        ranking_only: Skip metrics that never rank: for tuning, which needs only the distance.

    Raises:
        UsageError: A subset, a draw or a seed is missing, or a logit is not finite.
    """
    counts = (count_models(contestant), count_models(references))
    if set(counts) != {bands.seeds} or len(contestant) != bands.draws:
        raise UsageError(
            f"The board has {bands.draws} draws and {bands.seeds} seeds; {name} has {len(contestant)} draws and "
            f"{counts[0]} seeds, and there are {counts[1]} reference oracles."
        )
    contestant, references = with_columns(contestant, labels), with_columns(references, labels)
    originals = with_columns(originals, labels) if originals is not None else None
    comparisons, values = _measure(contestant, references, labels, bands, originals, ranking_only=ranking_only)
    gate = pass_gate(contestant, labels, bands.gate)
    distance = distance_of(comparisons, values, bands)
    sides = sides_of(values, bands)
    share, loss = _effects(comparisons, bands)
    recovery = Recovery() if ranking_only else recovery_of(contestant, share, references, labels, bands)
    flags = flags_of(values, bands, gate, distance, sides)
    card = Scorecard(
        name=name,
        track=bands.track,
        seeds=bands.seeds,
        draws=bands.draws,
        metrics={metric: values[metric] for metric in sorted(values)},
        ranking=bands.ranking,
        distance=distance,
        gate=gate,
        flags=tuple(sorted((*flags, RECOVERABLE))) if recovery.recoverable else flags,
        sides=sides,
        forgotten=share,
        harm=loss,
        class_accuracy={} if ranking_only else class_accuracy(contestant, labels),
        recalibration=recovery,
        cost=cost or Cost(),
        unranked_reason=bands.unranked_reason,
    )
    return with_verdict(card, bands)


def _effects(comparisons: Mapping[str, Comparison], bands: Bands) -> tuple[Effect, Effect]:
    """How much was forgotten, and how much accuracy was lost."""
    if bands.forgetting is None:
        share = Effect(reason=bands.forgetting_reason)
    else:
        share = forgotten(left_out_values(comparisons[bands.forgetting.metric], bands.seeds), bands.forgetting)
    lost = {item.metric: left_out_values(comparisons[item.metric], bands.seeds) for item in bands.utility}
    return share, harm(lost, bands.utility)


def _measure(
    contestant: Population,
    references: Population,
    labels: Labels,
    bands: Bands,
    originals: Population | None,
    *,
    ranking_only: bool,
) -> tuple[dict[str, Comparison], dict[str, Value]]:
    """The comparisons, as the distance needs them, and every metric as it is shown."""
    chosen = {"ranking_only": ranking_only, "all_rows": bands.all_rows}
    unlearned, missing_per_model = per_model_values(contestant, labels, **chosen)
    oracle, original = (_per_model_of(bands, role) for role in ("references", "originals"))
    per_model = PerModelValues(unlearned, oracle, original)
    comparisons, missing = compare(contestant, references, labels, per_model, **chosen)
    missing |= missing_per_model
    values = {metric: value_of(metric, item, bands) for metric, item in comparisons.items()}
    values |= {metric: Value(reason=reason) for metric, reason in missing.items()}
    values |= {
        metric: Value(reason=bands.references[metric].reason) for metric in bands.references if metric not in values
    }
    values |= derived(Populations(contestant, references, originals, labels, unlearned), values, bands)
    return comparisons, values


def unscored(name: str, status: Status, reason: str, bands: Bands, cost: Cost | None = None) -> Scorecard:
    """The scorecard of a row that diverged, failed or does not apply, with the reason."""
    return Scorecard(
        name=name,
        status=status,
        reason=reason,
        track=bands.track,
        seeds=bands.seeds,
        draws=bands.draws,
        ranking=bands.ranking,
        flags=(status,),
        cost=cost or Cost(),
        unranked_reason=bands.unranked_reason,
    )


def _per_model_of(bands: Bands, role: Literal["references", "originals"]) -> ModelValues:
    arrays = {metric: np.array(getattr(models, role)) for metric, models in bands.per_model.items()}
    return {metric: values for metric, values in arrays.items() if values.size}
