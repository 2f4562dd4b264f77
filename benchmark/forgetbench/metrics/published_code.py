"""Published code where it deviates from its own definition, to reproduce printed tables. Nothing here ever ranks.

Each function says what deviates; the definition itself stands under the same name elsewhere in this package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from scipy.stats import norm

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import BoolArray, FloatArray, floats, labels_of, logits_of, phi_of, same_shape
from forgetbench.metrics.margin_distances import BINS, CLIP, EMPTY
from forgetbench.metrics.shadow_models import Fit, fit_normal


def modified_entropy(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Modified entropy as in Unlearn-Sparse, SalUn and RUM: whole columns of labels, and log p for log(1 - p).

    ``p[:, labels]`` picks every label's column for every row: with all classes present a row's value is
    -sum_c (1 - p_c) log p_c, with some absent it depends on which other rows are in the batch.

    Args:
        probabilities: (n, K).
        labels: (n,) classes of the whole batch.
    """
    p = floats(probabilities, "probabilities", ndim=2)
    truth = labels_of(labels, p)
    if truth.ndim != 1:
        raise UsageError(f"labels: one class for each row is needed, not {truth.shape}: the code knows no attributes.")
    columns = np.unique(truth)
    log_p, reverse = -np.log(np.maximum(p, 1e-30)), -np.log(np.maximum(1 - p, 1e-30))
    changed, changed_log = p.copy(), reverse.copy()
    changed[:, columns] = 1 - p[:, columns]
    changed_log[:, columns] = log_p[:, columns]
    total: FloatArray = (changed * changed_log).sum(axis=1)
    return total


def zrf(logits: ArrayLike, teacher: ArrayLike) -> float:
    """ZRF as in the Bad Teaching and SSD code: 1 - mean over elements of KL(m||p)/2 + KL(m||q)/2.

    The divergences have their arguments exchanged, and the default reduction divides by the number of classes too.

    Returns:
        At most 1, without a lower end: minus infinity where one side's probability of a class rounds to 0, and NaN
        where both do, as in the published code.
    """
    one, two = logits_of(logits), logits_of(teacher)
    same_shape(one, two, "the same rows")
    p, q = softmax(one, axis=-1), softmax(two, axis=-1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        total = (middle * (np.log(middle) - np.log(p)) + middle * (np.log(middle) - np.log(q))) / 2
    return float(1.0 - total.mean())


def lira_offline(target: ArrayLike, outside: Fit) -> FloatArray:
    """Offline LiRA as in the published code: minus the two-sided log density, instead of the one-sided test."""
    values = floats(target, "phi of the target", ndim=1)
    same_shape(values, outside.center, "the same examples")
    return np.asarray(-norm.logpdf(values, outside.center, outside.sd + 1e-30))


def fixed_variance(phi: ArrayLike, members: BoolArray) -> tuple[Fit, Fit]:
    """IN and OUT fits of LiRA as in the published code with a fixed variance: the IN side's raw spread for both.

    Args:
        phi: (M, n) phi of the reference models.
        members: (M, n), which models trained on which example.

    Returns:
        Medians of each side, and one spread, of all IN values about their common mean (M in the denominator): it counts
        how far examples lie apart as noise, and knows nothing of the OUT side.
    """
    values, mask = phi_of(phi, "phi of the reference models"), np.asarray(members, dtype=np.bool_)
    sides = [fit_normal(values, role) for role in (mask, ~mask)]
    spread = np.full(values.shape[1], values[mask].std())
    return Fit(sides[0].center, spread), Fit(sides[1].center, spread)


def klom(unlearned: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """KLOM as in data-unlearning-bench: values at the top edge fall outside every bin, and the sides are exchanged.

    Its results file holds KL(oracle || unlearned); with all values of the second side at the top it reports 0 for two
    sides that never overlap.

    Returns:
        (n,) nats; NaN where a side keeps no value.
    """
    q, p = (np.clip(phi_of(side), -CLIP, CLIP) for side in (unlearned, oracle))
    same_shape(q, p, "the same examples", after=1)
    return np.array([_klom_of_one(p[:, i], q[:, i]) for i in range(p.shape[1])])


def rmia_population(reference: ArrayLike) -> FloatArray:
    """p(z) as in privacy_meter: the mean of the larger half of the reference models' probabilities, not of all.

    Args:
        reference: (2R, m) probabilities of the population rows under the reference models.
    """
    p = floats(reference, "probabilities", ndim=2, first="model")
    if len(p) % 2 or not p.size:
        raise UsageError("The published code needs an even number of reference models.")
    top: FloatArray = np.sort(p, axis=0)[len(p) // 2 :].mean(axis=0)
    return top


def loss_score(probability: ArrayLike) -> FloatArray:
    """The loss attack's score as in privacy_meter: -p_y, called "larger = member"; its AUC is 1 minus the true one."""
    return -floats(probability, "probabilities")


def tpr_nearest(members: ArrayLike, others: ArrayLike, alpha: float) -> float:
    """TPR at the threshold whose FPR is nearest to alpha, the first of equals (RULI), not the largest below."""
    positive, negative = floats(members, "members", ndim=1), floats(others, "non-members", ndim=1)
    if not len(positive) or not len(negative):
        raise UsageError(f"A ROC needs both sides: {len(positive)} members, {len(negative)} non-members.")
    values = np.concatenate([[np.inf], np.unique(np.concatenate([positive, negative]))[::-1]])
    false = np.array([(negative >= value).mean() for value in values])
    return float((positive >= values[int(np.argmin(np.abs(false - alpha)))]).mean())


def _klom_of_one(p: FloatArray, q: FloatArray) -> float:
    low, high = min(p.min(), q.min()), max(p.max(), q.max())
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.bincount(np.digitize(side, edges), minlength=BINS + 2)[1 : BINS + 1] for side in (p, q)]
    shares = [count / max(count.sum(), 1) for count in counts]
    if shares[0].sum() == 0:
        return float("nan")
    floor = np.where(shares[0] > 0, np.maximum(shares[1], EMPTY), shares[1])
    left, right = shares[0] / shares[0].sum(), floor / floor.sum()
    kept = left > 0
    return float((left[kept] * np.log(left[kept] / right[kept])).sum())
