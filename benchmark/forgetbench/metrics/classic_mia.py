"""Population attacks of well-known papers, for comparison with their tables only. They rank nothing here.

Losses, confidences and entropies come from confidence.py; every attack returns what its paper printed. Their ideal is
the oracle's value, not 0.5 or 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.svm import SVC

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, floats, labels_of, logits_of, same_shape, spaced
from forgetbench.metrics.divergence import answers, outputs
from forgetbench.metrics.logit_statistics import confidence, entropy, loss, modified_entropy

SVC_ROWS = 1000
"""Rows a side that the support vector machine is fitted on unless it is told otherwise; more are thinned out evenly."""

MUFAC_SEED = 42
"""Of the shuffle before MUFAC's cut."""

SvcKind = Literal["correctness", "confidence", "entropy", "m-entropy", "probabilities"]
SvcReading = Literal["efficacy", "training-privacy"]
Answers = tuple[ArrayLike, ArrayLike]
"""Logits of one model (n, K), or (n, A) for attributes, and the labels that go with them."""


class ThresholdAttack(NamedTuple):
    """What a threshold per class achieves on the target (Song and Mittal 2021)."""

    members: float
    """Share of the target's members called members."""
    others: float
    """Share of the target's non-members called non-members."""

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the two."""
        return (self.members + self.others) / 2


def svc_attack(
    retain: Answers,
    test: Answers,
    forget: Answers | None = None,
    *,
    kind: SvcKind = "confidence",
    reading: SvcReading = "efficacy",
    seed: int | None = 0,
    most: int | None = SVC_ROWS,
) -> float:
    """The five attacks of SVC_MIA (Jia et al. 2023) in both readings, from one model's logits.

    Args:
        retain: Logits and labels of retain rows.
        test: Logits and labels of test rows.
        forget: Logits and labels of the forget set; only the efficacy reading needs it.
        kind: What the machine sees of a row: whether the prediction is right, p_y, the entropy, the modified entropy
            (Song and Mittal's; the published code's is ``legacy.modified_entropy``), or all probabilities.
        reading: ``svc_non_members`` ("efficacy") or ``svc_training_privacy`` ("training-privacy").
        seed: Of the shuffle; None takes the rows in order, as published.
        most: Rows a side that the machine is fitted on, evenly spaced; None fits on all, as published.

    Returns:
        In [0, 1]; for attributes the mean over them.

    Raises:
        UsageError: There is no such kind or reading, a side has logits of several models, or the forget set is missing.
    """
    if reading not in get_args(SvcReading):
        raise UsageError(f"There is no reading {reading!r} of SVC_MIA. There are: {', '.join(get_args(SvcReading))}.")
    if (forget is None) == (reading == "efficacy"):
        raise UsageError("The efficacy reading needs the forget set, and the reading of training privacy has none.")
    sides = [svc_features(*side, kind) for side in (retain, test, forget) if side is not None]
    attack = svc_non_members if reading == "efficacy" else svc_training_privacy
    return float(np.mean([attack(*columns, seed=seed, most=most) for columns in zip(*sides, strict=True)]))


def svc_features(logits: ArrayLike, labels: ArrayLike, kind: SvcKind) -> list[FloatArray]:
    """What SVC_MIA sees of each row, (n,) or (n, K): one array for classes, one for each of A attributes.

    Raises:
        UsageError: There is no such kind, the logits are of several models, or labels and logits do not fit.
    """
    scores, truth = _one_model(logits, labels)
    attributes = truth.ndim == 2
    if kind == "correctness":
        found = (answers(scores, attributes=attributes) == truth).astype(np.float64)
    elif kind == "confidence":
        found = confidence(scores, truth)
    elif kind == "entropy":
        found = entropy(scores, attributes=attributes)
    elif kind == "m-entropy":
        found = modified_entropy(scores, truth)
    elif kind == "probabilities":
        found = outputs(scores, attributes=attributes)
    else:
        raise UsageError(f"There is no SVC attack on {kind!r}. There are: {', '.join(get_args(SvcKind))}.")
    return list(found.T) if attributes else [found]


def svc_non_members(
    members: ArrayLike, others: ArrayLike, targets: ArrayLike, *, seed: int | None = 0, most: int | None = SVC_ROWS
) -> float:
    """Forget efficacy of Jia et al. (2023), SalUn and RUM: the share of the forget set called non-member.

    An RBF support vector machine (C = 3, gamma = 1 / features) is fitted on retain (1) and test (0) rows. The published
    code takes the first |test| retain rows as they lie, which breaks on sorted data: here they are shuffled first.
    It is fitted on at most 1,000 rows a side, the published code on all; the whole forget set is told.
    Which rows are fitted depends on their order all the same: that is the published protocol, and no metric of ours.

    Args:
        members: (n,) or (n, F) features of retain rows: p_y for "confidence", also correctness, entropy, modified
            entropy or the probability vector.
        others: (m,) or (m, F) features of test rows.
        targets: (k,) or (k, F) features of the forget set.
        seed: Of the shuffle; None takes the rows in order, as published.
        most: Rows a side that the machine is fitted on, evenly spaced; None fits on all, as published.

    Returns:
        In [0, 1]. An oracle is well below 1: 0.66 in one published setting.
    """
    columns = _columns(targets)
    same_shape(_columns(members), columns, "the same features", after=1)
    return float(1.0 - _svc(members, others, seed, most).predict(columns).mean())


def svc_training_privacy(
    members: ArrayLike, others: ArrayLike, *, seed: int | None = 0, most: int | None = SVC_ROWS
) -> float:
    """The other reading of the same code: can retain rows be told from test rows at all?

    With h half the number of test rows, the machine is fitted on the first h rows of either side, of which at most
    1,000 a side are taken (the published code takes all); the value is the mean of its accuracies on all the other
    retain rows and on all the other test rows.

    Args:
        members: (n,) or (n, F) features of retain rows.
        others: (m,) or (m, F) features of test rows.
        seed: Of the shuffle of either side; None takes the rows in order, as published.
        most: Rows a side that the machine is fitted on, evenly spaced; None fits on all, as published.
    """
    sides = [_shuffled(_columns(side), seed) for side in (members, others)]
    half = len(sides[1]) // 2
    if not 0 < half < len(sides[0]):
        raise UsageError(
            f"Training privacy needs two test rows, and more retain rows than half of them: {len(sides[1])} and "
            f"{len(sides[0])}."
        )
    model = _svc(sides[0][:half], sides[1][:half], None, most)
    return float((model.predict(sides[0][half:]).mean() + 1.0 - model.predict(sides[1][half:]).mean()) / 2)


def loss_attack(
    forget: ArrayLike, unseen: ArrayLike, *, cut: bool = True, shuffle: int | None = None, most: int | None = None
) -> float:
    """Accuracy of logistic regression on losses (NeurIPS 2023 starting kit, ``simple_mia``; MUFAC's ``cal_mia``).

    The rows are [unseen, forget], the split ``StratifiedShuffleSplit(10, random_state=0)``, the value mean accuracy.

    Args:
        forget: (n,) losses of one model on the forget set.
        unseen: (m,) losses on test rows (starting kit) or on unseen people (MUFAC).
        cut: Thin out the larger side evenly, to as many rows as the smaller has. Without it the majority alone may
            reach 0.94.
        shuffle: Cut as published instead: the forget rows, shuffled by this seed of numpy's legacy generator (MUFAC:
            42), to as many as there are unseen ones. A larger unseen side stays whole, and its majority counts.
        most: Rows a side that are used, evenly spaced; None uses all, as published. Boards use 2,000.

    Returns:
        In [0, 1]; the null is not exactly 0.5 where the two sides differ in anything but membership.
    """
    inside, outside = floats(forget, "losses", ndim=1).copy(), floats(unseen, "losses", ndim=1)
    if shuffle is not None:
        np.random.RandomState(shuffle).shuffle(inside)
        inside = inside[: len(outside)] if cut else inside
    elif cut:
        fewest = min(len(inside), len(outside))
        most = fewest if most is None else min(fewest, most)
    inside, outside = (side[spaced(len(side), most)] for side in (inside, outside))
    if min(len(inside), len(outside)) < 10:
        raise UsageError(f"The attack on losses needs ten rows a side; there are {len(inside)} and {len(outside)}.")
    rows = np.concatenate([outside, inside])
    truth = np.repeat([0, 1], [len(outside), len(inside)])
    found = []
    for fitted, scored in StratifiedShuffleSplit(n_splits=10, random_state=0).split(rows, truth):
        slope, intercept = logistic_line(rows[fitted], truth[fitted])
        found.append(((slope * rows[scored] + intercept > 0) == (truth[scored] == 1)).mean())
    return float(np.mean(found))


def mufac_attack(forget: Answers, unseen: Answers) -> float:
    """The loss attack of MUFAC and MUCAC as published, from one model's logits (Choi and Na 2023, ``cal_mia``).

    It is ``loss_attack`` with the seed 42, on the mean of the binary cross-entropies where labels are attributes:
    ``loss`` is their sum, and a regression with a penalty finds another line in another unit.

    Args:
        forget: Logits and labels of the forget set.
        unseen: Logits and labels of people that no model has seen.
    """
    sides = []
    for logits, labels in (forget, unseen):
        scores, truth = _one_model(logits, labels)
        sides.append(loss(scores, truth) / (truth.shape[1] if truth.ndim == 2 else 1))
    return loss_attack(sides[0], sides[1], shuffle=MUFAC_SEED)


def entropy_attack(members: ArrayLike, others: ArrayLike, targets: ArrayLike, *, most: int | None = None) -> float:
    """Share of the forget set called member by balanced logistic regression on entropy (SSD, Foster et al. 2024).

    The published code sets ``multi_class="multinomial"``, which scikit-learn no longer has; C = 2 fits the same line.

    Args:
        members: (n,) entropies of retain rows.
        others: (m,) entropies of test rows.
        targets: (k,) entropies of the forget set.
        most: Retain and test rows that the line is fitted on, evenly spaced; None fits on all, as published. Boards fit
            on 2,000 a side.
    """
    sides = [floats(side, "entropies", ndim=1) for side in (members, others)]
    inside, outside = (side[spaced(len(side), most)] for side in sides)
    told = floats(targets, "entropies", ndim=1)
    if not len(inside) or not len(outside) or not len(told):
        raise UsageError("The attack needs rows on every side.")
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    balance = len(truth) / (2 * np.repeat([len(inside), len(outside)], [len(inside), len(outside)]))
    slope, intercept = logistic_line(np.concatenate([inside, outside]), truth, 2.0 * balance)
    return float((slope * told + intercept > 0).mean())


def logistic_line(rows: FloatArray, truth: IntArray, weights: FloatArray | float = 1.0) -> tuple[float, float]:
    """Slope and intercept of logistic regression on one feature, by Newton's method.

    The optimum of scikit-learn's ``LogisticRegression``: sum of weighted log losses plus half the squared slope, the
    intercept free. The weights are C times the class weights.

    Args:
        rows: (n,) values of the feature.
        truth: (n,) zeros and ones, both present.
        weights: (n,), or one for all.
    """
    weight = np.broadcast_to(np.asarray(weights, dtype=np.float64), rows.shape)
    sign = 2.0 * truth - 1.0

    def objective(line: FloatArray) -> float:
        return float((weight * np.logaddexp(0.0, -sign * (line[0] * rows + line[1]))).sum() + line[0] ** 2 / 2)

    line, value = np.zeros(2), objective(np.zeros(2))
    for _ in range(100):
        probability = expit(line[0] * rows + line[1])
        off, bend = weight * (probability - truth), weight * probability * (1 - probability)
        gradient = np.array([(off * rows).sum() + line[0], off.sum()])
        a, b, d = (bend * rows**2).sum() + 1.0, (bend * rows).sum(), bend.sum() + 1e-12
        step = np.array([d * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / (a * d - b * b)
        size = 1.0
        while size > 1e-10 and objective(line - size * step) > value:
            size /= 2
        line = line - size * step
        moved, value = value - objective(line), objective(line)
        if moved <= 1e-10 * max(1.0, abs(value)):
            break
    return float(line[0]), float(line[1])


def loss_threshold(known: ArrayLike, members: ArrayLike, others: ArrayLike) -> ThresholdAttack:
    """Member where the loss is at most the mean loss of known members (Yeom et al. 2018).

    Args:
        known: (n,) losses of known members (retain).
        members: (m,) losses of the members to be told.
        others: (k,) losses of non-members.
    """
    sides = [floats(side, "losses", ndim=1) for side in (known, members, others)]
    if not all(len(side) for side in sides):
        raise UsageError("The attack needs losses of known members, and of members and others to be told.")
    limit = sides[0].mean()
    return ThresholdAttack(float((sides[1] <= limit).mean()), float((sides[2] > limit).mean()))


def class_thresholds(
    shadow: tuple[ArrayLike, ArrayLike],
    target: tuple[ArrayLike, ArrayLike],
    shadow_labels: tuple[ArrayLike, ArrayLike],
    target_labels: tuple[ArrayLike, ArrayLike],
) -> ThresholdAttack:
    """One threshold per class, chosen on the shadow rows and applied to the target's (Song and Mittal 2021).

    Args:
        shadow: Scores (larger = member) of known members and non-members.
        target: Scores of the members and non-members to be told.
        shadow_labels: Their classes.
        target_labels: Their classes. A class without shadow rows on both sides takes the threshold of all classes.
    """
    scores = [floats(side, "scores", ndim=1) for side in (*shadow, *target)]
    labels = [np.asarray(side) for side in (*shadow_labels, *target_labels)]
    for rows, classes in zip(scores, labels, strict=True):
        if classes.shape != rows.shape or not len(rows):
            raise UsageError(
                f"Every side needs rows, each with its class: {len(rows)} scores, {classes.shape} classes."
            )
    everything = _best_threshold(scores[0], scores[1])
    called = [np.zeros(len(scores[2]), dtype=np.bool_), np.zeros(len(scores[3]), dtype=np.bool_)]
    for label in np.unique(np.concatenate(labels[2:])):
        known = scores[0][labels[0] == label], scores[1][labels[1] == label]
        limit = _best_threshold(*known) if len(known[0]) and len(known[1]) else everything
        for side in range(2):
            own = labels[2 + side] == label
            called[side][own] = scores[2 + side][own] >= limit
    return ThresholdAttack(float(called[0].mean()), float(1 - called[1].mean()))


def _best_threshold(members: FloatArray, others: FloatArray) -> float:
    """The score that maximizes the mean of the two rates; the first of equals."""
    candidates = np.unique(np.concatenate([members, others]))
    hit = 1 - np.searchsorted(np.sort(members), candidates) / len(members)
    miss = np.searchsorted(np.sort(others), candidates) / len(others)
    return float(candidates[int(np.argmax(hit + miss))])


def _svc(members: ArrayLike, others: ArrayLike, seed: int | None, most: int | None) -> SVC:
    inside, outside = _shuffled(_columns(members), seed), _columns(others)
    same_shape(inside, outside, "the same features", after=1)
    inside = inside[: len(outside)]
    sides = [side[spaced(len(side), most)] for side in (inside, outside)]
    rows = np.concatenate(sides)
    truth: IntArray = np.repeat([1, 0], [len(side) for side in sides])
    return SVC(C=3, gamma="auto", kernel="rbf").fit(rows, truth)


def _one_model(logits: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    """One model's logits and labels, checked."""
    scores = logits_of(logits)
    if scores.ndim != 2:
        raise UsageError(f"The attack reads one model at a time: logits[s], (n, K), and not {scores.shape}.")
    return scores, labels_of(labels, scores)


def _columns(values: ArrayLike) -> FloatArray:
    array = floats(values, "features")
    if array.ndim not in {1, 2}:
        raise UsageError(f"features: (n,) or (n, F) of one model expected, but the shape is {array.shape}.")
    if not len(array):
        raise UsageError("The attack needs rows on every side.")
    return array[:, None] if array.ndim == 1 else array


def _shuffled(rows: FloatArray, seed: int | None) -> FloatArray:
    if seed is None:
        return rows
    order = np.argsort(np.random.default_rng(seed).random(len(rows)), kind="stable")
    shuffled: FloatArray = rows[order]
    return shuffled
