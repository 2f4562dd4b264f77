"""Accuracy, its gap to the oracles, and the two summaries of gaps that papers report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, floats, labels_of, logits_of, shares
from forgetbench.metrics.board_rules import (
    Comparison,
    Draw,
    Labels,
    PairwiseRule,
    Population,
    difference_of_means,
    paired_by_seed,
)
from forgetbench.metrics.columns import Answers
from forgetbench.metrics.registry import MetricSpec, Track, metric

TOW_SUBSETS = ("forget", "retain", "test")
"""The factors of the tug-of-war."""

_IMAGES = {
    "forget": "the forget set, against the labels that were trained on",
    "retain": "the sample of the retain set",
    "test": "test images (on erase tasks, those of the remaining classes)",
    "test-forgotten": "test images of the forgotten classes",
    "unseen": "images of people that no model has seen",
    "withheld": "training rows to be forgotten that no method was given to forget",
    "validation": "validation images",
    "test-triggered": "test images that show harmful training data",
}
"""Subset to its images, in words."""


_EFFICACY: dict[str, tuple[Track, ...]] = {
    "forget": ("match-oracle", "corrective"),
    "withheld": ("corrective",),
    "test-forgotten": ("erase",),
    "test-triggered": ("corrective",),
}
"""Subset -> tracks on which its gap ranks as evidence of forgetting."""


def correct(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Correctness of each prediction: 0 or 1 (..., n); for attributes the share of them that is right.

    The first of equal logits is the prediction; an attribute is present where its logit is above 0.
    """
    scores = logits_of(logits)
    models = Answers({"": scores if scores.ndim == 3 else scores[None]}, {"": labels_of(labels, scores)})
    right: FloatArray = models.column("correct", "")
    return right if scores.ndim == 3 else right[0]


def _accuracy_spec(subset: str, images: str) -> MetricSpec:
    return MetricSpec(
        name=f"accuracy.{subset}",
        title=f"{subset} accuracy",
        symbol=f"A_{subset}",
        group="utility",
        direction="up" if subset in {"test", "validation", "retain", "unseen", "test-triggered"} else "band",
        requires=(subset,),
        meaning=f"Share of correct predictions on {images}; compare it with the oracle's.",
        misses="Confidence: a model may predict as an oracle does and still remember.",
        misuse="Driving forget accuracy to 0 as a goal: an oracle still classifies most forgotten images correctly.",
        formula="(1/n) sum_i 1[argmax z(x_i) = y_i], averaged over models; for attributes the mean over them.",
        example="Labels 0, 1, 1 and predictions 0, 1, 0 give 2/3.",
        source="Protocol, section 3.",
    )


