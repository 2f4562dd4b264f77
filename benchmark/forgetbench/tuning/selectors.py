"""How a trial of tuning is judged (protocol section 6): without any oracle, or by distance from development oracles.

Both read arrays alone. The smaller the value, the better. A trial is *collapsed* where a model loses more validation
accuracy than the utility gate allows a single seed, or a whole class; it is never chosen while another is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import IntArray
from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.board_rules import Arrays, Labels, Population
from forgetbench.metrics.population_mia import loss_auc
from forgetbench.metrics.registry import Track, ranking_metrics
from forgetbench.scoring.bands import reference_bands
from forgetbench.scoring.gates import gate_of, pass_gate
from forgetbench.scoring.score import score
from forgetbench.scoring.scorecards import Bands


class Judgment(NamedTuple):
    """What a selector says of a trial."""

    value: float
    """What is minimized."""
    collapsed: bool
    """Whether the model no longer does its work."""
    parts: Mapping[str, float]
    """What the value is made of."""


def oracle_free(contestant: Population, originals: Population, labels: Labels, *, mislabelled: bool) -> Judgment:
    """|AUC - 0.5| of the loss attack of the forget set against validation, plus the drop in validation accuracy.

    The attack is matched by label, and its AUC averaged over models. Two things follow from what is asked for, and need
    no oracle either: where the forget set bears wrong labels, an unseen row that is like a forgotten one bears a wrong
    label too, so each validation row stands there once with every wrong label; and where whole classes go, validation
    accuracy counts the classes that stay, and what is still answered right of the others is added to the value.

    Args:
        contestant: For each draw, subset -> logits (S, n, K): ``forget`` and ``validation``.
        originals: The same of the originals.
        labels: For each draw, subset -> labels: ``forget``, ``retain`` and ``validation``.
        mislabelled: Whether the labels of the forget set are wrong.

    Raises:
        UsageError: An answer is not finite, or no label has both forget rows and five validation rows.
    """
    aucs, drops, left = [], [], []
    for answers, before, truth in zip(contestant, originals, labels, strict=True):
        unseen = _mislabelled(answers["validation"], truth["validation"]) if mislabelled else None
        rows = unseen or (answers["validation"], truth["validation"])
        aucs.append(loss_auc((answers["forget"], truth["forget"]), rows).mean())
        kept = _kept(truth)
        right = accuracy(answers["validation"][:, kept], truth["validation"][kept])
        drops.append((accuracy(before["validation"][:, kept], truth["validation"][kept]) - right).mean())
        if not kept.all():
            left.append(accuracy(answers["validation"][:, ~kept], truth["validation"][~kept]).mean())
    parts = {"auc": float(np.mean(aucs)), "drop": float(np.mean(drops))}
    if left:
        parts["left"] = float(np.mean(left))
    value = abs(parts["auc"] - 0.5) + parts["drop"] + parts.get("left", 0.0)
    return Judgment(value, _collapsed(contestant, originals, labels), parts)


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
        UsageError: Nothing tells No unlearning from the oracles there, so that the distance would favor doing nothing.
    """
    bands = reference_bands(labels, references, controls, originals, track, excluded_metrics=unfit, ranking_only=True)
    efficacy = [spec.name for spec in ranking_metrics(track) if spec.role(track) == "efficacy"]
    if not set(efficacy) & set(bands.ranking):
        if any(bands.references[name].feasible for name in efficacy):
            raise UsageError(
                "Every metric that could tell No unlearning from the oracles failed the audit of the task: tune with "
                "--selector oracle-free."
            )
        raise UsageError(
            "On the development board nothing tells No unlearning from the oracles, so that a distance would favor "
            "doing nothing: tune with --selector oracle-free."
        )
    return bands


def by_distance(
    contestant: Population, references: Population, originals: Population, labels: Labels, bands: Bands
) -> Judgment:
    """The distance against development oracles.

    Raises:
        UsageError: An answer is not finite, or the development board has nothing that ranks.
    """
    card = score(
        contestant,
        name="trial",
        references=references,
        originals=originals,
        labels=labels,
        bands=bands,
        ranking_only=True,
    )
    if card.distance is None:
        raise UsageError("The development board ranks by nothing: give more seeds, or take the oracle-free selector.")
    parts = {name: value for name in card.ranking if (value := card.metrics[name].z) is not None}
    return Judgment(card.distance.value, _collapsed(contestant, originals, labels), parts)


def _collapsed(contestant: Population, originals: Population, labels: Labels) -> bool:
    """The utility gate on validation rows of the classes that stay, with the originals in the oracles' place.

    Validation sets are small, so that the mean may fall as far as the gate lets a single seed fall.
    """
    kept = [_kept(truth) for truth in labels]
    truth = [{"test": each["validation"][rows]} for each, rows in zip(labels, kept, strict=True)]
    gate = gate_of(None, [_validation(originals, kept)], truth)
    result = pass_gate(_validation(contestant, kept), truth, gate.model_copy(update={"floor": gate.seed_floor}))
    return result.collapsed or result.unstable


def _validation(population: Population, kept: list[NDArray[np.bool_]]) -> list[Arrays]:
    return [{"test": answers["validation"][:, rows]} for answers, rows in zip(population, kept, strict=True)]


def _kept(truth: Arrays) -> NDArray[np.bool_]:
    """Which validation rows are of labels that stay: all but those that only the forget set has."""
    rows = np.asarray(truth["validation"])
    if rows.ndim == 2:
        return np.ones(len(rows), dtype=np.bool_)
    gone = np.setdiff1d(truth["forget"], truth["retain"])
    kept: NDArray[np.bool_] = ~np.isin(rows, gone)
    return kept


def _mislabelled(logits: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], IntArray]:
    """Rows once with every wrong label: another class, or one attribute turned over."""
    truth = np.asarray(labels, dtype=np.int64)
    if truth.ndim == 2:
        wrong = [truth ^ (np.arange(truth.shape[1]) == turned) for turned in range(truth.shape[1])]
    else:
        wrong = [(truth + step) % logits.shape[-1] for step in range(1, logits.shape[-1])]
    return np.concatenate([logits] * len(wrong), axis=1), np.concatenate(wrong)
