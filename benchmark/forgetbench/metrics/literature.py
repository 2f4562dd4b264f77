"""Scores that papers report. They serve for comparison with published tables; none of them ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats, layers_of, logits_of, number, same_shape, share
from forgetbench.metrics.accuracy_gap import accuracy_by_seed, pooled_accuracy, require_keys, tow_by_seed
from forgetbench.metrics.board_rules import (
    Comparison,
    Draw,
    PairwiseRule,
    PerModelRule,
    PerSeedRule,
    Populations,
    mean_over_pairs,
    paired_by_seed,
)
from forgetbench.metrics.divergence import (
    agreement,
    agreements,
    distance,
    distances_of_block,
    jensen_shannon,
    mean_over_blocks,
    outputs,
    predictions,
)
from forgetbench.metrics.registry import MetricSpec, metric


def _measure_nomus(draw: Draw) -> FloatArray:
    return np.asarray(np.vectorize(nomus)(pooled_accuracy(draw, "test"), draw.values["mia.loss"]))


@metric(
    MetricSpec(
        name="nomus",
        title="NoMUS",
        group="literature",
        direction="up",
        requires=("forget", "test"),
        meaning="Test accuracy and the loss attack in one number, with equal weights.",
        misses="The oracle; a useless model scores about 0.6, doing nothing may beat retraining.",
        misuse="Ranking by it. The README's MIA column is |attack - 0.5|.",
        formula="(accuracy + 1 - 2 |mia.loss - 0.5|) / 2",
        example="Accuracy 0.5952, attack 0.7136: 0.5840.",
        source="Choi and Na 2023.",
    ),
    board=PerModelRule(_measure_nomus, reads=("mia.loss",)),
)
def nomus(accuracy: float, attack: float) -> float:
    """NoMUS = (accuracy + 1 - 2 |attack - 0.5|) / 2 (Choi and Na 2023). A useless model scores about 0.6.

    Args:
        accuracy: Test accuracy in [0, 1].
        attack: Accuracy of the attack on losses, in [0, 1] (the README's "MIA" rows are |attack - 0.5|).
    """
    return (share(accuracy, "accuracy") + 1.0 - 2.0 * abs(share(attack, "attack") - 0.5)) / 2


def _measure_adaptive_score(populations: Populations) -> FloatArray | None:
    """AUS of each seed; on class tasks the forget accuracy is that on test images of the forgotten classes."""
    if populations.originals is None:
        return None
    labels, classes = populations.labels, populations.has("test-forgotten")
    before = accuracy_by_seed(populations.originals, labels, "test")
    after = accuracy_by_seed(populations.unlearned, labels, "test")
    forgotten = accuracy_by_seed(populations.unlearned, labels, "test-forgotten" if classes else "forget")
    return np.array(
        [
            adaptive_unlearning_score(float(o), float(t), float(f), classes=classes)
            for o, t, f in zip(before, after, forgotten, strict=True)
        ]
    )


@metric(
    MetricSpec(
        name="aus",
        title="AUS",
        group="literature",
        direction="up",
        range=(0.0, None),
        requires=("forget", "test", "originals"),
        meaning="Test accuracy retained, over one plus the distance of forget accuracy from its target.",
        misses="The oracle; confidence.",
        misuse="Comparing random and class forgetting: their denominators differ.",
        formula="(1 - (A_t(o) - A_t(u))) / (1 + |A_f(u) - A_t(u)|); for classes the denominator is 1 + A_f(u)",
        example="A_t(u) 0.88, A_t(o) 0.92, A_f(u) 0.95: 0.8972.",
        source="Bonato et al. 2024 (SCAR).",
    ),
    board=PerSeedRule(_measure_adaptive_score),
)
def adaptive_unlearning_score(
    original_test: float, unlearned_test: float, unlearned_forget: float, *, classes: bool = False
) -> float:
    """AUS (Bonato et al. 2024, SCAR): (1 - (A_t(o) - A_t(u))) / (1 + |A_f(u) - A_t(u)|).

    Args:
        original_test: Test accuracy of the original, in [0, 1].
        unlearned_test: Test accuracy of the unlearned model.
        unlearned_forget: Its forget accuracy.
        classes: Class removal: the target of the forget accuracy is 0 instead of the test accuracy.
    """
    retained, forgotten = share(unlearned_test, "unlearned test accuracy"), share(unlearned_forget, "forget accuracy")
    target = 0.0 if classes else retained
    return (1.0 - (share(original_test, "original test accuracy") - retained)) / (1.0 + abs(forgotten - target))


def _measure_indiscernibility(populations: Populations) -> FloatArray | None:
    attack = populations.values.get("mia.loss")
    return None if attack is None else np.asarray(np.vectorize(indiscernibility)(attack.mean(axis=0)))


@metric(
    MetricSpec(
        name="indiscernibility",
        title="indiscernibility",
        group="literature",
        direction="up",
        requires=("forget", "test"),
        meaning="1 if the attack on losses guesses, 0 if it is always right.",
        misses="As mia.loss; 0.5 is not the oracle's value.",
        misuse="Maximizing it: an oracle need not be at 1.",
        formula="1 - 2 |mia.loss - 0.5|",
        example="Attack 0.6: 0.8.",
        source="Cadet et al. 2024 (Deep Unlearn).",
    ),
    board=PerSeedRule(_measure_indiscernibility),
)
def indiscernibility(attack: float) -> float:
    """1 - 2 |attack - 0.5|: 1 if the attack guesses, 0 if it is always right (Cadet et al. 2024)."""
    return 1.0 - 2.0 * abs(share(attack, "attack") - 0.5)


def _measure_retention_deviation(populations: Populations) -> FloatArray | None:
    """Retention deviation of each seed from the oracles' mean; None if their accuracy is 0."""
    subsets = ("retain", "test")
    unlearned, oracles = (
        {subset: accuracy_by_seed(side, populations.labels, subset) for subset in subsets}
        for side in (populations.unlearned, populations.oracles)
    )
    target = {subset: float(accuracies.mean()) for subset, accuracies in oracles.items()}
    if min(target.values()) <= 0:
        return None
    return np.array(
        [
            retention_deviation({subset: float(accuracies[seed]) for subset, accuracies in unlearned.items()}, target)
            for seed in range(len(unlearned["test"]))
        ]
    )


@metric(
    MetricSpec(
        name="retention-deviation",
        title="retention deviation",
        group="literature",
        direction="down",
        range=(0.0, None),
        requires=("retain", "test"),
        meaning="How far accuracies are from the oracle's, as shares of it, summed over retain and test.",
        misses="The spread of oracles.",
        misuse="Averaging it with the attack into one number.",
        formula="sum over subsets of |1 - A_u / A_r|",
        example="0.9 against 1.0 and 0.8 against 0.8: 0.1.",
        source="Cadet et al. 2024 (Deep Unlearn).",
    ),
    board=PerSeedRule(_measure_retention_deviation),
)
def retention_deviation(unlearned: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Sum over subsets of |1 - A_u / A_r| (Cadet et al. 2024): 0 if every accuracy is the oracle's.

    Args:
        unlearned: Subset to accuracy, one number each, in the unit of the oracle's.
        oracle: The same subsets of the oracle, above 0.
    """
    if set(unlearned) != set(oracle) or not oracle:
        raise UsageError(
            f"Retention deviation needs the same subsets on both sides: {sorted(unlearned)} against {sorted(oracle)}."
        )
    deviations = []
    for name in sorted(oracle):
        value, target = number(unlearned[name], name), number(oracle[name], f"{name} of the oracle")
        if value < 0 or target <= 0:
            raise UsageError(f"{name}: accuracies must not be negative, and the oracle's must be above 0.")
        deviations.append(abs(1.0 - value / target))
    return float(sum(deviations))


@metric(
    MetricSpec(
        name="sape",
        title="SAPE",
        group="literature",
        unit="%",
        direction="down",
        range=(0.0, 100.0),
        requires=("scores",),
        meaning="Symmetric absolute percentage error of any number against the oracle's; 0 is equal.",
        misses="The side, and the spread of oracles.",
        misuse="On numbers near 0, where any difference is 100.",
        formula="100 |u - r| / (|u| + |r|); 0 if both are 0",
        example="1 against 3: 50.",
        source="Cadet et al. 2024 (Deep Unlearn).",
        calibrated=False,
        on_boards=False,
    )
)
def sape(unlearned: float, oracle: float) -> float:
    """Symmetric absolute percentage error, 100 |u - r| / (|u| + |r|); 0 if both are 0."""
    value, target = number(unlearned, "value of the unlearned"), number(oracle, "value of the oracle")
    total = abs(value) + abs(target)
    return 0.0 if total == 0 else 100.0 * abs(value - target) / total


def _compare_tow_mia(draw: Draw, *_: str) -> Comparison | None:
    attack = draw.values.get("mia.svc-confidence")
    if attack is None:
        return None
    accuracies = {subset: pooled_accuracy(draw, subset) for subset in ("retain", "test")}
    return paired_by_seed(tow_by_seed, {"MIA": attack} | accuracies)


@metric(
    MetricSpec(
        name="tow-mia",
        title="ToW-MIA",
        group="literature",
        unit="",
        direction="up",
        requires=("forget", "retain", "test"),
        meaning="Tug-of-war with the SVC confidence attack in place of forget accuracy.",
        misses="As tow.",
        misuse="Taking the attack's value as good if it is large: only the oracle's value counts.",
        formula="(1 - |dMIA|)(1 - |dRA|)(1 - |dTA|), per seed, then averaged",
        example="Differences 0.1, 0, 0: 0.9.",
        source="Zhao et al. 2024 (RUM).",
        calibrated=False,
    ),
    board=PairwiseRule(_compare_tow_mia),
)
def tow_mia(
    unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike], attack: tuple[ArrayLike, ArrayLike]
) -> float:
    """ToW with the forget factor replaced by 1 - |difference of the SVC confidence attack| (Zhao et al. 2024).

    Args:
        unlearned: retain and test accuracies in [0, 1], (S,) each.
        oracle: The same of the oracles.
        attack: The attack's value in [0, 1], (S,), on the unlearned models and on the oracles.

    Raises:
        UsageError: A side lacks an accuracy or has another one, or a value is not in [0, 1].
    """
    require_keys("ToW-MIA", ("retain", "test"), unlearned, oracle)
    sides = [{"attack": value, **accuracies} for value, accuracies in zip(attack, (unlearned, oracle), strict=True)]
    return float(np.mean(tow_by_seed(sides[0], sides[1])))


def _compare_completeness(draw: Draw, subset: str) -> Comparison:
    return mean_over_pairs(agreements(draw.column("predicted", subset)))


@metric(
    MetricSpec(
        name="completeness",
        title="completeness",
        group="literature",
        direction="up",
        requires=("forget",),
        meaning="Share of the forget set on which unlearned model and oracle predict the same.",
        misses="Confidence; two oracles do not agree fully either.",
        misuse="Taking 1 as the goal; Jaccard versions under the same name.",
        formula="mean over u, r and D_f of 1[argmax z_u = argmax z_r]",
        example="Predictions 0, 1, 2 and 0, 1, 1: 2/3.",
        source="Cao and Yang 2015.",
        calibrated=False,
    ),
    board=PairwiseRule(_compare_completeness),
)
def completeness(left: ArrayLike, right: ArrayLike, *, attributes: bool = False) -> float:
    """Share of examples on which two models predict the same class (Cao and Yang 2015): 1 - churn.

    Args:
        left: (n, K) logits of the unlearned model.
        right: (n, K) logits of the oracle.
        attributes: The columns are A binary attributes; the mean over them is returned.
    """
    one, two = _two_models(left, right)
    return agreement(predictions(one, attributes=attributes), predictions(two, attributes=attributes))


def _compare_activation_distance(draw: Draw, subset: str) -> Comparison:
    attributes = draw.has_attributes(subset)
    return mean_over_pairs(mean_over_blocks(draw.blocks(subset), distances_of_block, attributes=attributes))


@metric(
    MetricSpec(
        name="activation-distance",
        title="activation distance",
        group="literature",
        unit="",
        direction="down",
        range=(0.0, None),
        requires=("forget",),
        meaning="Mean L2 distance of the softmax outputs of unlearned models and oracles on D_f.",
        misses="The spread of oracles among themselves, which is included in it.",
        misuse="Four definitions are in use (mean L2, mean L1, root of mean square, layer means).",
        formula=(
            "mean over u, r and D_f of |softmax z_u - softmax z_r|_2, at most sqrt(2); of the probabilities of A "
            "attributes, at most sqrt(A)"
        ),
        example="(1, 0) against (0, 1): sqrt(2).",
        source="Chundawat et al. 2023.",
        calibrated=False,
    ),
    board=PairwiseRule(_compare_activation_distance),
)
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


@metric(
    MetricSpec(
        name="zrf",
        title="ZRF",
        group="literature",
        direction="up",
        requires=("forget", "teacher"),
        meaning="Likeness to a randomly initialized network on the forget set.",
        misses="The oracle, which is no random network: its target is over-forgetting.",
        misuse="Published code exchanges the arguments of KL and divides by the number of classes (legacy.zrf).",
        formula="1 - mean JS(softmax z_u, softmax z_teacher)",
        example="Equal outputs: 1; certain of different classes: 1 - log 2 = 0.3069.",
        source="Chundawat et al. 2023.",
        unavailable="not computable: a board has no logits of a random network",
    )
)
def zrf(logits: ArrayLike, teacher: ArrayLike, *, attributes: bool = False) -> float:
    """Zero-retrain forgetting: 1 - mean JS(model, incompetent teacher) (Chundawat et al. 2023), on the forget set.

    Its target is the output of a random network and not that of the oracle. The published code computes something else
    (``published_code.zrf``).

    Args:
        logits: (n, K) of the unlearned model.
        teacher: (n, K) of a randomly initialized network.
        attributes: The columns are A binary attributes; the mean over them is returned.
    """
    return float(1.0 - jensen_shannon(*_two_models(logits, teacher), attributes=attributes).mean())


@metric(
    MetricSpec(
        name="layer-distance",
        title="layer-wise distance",
        group="literature",
        unit="",
        direction="down",
        range=(0.0, None),
        requires=("submitter",),
        meaning="L2 distance of the weights of unlearned model and oracle.",
        misses="Function: hidden units can be permuted at no cost.",
        misuse="Between models of different initialization it measures the initialization.",
        formula="sqrt(sum over layers |W_u - W_r|^2)",
        example="One layer, (3, 0) against (0, 4): 5.",
        source="Golatkar et al. 2020.",
        unavailable=(
            "not computable: oracles have different initializations, and between these it measures nothing else"
        ),
    )
)
def layer_distance(left: Sequence[ArrayLike], right: Sequence[ArrayLike], *, relative: bool = False) -> float:
    """Distance of two models' weights, sqrt(sum over layers of |W_u - W_r|^2) (Golatkar et al. 2020).

    It is meaningful only between models of one initialization: hidden units can be permuted at no cost.

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
        raise UsageError("The unlearned model's weights are all 0: no relative distance exists. Use relative=False.")
    return whole / norm


def layer_distances(left: Sequence[ArrayLike], right: Sequence[ArrayLike]) -> list[float]:
    """L2 distance of each layer's weights."""
    return [float(np.sqrt(((one - two) ** 2).sum())) for one, two in layers_of(left, right)]


def _two_models(left: ArrayLike, right: ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, two = logits_of(left), logits_of(right)
    same_shape(one, two, "the same rows")
    return one, two
