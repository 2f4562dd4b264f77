"""Erasure: does the model lose the behavior, everywhere, and for good?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, at_least, share, shares, whole
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.board_rules import PerSeedRule, Populations
from forgetbench.metrics.registry import MetricSpec, metric

UNDEFINED_BELOW = 0.02
"""A ratio is undefined if its denominator is smaller than this: it would be noise over noise."""
MARGIN = 0.05
"""A model has relearned when its forget accuracy is back at 95 % of the original's."""


def _measure_h_mean(populations: Populations) -> FloatArray | None:
    if populations.originals is None:
        return None
    labels = populations.labels
    retained = accuracy_by_seed(populations.unlearned, labels, "test")
    before = accuracy_by_seed(populations.originals, labels, "test-forgotten")
    after = accuracy_by_seed(populations.unlearned, labels, "test-forgotten")
    return h_mean_by_seed(retained, before, after)


@metric(
    MetricSpec(
        name="h-mean",
        title="H-mean",
        symbol="H",
        group="erasure",
        direction="up",
        requires=("test", "test-forgotten", "originals"),
        meaning="Harmonic mean of the accuracy retained and the accuracy lost on forgotten classes, on test images.",
        misses="Whether the features are gone; an extra penalty for damage elsewhere.",
        misuse="On random forget sets, where an oracle hardly drops at all.",
        formula="2 A_r Drop / (A_r + Drop), Drop = A_f(original) - A_f(unlearned), per seed, then averaged",
        example="A_r = 0.8 and Drop = 0.8 give 0.8; Drop = 0 gives 0.",
        source="Zhao et al. 2024 (GS-LoRA), section 4.1.",
    ),
    board=PerSeedRule(_measure_h_mean),
)
def h_mean(retained: ArrayLike, before: ArrayLike, after: ArrayLike) -> float:
    """Harmonic mean of retained accuracy and drop, 2 A_r Drop / (A_r + Drop), averaged over seeds (Zhao et al. 2024).

    Args:
        retained: (S,) test accuracy of the unlearned models on the remaining classes.
        before: (S,) test accuracy of their originals on the forgotten classes.
        after: (S,) test accuracy of the unlearned models on the forgotten classes; Drop = before - after.

    Returns:
        In the unit of its arguments; 0 if nothing dropped (or the accuracy rose).
    """
    return float(h_mean_by_seed(retained, before, after).mean())


def h_mean_by_seed(retained: ArrayLike, before: ArrayLike, after: ArrayLike) -> FloatArray:
    """The harmonic mean of each seed, (S,)."""
    utility, start, end = (np.atleast_1d(at_least(values, "accuracies")) for values in (retained, before, after))
    if not utility.shape == start.shape == end.shape or not utility.size:
        shapes = f"{utility.shape}, {start.shape} and {end.shape}"
        raise UsageError(f"H-mean needs one value per seed in each argument; the shapes are {shapes}.")
    drop = np.maximum(start - end, 0.0)
    total = utility + drop
    return np.where(total > 0, 2 * utility * drop / np.where(total > 0, total, 1.0), 0.0)


def forgetting_rate(original: ArrayLike, unlearned: ArrayLike, chance: float) -> float | None:
    """FR = (A_o - A_u) / (A_o - chance), of mean accuracies in [0, 1]; None if the original is near chance."""
    start, end = (_mean(side, name) for side, name in ((original, "originals"), (unlearned, "unlearned models")))
    headroom = start - share(chance, "chance")
    return None if abs(headroom) < UNDEFINED_BELOW else (start - end) / headroom


def _mean(accuracies: ArrayLike, name: str) -> float:
    values = shares(accuracies, f"accuracies of the {name}")
    if not values.size:
        raise UsageError(f"accuracies of the {name}: at least one model is needed.")
    return float(values.mean())


@metric(
    MetricSpec(
        name="generalization",
        title="generalization",
        symbol="FR ratio",
        group="erasure",
        unit="ratio",
        direction="up",
        range=(None, None),
        requires=("forget", "withheld", "originals"),
        meaning="Does forgetting reach images of the same class or person that were not given? 1 = fully.",
        misses="Whether it should: on a match-oracle task the oracle's value is right, not 1.",
        misuse="Reading it if hardly anything was forgotten: then it is noise over noise, and not defined.",
        formula=(
            "FR(withheld) / FR(seen), FR(S) = (A_o(S) - A_u(S)) / (A_o(S) - chance); test-forgotten if nothing was "
            "withheld"
        ),
        example="Chance 0.1, seen 1.0 -> 0.1 (FR 1), withheld 0.9 -> 0.5 (FR 0.5): 0.5.",
        source="Zhang, Choshen and Andreas 2024; protocol, section 3.",
    )
)
def generalization(
    seen: tuple[ArrayLike, ArrayLike], withheld: tuple[ArrayLike, ArrayLike], chance: float
) -> float | None:
    """FR(withheld) / FR(seen): does forgetting reach images that the method was never given (Zhang et al. 2024)?

    Args:
        seen: Accuracies (S,) in [0, 1] of the originals and of the unlearned models on the forget set.
        withheld: The same on images of the same class or person that were not given.
        chance: Accuracy of guessing.

    Returns:
        1 if forgetting reaches both alike, 0 if only the given images are forgotten; None if undefined.
    """
    rates = [forgetting_rate(original, unlearned, chance) for original, unlearned in (seen, withheld)]
    if rates[0] is None or rates[1] is None or abs(rates[0]) < UNDEFINED_BELOW:
        return None
    return rates[1] / rates[0]


