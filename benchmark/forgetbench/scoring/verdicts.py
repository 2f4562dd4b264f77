"""The verdict of a row: what it achieves in words, compared with retraining and with doing nothing."""

from __future__ import annotations

import numpy as np

from forgetbench.scoring.scorecards import Bands, DistanceDifference, Scorecard
from forgetbench.scoring.statistics import ALPHA, half_width, sign_flip_p
from forgetbench.scoring.vocabulary import Verdict

RECOVERABLE = "recoverable"
"""Flag of a row whose forgetting is undone by a change of the model that teaches it nothing."""


def with_verdict(card: Scorecard, bands: Bands) -> Scorecard:
    """The scorecard with its difference from No unlearning and its verdict, from its other fields.

    Call it again where a flag was added after scoring.

    Args:
        card: A scorecard.
        bands: The bands of its board.
    """
    difference = distance_difference(card, bands)
    update = {"delta_vs_no_unlearning": difference, "verdict": _verdict(card, difference)}
    return card.model_copy(update=update)


def with_recoverable(card: Scorecard) -> Scorecard:
    """A scored card with the flag of an attack that found what had been forgotten, and the verdict that follows."""
    flagged = card.model_copy(update={"flags": tuple(sorted({*card.flags, RECOVERABLE}))})
    return flagged.model_copy(update={"verdict": _verdict(flagged, card.delta_vs_no_unlearning)})


def distance_difference(card: Scorecard, bands: Bands) -> DistanceDifference | None:
    """The distance minus No unlearning's, paired by seed; None without distances or with too few seeds."""
    if card.distance is None or bands.no_unlearning is None:
        return None
    row, untouched = (np.array(side.pseudo_values) for side in (card.distance, bands.no_unlearning))
    if len(row) < 2 or len(row) != len(untouched):
        return None
    mean, half = float((row - untouched).mean()), half_width(row - untouched)
    return DistanceDifference(value=mean, low=mean - half, high=mean + half, p=sign_flip_p(row - untouched))


def _verdict(card: Scorecard, difference: DistanceDifference | None) -> Verdict | None:
    if card.status != "ok" or card.unranked_reason or card.gate is None:
        return None
    if card.gate.collapsed:
        return Verdict.COLLAPSED
    if card.distance is None or difference is None:
        return None
    harmed, significant = card.gate.harmed, difference.p <= ALPHA
    nearer, farther = significant and difference.value < 0, significant and difference.value > 0
    rules = (
        (card.distance.within_band and not harmed and RECOVERABLE not in card.flags, Verdict.REACHES_RETRAINING),
        (nearer and harmed, Verdict.AT_A_PRICE),
        (nearer, Verdict.BETTER),
        (farther, Verdict.WORSE),
    )
    return next((verdict for applies, verdict in rules if applies), Verdict.AS_NOTHING)