@metric(*(_accuracy_spec(subset, images) for subset, images in _IMAGES.items()))
@metric(
    MetricSpec(
        name="accuracy.earlier",
        title="accuracy on earlier requests",
        symbol="A_earlier",
        group="erasure",
        requires=("requests",),
        meaning="Accuracy after a request on what earlier requests removed; compare it with the oracle's.",
        misses="Requests that come back while others sink: it is their mean (re-emergence takes the largest rise).",
        misuse="Reading it on training images as an erasure: an oracle still classifies most of them correctly.",
        formula=(
            "after request k, mean over requests j < k of the accuracy on what j removed: test images of its classes, "
            "or its own training images if it removes no class; averaged over seeds"
        ),
        example="After the third request 0.1 on the first's classes and 0.3 on the second's: 0.2.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    )
)
def accuracy(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Accuracy in [0, 1]: of one model () or of each of several (S,); for attributes the mean over them.

    Raises:
        UsageError: There are no rows.
    """
    return _mean(correct(logits, labels))


def _mean(right: FloatArray) -> FloatArray:
    if right.shape[-1] == 0:
        raise UsageError("Accuracy is not defined without rows.")
    return np.asarray(right.mean(axis=-1))


def accuracy_by_seed(population: Population, labels: Labels, subset: str) -> FloatArray:
    """Accuracy of each seed on a subset, the mean over draws, (S,)."""
    draws = [
        _mean(Answers.of(answers, truth).column("correct", subset))
        for answers, truth in zip(population, labels, strict=True)
    ]
    mean: FloatArray = np.mean(draws, axis=0)
    return mean


def pooled_accuracy(draw: Draw, subset: str) -> FloatArray:
    """Accuracy of each pooled model of a draw on one subset, (M,)."""
    return draw.cached(("accuracy", subset), lambda: _mean(draw.column("correct", subset)))


def _gap_spec(subset: str, images: str) -> MetricSpec:
    return MetricSpec(
        name=f"gap.{subset}",
        title=f"{subset} gap",
        symbol=f"Δ_{subset}",
        group="erasure" if subset in {"test-forgotten", "test-triggered"} else "utility",
        signed=True,
        range=(-1.0, 1.0),
        requires=(subset,),
        meaning=f"Mean accuracy of the unlearned models minus the oracles' on {images}.",
        misses="Single examples: at a gap of 0 half may be remembered and half over-forgotten.",
        misuse="Reading |gap| without its band: oracles differ among themselves.",
        formula="mean_s A(u_s) - mean_s A(r_s)",
        example="Unlearned 0.90, 0.92 and oracles 0.88, 0.88 give +0.03.",
        source="Protocol, section 3.",
        efficacy=_EFFICACY.get(subset, ()),
        harm=("match-oracle", "erase", "corrective") if subset in {"retain", "test"} else (),
        floor=0.005,
    )


@metric(
    *(_gap_spec(subset, images) for subset, images in _IMAGES.items()),
    board=PairwiseRule(lambda draw, subset: difference_of_means(pooled_accuracy(draw, subset))),
)
def gap(unlearned: ArrayLike, oracle: ArrayLike) -> float:
    """Mean accuracy of the unlearned models minus that of the oracles, signed.

    Args:
        unlearned: (S,) accuracies in [0, 1], one per model.
        oracle: (S',) accuracies of the oracles.
    """
    left, right = shares(unlearned, "accuracies"), shares(oracle, "accuracies of the oracles")
    if not left.size or not right.size:
        raise UsageError("A gap needs at least one model on each side.")
    return float(left.mean() - right.mean())


def _compare_tow(draw: Draw, *subsets: str) -> Comparison:
    return paired_by_seed(tow_by_seed, {subset: pooled_accuracy(draw, subset) for subset in subsets})


@metric(
    MetricSpec(
        name="tow",
        title="tug-of-war",
        symbol="ToW",
        group="utility",
        unit="",
        direction="up",
        requires=TOW_SUBSETS,
        meaning="One number for three gaps: 1 if all accuracies are the oracle's.",
        misses="Anything but accuracy; and an oracle against an oracle is below 1.",
        misuse="Comparing it between papers without the oracle's own value.",
        formula="prod over X in {forget, retain, test} of (1 - |A_u(X) - A_r(X)|), per seed, then averaged",
        example="Gaps of 0.05, 0.01 and 0.031: 0.95 * 0.99 * 0.969 = 0.9113.",
        source="Zhao et al. 2024 (RUM), equation 1.",
        calibrated=False,
    ),
    board=PairwiseRule(_compare_tow),
)
def tow(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> float:
    """Tug-of-war: the product over subsets of 1 - |accuracy gap|, per seed, then averaged (Zhao et al. 2024, eq. 1).

    Args:
        unlearned: Subset name (forget, retain, test) to (S,) accuracies in [0, 1].
        oracle: The same subsets of the oracles, in the same order of seeds.

    Returns:
        In [0, 1]; 1 if every accuracy is the oracle's.

    Raises:
        UsageError: A side lacks one of the three subsets or has another one, or a value is not in [0, 1].
    """
    require_keys("Tug-of-war", TOW_SUBSETS, unlearned, oracle)
    return float(np.mean(tow_by_seed(unlearned, oracle)))


def require_keys(name: str, keys: Sequence[str], *sides: Mapping[str, object]) -> None:
    """Require exactly these keys on each side, so that no further factor enters and none is missing.

    Raises:
        UsageError: A key is missing or unexpected.
    """
    for side in sides:
        missing = [key for key in keys if key not in side]
        more = sorted(set(side) - set(keys))
        if missing or more:
            problem = f"{missing[0]} is missing" if missing else f"{more[0]!r} is not one of them"
            raise UsageError(f"{name} needs {', '.join(keys[:-1])} and {keys[-1]} accuracies on both sides: {problem}.")


def tow_by_seed(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> FloatArray:
    """The tug-of-war of each seed, (S,)."""
    product: FloatArray = np.ones(1)
    for delta in _paired_gaps(unlearned, oracle, shares):
        product = product * (1.0 - np.abs(delta))
    return product


def _compare_average_gap(draw: Draw, *subsets: str) -> Comparison | None:
    attack = draw.values.get("mia.svc-confidence")
    if attack is None:
        return None
    accuracies = {subset: pooled_accuracy(draw, subset) for subset in subsets}
    return paired_by_seed(average_gap_by_seed, {"MIA": attack} | accuracies)


@metric(
    MetricSpec(
        name="avg-gap",
        title="average gap",
        group="literature",
        direction="down",
        requires=("forget", "retain", "test"),
        meaning="Mean |difference from the oracle| of forget, retain and test accuracy and SVC confidence.",
        misses="Anything but averages; an oracle against an oracle is not 0.",
        misuse="Taking the gap of means instead of the mean of gaps: the latter is never smaller.",
        formula="mean of |dUA|, |dRA|, |dTA|, |dMIA| per seed, then averaged",
        example="2.85/99.62/93.93/14.39 against 5.24/100/94.26/12.88: 1.1525 points.",
        source="Fan et al. 2024 (SalUn), table 1.",
        calibrated=False,
    ),
    board=PairwiseRule(_compare_average_gap),
)
def average_gap(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> float:
    """Average gap: mean |difference| over the quantities, per seed, then averaged (Fan et al. 2024, table 1).

    Args:
        unlearned: Quantity (UA or forget accuracy, RA, TA, MIA) to (S,) values, all as shares or all in percent.
        oracle: The same quantities of the oracles, in the same order of seeds.
    """
    return float(average_gap_by_seed(unlearned, oracle).mean())


def average_gap_by_seed(unlearned: Mapping[str, ArrayLike], oracle: Mapping[str, ArrayLike]) -> FloatArray:
    """The average gap of each seed, (S,)."""
    mean: FloatArray = np.mean([np.abs(delta) for delta in _paired_gaps(unlearned, oracle)], axis=0)
    return mean


def _paired_gaps(
    unlearned: Mapping[str, ArrayLike],
    oracle: Mapping[str, ArrayLike],
    validate: Callable[[ArrayLike, str], FloatArray] = floats,
) -> Sequence[FloatArray]:
    if set(unlearned) != set(oracle) or not unlearned:
        raise UsageError(f"Both sides need the same quantities: {sorted(unlearned)} against {sorted(oracle)}.")
    pairs = [
        (validate(unlearned[name], name), validate(oracle[name], f"{name} of the oracles"))
        for name in sorted(unlearned)
    ]
    if len({array.shape for pair in pairs for array in pair}) != 1 or not pairs[0][0].size:
        raise UsageError("Seeds are paired: every quantity needs one value per seed on both sides.")
    return [left - right for left, right in pairs]
