"""The receiver operating characteristic of attacks. Scores are oriented "larger = member" everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._lazy_scipy import beta_quantile
from forgetbench.metrics._validation import FloatArray, floats, number, open_share, share, whole


class Rates(NamedTuple):
    """The points of a ROC, from (0, 0) to (1, 1)."""

    thresholds: FloatArray
    """An example is called a member where its score is at least this; the first is infinite."""
    false_positive: FloatArray
    """Share of non-members called members."""
    true_positive: FloatArray
    """Share of members called members."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class ROC:
    """Results of any attack."""

    auc: float
    """Area under the curve; 0.5 if the two sides are indistinguishable."""
    balanced_accuracy: float
    """Balanced accuracy at the attack's own threshold: 0 for a log ratio."""
    tpr_1: float | None
    """True positive rate at 1 % false positives; None with fewer than 100 non-members."""
    tpr_01: float | None
    """True positive rate at 0.1 %; None with fewer than 1,000 non-members."""
    tpr_1_interval: Interval | None
    """95 % Clopper-Pearson interval of ``tpr_1``; assumes independent scores and a fixed threshold."""
    tpr_01_interval: Interval | None
    """The same of ``tpr_01``."""

    @classmethod
    def of(cls, members: ArrayLike, others: ArrayLike, threshold: float = 0.0) -> ROC:
        """Results of one set of scores.

        Args:
            members: (n,) scores, larger = member.
            others: (m,) scores of non-members.
            threshold: Scores above it are called members: 0 for log ratios, 1/2 for probabilities.

        Raises:
            UsageError: A side is empty, or a score or the threshold is not finite.
        """
        positive, negative = _sides(members, others)
        rates = [tpr_at_fpr(positive, negative, a) if a * len(negative) >= 1 else None for a in (0.01, 0.001)]
        hits = [None if rate is None else round(rate * len(positive)) for rate in rates]
        intervals = [None if count is None else clopper_pearson(count, len(positive)) for count in hits]
        area = sorted_auc(np.sort(positive), np.sort(negative))
        return cls(area, balanced_accuracy(positive, negative, threshold), rates[0], rates[1], *intervals)


def auc(members: ArrayLike, others: ArrayLike) -> float:
    """Area under the ROC with ties counted half: the Mann-Whitney U over n_members * n_others.

    Args:
        members: (n,) scores, larger = member.
        others: (m,) scores of non-members.

    Returns:
        In [0, 1]; 0.5 if all scores are equal.
    """
    positive, negative = _sides(members, others)
    return sorted_auc(np.sort(positive), np.sort(negative))


def sorted_auc(positive: FloatArray, negative: FloatArray) -> float:
    """AUC of two sorted, finite, non-empty arrays. Inputs are not validated: this is the inner loop of the bands."""
    below = np.searchsorted(negative, positive, side="left")
    wins = float(below.sum())
    inside = below < len(negative)
    tied = positive[inside][negative[below[inside]] == positive[inside]]
    if len(tied):
        ties = np.searchsorted(negative, tied, side="right") - np.searchsorted(negative, tied, side="left")
        wins += 0.5 * float(ties.sum())
    return wins / (len(positive) * len(negative))


def rates(members: ArrayLike, others: ArrayLike) -> Rates:
    """Every point of the ROC: the origin, and one point per distinct score."""
    positive, negative = _sides(members, others)
    values = np.unique(np.concatenate([positive, negative]))[::-1]
    shares = [1.0 - np.searchsorted(np.sort(side), values, side="left") / len(side) for side in (negative, positive)]
    return Rates(
        np.concatenate([[np.inf], values]), np.concatenate([[0.0], shares[0]]), np.concatenate([[0.0], shares[1]])
    )


def tpr_at_fpr(members: ArrayLike, others: ArrayLike, alpha: float) -> float:
    """The largest true positive rate whose false positive rate does not exceed alpha; no interpolation.

    Args:
        members: (n,) scores, larger = member.
        others: (m,) scores of non-members.
        alpha: The largest false positive rate allowed; 0 allows no false positive at all.

    Raises:
        UsageError: alpha is above 0 and below 1/m: m non-members cannot resolve that rate; or it is not in [0, 1].
    """
    positive, negative = _sides(members, others)
    alpha = float(np.clip(share(alpha, "alpha"), 0.0, 1.0))
    if 0.0 < alpha < 1.0 / len(negative) * (1 - 1e-9):
        raise UsageError(
            f"TPR at {alpha:.4g} FPR needs at least {int(np.ceil(1 / alpha))} non-members; there are {len(negative)}."
        )
    allowed = int(np.floor(alpha * len(negative) * (1 + 1e-12)))
    if allowed >= len(negative):
        return 1.0
    threshold = np.partition(negative, len(negative) - 1 - allowed)[len(negative) - 1 - allowed]
    return float((positive > threshold).mean())


def balanced_accuracy(members: ArrayLike, others: ArrayLike, threshold: float = 0.0) -> float:
    """Mean of true positive and true negative rate; scores above the threshold are members, equal ones count half."""
    (positive, negative), threshold = _sides(members, others), number(threshold, "threshold")
    hit = (positive > threshold).mean() + 0.5 * (positive == threshold).mean()
    miss = (negative < threshold).mean() + 0.5 * (negative == threshold).mean()
    return float((hit + miss) / 2)


def clopper_pearson(hits: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934).

    Args:
        hits: Number of hits.
        trials: Number of trials, at least 1.
        confidence: Smallest probability with which the interval contains the true proportion.

    Raises:
        UsageError: The counts are not whole numbers with hits <= trials, or the confidence is not in (0, 1).
    """
    hits, trials = whole(hits, "hits"), whole(trials, "trials", 1)
    if hits > trials:
        raise UsageError(f"{hits} hits in {trials} trials is not a proportion.")
    tail = (1.0 - open_share(confidence, "confidence")) / 2
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, trials - hits + 1)
    high = 1.0 if hits == trials else beta_quantile(1 - tail, hits + 1, trials - hits)
    return Interval(low, high)


def _sides(members: ArrayLike, others: ArrayLike) -> tuple[FloatArray, FloatArray]:
    positive, negative = floats(members, "members", ndim=1), floats(others, "non-members", ndim=1)
    if not len(positive) or not len(negative):
        raise UsageError(f"A ROC needs both sides: {len(positive)} members, {len(negative)} non-members.")
    return positive, negative
