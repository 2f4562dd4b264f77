"""How far apart the predictions of two populations of models are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._lazy_scipy import expit
from forgetbench.metrics._validation import FloatArray, IntArray, logits_of, same_shape
from forgetbench.metrics.board_rules import Comparison, Draw, PairwiseRule
from forgetbench.metrics.logit_statistics import softmax
from forgetbench.metrics.registry import MetricSpec, metric


def jensen_shannon(left: ArrayLike, right: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Jensen-Shannon divergence of two models' predictions, example by example (Lin 1991).

    Args:
        left: (n, K) logits of one model.
        right: (n, K) logits of the other.
        attributes: The columns are A binary attributes; the mean over them is returned.

    Returns:
        (n,) nats in [0, log 2]. (scipy's ``jensenshannon`` is its square root.)
    """
    sides = [logits_of(side) for side in (left, right)]
    same_shape(sides[0], sides[1], "the same rows and columns")
    probabilities = [_probabilities(side, attributes=attributes) for side in sides]
    middle = (probabilities[0] + probabilities[1]) / 2
    value = _entropy(middle) - (_entropy(probabilities[0]) + _entropy(probabilities[1])) / 2
    return np.clip(value, 0.0, np.log(2.0)) if not attributes else np.clip(value, 0.0, np.log(2.0)).mean(axis=-1)


