"""Per-example likelihood ratios: can an attacker who knows an example distinguish an unlearned model from an oracle?

Populations are matrices of phi, (S, n): model by example. Model s of either side is held out together with model s of
the other side. Source: Carlini et al. (2022), section 5, as the benchmark's protocol fixes it (section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, phi_of, same_shape
from forgetbench.metrics.board_rules import Comparison, Draw, PairwiseRule
from forgetbench.metrics.registry import MetricSpec, metric
from forgetbench.metrics.roc import ROC, sorted_auc

POOL_BELOW = 32
"""With fewer models than this on a side the spread is pooled over examples."""

SMALLEST_SD = 1e-6
"""Smallest spread in nats, which keeps the likelihood finite if all models agree."""


class Ratios(NamedTuple):
    """Log-likelihood ratios; larger means that the model more likely unlearned the example."""

    unlearned: FloatArray
    """(S, n): of the held-out unlearned models."""
    oracle: FloatArray
    """(S, n): of the held-out oracles."""


@dataclass(frozen=True)
class Lira(ROC):
    """Results of the attack over all examples and folds."""

    worst_decile: float | None
    """AUC of the tenth of the examples that differ most; None with fewer than 4 models or 10 examples."""


def _compare_lira(draw: Draw, subset: str) -> Comparison:
    phi = draw.phi(subset)

    def value(left: IntArray, right: IntArray) -> float:
        if len(left) < 3:
            raise UsageError(f"The likelihood ratio attack needs at least three models a side; there are {len(left)}.")
        return ratios_auc(ratios(phi[left], phi[right]))

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        scores = ratios(phi[left], phi[right])
        folds = [ratios_auc(Ratios(scores.unlearned[fold], scores.oracle[fold])) for fold in range(len(left))]
        return np.array(folds)

    return Comparison(value, "even", by_seed)


_EXAMPLES = {"forget": "forgotten examples", "retain": "kept examples"}


def _lira_spec(subset: str) -> MetricSpec:
    drift = subset == "retain"
    return MetricSpec(
        name=f"lira.{subset}",
        title="retain drift" if drift else "LiRA",
        symbol="drift" if drift else "LiRA",
        group="privacy",
        unit="AUC",
        requires=(subset,),
        meaning="How well an attacker who knows the example distinguishes unlearned models from oracles by answers to "
        f"{_EXAMPLES[subset]}; 0.5: not.",
        misses="The side: remembered and over-forgotten look alike (see shift). Small differences with few models.",
        misuse="Fitting on 0/1 correctness, or with the scored model among the fitted; reading it without its band.",
        formula=(
            "phi = z_y - logsumexp_{j != y} z_j. For fold s, fit N(median, sd) to phi(i) over the other S-1 models of "
            "each side (sd pooled over examples below 32 models a side), score u_s and r_s by log N_u - log N_r; AUC "
            "over all examples and folds."
        ),
        example="Fits N(1,1) for unlearned and N(-1,1) for oracles: phi = 1 scores 2, phi = 0 scores 0.",
        source="Carlini et al. 2022, section 5; Hayes et al. 2024; protocol, section 3.",
        efficacy=() if drift else ("match-oracle",),
        harm=("match-oracle", "erase") if drift else (),
        floor=0.05 if drift else 0.01,
        fallback=f"shift.{subset}",
    )


def _lira_statistic_spec(statistic: str, title: str, formula: str) -> MetricSpec:
    return MetricSpec(
        name=f"lira.forget.{statistic}",
        title=f"LiRA, {title}",
        symbol=f"LiRA {statistic}",
        group="privacy",
        unit="AUC" if statistic == "worst-decile" else "share",
        requires=("forget",),
        meaning=f"The likelihood ratio attack on the forget set: {title}.",
        misses="As lira.forget; with few models these statistics are noisier than the AUC.",
        misuse="Reporting the TPR at a rate that the number of scores cannot resolve.",
        formula=formula,
        example="Perfectly separated scores give 1.",
        source="Carlini et al. 2022; protocol, section 3.",
    )


@metric(_lira_spec("forget"), _lira_spec("retain"), board=PairwiseRule(_compare_lira))
@metric(
    _lira_statistic_spec(
        "balanced", "balanced accuracy at 0", "Mean of the true positive and true negative rate at a log ratio of 0."
    ),
    _lira_statistic_spec(
        "tpr-1", "TPR at 1 % FPR", "The largest TPR whose FPR does not exceed 1 %; needs at least 100 scores."
    ),
    _lira_statistic_spec(
        "tpr-0.1", "TPR at 0.1 % FPR", "The largest TPR whose FPR does not exceed 0.1 %; needs at least 1,000 scores."
    ),
    _lira_statistic_spec(
        "worst-decile",
        "AUC of the worst decile",
        "The tenth of the examples with the largest |mean phi_u - mean phi_r| over every other model, scored on the "
        "remaining folds; both ways, averaged.",
    ),
)
def lira(unlearned: ArrayLike, oracle: ArrayLike) -> Lira:
    """The full result of the likelihood ratio attack.

    Args:
        unlearned: (S, n) phi of the unlearned models, S >= 3.
        oracle: (S, n) phi of as many oracles on the same examples.
    """
    left, right = _pair(unlearned, oracle)
    scores = ratios(left, right)
    whole = ROC.of(scores.unlearned.ravel(), scores.oracle.ravel())
    return Lira(**vars(whole), worst_decile=_worst_decile(left, right, scores))


def lira_auc(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """AUC of the likelihood ratio attack, over all examples and folds."""
    return ratios_auc(ratios(*_pair(unlearned, oracle)))


def ratios_auc(scores: Ratios) -> float:
    """AUC over the pooled scores of all folds."""
    return sorted_auc(np.sort(scores.unlearned, axis=None), np.sort(scores.oracle, axis=None))


def ratios(left: FloatArray, right: FloatArray) -> Ratios:
    """Held-out log ratios of both sides: log N(phi; fit of the other u) - log N(phi; fit of the other r).

    The fit is the median and the standard deviation of the other S - 1 models of that side. Below 32 models the
    variance (about the mean, with S - 2 in the denominator) is pooled over examples, each fold and side its own.

    Args:
        left: (S, n) phi of the unlearned models.
        right: (S, n) phi of the oracles. Neither side is validated: this is the inner loop of the bands.
    """
    centers = [leave_one_out_median(side) for side in (left, right)]
    spreads = [_leave_one_out_sd(side) for side in (left, right)]
    weights = [1.0 / (2.0 * spread**2) for spread in spreads]
    constant = np.log(spreads[1]) - np.log(spreads[0])
    scored = [
        weights[1] * (side - centers[1]) ** 2 - weights[0] * (side - centers[0]) ** 2 + constant
        for side in (left, right)
    ]
    return Ratios(scored[0], scored[1])


def leave_one_out_median(values: FloatArray) -> FloatArray:
    """Median over the other models, for each model: (S, n) to (S, n), S >= 2.

    Removing one value from a sorted list moves the middle by at most one position, so three sorted values per example
    are enough, and nothing is sorted twice.
    """
    count = len(values)
    ordered = np.sort(values, axis=0)

    def order_statistic(position: int) -> FloatArray:
        remaining: FloatArray = np.where(values <= ordered[position], ordered[position + 1], ordered[position])
        return remaining

    if count % 2 == 0:
        return order_statistic((count - 2) // 2)
    middle = (count - 1) // 2
    return (order_statistic(middle - 1) + order_statistic(middle)) / 2


def _compare_shift(draw: Draw, subset: str) -> Comparison:
    phi = draw.phi(subset)

    def value(left: IntArray, right: IntArray) -> float:
        return shift(phi[left], phi[right])

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        center = phi[right].mean()
        shifts: FloatArray = (phi[left].mean(axis=1) - center) / within_sd(phi[right])
        return shifts

    return Comparison(value, None, by_seed)


def _shift_spec(subset: str) -> MetricSpec:
    return MetricSpec(
        name=f"shift.{subset}",
        title="shift" if subset == "forget" else "retain shift",
        symbol="shift" if subset == "forget" else "shift_r",
        group="privacy",
        unit="sd",
        signed=True,
        range=(None, None),
        requires=(subset,),
        meaning=f"Confidence in {_EXAMPLES[subset]} above the oracles', in their standard deviations: "
        + ("> 0 remembers, < 0 over-forgets." if subset == "forget" else "> 0 surer, < 0 less sure."),
        misses="Changes that cancel between examples (lira sees those).",
        misuse="Reading it without lira: half up and half down is 0.",
        formula=(
            "mean_i (mean_s phi_u(i) - mean_s phi_r(i)) / sigma, sigma^2 = mean_i var_s phi_r(i). "
            f"Above 0.99 lira.{subset} is saturated: then the shift counts too, and may decide the distance"
        ),
        example="Oracles at phi 0 and 2 (sd 1.414), unlearned at 2 and 2: shift 0.707.",
        source="Protocol, section 3.",
        floor=0.035 if subset == "forget" else 0.18,
    )


@metric(_shift_spec("forget"), _shift_spec("retain"), board=PairwiseRule(_compare_shift))
def shift(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """Mean over examples of (mean phi_u - mean phi_r) / sigma, sigma the oracles' pooled within-example sd.

    Args:
        unlearned: (S, n) phi of the unlearned models.
        oracle: (S', n) phi of the oracles, S' >= 2.

    Returns:
        In standard deviations of an oracle: positive if the unlearned models are more confident on these examples
        than the oracles. It does not saturate. Protocol section 3.
    """
    left, right = phi_of(unlearned, "phi of the unlearned"), phi_of(oracle, "phi of the oracles")
    same_shape(left, right, "the same examples", after=1)
    if len(right) < 2:
        raise UsageError("The spread of the oracles needs at least two of them.")
    return float((left.mean(axis=0) - right.mean(axis=0)).mean() / within_sd(right))


def within_sd(values: FloatArray) -> float:
    """Pooled within-example standard deviation of (S, n) values, S >= 2, never below ``SMALLEST_SD``."""
    return max(float(np.sqrt(values.var(axis=0, ddof=1).mean())), SMALLEST_SD)


def _leave_one_out_sd(values: FloatArray) -> FloatArray:
    """(S, 1) pooled over examples, or (S, n) from 32 models on: the spread of the other models about their mean."""
    count = len(values)
    squares = (values - values.mean(axis=0)) ** 2
    if count >= POOL_BELOW:
        rest = squares.sum(axis=0) - squares * (count / (count - 1))
    else:
        rest = (squares.sum(axis=0).mean() - squares.mean(axis=1) * (count / (count - 1)))[:, None]
    spread: FloatArray = np.sqrt(np.maximum(rest, 0.0) / (count - 2))
    return np.maximum(spread, SMALLEST_SD)


def _worst_decile(left: FloatArray, right: FloatArray, scores: Ratios) -> float | None:
    """AUC of the tenth that differs most: chosen by the models of every other fold, scored on the remaining folds."""
    count, examples = left.shape
    if count < 4 or examples < 10:
        return None
    size = -(-examples // 10)
    values = []
    for part in range(2):
        chosen_by = slice(part, None, 2)
        scored_on = slice(1 - part, None, 2)
        difference = np.abs(left[chosen_by].mean(axis=0) - right[chosen_by].mean(axis=0))
        worst = np.argsort(-difference, kind="stable")[:size]
        values.append(ratios_auc(Ratios(scores.unlearned[scored_on][:, worst], scores.oracle[scored_on][:, worst])))
    return float(np.mean(values))


def _pair(unlearned: ArrayLike, oracle: ArrayLike) -> tuple[FloatArray, FloatArray]:
    left, right = phi_of(unlearned, "phi of the unlearned"), phi_of(oracle, "phi of the oracles")
    same_shape(left, right, "the same models and examples")
    if len(left) < 3:
        raise UsageError(f"The likelihood ratio attack needs at least three models a side; there are {len(left)}.")
    return left, right
