"""Population membership inference: are forgotten examples distinguishable from unseen ones, label by label?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import (
    FloatArray,
    IntArray,
    floats,
    joint_labels,
    labels_of,
    logits_of,
    same_kind,
    same_shape,
)
from forgetbench.metrics.board_rules import Comparison, Draw, PairwiseRule
from forgetbench.metrics.columns import Answers
from forgetbench.metrics.registry import MetricSpec, metric
from forgetbench.metrics.roc import sorted_auc

ATTACKS = ("loss", "confidence", "entropy", "modified-entropy")
"""The four scores, all oriented larger = member (loss and entropies are negated)."""

MINIMUM_CELL = 5
"""A label with fewer unseen rows than this is not matched."""


class AttackTable(NamedTuple):
    """AUC of each attack on each of several models, from one matching of members with non-members."""

    whole: FloatArray
    """(M, 4): over all rows."""
    halves: FloatArray
    """(2, M, 4): over every other row of each label, in the order of confidence, and over the rest."""


def attack_scores(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """The four attack scores, larger = member.

    Args:
        logits: (M, n, K), or (M, n, A) for attributes.
        labels: (n,) or (n, A).

    Returns:
        (4, M, n), in the order of ``ATTACKS``; for attributes (4, M, n, A).
    """
    scores = logits_of(logits)
    return _scores(Answers({"": scores}, {"": labels_of(labels, scores)}), "")


def _scores(answers: Answers | Draw, subset: str) -> FloatArray:
    losses, confidences, plain, modified = (
        answers.column(name, subset) for name in ("loss", "confidence", "entropy", "modified-entropy")
    )
    return np.stack([-losses, confidences, -plain, -modified])


def attack_table(
    forget_logits: ArrayLike,
    forget_labels: ArrayLike,
    test_logits: ArrayLike,
    test_labels: ArrayLike,
    *,
    pool: bool = False,
) -> AttackTable:
    """AUC of the forget set against test examples of the same label, for every model and attack.

    Within a label every forget example is compared with every test example; labels are weighted by their forget
    examples. If labels are attributes, rows are matched by joint label, and the AUCs of the attributes are averaged.
    The halves split each label's rows in the order of their mean score over all models. So the order of rows does not
    matter, and both sides are evaluated on the same halves, which do not depend on what separates the sides.

    Args:
        forget_logits: (M, n, K) of M models.
        forget_labels: (n,) or (n, A).
        test_logits: (M, m, K) of the same models.
        test_labels: (m,) or (m, A); on class tasks they must include rows of forgotten classes, else nothing matches.
        pool: Whether to treat all labels with fewer than five test examples as one label, and compare it with all test
            examples if these are fewer than five too. Otherwise such labels are left out.

    Raises:
        UsageError: No label has forget examples and at least five test examples, the numbers of models differ, or one
            side has class numbers and the other attributes.
    """
    forget, test = floats(forget_logits, "forget logits", ndim=3), floats(test_logits, "test logits", ndim=3)
    same_shape(forget.swapaxes(0, 1), test.swapaxes(0, 1), "the same models and columns", after=1)
    truth = labels_of(forget_labels, forget, "forget labels"), labels_of(test_labels, test, "test labels")
    same_kind(*truth)
    return _matched(attack_scores(forget, truth[0]), attack_scores(test, truth[1]), *truth, pool=pool)


def _pooled_scores(draw: Draw, subset: str) -> FloatArray:
    return draw.cached(("attack scores", subset), lambda: _scores(draw, subset))


def _matched(
    members: FloatArray, others: FloatArray, member_labels: IntArray, other_labels: IntArray, *, pool: bool = False
) -> AttackTable:
    """The table of scores (4, M, n) or (4, M, n, A) of both sides."""
    cells = [
        _Cell(_by_confidence(members, cell.members), _by_confidence(others, cell.others))
        for cell in _cells(joint_labels(member_labels), joint_labels(other_labels), pool=pool)
    ]
    if not cells:
        raise UsageError(f"No label has forget examples and {MINIMUM_CELL} test examples: nothing can be matched.")
    if members.ndim == 4:  # attributes are treated like models, and averaged at the end
        attributes = members.shape[-1]
        tables = [_table(members[..., a], others[..., a], cells) for a in range(attributes)]
        return AttackTable(
            np.mean([table.whole for table in tables], axis=0), np.mean([table.halves for table in tables], axis=0)
        )
    return _table(members, others, cells)


def population(unlearned: AttackTable, oracle: AttackTable) -> float:
    """AUC on the unlearned models minus AUC on the oracles, of the attack that separates them best.

    Cross-fitted: the attack with the largest absolute difference is chosen on one half of the examples and evaluated on
    the other, both ways, and the two are averaged; so choosing among four introduces no bias.

    Returns:
        In [-1, 1]; positive if the forget set looks more like training data than it does to the oracles.
    """
    difference = unlearned.halves.mean(axis=1) - oracle.halves.mean(axis=1)
    chosen = np.abs(difference).argmax(axis=1)
    return float((difference[1, chosen[0]] + difference[0, chosen[1]]) / 2)


def _compare_attack(draw: Draw, members: str, *others: str) -> Comparison:
    inside, outside = (
        np.concatenate([draw.labels[subset] for subset in side]).astype(np.int64) for side in ((members,), others)
    )
    same_kind(inside, outside)
    scores = [_pooled_scores(draw, subset) for subset in (members, *others)]
    table = _matched(scores[0], np.concatenate(scores[1:], axis=2), inside, outside)

    def value(left: IntArray, right: IntArray) -> float:
        return population(select(table, left), select(table, right))

    return Comparison(value, "odd")


def _compare_forgotten(draw: Draw, forget: str, test: str) -> Comparison:
    """The forget set against test rows, on class tasks those of forgotten classes too."""
    more = ("test-forgotten",) if draw.has("test-forgotten") else ()
    return _compare_attack(draw, forget, test, *more)


def _compare_retained(draw: Draw, retain: str, test: str) -> Comparison:
    """The retain sample against unseen people if there are any, else against test rows."""
    return _compare_attack(draw, retain, "unseen" if draw.has("unseen") else test)


@metric(
    MetricSpec(
        name="mia.population",
        title="population attack",
        symbol="MIA",
        group="privacy",
        unit="AUC",
        range=(-1.0, 1.0),
        requires=("forget", "test"),
        meaning="How much more than on the oracles the forget set looks like training data, label by label.",
        misses="Single examples: per-example attacks find what this does not. A cheap floor, never the headline.",
        misuse="Reading the attack's accuracy as an absolute; matching no labels; imbalanced sides.",
        formula=(
            "For loss, confidence, entropy and modified entropy: AUC of D_f against test examples of the same label; "
            "AUC_u - AUC_r of the attack with the largest difference, chosen on one half of the examples and evaluated "
            "on the other, each label's rows split by confidence"
        ),
        example="AUC 0.62 on the unlearned models and 0.51 on the oracles: +0.11.",
        source="Yeom et al. 2018; Song and Mittal 2021; protocol, section 3.",
    ),
    board=PairwiseRule(_compare_forgotten),
)
@metric(
    MetricSpec(
        name="mia.retain",
        title="risk of the retained",
        symbol="MIA_r",
        group="privacy",
        unit="AUC",
        range=(-1.0, 1.0),
        requires=("retain", "test"),
        meaning="How much easier than on the oracles retained rows are distinguished from unseen ones.",
        misses="Single people; originals have seen more data than oracles, so a small drift is ordinary.",
        misuse="Reading it as forgetting.",
        formula="As mia.population: retain rows as members, against unseen people if there are any, else test.",
        example="AUC 0.70 on the unlearned models and 0.66 on the oracles: +0.04.",
        source="After Hayes et al. 2024, section 6.",
    ),
    board=PairwiseRule(_compare_retained),
)
def mia_population(
    unlearned: tuple[ArrayLike, ArrayLike],
    oracle: tuple[ArrayLike, ArrayLike],
    forget_labels: ArrayLike,
    test_labels: ArrayLike,
) -> float:
    """``population`` from logits.

    Args:
        unlearned: Logits on the forget set (S, n, K) and on test (S, m, K).
        oracle: The same of the oracles.
        forget_labels: (n,) or (n, A).
        test_labels: (m,) or (m, A).
    """
    sides = [
        [
            floats(part, f"{subset} logits of the {name}", ndim=3)
            for part, subset in zip(side, ("forget", "test"), strict=True)
        ]
        for side, name in ((unlearned, "unlearned"), (oracle, "oracles"))
    ]
    for side in sides:
        same_shape(side[0].swapaxes(0, 1), side[1].swapaxes(0, 1), "the same models and columns", after=1)
    for left, right in zip(*sides, strict=True):
        same_shape(left, right, "the same rows", after=1)
    pooled = [np.concatenate(parts) for parts in zip(*sides, strict=True)]  # both sides share the same halves
    table = attack_table(pooled[0], forget_labels, pooled[1], test_labels)
    first = np.arange(len(pooled[0])) < len(sides[0][0])
    return population(select(table, np.flatnonzero(first)), select(table, np.flatnonzero(~first)))


def loss_auc(forget: tuple[ArrayLike, ArrayLike], unseen: tuple[ArrayLike, ArrayLike]) -> FloatArray:
    """AUC of the loss attack of each model, matched by label, which tuning without an oracle drives to 0.5 (section 6).

    Labels with fewer than five validation rows are pooled.

    Args:
        forget: Logits (M, n, K) on the forget set, and its labels.
        unseen: Logits (M, m, K) on validation rows, and their labels.

    Returns:
        (M,) AUCs.
    """
    return attack_table(forget[0], forget[1], unseen[0], unseen[1], pool=True).whole[:, ATTACKS.index("loss")]


def select(table: AttackTable, models: IntArray) -> AttackTable:
    """The same table for some of the models."""
    return AttackTable(table.whole[models], table.halves[:, models])


class _Cell(NamedTuple):
    members: IntArray
    others: IntArray


def rare_labels(forget_labels: NDArray[Any], unseen_labels: NDArray[Any]) -> NDArray[Any]:
    """The labels (or joint labels) of forget rows that fewer than five unseen rows have; `loss_auc` pools them."""
    forget, unseen = joint_labels(np.asarray(forget_labels)), joint_labels(np.asarray(unseen_labels))
    return np.array(
        [label for label in np.unique(forget) if (unseen == label).sum() < MINIMUM_CELL], dtype=forget.dtype
    )


def _cells(member_labels: NDArray[Any], other_labels: NDArray[Any], *, pool: bool) -> list[_Cell]:
    rare = rare_labels(member_labels, other_labels)
    cells = [
        _Cell(np.flatnonzero(member_labels == label), np.flatnonzero(other_labels == label))
        for label in np.setdiff1d(member_labels, rare)
    ]
    if pool and len(rare):
        others = np.flatnonzero(np.isin(other_labels, rare))
        if len(others) < MINIMUM_CELL:
            others = np.arange(len(other_labels))
        if len(others) >= MINIMUM_CELL:
            cells.append(_Cell(np.flatnonzero(np.isin(member_labels, rare)), others))
    return cells


def _by_confidence(scores: FloatArray, rows: IntArray) -> IntArray:
    """The rows in the order of their mean loss score; all scores break ties, so that only identical rows may swap."""
    selected = np.moveaxis(scores[:, :, rows], 2, -1)
    first = selected[ATTACKS.index("loss")].reshape(-1, len(rows)).mean(axis=0)
    order = np.argsort(first, kind="stable")
    if (np.diff(first[order]) == 0).any():  # rare, and a sort by all scores takes many times as long
        order = np.lexsort((*selected.reshape(-1, len(rows)), first))
    return rows[order]


def _table(members: FloatArray, others: FloatArray, cells: list[_Cell]) -> AttackTable:
    whole = _matched_auc(members, others, cells)
    halves = []
    for part in range(2):
        # Every other example of a label, counted across labels, so that labels with one example fill both halves.
        offsets = np.cumsum([0, *(len(cell.members) for cell in cells)])[:-1]
        half = [
            _Cell(cell.members[(part + offset) % 2 :: 2], cell.others[part::2])
            for cell, offset in zip(cells, offsets, strict=True)
        ]
        half = [cell for cell in half if len(cell.members)]
        halves.append(_matched_auc(members, others, half) if half else whole)
    return AttackTable(whole, np.stack(halves))


def _matched_auc(members: FloatArray, others: FloatArray, cells: list[_Cell]) -> FloatArray:
    """(M, 4) AUCs, each the mean over labels weighted by their members."""
    attacks, models = members.shape[:2]
    total = np.zeros((models, attacks))
    for cell in cells:
        left = np.sort(members[:, :, cell.members], axis=-1)
        right = np.sort(others[:, :, cell.others], axis=-1)
        for attack in range(attacks):
            for model in range(models):
                total[model, attack] += len(cell.members) * sorted_auc(left[attack, model], right[attack, model])
    return total / sum(len(cell.members) for cell in cells)
