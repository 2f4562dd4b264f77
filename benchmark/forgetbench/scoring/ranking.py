"""From scorecards to a board: ranks, rank intervals and power, and the rows that are not ranked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, open_share
from forgetbench.scoring.scorecards import Board, BoardRow, Scorecard
from forgetbench.scoring.statistics import (
    ALPHA,
    CONFIDENCE,
    Estimate,
    Placing,
    half_width,
    log_pseudo_values,
    rank_intervals,
    student_quantile,
)

_ORDER = ("ok", "diverged", "failed", "not-applicable")


def rank(scorecards: Sequence[Scorecard]) -> Board:
    """Rank the contestants of one board by distance (protocol section 4).

    Rows that collapsed, diverged, failed, do not apply or lack a ranking metric are not ranked: they follow the ranked
    ones, scored rows first, by distance. The result does not depend on the order of the scorecards, except for rows
    that are equal in everything that ranks.

    Raises:
        UsageError: The scorecards are of different boards.
    """
    boards = {(card.track, card.seeds, card.draws, card.ranking, card.unranked_reason) for card in scorecards}
    if len(boards) > 1:
        raise UsageError("These scorecards are of different boards (track, seeds, draws or ranking metrics differ).")
    order = sorted(range(len(scorecards)), key=lambda index: _key(scorecards[index]))
    ranked = [index for index in order if not scorecards[index].exclusion_reason]
    excluded = [index for index in order if scorecards[index].exclusion_reason]
    pseudo = np.array([_pseudo_values(scorecards[index]) for index in ranked], dtype=np.float64)
    placings = dict(zip(ranked, rank_intervals(pseudo) if ranked else [], strict=True))
    ranked.sort(key=lambda index: placings[index].rank)
    detectable = _detectable(scorecards, ranked or excluded)
    return Board(
        rows=tuple(
            _row(index, scorecards[index], placings.get(index), detectable.get(index)) for index in (*ranked, *excluded)
        ),
        unranked_reason=scorecards[0].unranked_reason if scorecards else "",
    )


def detectable_difference(first: FloatArray, second: FloatArray, *, alpha: float = ALPHA, power: float = 0.8) -> float:
    """How much farther than the first row the second would have to be to be found farther with the given power.

    Of a paired t test of the two rows alone, on the scale by which ranks are compared; the noise is that of the two.

    Args:
        first: (S,) pseudo-values of the distance of a row.
        second: (S,) those of the row after it.
        alpha: Two-sided level of the test.
        power: Probability that the test detects it.

    Returns:
        (1 + D) (exp(e) - 1), where D is the distance of the first row and e = (t(S-1, 1-alpha/2) + t(S-1, power)) * sd
        of the paired differences of log(1 + distance) / sqrt(S).

    Raises:
        UsageError: There are fewer than two seeds, or not as many in both rows, or alpha or power is not in (0, 1).
    """
    if len(first) != len(second) or len(first) < 2:
        raise UsageError(
            "A detectable difference needs two rows with the same two or more seeds, not "
            f"{len(first)} and {len(second)}."
        )
    seeds = len(first)
    better, worse = log_pseudo_values(np.stack([first, second]))
    quantiles = student_quantile(1 - open_share(alpha, "alpha") / 2, seeds - 1)
    quantiles = quantiles + student_quantile(open_share(power, "power"), seeds - 1)
    step = quantiles * (worse - better).std(ddof=1) / np.sqrt(seeds)
    return float((1 + max(first.mean(), 0.0)) * np.expm1(step))


def differences(first: Scorecard, second: Scorecard, *, confidence: float = CONFIDENCE) -> dict[str, Estimate]:
    """Difference of two records on each ranking metric and on the distance, with its paired interval over seeds.

    Args:
        first: A scorecard.
        second: Another one of the same board.
        confidence: Confidence of the intervals.

    Raises:
        UsageError: The scorecards are of different boards.
    """
    boards = [(card.track, card.seeds, card.draws, card.ranking) for card in (first, second)]
    if boards[0] != boards[1]:
        raise UsageError("These scorecards are of different boards.")
    shared = [name for name in first.ranking if name in first.metrics and name in second.metrics]
    pairs = {name: (first.metrics[name].pseudo_values, second.metrics[name].pseudo_values) for name in shared}
    pairs["distance"] = (_pseudo_values(first), _pseudo_values(second))
    estimates = {}
    for name, (left, right) in pairs.items():
        if len(left) > 1 and len(left) == len(right):
            difference = np.array(left) - np.array(right)
            half, mean = half_width(difference, confidence=confidence), float(difference.mean())
            estimates[name] = Estimate(mean, mean - half, mean + half)
    return estimates


def reproduced(first: Scorecard, second: Scorecard) -> bool:
    """Whether a second record agrees with the first: on every ranking metric the interval of the difference has 0."""
    estimates = differences(first, second)
    agreeing = {name for name, estimate in estimates.items() if estimate.low <= 0 <= estimate.high}
    return bool(first.ranking) and set(first.ranking) <= agreeing


def _key(card: Scorecard) -> tuple[int, bool, float, str, tuple[float, ...]]:
    distance = card.distance
    return (
        _ORDER.index(card.status),
        distance is None,
        distance.value if distance is not None else 0.0,
        card.name,
        distance.pseudo_values if distance is not None else (),
    )


def _pseudo_values(card: Scorecard) -> tuple[float, ...]:
    return card.distance.pseudo_values if card.distance is not None else ()


def _row(index: int, card: Scorecard, placing: Placing | None, detectable: float | None) -> BoardRow:
    return BoardRow(
        index=index,
        name=card.name,
        rank=placing.rank if placing else None,
        low=placing.low if placing else None,
        high=placing.high if placing else None,
        detectable=detectable,
        reason=card.exclusion_reason,
    )


def _detectable(scorecards: Sequence[Scorecard], order: Sequence[int]) -> dict[int, float]:
    """By position, the detectable difference of each scored row to the next one, where one can be so far."""
    scored = [i for i in order if scorecards[i].status == "ok" and len(_pseudo_values(scorecards[i])) > 1]
    pseudo = {index: np.array(_pseudo_values(scorecards[index])) for index in scored}
    found = {this: detectable_difference(pseudo[this], pseudo[after]) for this, after in pairwise(scored)}
    return {this: size for this, size in found.items() if pseudo[this].mean() + size <= _farthest(scorecards[this])}


def _farthest(card: Scorecard) -> float:
    """No distance on the row's board is larger: all metrics that rank lie in [-1, 1]."""
    deciding = () if card.distance is None else (card.distance.metric,)
    bands = [card.metrics[name].band for name in (*card.ranking, *deciding) if name in card.metrics]
    return max(((1 + abs(band.mean)) / band.width for band in bands if band is not None), default=np.inf)
