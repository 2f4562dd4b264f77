"""Published code that deviates from its own definition, to reproduce printed tables. Nothing here ever ranks.

Each docstring describes the deviation; the definition itself has the same name elsewhere in this package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._lazy_scipy import normal_log_density, softmax
from forgetbench.metrics._validation import (
    FloatArray,
    at_least,
    floats,
    labels_of,
    logits_of,
    mask_of,
    phi_of,
    same_shape,
    share,
    shares,
)
from forgetbench.metrics.margin_distances import BINS, CLIP, EMPTY
from forgetbench.metrics.registry import Direction, MetricSpec, metric
from forgetbench.metrics.roc import rates
from forgetbench.metrics.shadow_models import Fit, fit_normal


def _spec(  # noqa: PLR0913 - what these specs do not have in common
    name: str,
    title: str,
    *,
    requires: str,
    meaning: str,
    formula: str,
    example: str,
    source: str,
    unit: str = "",
    range: tuple[float | None, float | None] = (0.0, 1.0),
    direction: Direction = "band",
    misses: str = "As the definition.",
) -> MetricSpec:
    return MetricSpec(
        name=f"legacy.{name}",
        title=title,
        group="literature",
        unit=unit,
        direction=direction,
        range=range,
        requires=tuple(requires.split(", ")),
        meaning=meaning,
        misses=misses,
        misuse="Reporting it under the name of the definition.",
        formula=formula,
        example=example,
        source=source,
        calibrated=False,
        legacy=True,
        on_boards=False,
    )


@metric(
    _spec(
        "modified-entropy",
        "modified entropy as coded",
        unit="nats",
        range=(0.0, None),
        requires="probabilities",
        meaning="Modified entropy as in Unlearn-Sparse, SalUn and RUM; depends on which classes are in the batch.",
        formula="-sum_c q_c log p_c, q_c = 1 - p_c for the classes in the batch, and p_c for the others",
        example=(
            "(0.7, 0.2, 0.1) of class 0, all classes in the batch: 3.4669; only class 0: 0.6592; the definition gives "
            "0.1622."
        ),
        source="Unlearn-Sparse and SalUn, SVC_MIA.py.",
    )
)
def modified_entropy(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Modified entropy as in Unlearn-Sparse, SalUn and RUM: whole columns of labels, and log p for log(1 - p).

    ``p[:, labels]`` picks every label's column for every row, and the logarithm is that of p in all columns. So a row's
    value is -sum_c q_c log p_c, with q_c = 1 - p_c for the classes that are in the batch and p_c for those that are
    not (as in class forgetting): it depends on which other rows are in the batch.

    Args:
        probabilities: (n, K) in [0, 1].
        labels: (n,) classes of the whole batch.
    """
    p = shares(probabilities, "probabilities", ndim=2)
    truth = labels_of(labels, p)
    if truth.ndim != 1:
        raise UsageError(f"labels: expected one class for each row, not {truth.shape}; attributes are not supported.")
    columns = np.unique(truth)
    weight = p.copy()
    weight[:, columns] = 1 - p[:, columns]
    total: FloatArray = -(weight * np.log(np.where(p > 0, p, 1e-30))).sum(axis=1)
    return total


@metric(
    _spec(
        "zrf",
        "ZRF as coded",
        direction="up",
        range=(None, 1.0),
        requires="forget, teacher",
        meaning="ZRF as in Bad Teaching and SSD: KL with its arguments exchanged, divided by the classes too.",
        misses="Certain models: if a probability rounds to 0 it is minus infinity.",
        formula="1 - mean over rows and classes of [m log(m/p) + m log(m/q)] / 2, m = (p + q) / 2",
        example="Equal outputs: 1.",
        source="Bad Teaching, metrics.py.",
    )
)
def zrf(logits: ArrayLike, teacher: ArrayLike) -> float:
    """ZRF as in the Bad Teaching and SSD code: 1 - mean over elements of KL(m||p)/2 + KL(m||q)/2.

    The divergences have their arguments exchanged, and the default reduction divides by the number of classes too.

    Returns:
        At most 1, without a lower limit: minus infinity if one side's probability of a class rounds to 0, and NaN if
        both do, as in the published code.
    """
    one, two = logits_of(logits), logits_of(teacher)
    same_shape(one, two, "the same rows")
    p, q = softmax(one), softmax(two)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        total = (middle * (np.log(middle) - np.log(p)) + middle * (np.log(middle) - np.log(q))) / 2
    return float(1.0 - total.mean())