@metric(
    MetricSpec(
        name="re-emergence",
        title="re-emergence",
        group="erasure",
        direction="down",
        requires=("requests",),
        meaning="Largest rise of accuracy on what a request removed, over the later requests; 0 if it stays removed.",
        misses="What never went: a request that forgot nothing cannot rise.",
        misuse="Counting from before the request: only what comes back after it is a rise.",
        formula=(
            "max over requests j and later steps k of A_k(j) - min over j <= i <= k of A_i(j), by seed, then averaged"
        ),
        example="0.1, 0.5, 0.2, 0.4 after the request and each later one: 0.4.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    )
)
def reemergence(accuracies: Sequence[float]) -> float:
    """Re-emergence: the largest rise of accuracy on what a request forgot, over the later requests of a stream.

    Args:
        accuracies: Accuracy in [0, 1] on one request's forget set, directly after that request and after each later
            one.

    Returns:
        The largest rise above the lowest earlier value, at least 0.
    """
    values = shares(accuracies, "accuracies", ndim=1)
    if not len(values):
        raise UsageError("A stream needs at least one step.")
    return float((values - np.minimum.accumulate(values)).max())


@metric(
    MetricSpec(
        name="relearn",
        title="relearn time",
        group="erasure",
        unit="steps",
        range=(0.0, None),
        requires=("submitter",),
        meaning="Steps until forget accuracy is back at 95 % of the original's, as the submitter measured.",
        misses="What other optimizers would do: one optimizer and learning rate for all.",
        misuse="Counting a curve that never comes back as 0: it is censored.",
        formula="smallest t with A_f(t) >= 0.95 A_f(o), t = 0 included",
        example="Original 1.0, curve 0.2, 0.6, 0.96: 2 steps.",
        source="Tarun et al. 2023; protocol, section 3.",
    )
)
def relearn_time(accuracies: ArrayLike, original: float, margin: float = MARGIN) -> int | None:
    """Optimizer steps until the forget accuracy is back at (1 - margin) of the original's.

    Args:
        accuracies: (T + 1,) forget accuracy in [0, 1] before the first step, after it, and so on.
        original: Forget accuracy of the original, in [0, 1].
        margin: How much below the original counts as back, as a share of it.

    Returns:
        The step; 0 if the accuracy never dropped; None if it did not come back in T steps (censored, not 0: code that
        takes the argmax of a condition that never holds returns 0).
    """
    curve = shares(accuracies, "accuracies", ndim=1)
    if not len(curve):
        raise UsageError("A relearning curve needs at least its first point.")
    threshold = (1.0 - share(margin, "margin")) * share(original, "forget accuracy of the original")
    back = np.flatnonzero(curve >= threshold - 1e-12)
    return int(back[0]) if len(back) else None


@metric(
    MetricSpec(
        name="ain",
        title="anamnesis index",
        group="erasure",
        unit="ratio",
        range=(0.0, None),
        requires=("submitter",),
        meaning="Relearn time over the oracle's: 1 as an oracle, below 1 a trace is left, above 1 over-forgotten.",
        misses="As relearn.",
        misuse="Dividing by 0 if the oracle relearns at once: hence the + 1.",
        formula="(rt_u + 1) / (rt_r + 1)",
        example="2 steps against 5: 0.5.",
        source="Tarun et al. 2023.",
    )
)
def anamnesis_index(
    unlearned: Sequence[float | None] | FloatArray,
    oracle: Sequence[float | None] | FloatArray,
    limit: int | None = None,
) -> float | None:
    """AIN = (rt_u + 1) / (rt_r + 1), of mean steps (after Tarun et al. 2023): 1 as an oracle, below 1 a trace.

    Args:
        unlearned: Steps of each unlearned model; None if censored.
        oracle: Steps of each oracle.
        limit: Steps after which the measurement stopped. A censored curve counts as this many (a lower bound).

    Returns:
        None if a curve is censored and no limit is given.

    Raises:
        UsageError: A side has no curve, or a number of steps is negative or above the limit.
    """
    if not len(unlearned) or not len(oracle):
        raise UsageError("The anamnesis index needs at least one curve on each side.")
    most = None if limit is None else whole(limit, "limit")
    sides = [[most if steps is None else steps for steps in side] for side in (unlearned, oracle)]
    known = [at_least([steps for steps in side if steps is not None], "steps", ndim=1) for side in sides]
    if most is not None and any((side > most).any() for side in known):
        raise UsageError(f"steps: a curve came back after more than the limit of {most} steps.")
    if any(len(steps) < len(side) for steps, side in zip(known, sides, strict=True)):
        return None
    means = [float(steps.mean()) for steps in known]
    return (means[0] + 1) / (means[1] + 1)
