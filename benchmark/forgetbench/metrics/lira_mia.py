"""Per-example likelihood ratios: can an attacker who knows the example tell an unlearned model from an oracle?

Populations are matrices of phi, (S, n): model by example. Model s of the one side is held out together with model s of
the other. Source: Carlini et al. (2022), section 5, as the benchmark's protocol fixes it (section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, phi_of, same_shape
from forgetbench.metrics.roc import ROC, sorted_auc

POOL_BELOW = 32
"""With fewer models than this on a side the spread is pooled over examples."""

SMALLEST_SD = 1e-6
"""Nats: the spread of models that all answer alike, so that their likelihood stays finite."""


class Ratios(NamedTuple):
    """Log likelihood ratios, larger = "this model unlearned the example"."""

    unlearned: FloatArray
    """(S, n): of the held-out unlearned models."""
    oracle: FloatArray
    """(S, n): of the held-out oracles."""


@dataclass(frozen=True)
class Lira(ROC):
    """What the attack achieves over all examples and folds."""

    worst_decile: float | None
    """AUC of the tenth of the examples that differ most; None with fewer than 4 models or 10 examples."""


def lira(unlearned: ArrayLike, oracle: ArrayLike) -> Lira:
    """The whole result of the likelihood ratio attack.

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
        right: (S, n) phi of the oracles. Neither is checked here: this is the inner loop of the bands.
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

    Taking one value out of a sorted list moves the middle by at most one place, so three sorted values an example are
    enough, and nothing is sorted twice.
    """
    count = len(values)
    ordered = np.sort(values, axis=0)

    def at(place: int) -> FloatArray:
        found: FloatArray = np.where(values <= ordered[place], ordered[place + 1], ordered[place])
        return found

    if count % 2 == 0:
        return at((count - 2) // 2)
    middle = (count - 1) // 2
    return (at(middle - 1) + at(middle)) / 2


def shift(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """Mean over examples of (mean phi_u - mean phi_r) / sigma, sigma the oracles' pooled within-example sd.

    Args:
        unlearned: (S, n) phi of the unlearned models.
        oracle: (S', n) phi of the oracles, S' >= 2.

    Returns:
        In standard deviations of an oracle: above 0, more confident on these examples than oracles are. It does not
        saturate. Protocol section 3.
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
    keep = -(-examples // 10)
    values = []
    for part in range(2):
        chosen_by = slice(part, None, 2)
        scored_on = slice(1 - part, None, 2)
        apart = np.abs(left[chosen_by].mean(axis=0) - right[chosen_by].mean(axis=0))
        worst = np.argsort(-apart, kind="stable")[:keep]
        values.append(ratios_auc(Ratios(scores.unlearned[scored_on][:, worst], scores.oracle[scored_on][:, worst])))
    return float(np.mean(values))


def _pair(unlearned: ArrayLike, oracle: ArrayLike) -> tuple[FloatArray, FloatArray]:
    left, right = phi_of(unlearned, "phi of the unlearned"), phi_of(oracle, "phi of the oracles")
    same_shape(left, right, "the same models and examples")
    if len(left) < 3:
        raise UsageError(f"The likelihood ratio attack needs at least three models a side; there are {len(left)}.")
    return left, right
