"""The utility gate of protocol section 4: collapsed, harmed and unstable rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.metrics._validation import FloatArray, joint_labels
from forgetbench.metrics.board_rules import Arrays, Labels, Population
from forgetbench.metrics.columns import Answers
from forgetbench.scoring.scorecards import ClassFloor, Gate, GateResult

COLLAPSE_SHARE = 0.5
"""Collapse: less than this share of what the reference knows beyond chance is left."""
COLLAPSE_SEEDS = 0.5
"""A row collapsed as well if at least this share of its seeds did."""
HARM_POINTS, HARM_SD = 0.01, 2.0
"""Mean test accuracy: harm is this far below the reference, or this many standard deviations of oracles."""
SEED_POINTS, SEED_SD = 0.05, 5.0
"""The same for the test accuracy of a single model, which is then unstable."""
CLASS_POINTS, CLASS_ROWS = 0.20, 50
"""A class or group is lost this far below its reference; it needs at least this many test rows."""
TOLERANCE = 1e-12
"""For rounding: an accuracy equal to its threshold passes."""


class AccuracyOnTest(NamedTuple):
    """Accuracy of a population on test data, as the gate needs it."""

    accuracies: FloatArray
    """(G, S) accuracy of each model."""
    chance: float
    """Accuracy of guessing, the mean over draws."""
    cells: dict[tuple[str, int], float]
    """Class or group to accuracy, the mean over models and over the draws in which it has enough rows."""


def gate_of(originals: Population | None, oracles: Sequence[Population], labels: Labels) -> Gate:
    """Compute the thresholds of a board, from its originals and all its oracles.

    One oracle has no spread. Then the sampling error of its accuracy is used instead, the mean may fall as far as any
    single model, and classes are not checked.

    Args:
        originals: Logits of No unlearning, if there are originals.
        oracles: The reference and the control oracles.
        labels: The labels. ``test`` and ``groups:test`` are read, and those of ``forget`` and ``retain`` to know which
            classes and groups are kept.
    """
    sides = [accuracy_on_test(population, labels) for population in oracles]
    no_unlearning = accuracy_on_test(originals, labels) if originals is not None else None
    retrained = np.concatenate([side.accuracies for side in sides], axis=1)
    reference, chance = float(retrained.mean()), sides[0].chance
    single_oracle = retrained.shape[1] == 1
    if single_oracle:
        spread = float(np.sqrt(reference * (1.0 - reference) / min(len(truth["test"]) for truth in labels)))
    else:
        spread = float(np.sqrt(retrained.var(axis=1, ddof=1).mean()))
    if no_unlearning is not None:
        reference = min(reference, float(no_unlearning.accuracies.mean()))
    rows = _rows(labels)
    floors = []
    for cell in sorted(rows) if not single_oracle else ():
        lower = float(np.mean([side.cells[cell] for side in sides]))
        if no_unlearning is not None:
            lower = min(lower, no_unlearning.cells[cell])
        kind: Literal["class", "group"] = "class" if cell[0] == "class" else "group"
        floors.append(ClassFloor(kind=kind, key=cell[1], rows=rows[cell], floor=lower - CLASS_POINTS))
    seed_floor = reference - max(SEED_POINTS, SEED_SD * spread)
    floor = seed_floor if single_oracle else reference - max(HARM_POINTS, HARM_SD * spread)
    return Gate(
        reference=reference,
        chance=chance,
        # Where the reference is near chance, half of what it knows is less than the noise, which is no collapse.
        collapse_floor=min(chance + COLLAPSE_SHARE * (reference - chance), floor),
        floor=floor,
        seed_floor=seed_floor,
        classes=tuple(floors),
    )


def pass_gate(contestant: Population, labels: Labels, gate: Gate) -> GateResult:
    """Compare a contestant's test accuracy with the board's thresholds."""
    test = accuracy_on_test(contestant, labels)
    mean, by_seed = float(test.accuracies.mean()), test.accuracies.mean(axis=0)
    lost_seeds = int((by_seed < gate.collapse_floor - TOLERANCE).sum())
    reasons = []
    collapsed = True
    if mean < gate.collapse_floor - TOLERANCE:
        reasons.append(f"{_below(mean, gate.collapse_floor)}: {_collapse_rule(gate)}")
    elif lost_seeds >= COLLAPSE_SEEDS * len(by_seed):
        reasons.append(
            f"test accuracy is below {gate.collapse_floor:.1%} in {lost_seeds} of {len(by_seed)} seeds: "
            f"{_collapse_rule(gate)}"
        )
    else:
        collapsed = False
    harm = []
    if mean < gate.floor - TOLERANCE:
        harm.append(_below(mean, gate.floor))
    for cell in gate.classes:
        value = test.cells[(cell.kind, cell.key)]
        if value < cell.floor - TOLERANCE:
            shown = _distinct_percentages(value, cell.floor)
            harm.append(f"test accuracy of {cell.kind} {cell.key} is {shown[0]}, below {shown[1]}")
    unstable = int((test.accuracies < gate.seed_floor - TOLERANCE).sum())
    return GateResult(
        collapsed=collapsed,
        harmed=bool(harm),
        unstable=unstable > 0,
        unstable_models=unstable,
        models=test.accuracies.size,
        median=float(np.median(test.accuracies)),
        reasons=(*reasons, *harm),
    )


def _collapse_rule(gate: Gate) -> str:
    return (
        f"more than half of what the reference ({gate.reference:.1%}) knows beyond chance ({gate.chance:.1%}) is lost"
    )


def accuracy_on_test(population: Population, labels: Labels) -> AccuracyOnTest:
    """Accuracy of each model on test, and of each class and group with at least 50 rows in a draw."""
    accuracies = []
    values: dict[tuple[str, int], list[float]] = {}
    for logits, truth in zip(population, labels, strict=True):
        right = Answers.of(logits, truth).column("correct", "test")
        accuracies.append(right.mean(axis=-1))
        for cell, members in _cells(truth).items():
            values.setdefault(cell, []).append(float(right[:, members].mean()))
    cells = {cell: float(np.mean(by_draw)) for cell, by_draw in values.items()}
    return AccuracyOnTest(np.array(accuracies), chance_level(population, labels), cells)


def chance_level(population: Population, labels: Labels) -> float:
    """Accuracy of the best guess that ignores the image, on test: the mean over draws.

    For K classes the larger of 1/K and the share of the most frequent class; for attributes, the mean over attributes
    of the share of their more frequent value.
    """
    levels = []
    for logits, truth in zip(population, labels, strict=True):
        answers = np.asarray(truth["test"])
        if answers.ndim == 2:
            present = answers.mean(axis=0)
            levels.append(float(np.maximum(present, 1.0 - present).mean()))
        else:
            _, counts = np.unique(answers, return_counts=True)
            levels.append(max(1.0 / np.shape(logits["test"])[-1], float(counts.max() / len(answers))))
    return float(np.mean(levels))


def _below(value: float, floor: float) -> str:
    """One sentence: the accuracy and the threshold that it missed."""
    return "test accuracy {} is below {}".format(*_distinct_percentages(value, floor))


def _distinct_percentages(value: float, floor: float) -> tuple[str, str]:
    """Two accuracies in percent, with enough decimals to show that they differ."""
    for decimals in (1, 2, 3, 4):
        shown = f"{value:.{decimals}%}", f"{floor:.{decimals}%}"
        if shown[0] != shown[1]:
            break
    return shown


def _cells(truth: Arrays) -> dict[tuple[str, int], NDArray[Any]]:
    """Test rows of each class and group that is kept and has enough of them."""
    cells = {}
    for kind, prefix in (("class", ""), ("group", "groups:")):
        keys = _keys(truth, prefix + "test")
        if keys is None:
            continue
        forgotten = _forgotten(truth, prefix)
        for key in np.unique(keys):
            members = np.flatnonzero(keys == key)
            if len(members) >= CLASS_ROWS and key not in forgotten:
                cells[(kind, int(key))] = members
    return cells


def _keys(truth: Arrays, name: str) -> NDArray[Any] | None:
    """One number per row: the class (for attributes, their bits read as one number), or the group."""
    labels = truth.get(name)
    return None if labels is None else joint_labels(np.asarray(labels, dtype=np.int64))


def _forgotten(truth: Arrays, prefix: str) -> set[Any]:
    """Classes or groups of the forget set that have no retained rows."""
    forget, retain = (_keys(truth, f"{prefix}{subset}") for subset in ("forget", "retain"))
    if forget is None or retain is None:
        return set()
    return set(np.unique(forget)) - set(np.unique(retain))


def _rows(labels: Labels) -> dict[tuple[str, int], int]:
    rows: dict[tuple[str, int], int] = {}
    for truth in labels:
        for cell, members in _cells(truth).items():
            rows[cell] = max(rows.get(cell, 0), len(members))
    return rows