@metric(
    _spec(
        "lira-offline",
        "LiRA offline as coded",
        unit="nats",
        range=(None, None),
        requires="shadow models",
        meaning="Minus the two-sided log density under models without the example: high and low phi look alike.",
        formula="-log N(phi; median_out, sd_out)",
        example="phi at 4 sd below and at 4 sd above the median: equal.",
        source="mi_lira_2021, plot.py.",
    )
)
def lira_offline(target: ArrayLike, outside: Fit) -> FloatArray:
    """Offline LiRA as in the published code: minus the two-sided log density, instead of the one-sided test."""
    values = floats(target, "phi of the target", ndim=1)
    center, sd = floats(outside.center, "fit", ndim=1), at_least(outside.sd, "spread of the fit", ndim=1)
    for part in (center, sd):
        same_shape(values, part, "the same examples")
    return -normal_log_density(values, center, sd + 1e-30)


@metric(
    _spec(
        "fixed-variance",
        "LiRA fixed variance as coded",
        range=(0.0, None),
        requires="shadow models",
        meaning="Spread of LiRA with a fixed variance: the IN side's raw spread over all examples, for both sides.",
        formula="sd_in = sd_out = sd of all phi_in about their common mean",
        example="IN values 1, 3 of one example and 11, 13 of another: 5.099; each example's own is 1.",
        source="mi_lira_2021, plot.py.",
    )
)
def fixed_variance(phi: ArrayLike, members: ArrayLike) -> tuple[Fit, Fit]:
    """IN and OUT fits of LiRA as in the published code with a fixed variance: the IN side's raw spread for both.

    Args:
        phi: (M, n) phi of the reference models.
        members: (M, n) true and false, which models trained on which example.

    Returns:
        Medians of each side, and one spread, of all IN values about their common mean (M in the denominator): it treats
        differences between examples as noise, and ignores the OUT side.
    """
    values = phi_of(phi, "phi of the reference models")
    mask = mask_of(members, values.shape, "members")
    sides = [fit_normal(values, role) for role in (mask, ~mask)]
    spread = np.full(values.shape[1], values[mask].std())
    return Fit(sides[0].center, spread), Fit(sides[1].center, spread)


