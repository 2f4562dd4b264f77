"""How fast the forgotten comes back. The curves need the model, and come from whoever ran it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics.arrays import floats, number, share

MARGIN = 0.05
"""Relearned: forget accuracy of at least 95 % of the original's."""


def relearn_time(accuracies: ArrayLike, original: float, margin: float = MARGIN) -> int | None:
    """Optimiser steps until the forget accuracy is back at (1 - margin) of the original's.

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
