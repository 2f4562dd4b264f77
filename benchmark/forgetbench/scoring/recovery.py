"""Recovered: what a change that teaches a model nothing brings back of what seemed forgotten (protocol section 4).

Contestant, originals and oracles are changed alike, and *forgotten* is computed before and after against originals and
oracles in the same state. So a change that moves all models moves no row, and oracles show how much is chance.
"""

from __future__ import annotations

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import RECALIBRATED, RETESTED, retested
from forgetbench.metrics._validation import FloatArray, IntArray
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.board_rules import Labels, Population, with_columns
from forgetbench.metrics.columns import Answers
from forgetbench.metrics.correction import TRIGGERED
from forgetbench.metrics.registry import metrics
from forgetbench.scoring.forgotten import anchors, forgotten_by
from forgetbench.scoring.pairwise import comparison_of, count_models
from forgetbench.scoring.scorecards import AccuracyChange, Anchors, Bands, Effect, MetricBand, Recovery, RecoveryScale
from forgetbench.scoring.statistics import ALPHA, band_of, over_split_halves, pseudo_interval, sign_flip_p

NOT_RECORDED = "this board has no answers of originals and oracles after recalibration"
EARLIER_VERSION = "this board was recorded by an earlier version, without answers after recalibration"
NO_BATCH_NORM = "the network has no batch-norm statistics"
ROW_NOT_RECORDED = "this row has no answers after recalibration: imported logits, or an earlier version recorded it"


def recovery_scale(
    before: Anchors | None,
    originals: Population | None,
    controls: Population,
    references: Population,
    labels: Labels,
) -> tuple[RecoveryScale | None, str]:
    """What *recovered* is compared with on a board.

    Args:
        before: The anchors of *forgotten* as models are; None where it cannot be computed.
        originals: The originals, with the arrays of changed models, for each draw.
        controls: The control oracles, which are Retrain.
        references: The reference oracles.
        labels: For each draw, subset -> labels.

    Returns:
        The scale and ""; or None and the reason.
    """
    changed = [_changed(side, labels) if side is not None else None for side in (originals, controls, references)]
    after_originals, after_controls, after_references = changed
    if originals is None or after_originals is None or after_controls is None or after_references is None:
        return None, NOT_RECORDED
    if before is None:
        return None, "forgetting cannot be measured on this board"
    try:
        after = anchors(before.metric, after_originals, after_controls, after_references, labels)
        shares = [
            shares_over_split_halves(before.metric, untouched, oracles, retrained, labels)
            for untouched, oracles, retrained in (
                (originals, references, controls),
                (after_originals, after_references, after_controls),
            )
        ]
    except UsageError as error:
        return None, str(error)
    mean, low, high, sd = band_of(shares[0] - shares[1])
    floor = metrics.get(before.metric).floor / abs(before.original[0] - before.retrain[0])
    return RecoveryScale(anchors=after, band=MetricBand(mean=mean, low=low, high=high, sd=sd, floor=floor)), ""


def recovery_of(
    contestant: Population, before: Effect, references: Population, labels: Labels, bands: Bands
) -> Recovery:
    """What recalibration brings back of what a contestant had forgotten.

    Args:
        contestant: Its logits, with the arrays of changed models, for each draw.
        before: What it has forgotten as it is.
        references: The reference oracles, with the arrays of changed models.
        labels: For each draw, subset -> labels.
        bands: The bands of the board.
    """
    changed, changed_references = (_changed(side, labels) for side in (contestant, references))
    if changed is None:
        return Recovery(reason=bands.recalibration_reason or ROW_NOT_RECORDED)
    accuracies = {
        subset: AccuracyChange(
            before=float(accuracy_by_seed(contestant, labels, subset).mean()),
            after=float(accuracy_by_seed(changed, labels, subset).mean()),
        )
        for subset in (*RETESTED, TRIGGERED)
        if all(subset in answers for answers in changed)
    }
    scale = bands.recalibration
    if scale is None or changed_references is None:
        return Recovery(accuracies=accuracies, reason=bands.recalibration_reason)
    after = forgotten_by(changed, changed_references, labels, scale.anchors)
    recovered = difference(before, after)
    if recovered.value is None or before.value is None:
        return Recovery(accuracies=accuracies, before=before, after=after, reason=recovered.reason)
    p = sign_flip_p(before.pseudo_values) if before.pseudo_values and recovered.low is not None else None
    outside = recovered.value > max(scale.band.high, scale.band.mean + 1.96 * scale.band.width)
    # where oracles have no spread the band has none, but a row that forgets only in part varies between seeds
    beyond_own_noise = recovered.low is not None and recovered.low > scale.band.mean
    return Recovery(
        accuracies=accuracies,
        before=before,
        after=after,
        recovered=recovered,
        band=scale.band,
        p=p,
        recoverable=None if p is None else bool(before.value > 0 and p <= ALPHA and outside and beyond_own_noise),
        reason="" if p is not None else "too few seeds",
    )


def _changed(population: Population, labels: Labels, prefix: str = RECALIBRATED) -> list[Answers] | None:
    """The answers of changed models by draw and subset; None if they were not recorded in every draw."""

    def of_draw(answers: Answers) -> Answers:
        return answers.cached(("changed", prefix), lambda: Answers(retested(answers, prefix), answers.labels))

    changed = [of_draw(answers) for answers in with_columns(population, labels)]
    return changed if all(changed) else None


def shares_over_split_halves(
    metric: str, originals: Population, references: Population, controls: Population, labels: Labels
) -> FloatArray:
    """*Forgotten* of one half of the pooled oracles against the other one, which takes the place of Retrain: (2, H).

    Raises:
        UsageError: The metric cannot be computed, or a half is equal to No unlearning.
    """
    answered = [{*answers} for answers in (*references, *controls, *originals)]
    subsets = set(metrics.get(metric).subsets).intersection(*answered)
    pool = [
        {subset: np.concatenate([left[subset], right[subset]]) for subset in subsets}
        for left, right in zip(references, controls, strict=True)
    ]
    seeds, start = count_models(references), count_models(originals)
    oracles = comparison_of(metric, references, controls, labels)
    untouched = comparison_of(metric, originals, pool, labels)

    def share(left: IntArray, right: IntArray) -> float:
        way = untouched.value(np.arange(start), start + right)
        if way == 0:
            raise UsageError(f"No unlearning and Retrain are equal on {metric}.")
        return 1.0 - oracles.value(left, right) / way

    return over_split_halves(share, seeds)


def difference(before: Effect, after: Effect) -> Effect:
    """What was forgotten before and is not afterwards, paired by seed."""
    if before.value is None or after.value is None:
        return Effect(reason=before.reason or after.reason)
    value = before.value - after.value
    if not before.pseudo_values or len(before.pseudo_values) != len(after.pseudo_values):
        return Effect(value=value, metric=before.metric)
    pseudo = np.subtract(before.pseudo_values, after.pseudo_values)
    _, low, high = pseudo_interval(value, pseudo)
    return Effect(value=value, low=low, high=high, pseudo_values=tuple(pseudo.tolist()), metric=before.metric)
