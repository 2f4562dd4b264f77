"""Scores that papers report, from numbers that are already there. For comparison only: none of them ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats, layers_of, logits_of, number, same_shape, share
from forgetbench.metrics.accuracy_gap import tow
from forgetbench.metrics.divergence import agreement, answers, distance, jensen_shannon, outputs


def nomus(accuracy: float, attack: float) -> float:
    """NoMUS = (accuracy + 1 - 2 |attack - 0.5|) / 2 (Choi and Na 2023). A useless model scores about 0.6.

    Args:
        accuracy: Test accuracy in [0, 1].
        attack: Accuracy of the attack on losses, in [0, 1] (the README's "MIA" rows are |attack - 0.5|).
    """
    return (share(accuracy, "accuracy") + 1.0 - 2.0 * abs(share(attack, "attack") - 0.5)) / 2


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
    kept, forgotten = share(unlearned_test, "unlearned test accuracy"), share(unlearned_forget, "forget accuracy")
    target = 0.0 if classes else kept
    return (1.0 - (share(original_test, "original test accuracy") - kept)) / (1.0 + abs(forgotten - target))


def indiscernibility(attack: float) -> float:
    """1 - 2 |attack - 0.5|: 1 where the attack guesses, 0 where it is always right (Cadet et al. 2024)."""
    return 1.0 - 2.0 * abs(share(attack, "attack") - 0.5)


def retention_deviation(unlearned: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Sum over subsets of |1 - A_u / A_r| (Cadet et al. 2024): 0 where every accuracy is the oracle's."""
    if set(unlearned) != set(oracle) or not oracle or any(value <= 0 for value in oracle.values()):
        raise UsageError("Retention needs the same subsets on both sides, and oracles above 0.")
    shares = [number(unlearned[name], name) / number(oracle[name], f"{name} of the oracle") for name in sorted(oracle)]
    return float(sum(abs(1.0 - share) for share in shares))


def sape(unlearned: float, oracle: float) -> float:
    """Symmetric absolute percentage error, 100 |u - r| / (|u| + |r|); 0 where both are 0."""
    mine, theirs = number(unlearned, "value of the unlearned"), number(oracle, "value of the oracle")
    total = abs(mine) + abs(theirs)
    return 0.0 if total == 0 else 100.0 * abs(mine - theirs) / total


def tow_mia(
    unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike], attack: tuple[ArrayLike, ArrayLike]
) -> float:
    """ToW with the forget factor replaced by 1 - |difference of the SVC confidence attack| (Zhao et al. 2024).

    Args:
        unlearned: retain and test accuracies in [0, 1], (S,) each.
        oracle: The same of the oracles.
        attack: The attack's value in [0, 1], (S,), on the unlearned models and on the oracles.
    """
    for side in (unlearned, oracle):
        absent = [name for name in ("retain", "test") if name not in side]
        if absent:
            raise UsageError(f"ToW-MIA needs retain and test accuracies on both sides: {absent[0]} is missing.")
    sides = [
        {"attack": value, **{name: accuracies[name] for name in ("retain", "test")}}
        for value, accuracies in zip(attack, (unlearned, oracle), strict=True)
    ]
    return tow(sides[0], sides[1])


def completeness(left: ArrayLike, right: ArrayLike, *, attributes: bool = False) -> float:
    """Share of examples on which two models predict the same class (Cao and Yang 2015): 1 - churn.

    Args:
        left: (n, K) logits of the unlearned model.
        right: (n, K) logits of the oracle.
        attributes: The columns are A binary attributes; the mean over them is returned.
    """
    one, two = _two_models(left, right)
    return agreement(answers(one, attributes=attributes), answers(two, attributes=attributes))


def activation_distance(left: ArrayLike, right: ArrayLike, *, attributes: bool = False) -> float:
    """Mean over examples of the L2 distance of the two models' outputs (Chundawat et al. 2023).

    Args:
        left: (n, K) logits of the unlearned model.
        right: (n, K) logits of the oracle.
        attributes: The columns are A binary attributes, whose probabilities are the outputs.

    Returns:
        In [0, sqrt(2)]; for attributes up to sqrt(A).
    """
    one, two = _two_models(left, right)
    return distance(outputs(one, attributes=attributes), outputs(two, attributes=attributes))


def zrf(logits: ArrayLike, teacher: ArrayLike, *, attributes: bool = False) -> float:
    """Zero-retrain forgetting: 1 - mean JS(model, incompetent teacher) (Chundawat et al. 2023), on the forget set.

    Its target is a random network's outputs and not the oracle's. The published code computes something else
    (``legacy.zrf``).

    Args:
        logits: (n, K) of the unlearned model.
        teacher: (n, K) of a randomly initialized network.
        attributes: The columns are A binary attributes; the mean over them is returned.
    """
    return float(1.0 - jensen_shannon(*_two_models(logits, teacher), attributes=attributes).mean())


def layer_distance(left: Sequence[ArrayLike], right: Sequence[ArrayLike], *, relative: bool = False) -> float:
    """Distance of two models' weights, sqrt(sum over layers of |W_u - W_r|^2) (Golatkar et al. 2020).

    It means something only between models of one initialization: hidden units may change places at no cost.

    Args:
        left: Weights of each layer of the unlearned model.
        right: The same of the oracle.
        relative: Divide by the norm of the unlearned model's weights.
    """
    whole = float(np.sqrt(sum(value**2 for value in layer_distances(left, right))))
    if not relative:
        return whole
    norm = float(np.sqrt(sum((floats(layer, "weights") ** 2).sum() for layer in left)))
    if norm == 0:
        raise UsageError("The unlearned model's weights are all 0: no distance is a share of that. See relative=False.")
    return whole / norm


def layer_distances(left: Sequence[ArrayLike], right: Sequence[ArrayLike]) -> list[float]:
    """L2 distance of each layer's weights."""
    return [float(np.sqrt(((one - two) ** 2).sum())) for one, two in layers_of(left, right)]


def _two_models(left: ArrayLike, right: ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, two = logits_of(left), logits_of(right)
    same_shape(one, two, "the same rows")
    return one, two
