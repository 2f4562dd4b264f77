"""Erasure: does the model lose the behavior, everywhere, and for good?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, at_least, share, shares
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.board_rules import PerSeedRule, Populations
from forgetbench.metrics.registry import MetricSpec, metric

UNDEFINED_BELOW = 0.02
"""A ratio is undefined if its denominator is smaller than this: it would be noise over noise."""


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
