"""Selectors of tuning trials (protocol section 6): without any oracle, or by the distance to development oracles.

Both are functions of arrays; smaller values are better. A trial is *harmed* if a model loses more validation accuracy
than the utility gate allows a single seed, or a class is lost; it is chosen only if no trial is without harm. It is
*collapsed* if more than half of what the originals know beyond chance is lost; then it is the last choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import IntArray
from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.board_rules import Arrays, Labels, Population
from forgetbench.metrics.population_mia import MINIMUM_CELL, loss_auc, rare_labels
from forgetbench.metrics.registry import Track, ranking_metrics
from forgetbench.scoring.bands import reference_bands
from forgetbench.scoring.gates import gate_of, pass_gate
from forgetbench.scoring.score import score
from forgetbench.scoring.scorecards import Bands


class Judgment(NamedTuple):
    """The judgment of a selector on a trial."""

    value: float
    """What is minimized."""
    utility: Literal["ok", "harmed", "collapsed"]
    """What is left of the model's utility."""
    parts: Mapping[str, float]
    """The terms of the value."""


def oracle_free(unlearned: Population, originals: Population, labels: Labels, *, mislabelled: bool) -> Judgment:
    """|AUC - 0.5| of the loss attack of the forget set against validation, plus the drop in validation accuracy.

    The attack is matched by label, and its AUC is averaged over models; labels with fewer than five validation rows are
    pooled (`pooling_note` says so). Two cases are special, without oracles: If the labels of the forget set are wrong,
    an unseen row that resembles a forgotten one has a wrong label too, so each validation row is used once with every
    wrong label. If whole classes are forgotten, validation accuracy counts the remaining classes, the accuracy on the
    forgotten ones is added to the value, and forgotten rows are compared with validation rows of these only; where
    these are fewer than five, the attack is left out and the accuracy on the forget set is added: a model that never
    saw a class never gives that answer.

    Args:
        unlearned: For each draw, subset -> logits (S, n, K): ``forget`` and ``validation``.
        originals: The same of the originals.
        labels: For each draw, subset -> labels: ``forget``, ``retain`` and ``validation``.
        mislabelled: Whether the labels of the forget set are wrong.

    Raises:
        UsageError: A prediction is not finite, or there are fewer than five validation rows to compare with.
    """
    aucs, drops, forgotten = [], [], []
    for logits, before, truth in zip(unlearned, originals, labels, strict=True):
        rows = _unseen(logits["validation"], truth, mislabelled=mislabelled)
        remaining = _remaining(truth)
        attacked = not _forgets_rare_classes(truth, mislabelled=mislabelled)
        if attacked:
            aucs.append(loss_auc((logits["forget"], truth["forget"]), rows).mean())
        after = accuracy(logits["validation"][:, remaining], truth["validation"][remaining])
        drops.append((accuracy(before["validation"][:, remaining], truth["validation"][remaining]) - after).mean())
        if not attacked:
            forgotten.append(accuracy(logits["forget"], truth["forget"]).mean())
        elif not remaining.all():
            forgotten.append(accuracy(logits["validation"][:, ~remaining], truth["validation"][~remaining]).mean())
    parts = {"auc": float(np.mean(aucs))} if aucs else {}
    parts["drop"] = float(np.mean(drops))
    if forgotten:
        parts["left"] = float(np.mean(forgotten))
    value = abs(parts.get("auc", 0.5) - 0.5) + parts["drop"] + parts.get("left", 0.0)
    return Judgment(value, _utility(unlearned, originals, labels), parts)


def check_labels(labels: Labels, outputs: int, *, mislabelled: bool) -> None:
    """Check before any training that `oracle_free` can judge a task.

    Args:
        labels: For each draw, subset -> labels.
        outputs: Number of classes or attributes.
        mislabelled: Whether the labels of the forget set are wrong.

    Raises:
        UsageError: There are fewer than five validation rows to compare the forget set with.
    """
    names = ("forget", "validation")
    if all(name in truth for name in names for truth in labels):
        logits = [{name: np.zeros((1, len(truth[name]), outputs)) for name in names} for truth in labels]
        try:
            oracle_free(logits, logits, labels, mislabelled=mislabelled)
        except UsageError as error:
            reason = "here there are fewer" if "nothing can be matched" in str(error) else str(error)
        else:
            return
    else:
        reason = "there are no validation examples here"
    raise UsageError(
        "The selector oracle-free compares forgotten examples with at least five validation examples; "
        f"{reason.rstrip('.')}. Use --selector oracle, or a task with more validation examples."
    )


def pooling_note(labels: Labels, outputs: int, *, mislabelled: bool) -> str:
    """What to say of labels that `oracle_free` pools; "" where it pools none. Arguments as those of `check_labels`."""
    pooled = forgotten = 0
    if any(_forgets_rare_classes(truth, mislabelled=mislabelled) for truth in labels):
        return (
            "fewer than five validation examples have a forgotten class: the selector oracle-free takes the accuracy "
            "on the forget set instead of an attack."
        )
    for truth in labels:
        empty = np.zeros((1, len(truth["validation"]), outputs))
        rare = rare_labels(truth["forget"], _unseen(empty, truth, mislabelled=mislabelled)[1])
        pooled += len(rare)
        forgotten += len(np.unique(np.asarray(truth["forget"]), axis=0))
    if not pooled:
        return ""
    return (
        f"{pooled} of {forgotten} forgotten labels have fewer than five validation examples: the selector oracle-free "
        "pools them, and does not compare them label by label."
    )


