"""From scorecards to a board: ranks, tie groups and rank intervals, and the rows that are not ranked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import t as student

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, open_share
from forgetbench.scoring.scorecards import Board, BoardRow, Scorecard
from forgetbench.scoring.statistics import ALPHA, CONFIDENCE, Estimate, Placing, half_width, tie_groups

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
    groups = tie_groups(pseudo) if ranked else []
    placings = dict(zip(ranked, groups, strict=True))
    rows = [_row(index, scorecards[index], placings[index]) for index in sorted(ranked, key=lambda i: placings[i].rank)]
    rows += [_row(index, scorecards[index], None) for index in excluded]
    return Board(
        rows=tuple(rows),
        unranked_reason=scorecards[0].unranked_reason if scorecards else "",
        detectable=_detectable(scorecards, pseudo, [placing.group for placing in groups]),
    )


def detectable_difference(pseudo: FloatArray, *, alpha: float = ALPHA, power: float = 0.8) -> float:
    """The smallest difference of two contestants' distances that a paired t test detects with the given power.

    Args:
        pseudo: (K, S) pseudo-values of at least two contestants.
        alpha: Two-sided level of the test.
        power: Probability that the test detects it.

    Returns:
        (t(S-1, 1-alpha/2) + t(S-1, power)) * sd of a paired difference / sqrt(S), the median over neighbors by rank.

    Raises:
        UsageError: There are fewer than two contestants or seeds, or alpha or power is not in (0, 1).
    """
    if min(pseudo.shape) < 2:
        raise UsageError(f"A detectable difference needs two contestants and two seeds, not {pseudo.shape}.")
    seeds = pseudo.shape[1]
    ordered = pseudo[np.argsort(pseudo.mean(axis=1), kind="stable")]
    spread = np.median([float((worse - better).std(ddof=1)) for better, worse in pairwise(ordered)])
    quantiles = student.ppf(1 - open_share(alpha, "alpha") / 2, seeds - 1)
    quantiles = quantiles + student.ppf(open_share(power, "power"), seeds - 1)
    return float(quantiles * spread / np.sqrt(seeds))


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


def _row(index: int, card: Scorecard, placing: Placing | None) -> BoardRow:
    return BoardRow(
        index=index,
        name=card.name,
        rank=placing.rank if placing else None,
        low=placing.low if placing else None,
        high=placing.high if placing else None,
        group=placing.group if placing else None,
        reason=card.exclusion_reason,
    )


def _detectable(scorecards: Sequence[Scorecard], pseudo: FloatArray, groups: Sequence[int]) -> float | None:
    """Of the first tie group if it has several rows, else of all ranked rows; without ranks, of all scored rows."""
    if len(pseudo):
        tied = pseudo[np.array(groups) == 1]
        return detectable_difference(tied if len(tied) > 1 else pseudo) if len(pseudo) > 1 else None
    scored = [_pseudo_values(card) for card in scorecards if card.status == "ok" and len(_pseudo_values(card)) > 1]
    return detectable_difference(np.array(scored)) if len(scored) > 1 else None
