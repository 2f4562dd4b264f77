"""Population attacks of well-known papers, for comparison with their tables only. They do not rank.

Losses, confidences and entropies come from logit_statistics.py; every attack returns what its paper printed. Their
target is the oracle's value, not 0.5 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._lazy_scipy import expit
from forgetbench.metrics._validation import (
    FloatArray,
    IntArray,
    classes_of,
    floats,
    labels_of,
    logits_of,
    same_kind,
    same_shape,
    spaced,
    whole,
)
from forgetbench.metrics.board_rules import Draw, PerModelRule
from forgetbench.metrics.columns import Column
from forgetbench.metrics.divergence import outputs, predictions
from forgetbench.metrics.logit_statistics import confidence, entropy, loss, modified_entropy
from forgetbench.metrics.registry import MetricSpec, metric

if TYPE_CHECKING:
    from sklearn.svm import SVC

SVC_ROWS = 1000
"""Default number of rows a side that the support vector machine is fitted on; more are thinned out evenly."""

BOARD_SVC_ROWS = 500
"""Rows a side that a board's support vector machines are fitted on."""

BOARD_ROWS = 2000
"""Rows a side that a board's logistic attacks use; more are thinned out evenly."""

ROUNDED_ODDS = 1e-13
"""Log odds up to this are rounding of 0, as those of equal rows are; then a row is called a non-member."""

MUFAC_SEED = 42
"""Seed of the shuffle before MUFAC's cut."""

SvcKind = Literal["correctness", "confidence", "entropy", "m-entropy", "probabilities"]
SvcReading = Literal["efficacy", "training-privacy"]
Answers = tuple[ArrayLike, ArrayLike]
"""Logits of one model (n, K), or (n, A) for attributes, and the labels that go with them."""


