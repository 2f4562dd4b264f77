"""Whether a behavior is gone: the harmonic mean of drop and utility, and whether forgetting generalizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats, number, share, shares

UNDEFINED_BELOW = 0.02
"""A ratio whose denominator is smaller than this is noise over noise, and not defined."""


def h_mean(retained: ArrayLike, before: ArrayLike, after: ArrayLike) -> float:
    """Harmonic mean of retained accuracy and drop, 2 A_r Drop / (A_r + Drop), averaged over seeds (Zhao et al. 2024).

    Args:
        retained: (S,) test accuracy of the unlearned models on classes that are kept.
        before: (S,) test accuracy of their originals on the forgotten classes.
        after: (S,) test accuracy of the unlearned models on the forgotten classes; Drop = before - after.

    Returns:
        In the unit of its arguments, 0 where nothing dropped (or the accuracy rose).
    """
    return float(h_mean_by_seed(retained, before, after).mean())


def h_mean_by_seed(retained: ArrayLike, before: ArrayLike, after: ArrayLike) -> FloatArray:
    """The harmonic mean of each seed, (S,)."""
    kept, start, end = (np.atleast_1d(floats(values, "accuracies")) for values in (retained, before, after))
    if not kept.shape == start.shape == end.shape or not kept.size:
        raise UsageError(f"One value per seed of each, please: {kept.shape}, {start.shape}, {end.shape}.")
    drop = np.maximum(start - end, 0.0)
    total = kept + drop
    return np.where(total > 0, 2 * kept * drop / np.where(total > 0, total, 1.0), 0.0)


def forgetting_rate(original: ArrayLike, unlearned: ArrayLike, chance: float) -> float | None:
    """FR = (A_o - A_u) / (A_o - chance), of mean accuracies in [0, 1]; None where the original is near chance."""
    start, end = (_mean(side, name) for side, name in ((original, "originals"), (unlearned, "unlearned models")))
    room = start - share(chance, "chance")
    return None if abs(room) < UNDEFINED_BELOW else (start - end) / room


def _mean(accuracies: ArrayLike, name: str) -> float:
    values = shares(accuracies, f"accuracies of the {name}")
    if not values.size:
        raise UsageError(f"Forgetting needs the accuracy of at least one model: the {name} have none.")
    return float(values.mean())


def generalization(
    seen: tuple[ArrayLike, ArrayLike], withheld: tuple[ArrayLike, ArrayLike], chance: float
) -> float | None:
    """FR(withheld) / FR(seen): does forgetting reach images that the method was never given (Zhang et al. 2024)?

    Args:
        seen: Accuracies (S,) in [0, 1] of the originals and of the unlearned models on the forget set.
        withheld: The same on images of the same class or person that were not given.
        chance: Accuracy of guessing.

    Returns:
        1 where forgetting reaches both alike, 0 where only the given images are forgotten; None where undefined.
    """
    rates = [forgetting_rate(original, unlearned, chance) for original, unlearned in (seen, withheld)]
    if rates[0] is None or rates[1] is None or abs(rates[0]) < UNDEFINED_BELOW:
        return None
    return rates[1] / rates[0]


def reemergence(accuracies: Sequence[float]) -> float:
    """Re-emergence: the largest rise of accuracy on what a request forgot, over the later requests of a stream.

    Args:
        accuracies: Accuracy on one request's forget set, straight after that request and after each later one.

    Returns:
        The largest rise above the lowest earlier value, at least 0.
    """
    values = floats(accuracies, "accuracies", ndim=1)
    if not len(values):
        raise UsageError("A stream needs at least one step.")
    return float((values - np.minimum.accumulate(values)).max())


MARGIN = 0.05
"""Relearned: forget accuracy of at least 95 % of the original's."""


def relearn_time(accuracies: ArrayLike, original: float, margin: float = MARGIN) -> int | None:
    """Optimizer steps until the forget accuracy is back at (1 - margin) of the original's.

    Args:
        accuracies: (T + 1,) forget accuracy before the first step, after it, and so on.
        original: Forget accuracy of the original.
        margin: How much below the original counts as back, as a share of it.

    Returns:
        The step; 0 where it was never gone; None where it did not come back in T steps (censored, not 0: code that
        takes the argmax of a condition that never holds says 0).
    """
    curve = floats(accuracies, "accuracies", ndim=1)
    if not len(curve):
        raise UsageError("A relearning curve needs at least its first point.")
    threshold = (1.0 - share(margin, "margin")) * number(original, "forget accuracy of the original")
    back = np.flatnonzero(curve >= threshold - 1e-12)
    return int(back[0]) if len(back) else None


def anamnesis_index(
    unlearned: Sequence[float | None], oracle: Sequence[float | None], limit: int | None = None
) -> float | None:
    """AIN = (rt_u + 1) / (rt_r + 1), of mean steps (after Tarun et al. 2023): 1 as an oracle, below 1 a trace.

    Args:
        unlearned: Steps of each unlearned model; None where censored.
        oracle: Steps of each oracle.
        limit: Steps after which the measurement stopped: what a censored curve then counts as (a lower bound).

    Returns:
        None where a curve is censored and no limit is given.
    """
    if not unlearned or not oracle:
        raise UsageError("The anamnesis index needs at least one curve on each side.")
    sides = [[limit if steps is None else steps for steps in side] for side in (unlearned, oracle)]
    known = [[float(steps) for steps in side if steps is not None] for side in sides]
    if any(len(kept) < len(side) for kept, side in zip(known, sides, strict=True)):
        return None
    means = [float(floats(steps, "steps", ndim=1).mean()) for steps in known]
    return (means[0] + 1) / (means[1] + 1)