def js_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Mean Jensen-Shannon divergence of every pair of models: (M, n, K) logits to a symmetric (M, M), in nats.

    Each pair costs one entropy of the mixture; the models' own entropies are computed once.
    """
    return mean_over_blocks([_several_models(logits)], _js_of_block, attributes=attributes)


def _js_of_block(scores: FloatArray, *, attributes: bool) -> FloatArray:
    """(M, M) sums over the rows of a block (M, b, K); for attributes the mean over them."""
    probabilities = _probabilities(scores, attributes=attributes)
    own = _entropy(probabilities)
    sums = np.zeros((len(scores), len(scores)))
    for first in range(len(scores) - 1):
        values = _entropy((probabilities[first] + probabilities[first + 1 :]) / 2) - (own[first] + own[first + 1 :]) / 2
        values = np.clip(values, 0.0, np.log(2.0))
        sums[first, first + 1 :] = (values.mean(axis=-1) if attributes else values).sum(axis=-1)
    return sums


def _compare_js(draw: Draw, subset: str) -> Comparison:
    pairs = mean_over_blocks(draw.blocks(subset), _js_of_block, attributes=draw.has_attributes(subset))
    return Comparison(lambda left, right: centered(pairs, left, right), "even")


@metric(
    MetricSpec(
        name="js",
        title="divergence",
        symbol="JS",
        group="privacy",
        unit="nats",
        range=(-0.7, 0.7),
        requires=("forget",),
        meaning="How far predictions on the forget set are from the oracles', beyond the spread of each side.",
        misses="Which examples, and which side.",
        misuse="The copied code computes KL with its arguments exchanged and divides by the number of classes.",
        formula=(
            "mean_{u,r} JS(p_u, p_r) - (1/2) mean_{u != u'} JS(p_u, p_u') - (1/2) mean_{r != r'} JS(p_r, p_r'), "
            "averaged over D_f"
        ),
        example="JS((1/2, 1/2), (1, 0)) = 0.215762; disjoint predictions give log 2 = 0.693147.",
        source="Lin 1991; protocol, section 3.",
    ),
    board=PairwiseRule(_compare_js),
)
def centered_js(unlearned: ArrayLike, oracle: ArrayLike, *, attributes: bool = False) -> float:
    """Centered divergence: mean JS over all (u, r), minus half its mean over u != u' and half over r != r'.

    Args:
        unlearned: (S, n, K) logits on the forget set, S >= 2.
        oracle: (S', n, K) logits of the oracles on the same rows, S' >= 2.
        attributes: The columns are binary attributes.

    Returns:
        Nats; about 0 if both sides have the same distribution (and then as often negative as positive), log 2 if the
        two sides are certain of different classes. Protocol section 3.
    """
    left, right = logits_of(unlearned), logits_of(oracle)
    same_shape(left, right, "the same rows and columns", after=1)
    pairs = js_pairs(np.concatenate([left, right]), attributes=attributes)
    return centered(pairs, np.arange(len(left)), len(left) + np.arange(len(right)))


def centered(pairs: FloatArray, left: IntArray, right: IntArray) -> float:
    """The centered mean of a symmetric (M, M) matrix of divergences between models, with the diagonal at 0."""
    if len(left) < 2 or len(right) < 2:
        raise UsageError("The centered divergence needs at least two models on each side.")
    between = pairs[np.ix_(left, right)].mean()
    within = [pairs[np.ix_(side, side)].sum() / (len(side) * (len(side) - 1)) for side in (left, right)]
    return float(between - within[0] / 2 - within[1] / 2)


def distance_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Activation distance of every pair: mean over rows of the L2 distance of their outputs, (M, n, K) to (M, M).

    For attributes the outputs are the probabilities of the A attributes.
    """
    return mean_over_blocks([_several_models(logits)], distances_of_block, attributes=attributes)


def distances_of_block(scores: FloatArray, *, attributes: bool) -> FloatArray:
    """(M, M) sums over the rows of a block (M, b, K)."""
    models = outputs(scores, attributes=attributes)
    sums = np.zeros((len(models), len(models)))
    for first in range(len(models) - 1):
        sums[first, first + 1 :] = np.sqrt(((models[first] - models[first + 1 :]) ** 2).sum(axis=-1)).sum(axis=-1)
    return sums


def agreement_pairs(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Completeness of every pair: share of rows with the same prediction, (M, n, K) to (M, M); 1 on the diagonal."""
    return agreements(predictions(_several_models(logits), attributes=attributes))


def agreements(models: NDArray[Any]) -> FloatArray:
    """Share of equal predictions of every pair of models, (M, M), from predictions (M, n) or (M, n, A)."""
    matrix = np.eye(len(models))
    for first, second in combinations(range(len(models)), 2):
        matrix[first, second] = matrix[second, first] = agreement(models[first], models[second])
    return matrix


def outputs(logits: FloatArray, *, attributes: bool = False) -> FloatArray:
    """Probabilities (..., n, K) of the classes, or (..., n, A) of the attributes."""
    return expit(logits) if attributes else softmax(logits)


def predictions(logits: FloatArray, *, attributes: bool = False) -> NDArray[Any]:
    """Predicted classes (..., n), or which of the attributes are present (..., n, A)."""
    predicted: NDArray[Any] = logits > 0 if attributes else logits.argmax(axis=-1)
    return predicted


def distance(one: FloatArray, two: FloatArray) -> float:
    """Mean over rows of the L2 distance of two models' outputs (n, K)."""
    return float(np.sqrt(((one - two) ** 2).sum(axis=-1)).mean())


def agreement(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Share of equal predictions."""
    return float((one == two).mean())


def _probabilities(scores: FloatArray, *, attributes: bool) -> FloatArray:
    if attributes:
        return np.stack([expit(scores), expit(-scores)], axis=-1)
    return softmax(scores)


def _entropy(probabilities: FloatArray) -> FloatArray:
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))  # p log p is 0 where p is
    total: FloatArray = -(probabilities * logarithms).sum(axis=-1)
    return total


def _several_models(logits: ArrayLike) -> FloatArray:
    scores = logits_of(logits)
    if scores.ndim != 3 or not scores.size:
        raise UsageError(
            f"logits: expected several models on at least one row, (models, rows, classes), not {scores.shape}."
        )
    return scores


def mean_over_blocks(
    blocks: Iterable[FloatArray], sums_of_block: Callable[..., FloatArray], *, attributes: bool
) -> FloatArray:
    """The mean over rows of what ``sums_of_block`` adds up above the diagonal, as a symmetric (M, M)."""
    sums, rows = [], 0
    for scores in blocks:
        rows += scores.shape[1]
        sums.append(sums_of_block(scores, attributes=attributes))
    upper: FloatArray = np.sum(sums, axis=0) / rows
    return upper + upper.T