class ThresholdAttack(NamedTuple):
    """Results of an attack with thresholds on the target (Song and Mittal 2021)."""

    members: float
    """Share of the target's members called members."""
    others: float
    """Share of the target's non-members called non-members."""

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the two."""
        return (self.members + self.others) / 2


def _columns_by_subset(draw: Draw, column: Column, *subsets: str) -> list[FloatArray]:
    """A column of every model on each subset, (M, n, A): A attributes, or one for classes."""
    scores = []
    for subset in subsets:
        if subset not in draw.sides[0] or not draw.has(subset):
            raise UsageError(f"not computable: no {subset} rows")
        values = draw.column(column, subset)
        scores.append(values if values.ndim == 3 else values[..., None])
    return scores


def _attack_each_model(scores: list[FloatArray], attack: Callable[..., float]) -> FloatArray:
    """The attack on each model, the mean over attributes, (M,)."""
    models, attributes = len(scores[0]), scores[0].shape[-1]
    values = [[attack(*(side[model, :, a] for side in scores)) for a in range(attributes)] for model in range(models)]
    mean: FloatArray = np.mean(values, axis=1)
    return mean


_SVC_FEATURES: dict[SvcKind, tuple[str, str]] = {
    "correctness": ("correctness", "1[argmax z = y]"),
    "entropy": ("entropy", "-sum_j p_j log p_j"),
    "m-entropy": ("modified entropy", "-(1-p_y) log p_y - sum_{j != y} p_j log(1-p_j)"),
    "probabilities": ("all probabilities", "(p_1, ..., p_K)"),
}
"""Kind of feature, other than confidence -> its name and its formula."""


def _svc_spec(kind: SvcKind) -> MetricSpec:
    feature, formula = _SVC_FEATURES[kind]
    return MetricSpec(
        name=f"mia.svc-{kind}",
        title=f"SVC {kind}",
        group="literature",
        requires=("forget", "retain", "test"),
        meaning=f"Share of D_f that a support vector machine on {feature} calls non-member; toward the oracle's.",
        misses="As mia.svc-confidence: the order of rows decides which are fitted.",
        misuse="Maximizing it: calling everything non-member scores 1.0.",
        formula=f"As mia.svc-confidence, on {formula}: svc_attack(..., kind={kind!r}).",
        example="Retain and test rows far apart, D_f like test: 1; D_f like retain: 0.",
        source="Jia et al. 2023; Song and Mittal 2021.",
        calibrated=False,
        on_boards=False,
    )


@metric(*(_svc_spec(kind) for kind in _SVC_FEATURES))
def svc_attack(
    retain: Answers,
    test: Answers,
    forget: Answers | None = None,
    *,
    kind: SvcKind = "confidence",
    reading: SvcReading = "efficacy",
    seed: int | None = 0,
    max_rows: int | None = SVC_ROWS,
) -> float:
    """The five attacks of SVC_MIA (Jia et al. 2023) in both readings, from one model's logits.

    Args:
        retain: Logits and labels of retain rows.
        test: Logits and labels of test rows.
        forget: Logits and labels of the forget set; only the efficacy reading needs it.
        kind: The features of a row: correctness of the prediction, p_y, the entropy, the modified entropy (Song and
            Mittal's; the published code's is ``published_code.modified_entropy``), or all probabilities.
        reading: ``svc_non_members`` ("efficacy") or ``svc_training_privacy`` ("training-privacy").
        seed: Seed of the shuffle; None takes the rows in order, as published.
        max_rows: Rows a side that the machine is fitted on, evenly spaced; None fits on all, as published.

    Returns:
        In [0, 1]; for attributes the mean over them.

    Raises:
        UsageError: The kind or reading is unknown, a side has logits of several models, the forget set is missing, or
            some labels are class numbers and others attributes.
    """
    if reading not in get_args(SvcReading):
        raise UsageError(f"Unknown reading {reading!r} of SVC_MIA. Available: {', '.join(get_args(SvcReading))}.")
    if (forget is None) == (reading == "efficacy"):
        raise UsageError("SVC_MIA: reading 'efficacy' needs the forget set, and 'training-privacy' does not take it.")
    sides = [svc_features(*side, kind) for side in _same_labels(retain, test, forget)]
    attack = svc_non_members if reading == "efficacy" else svc_training_privacy
    return float(np.mean([attack(*columns, seed=seed, max_rows=max_rows) for columns in zip(*sides, strict=True)]))


def _same_labels(*sides: Answers | None) -> list[tuple[FloatArray, IntArray]]:
    """The sides that are given, checked: logits of one model with the same columns, and labels of the same kind."""
    checked = [_one_model(*side) for side in sides if side is not None]
    same_kind(*(truth for _, truth in checked))
    for scores, _ in checked[1:]:
        same_shape(checked[0][0], scores, "logits with the same columns", after=1)
    return checked


def svc_features(logits: ArrayLike, labels: ArrayLike, kind: SvcKind) -> list[FloatArray]:
    """Features of each row for SVC_MIA, (n,) or (n, K): one array for classes, one for each of A attributes.

    Raises:
        UsageError: The kind is unknown, the logits are of several models, or labels and logits do not fit.
    """
    scores, truth = _one_model(logits, labels)
    attributes = truth.ndim == 2
    if kind == "correctness":
        features = (predictions(scores, attributes=attributes) == truth).astype(np.float64)
    elif kind == "confidence":
        features = confidence(scores, truth)
    elif kind == "entropy":
        features = entropy(scores, attributes=attributes)
    elif kind == "m-entropy":
        features = modified_entropy(scores, truth)
    elif kind == "probabilities":
        features = outputs(scores, attributes=attributes)
    else:
        raise UsageError(f"Unknown kind {kind!r} of SVC attack. Available: {', '.join(get_args(SvcKind))}.")
    return list(features.T) if attributes else [features]


def _measure_svc_confidence(draw: Draw) -> FloatArray:
    confidences = _columns_by_subset(draw, "confidence", "retain", "test", "forget")
    attack = partial(svc_non_members, max_rows=draw.at_most(BOARD_SVC_ROWS))
    return _attack_each_model(confidences, attack)


@metric(
    MetricSpec(
        name="mia.svc-confidence",
        title="SVC confidence",
        group="literature",
        requires=("forget", "retain", "test"),
        meaning="Share of D_f that a support vector machine calls non-member; the target is the oracle's.",
        misses="Per-example memory; and the order of rows decides which are fitted, as in the published protocol.",
        misuse="Maximizing it: calling everything non-member scores 1.0, and an oracle is well below that.",
        formula=(
            "RBF-SVC (C = 3, gamma = auto) on p_y; members = the first |test| retain rows after a seeded shuffle, "
            "non-members = test; fitted on at most 1,000 rows a side, on boards 500, evenly spaced (published: all); "
            "share of D_f called non-member."
        ),
        example="Oracles 0.66, originals 0.29 in one published setting.",
        source="Jia et al. 2023; Fan et al. 2024 (SalUn).",
    ),
    board=PerModelRule(_measure_svc_confidence),
)
def svc_non_members(
    members: ArrayLike, others: ArrayLike, targets: ArrayLike, *, seed: int | None = 0, max_rows: int | None = SVC_ROWS
) -> float:
    """Forget efficacy of Jia et al. (2023), SalUn and RUM: the share of the forget set called non-member.

    An RBF support vector machine (C = 3, gamma = 1 / features) is fitted on retain (1) and test (0) rows. The published
    code takes the first |test| retain rows in their order, which fails on sorted data: here they are shuffled first.
    It is fitted on at most 1,000 rows a side, the published code on all; the whole forget set is classified.
    Which rows are fitted still depends on their order: that is the published protocol.

    Args:
        members: (n,) or (n, F) features of retain rows: p_y for "confidence", also correctness, entropy, modified
            entropy or the probability vector.
        others: (m,) or (m, F) features of test rows.
        targets: (k,) or (k, F) features of the forget set.
        seed: Seed of the shuffle; None takes the rows in order, as published.
        max_rows: Rows a side that the machine is fitted on, evenly spaced; None fits on all, as published.

    Returns:
        In [0, 1]. An oracle is well below 1: 0.66 in one published setting.
    """
    columns = _columns(targets)
    same_shape(_columns(members), columns, "the same features", after=1)
    return float(1.0 - _fit_svc(members, others, seed, max_rows).predict(columns).mean())


@metric(
    MetricSpec(
        name="mia.svc-training-privacy",
        title="SVC training privacy",
        group="literature",
        requires=("retain", "test"),
        meaning="Whether retain rows are distinguishable from test rows at all: 0.5 if not; any of the five kinds.",
        misses="The forget set. The order of rows decides which are fitted.",
        misuse="Reading it as forgetting: a model that generalizes badly scores high, unlearned or not.",
        formula=(
            "h = |test| / 2; fit on the first h retain and the first h test rows after a seeded shuffle, on at most "
            "1,000 of either, evenly spaced (published: all); mean of the accuracies on all other retain rows and on "
            "all other test rows"
        ),
        example="Retain at 0.99, test at 0.2: 1.",
        source="Jia et al. 2023, SVC_MIA.",
        calibrated=False,
        on_boards=False,
    )
)
def svc_training_privacy(
    members: ArrayLike, others: ArrayLike, *, seed: int | None = 0, max_rows: int | None = SVC_ROWS
) -> float:
    """The other reading of the same code: are retain rows distinguishable from test rows at all?

    With h half the number of test rows, the machine is fitted on the first h rows of either side, of which at most
    1,000 a side are taken (the published code takes all); the value is the mean of its accuracies on all the other
    retain rows and on all the other test rows.

    Args:
        members: (n,) or (n, F) features of retain rows.
        others: (m,) or (m, F) features of test rows.
        seed: Seed of the shuffle of either side; None takes the rows in order, as published.
        max_rows: Rows a side that the machine is fitted on, evenly spaced; None fits on all, as published.
    """
    sides = [_shuffled(_columns(side), seed) for side in (members, others)]
    half = len(sides[1]) // 2
    if not 0 < half < len(sides[0]):
        raise UsageError(
            "Training privacy needs at least two test rows, and more retain rows than half of them; there are "
            f"{len(sides[1])} test and {len(sides[0])} retain rows."
        )
    model = _fit_svc(sides[0][:half], sides[1][:half], None, max_rows)
    return float((model.predict(sides[0][half:]).mean() + 1.0 - model.predict(sides[1][half:]).mean()) / 2)


def _measure_loss(draw: Draw) -> FloatArray:
    losses = _columns_by_subset(draw, "loss", "forget", "test")
    return _attack_each_model(losses, partial(loss_attack, max_rows=draw.at_most(BOARD_ROWS)))


@metric(
    MetricSpec(
        name="mia.loss",
        title="loss attack",
        group="literature",
        requires=("forget", "test"),
        meaning="Accuracy of logistic regression on losses, forget set against test; the target is the oracle's.",
        misses="Label mix: its null is not 0.5 if the two sides differ in anything but membership.",
        misuse=(
            "Unequal sides, which the published code has if there are more test rows: the majority alone reaches 0.94 "
            "at 1,600 to 100. Its 10 splits overlap."
        ),
        formula=(
            "LogisticRegression on [test, forget], StratifiedShuffleSplit(10, random_state=0), mean accuracy; the "
            "larger side thinned out evenly to the smaller, on boards to at most 2,000 rows a side."
        ),
        example="0.579 on the starting kit's original, 0.502 on its retrained model.",
        source="NeurIPS 2023 starting kit, simple_mia; Choi and Na 2023.",
    ),
    board=PerModelRule(_measure_loss),
)
def loss_attack(
    forget: ArrayLike, unseen: ArrayLike, *, cut: bool = True, shuffle: int | None = None, max_rows: int | None = None
) -> float:
    """Accuracy of logistic regression on losses (NeurIPS 2023 starting kit, ``simple_mia``; MUFAC's ``cal_mia``).

    The rows are [unseen, forget], the split ``StratifiedShuffleSplit(10, random_state=0)``, the value mean accuracy.

    Args:
        forget: (n,) losses of one model on the forget set.
        unseen: (m,) losses on test rows (starting kit) or on unseen people (MUFAC).
        cut: Thin out the larger side evenly, to the size of the smaller. Otherwise the majority alone may reach 0.94.
        shuffle: Cut as published instead: shuffle the forget rows by this seed of numpy's legacy generator (MUFAC: 42),
            and cut them to the number of unseen ones. A larger unseen side is not cut, and its majority counts.
        max_rows: Rows a side that are used, evenly spaced; None uses all, as published. Boards use 2,000.

    Returns:
        In [0, 1]; the null is not exactly 0.5 if the two sides differ in anything but membership.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    inside, outside = floats(forget, "losses", ndim=1).copy(), floats(unseen, "losses", ndim=1)
    if shuffle is not None:
        np.random.RandomState(whole(shuffle, "shuffle")).shuffle(inside)
        inside = inside[: len(outside)] if cut else inside
    elif cut:
        fewest = min(len(inside), len(outside))
        max_rows = fewest if max_rows is None else min(fewest, whole(max_rows, "max_rows", 1))
    inside, outside = (side[spaced(len(side), max_rows)] for side in (inside, outside))
    if min(len(inside), len(outside)) < 10:
        raise UsageError(f"The attack on losses needs ten rows a side; there are {len(inside)} and {len(outside)}.")
    rows = np.concatenate([outside, inside])
    truth = np.repeat([0, 1], [len(outside), len(inside)])
    accuracies = []
    for fitted, scored in StratifiedShuffleSplit(n_splits=10, random_state=0).split(rows, truth):
        slope, intercept = logistic_line(rows[fitted], truth[fitted])
        accuracies.append(((slope * rows[scored] + intercept > ROUNDED_ODDS) == (truth[scored] == 1)).mean())
    return float(np.mean(accuracies))


@metric(
    MetricSpec(
        name="mia.loss-mufac",
        title="loss attack, MUFAC",
        group="literature",
        requires=("forget", "unseen"),
        meaning="The loss attack of MUFAC and MUCAC: forget set, shuffled and cut, against people never seen.",
        misses="Identity: its null is 0.54 and not 0.5, since unseen people differ from forgotten ones.",
        misuse="Reading the README's MIA column, |accuracy - 0.5|, as an accuracy.",
        formula=(
            "mia.loss on the forget set, shuffled by numpy's legacy seed 42 and cut to |unseen|, against all unseen "
            "people; with A attributes the loss is the mean of their A binary cross-entropies, as in MUCAC's code"
        ),
        example="0.7136 on MUFAC's original model.",
        source="Choi and Na 2023, cal_mia.",
        calibrated=False,
        on_boards=False,
    )
)
def mufac_attack(forget: Answers, unseen: Answers) -> float:
    """The loss attack of MUFAC and MUCAC as published, from one model's logits (Choi and Na 2023, ``cal_mia``).

    It is ``loss_attack`` with the seed 42; if labels are attributes, on the mean of the binary cross-entropies, since
    ``loss`` is their sum, and a penalized regression depends on the scale of its input.

    Args:
        forget: Logits and labels of the forget set.
        unseen: Logits and labels of people that no model has seen.
    """
    sides = [
        loss(scores, truth) / (truth.shape[1] if truth.ndim == 2 else 1)
        for scores, truth in _same_labels(forget, unseen)
    ]
    return loss_attack(sides[0], sides[1], shuffle=MUFAC_SEED)


def _measure_entropy(draw: Draw) -> FloatArray:
    entropies = _columns_by_subset(draw, "entropy", "retain", "test", "forget")
    return _attack_each_model(entropies, partial(entropy_attack, max_rows=draw.at_most(BOARD_ROWS)))


@metric(
    MetricSpec(
        name="mia.entropy",
        title="entropy attack",
        group="literature",
        requires=("forget", "retain", "test"),
        meaning="Share of D_f that logistic regression on entropy calls member; the target is the oracle's.",
        misses="The label: an example that is confidently wrong looks like a member.",
        misuse="Lower is not better. Unbalanced (Bad Teaching's code) it returns 1.0 for every model.",
        formula=(
            "Balanced LogisticRegression (C = 2) on entropy, retain against test, on boards at most 2,000 rows a "
            "side, evenly spaced; share of D_f called member."
        ),
        example="0.295 for an oracle in one published setting.",
        source="Foster et al. 2024 (SSD).",
    ),
    board=PerModelRule(_measure_entropy),
)
def entropy_attack(members: ArrayLike, others: ArrayLike, targets: ArrayLike, *, max_rows: int | None = None) -> float:
    """Share of the forget set called member by balanced logistic regression on entropy (SSD, Foster et al. 2024).

    The published code sets ``multi_class="multinomial"``, which scikit-learn removed; C = 2 fits the same line.

    Args:
        members: (n,) entropies of retain rows.
        others: (m,) entropies of test rows.
        targets: (k,) entropies of the forget set.
        max_rows: Retain and test rows that the line is fitted on, evenly spaced; None fits on all, as published. Boards
            fit on 2,000 a side.
    """
    sides = [floats(side, "entropies", ndim=1) for side in (members, others)]
    inside, outside = (side[spaced(len(side), max_rows)] for side in sides)
    classified = floats(targets, "entropies", ndim=1)
    if not len(inside) or not len(outside) or not len(classified):
        raise UsageError("The attack needs rows on every side.")
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    balance = len(truth) / (2 * np.repeat([len(inside), len(outside)], [len(inside), len(outside)]))
    slope, intercept = logistic_line(np.concatenate([inside, outside]), truth, 2.0 * balance)
    return float((slope * classified + intercept > ROUNDED_ODDS).mean())


def logistic_line(rows: FloatArray, truth: IntArray, weights: FloatArray | float = 1.0) -> tuple[float, float]:
    """Slope and intercept of logistic regression on one feature, by Newton's method.

    The optimum of scikit-learn's ``LogisticRegression``: sum of weighted log losses plus half the squared slope, the
    intercept free. The weights are C times the class weights.

    Args:
        rows: (n,) values of the feature.
        truth: (n,) zeros and ones, both present.
        weights: (n,), or one number for all rows.
    """
    weight = np.broadcast_to(np.asarray(weights, dtype=np.float64), rows.shape)
    sign = 2.0 * truth - 1.0

    def objective(line: FloatArray) -> float:
        return float((weight * np.logaddexp(0.0, -sign * (line[0] * rows + line[1]))).sum() + line[0] ** 2 / 2)

    line, value = np.zeros(2), objective(np.zeros(2))
    for _ in range(100):
        probability = expit(line[0] * rows + line[1])
        residual, curvature = weight * (probability - truth), weight * probability * (1 - probability)
        gradient = np.array([(residual * rows).sum() + line[0], residual.sum()])
        a, b, d = (curvature * rows**2).sum() + 1.0, (curvature * rows).sum(), curvature.sum() + 1e-12
        step = np.array([d * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / (a * d - b * b)
        size = 1.0
        while size > 1e-10 and objective(line - size * step) > value:
            size /= 2
        line = line - size * step
        decrease, value = value - objective(line), objective(line)
        if decrease <= 1e-10 * max(1.0, abs(value)):
            break
    return float(line[0]), float(line[1])


@metric(
    MetricSpec(
        name="mia.loss-threshold",
        title="loss threshold",
        group="literature",
        requires=("forget", "retain", "test"),
        meaning="Member if the loss is at most known members' mean loss; balanced accuracy, 0.5 is chance.",
        misses="Any other threshold: its AUC is the loss attack of mia.population.",
        misuse="Plain accuracy with unequal sides.",
        formula="member iff loss <= mean loss of known members; mean of true positive and true negative rate",
        example="Known 0 and 2; members 0.5, 1, 3; others 0.9, 1.1: rates 2/3 and 1/2, mean 7/12.",
        source="Yeom et al. 2018.",
        calibrated=False,
        on_boards=False,
    )
)
def loss_threshold(known: ArrayLike, members: ArrayLike, others: ArrayLike) -> ThresholdAttack:
    """Member if the loss is at most the mean loss of known members (Yeom et al. 2018).

    Args:
        known: (n,) losses of known members (retain).
        members: (m,) losses of the members under attack.
        others: (k,) losses of the non-members under attack.
    """
    sides = [floats(side, "losses", ndim=1) for side in (known, members, others)]
    if not all(len(side) for side in sides):
        raise UsageError("The attack needs losses of known members, and of the members and non-members under attack.")
    limit = sides[0].mean()
    return ThresholdAttack(float((sides[1] <= limit).mean()), float((sides[2] > limit).mean()))


@metric(
    MetricSpec(
        name="mia.class-thresholds",
        title="class thresholds",
        group="literature",
        requires=("forget", "retain", "test"),
        meaning="One threshold a class, chosen on known rows, applied to others; balanced accuracy, 0.5 is chance.",
        misses="Members of a class without known rows: they get the threshold of all classes.",
        misuse="Choosing the thresholds on the rows under attack.",
        formula=(
            "for each class the score that maximizes (TPR + TNR) / 2 on known rows, the smallest of equals; at least "
            "that is member"
        ),
        example="Class 0 known 0.9, 0.8 against 0.7: threshold 0.8.",
        source="Song and Mittal 2021, section 3.",
        calibrated=False,
        on_boards=False,
    )
)
def class_thresholds(
    shadow: tuple[ArrayLike, ArrayLike],
    target: tuple[ArrayLike, ArrayLike],
    shadow_labels: tuple[ArrayLike, ArrayLike],
    target_labels: tuple[ArrayLike, ArrayLike],
) -> ThresholdAttack:
    """One threshold per class, chosen on the shadow rows and applied to the target's (Song and Mittal 2021).

    Args:
        shadow: Scores (larger = member) of known members and non-members.
        target: Scores of the members and non-members under attack.
        shadow_labels: Classes of the shadow rows.
        target_labels: Classes of the target. A class without shadow rows on both sides gets the common threshold.
    """
    scores = [floats(side, "scores", ndim=1) for side in (*shadow, *target)]
    if not all(len(rows) for rows in scores):
        counts = ", ".join(str(len(rows)) for rows in scores)
        raise UsageError(f"Every side needs rows, each with a class; there are {counts} scores.")
    labels = [classes_of(side, len(rows)) for rows, side in zip(scores, (*shadow_labels, *target_labels), strict=True)]
    default = _best_threshold(scores[0], scores[1])
    called = [np.zeros(len(scores[2]), dtype=np.bool_), np.zeros(len(scores[3]), dtype=np.bool_)]
    for label in np.unique(np.concatenate(labels[2:])):
        known = scores[0][labels[0] == label], scores[1][labels[1] == label]
        limit = _best_threshold(*known) if len(known[0]) and len(known[1]) else default
        for side in range(2):
            rows_of_class = labels[2 + side] == label
            called[side][rows_of_class] = scores[2 + side][rows_of_class] >= limit
    return ThresholdAttack(float(called[0].mean()), float(1 - called[1].mean()))


def _best_threshold(members: FloatArray, others: FloatArray) -> float:
    """The score that maximizes the mean of true positive and true negative rate; the smallest of equals."""
    candidates = np.unique(np.concatenate([members, others]))
    hits = len(members) - np.searchsorted(np.sort(members), candidates)
    misses = np.searchsorted(np.sort(others), candidates)
    rates_times_rows = hits * len(others) + misses * len(members)  # whole numbers, so that equals are equal
    return float(candidates[int(np.argmax(rates_times_rows))])


def _fit_svc(members: ArrayLike, others: ArrayLike, seed: int | None, max_rows: int | None) -> SVC:
    from sklearn.svm import SVC

    inside, outside = _shuffled(_columns(members), seed), _columns(others)
    same_shape(inside, outside, "the same features", after=1)
    inside = inside[: len(outside)]
    sides = [side[spaced(len(side), max_rows)] for side in (inside, outside)]
    rows = np.concatenate(sides)
    truth: IntArray = np.repeat([1, 0], [len(side) for side in sides])
    return SVC(C=3, gamma="auto", kernel="rbf").fit(rows, truth)


def _one_model(logits: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    """One model's logits and labels, checked."""
    scores = logits_of(logits)
    if scores.ndim != 2:
        raise UsageError(f"The attack takes the logits of one model, logits[s] of shape (n, K), not {scores.shape}.")
    return scores, labels_of(labels, scores)


def _columns(values: ArrayLike) -> FloatArray:
    array = floats(values, "features")
    if array.ndim not in {1, 2}:
        raise UsageError(f"features: expected (n,) or (n, F) of one model, but the shape is {array.shape}.")
    if not len(array):
        raise UsageError("The attack needs rows on every side.")
    return array[:, None] if array.ndim == 1 else array


def _shuffled(rows: FloatArray, seed: int | None) -> FloatArray:
    if seed is None:
        return rows
    order = np.argsort(np.random.default_rng(whole(seed, "seed")).random(len(rows)), kind="stable")
    shuffled: FloatArray = rows[order]
    return shuffled