def same_predictions(first: Population, second: Population) -> bool:
    """Whether two populations answer exactly alike on all subsets that both have."""
    return all(
        np.array_equal(left[name], right[name])
        for left, right in zip(first, second, strict=True)
        for name in left.keys() & right.keys()
    )


def development_bands(
    labels: Labels,
    references: Population,
    controls: Population,
    originals: Population,
    track: Track,
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> Bands:
    """The bands of the development board, for `by_distance`; metrics in ``unfit`` failed the task's audit.

    Raises:
        UsageError: No metric distinguishes No unlearning from the oracles, so the distance would favor doing nothing.
    """
    bands = reference_bands(labels, references, controls, originals, track, excluded_metrics=unfit, ranking_only=True)
    efficacy = [spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"]
    if not set(efficacy) & set(bands.ranking):
        if any(bands.references[name].feasible for name in efficacy):
            raise UsageError(
                "Every metric that could distinguish No unlearning from the oracles failed the audit of the task. Tune "
                "with --selector oracle-free."
            )
        raise UsageError(
            "On the development board no metric distinguishes No unlearning from the oracles, so a distance would "
            "favor doing nothing. Tune with --selector oracle-free."
        )
    return bands


def by_distance(
    unlearned: Population, references: Population, originals: Population, labels: Labels, bands: Bands
) -> Judgment:
    """The distance to development oracles.

    Raises:
        UsageError: A prediction is not finite, or the development board has no ranking metric.
    """
    card = score(
        unlearned,
        name="trial",
        references=references,
        originals=originals,
        labels=labels,
        bands=bands,
        ranking_only=True,
    )
    if card.distance is None:
        raise UsageError("The development board has no ranking metric. Give more seeds, or use --selector oracle-free.")
    parts = {name: value for name in card.ranking if (value := card.metrics[name].z) is not None}
    return Judgment(card.distance.value, _utility(unlearned, originals, labels), parts)


def _utility(unlearned: Population, originals: Population, labels: Labels) -> Literal["ok", "harmed", "collapsed"]:
    """The utility gate on validation rows of the remaining classes, with the originals in place of the oracles.

    Validation sets are small, so the mean may drop as far as the gate allows a single seed to drop.
    """
    remaining = [_remaining(truth) for truth in labels]
    truth = [{"test": arrays["validation"][rows]} for arrays, rows in zip(labels, remaining, strict=True)]
    gate = gate_of(None, [_validation(originals, remaining)], truth)
    result = pass_gate(_validation(unlearned, remaining), truth, gate.model_copy(update={"floor": gate.seed_floor}))
    if result.collapsed:
        return "collapsed"
    return "harmed" if result.harmed or result.unstable else "ok"


def _validation(population: Population, remaining: list[NDArray[np.bool_]]) -> list[Arrays]:
    return [{"test": logits["validation"][:, rows]} for logits, rows in zip(population, remaining, strict=True)]


def _remaining(truth: Arrays) -> NDArray[np.bool_]:
    """Mask of validation rows whose labels remain: all but those that only the forget set has."""
    rows = np.asarray(truth["validation"])
    if rows.ndim == 2:
        return np.ones(len(rows), dtype=np.bool_)
    forgotten = np.setdiff1d(truth["forget"], truth["retain"])
    remaining: NDArray[np.bool_] = ~np.isin(rows, forgotten)
    return remaining


def _forgets_classes(truth: Arrays) -> bool:
    """Whether no label of the forget set is retained."""
    return np.ndim(truth["validation"]) == 1 and not np.isin(truth["forget"], truth["retain"]).any()


def _forgets_rare_classes(truth: Arrays, *, mislabelled: bool) -> bool:
    """Whether whole classes are forgotten that have too few validation rows, all together, for an attack."""
    return not mislabelled and _forgets_classes(truth) and int((~_remaining(truth)).sum()) < MINIMUM_CELL


def _unseen(logits: NDArray[Any], truth: Arrays, *, mislabelled: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and labels of the validation rows that a forget set is compared with."""
    rows = np.asarray(truth["validation"])
    if mislabelled:
        return _mislabelled(logits, rows)
    if _forgets_classes(truth):
        forgotten = ~_remaining(truth)
        return logits[:, forgotten], rows[forgotten]
    return logits, rows


def _mislabelled(logits: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], IntArray]:
    """Rows once with every wrong label: another class, or one attribute flipped."""
    truth = np.asarray(labels, dtype=np.int64)
    if truth.ndim == 2:
        wrong = [truth ^ (np.arange(truth.shape[1]) == flipped) for flipped in range(truth.shape[1])]
    else:
        wrong = [(truth + step) % logits.shape[-1] for step in range(1, logits.shape[-1])]
    return np.concatenate([logits] * len(wrong), axis=1), np.concatenate(wrong)