@metric(
    _spec(
        "klom",
        "KLOM as coded",
        unit="nats",
        range=(0.0, 11.6),
        requires="forget",
        meaning="KLOM as in data-unlearning-bench: the largest value is in no bin, and the sides are exchanged.",
        formula="KL(r || u) of 20-bin histograms by numpy.digitize",
        example="r all at 0, u all at the clip: 0; the definition gives 11.5.",
        source="data-unlearning-bench, eval.py.",
    )
)
def klom(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """KLOM as in data-unlearning-bench: values at the top edge are in no bin, and the sides are exchanged.

    Its results file has KL(oracle || unlearned); with all values of the second side at the top it reports 0 for two
    sides that never overlap.

    Returns:
        (n,) nats; 0 if all values of both sides are equal; NaN if all values of the oracle's side are dropped.
    """
    q, p = (np.clip(phi_of(side), -CLIP, CLIP) for side in (unlearned, oracle))
    same_shape(q, p, "the same examples", after=1)
    return np.array([_klom_of_example(p[:, i], q[:, i]) for i in range(p.shape[1])])


@metric(
    _spec(
        "rmia-population",
        "RMIA's p(z) as coded",
        unit="share",
        requires="shadow models",
        meaning="Mean probability of population rows over the larger half of the reference models, not over all.",
        formula="mean of the larger R of 2R values",
        example="0.1, 0.2, 0.3, 0.4: 0.35; the mean is 0.25.",
        source="privacy_meter, rmia.py.",
    )
)
def rmia_population(reference: ArrayLike) -> FloatArray:
    """p(z) as in privacy_meter: the mean of the larger half of the reference models' probabilities, not of all.

    Args:
        reference: (2R, m) probabilities of the population rows under the reference models.
    """
    p = shares(reference, "probabilities", ndim=2, first="model")
    if len(p) % 2 or not p.size:
        raise UsageError("The published code needs an even number of reference models.")
    top: FloatArray = np.sort(p, axis=0)[len(p) // 2 :].mean(axis=0)
    return top


@metric(
    _spec(
        "loss-score",
        "loss score as coded",
        range=(-1.0, 0.0),
        requires="probabilities",
        meaning="The loss attack's score with its sign changed: larger is called member, but is not.",
        formula="-p_y",
        example="Its AUC is 1 minus the true one: 0.316 for 0.684.",
        source="privacy_meter, attacks.py.",
    )
)
def loss_score(probability: ArrayLike) -> FloatArray:
    """The loss attack's score as in privacy_meter: -p_y, called "larger = member"; its AUC is 1 minus the true one."""
    return -shares(probability, "probabilities")


@metric(
    _spec(
        "tpr-nearest",
        "TPR at the nearest FPR",
        unit="share",
        requires="scores",
        meaning="TPR at the FPR nearest to the requested one, the first of equals; may exceed it, or give 0.",
        formula="TPR at argmin |FPR - alpha| over the corners of the curve, as scikit-learn's roc_curve returns them",
        example="Members 0.9, 0.8, 0.1, others 0.5, 0.4, alpha 0: 0, although 2/3 is possible at FPR 0.",
        source="RULI.",
    )
)
def tpr_nearest(members: ArrayLike, others: ArrayLike, alpha: float) -> float:
    """TPR at the point of the curve whose FPR is nearest to alpha, the first of equals (RULI), not the largest below.

    The points are those of scikit-learn's ``roc_curve``, which omits points on a straight line between their
    neighbors, though one of them may be nearer.

    Args:
        members: (n,) scores, larger = member.
        others: (m,) scores of non-members.
        alpha: The false positive rate that is requested, in [0, 1].
    """
    points = rates(members, others)
    counts = np.size(members), np.size(others)
    hits = np.rint(points.true_positive * counts[0])  # whole numbers, so that straight lines are exact
    false = np.rint(points.false_positive * counts[1])
    corner = np.ones(len(hits), dtype=np.bool_)
    if len(hits) > 3:  # the origin, the first and the last score stay
        corner[2:-1] = (np.diff(hits[1:], 2) != 0) | (np.diff(false[1:], 2) != 0)
    chosen = np.flatnonzero(corner)[np.argmin(np.abs(false[corner] / counts[1] - share(alpha, "alpha")))]
    return float(hits[chosen] / counts[0])


def _klom_of_example(p: FloatArray, q: FloatArray) -> float:
    low, high = min(p.min(), q.min()), max(p.max(), q.max())
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    counts = [np.bincount(np.digitize(side, edges), minlength=BINS + 2)[1 : BINS + 1] for side in (p, q)]
    shares = [count / max(count.sum(), 1) for count in counts]
    if shares[0].sum() == 0:
        return float("nan")
    floor = np.where(shares[0] > 0, np.maximum(shares[1], EMPTY), shares[1])
    left, right = shares[0] / shares[0].sum(), floor / floor.sum()
    support = left > 0
    return float((left[support] * np.log(left[support] / right[support])).sum())
