"""Scores that papers report, from numbers that are already there. For comparison only: none of them ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics.arrays import FloatArray, floats, logits_of
from forgetbench.metrics.confidence import softmax
from forgetbench.metrics.divergence import jensen_shannon


def nomus(accuracy: float, attack: float) -> float:
    """NoMUS = (accuracy + 1 - 2 |attack - 0.5|) / 2 (Choi and Na 2023). A useless model scores about 0.6.

    Args:
        accuracy: Test accuracy in [0, 1].
        attack: Accuracy of the attack on losses, in [0, 1] (the README's "MIA" rows are |attack - 0.5|).
    """
    return (accuracy + 1.0 - 2.0 * abs(attack - 0.5)) / 2


def adaptive_unlearning_score(
    original_test: float, unlearned_test: float, unlearned_forget: float, *, classes: bool = False
) -> float:
    """AUS (Bonato et al. 2024, SCAR): (1 - (A_t(o) - A_t(u))) / (1 + |A_f(u) - A_t(u)|).

    Args:
        original_test: Test accuracy of the original, in [0, 1].
        unlearned_test: Test accuracy of the unlearned model.
        unlearned_forget: Its forget accuracy.
        classes: Class removal: the target of the forget accuracy is 0 and not the test accuracy.
    """
    target = 0.0 if classes else unlearned_test
    return (1.0 - (original_test - unlearned_test)) / (1.0 + abs(unlearned_forget - target))


def indiscernibility(attack: float) -> float:
    """1 - 2 |attack - 0.5|: 1 where the attack guesses, 0 where it is always right (Cadet et al. 2024)."""
    return 1.0 - 2.0 * abs(attack - 0.5)


def retention_deviation(unlearned: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Sum over subsets of |1 - A_u / A_r| (Cadet et al. 2024): 0 where every accuracy is the oracle's."""
    if set(unlearned) != set(oracle) or any(value <= 0 for value in oracle.values()):
        raise UsageError("Retention needs the same subsets on both sides, and oracles above 0.")
    return float(sum(abs(1.0 - unlearned[name] / oracle[name]) for name in sorted(oracle)))


def sape(unlearned: float, oracle: float) -> float:
    """Symmetric absolute percentage error, 100 |u - r| / (|u| + |r|); 0 where both are 0."""
    total = abs(unlearned) + abs(oracle)
    return 0.0 if total == 0 else 100.0 * abs(unlearned - oracle) / total


def tow_mia(
    unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike], attack: tuple[ArrayLike, ArrayLike]
) -> float:
    """ToW with the forget factor replaced by 1 - |difference of the SVC confidence attack| (Zhao et al. 2024).

    Args:
        unlearned: retain and test accuracies, (S,) each.
        oracle: The same of the oracles.
        attack: The attack's value (S,) on the unlearned models and on the oracles.
    """
    product: FloatArray = 1.0 - np.abs(floats(attack[0], "attack") - floats(attack[1], "attack"))
    for name in ("retain", "test"):
        product = product * (1.0 - np.abs(floats(unlearned[name], name) - floats(oracle[name], name)))
    return float(product.mean())


def completeness(left: ArrayLike, right: ArrayLike) -> float:
    """Share of examples on which two models predict the same class (Cao and Yang 2015): 1 - churn.

    Args:
        left: (n, K) logits of the unlearned model.
        right: (n, K) logits of the oracle.
    """
    one, two = logits_of(left), logits_of(right)
    if one.shape != two.shape or not len(one):
        raise UsageError(f"Two models on the same rows, please: {one.shape} against {two.shape}.")
    return float((one.argmax(axis=-1) == two.argmax(axis=-1)).mean())


def activation_distance(left: ArrayLike, right: ArrayLike) -> float:
    """Mean over examples of the L2 distance of the two softmax outputs (Chundawat et al. 2023), in [0, sqrt(2)]."""
    difference = softmax(left) - softmax(right)
    if not len(difference):
        raise UsageError("The activation distance over no rows is not defined.")
    return float(np.sqrt((difference**2).sum(axis=-1)).mean())


def zrf(logits: ArrayLike, teacher: ArrayLike) -> float:
    """Zero-retrain forgetting: 1 - mean JS(model, incompetent teacher) (Chundawat et al. 2023), on the forget set.

    Its target is a random network's outputs and not the oracle's. The published code computes something else
    (``legacy.zrf``).

    Args:
        logits: (n, K) of the unlearned model.
        teacher: (n, K) of a randomly initialised network.
    """
    return float(1.0 - jensen_shannon(logits, teacher).mean())


def layer_distance(left: Sequence[ArrayLike], right: Sequence[ArrayLike], *, relative: bool = False) -> float:
    """Distance of two models' weights, sqrt(sum over layers of |W_u - W_r|^2) (Golatkar et al. 2020).

    It means something only between models of one initialisation: hidden units may change places at no cost.

    Args:
        left: Weights of each layer of the unlearned model.
        right: The same of the oracle.
        relative: Divide by the norm of the unlearned model's weights.
    """
    return float(np.sqrt(sum(value**2 for value in layer_distances(left, right)))) / (
        float(np.sqrt(sum((floats(layer, "weights") ** 2).sum() for layer in left))) if relative else 1.0
    )


def layer_distances(left: Sequence[ArrayLike], right: Sequence[ArrayLike]) -> list[float]:
    """L2 distance of each layer's weights."""
    if len(left) != len(right) or not len(left):
        raise UsageError(f"As many layers on both sides, please: {len(left)} and {len(right)}.")
    pairs = [(floats(one, "weights"), floats(two, "weights")) for one, two in zip(left, right, strict=True)]
    if any(one.shape != two.shape for one, two in pairs):
        raise UsageError("The layers of the two models differ in shape.")
    return [float(np.sqrt(((one - two) ** 2).sum())) for one, two in pairs]
