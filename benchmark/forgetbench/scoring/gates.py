"""The utility gate and the flags of protocol section 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.metrics._validation import FloatArray, joint_labels
from forgetbench.metrics.accuracy_gap import correct
from forgetbench.metrics.board_rules import Arrays, Labels, Population
from forgetbench.scoring.scorecards import Bands, ClassFloor, Gate, GateResult, Value

COLLAPSE_POINTS, COLLAPSE_SD = 0.01, 2.0
"""Mean test accuracy: collapse is this far below the reference, or this many standard deviations of oracles."""
SEED_POINTS, SEED_SD = 0.05, 5.0
"""The same for the test accuracy of a single model."""
CLASS_POINTS, CLASS_ROWS = 0.20, 50
"""A class or group is lost this far below its reference; it needs at least this many test rows."""
TOLERANCE = 1e-12
"""For rounding: an accuracy equal to its threshold passes."""


class AccuracyOnTest(NamedTuple):
    """Accuracy of a population on test data, as the gate needs it."""

    accuracies: FloatArray
    """(G, S) accuracy of each model."""
    cells: dict[tuple[str, int], float]
    """Class or group to accuracy, the mean over models and over the draws in which it has enough rows."""


def gate_of(originals: Population | None, oracles: Sequence[Population], labels: Labels) -> Gate:
    """Compute the thresholds of a board, from its originals and all its oracles.

    One oracle has no spread. Then the sampling error of its accuracy is used instead, the mean may fall as far as any
    single model, and classes are not checked.

    Args:
        originals: Logits of No unlearning, if there are originals.
        oracles: The reference and the control oracles.
        labels: The labels; only ``test`` (and ``groups:test``) are read.
    """
    sides = [accuracy_on_test(population, labels) for population in oracles]
    no_unlearning = accuracy_on_test(originals, labels) if originals is not None else None
    retrained = np.concatenate([side.accuracies for side in sides], axis=1)
    reference = float(retrained.mean())
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
    return Gate(
        reference=reference,
        floor=seed_floor if single_oracle else reference - max(COLLAPSE_POINTS, COLLAPSE_SD * spread),
        seed_floor=seed_floor,
        classes=tuple(floors),
    )


def pass_gate(contestant: Population, labels: Labels, gate: Gate) -> GateResult:
    """Compare a contestant's test accuracy with the board's thresholds."""
    test = accuracy_on_test(contestant, labels)
    mean = float(test.accuracies.mean())
    reasons = []
    if mean < gate.floor - TOLERANCE:
        reasons.append("test accuracy {} is below {}".format(*_distinct_percentages(mean, gate.floor)))
    for cell in gate.classes:
        value = test.cells[(cell.kind, cell.key)]
        if value < cell.floor - TOLERANCE:
            shown = _distinct_percentages(value, cell.floor)
            reasons.append(f"test accuracy of {cell.kind} {cell.key} is {shown[0]}, below {shown[1]}")
    collapsed = int((test.accuracies < gate.seed_floor - TOLERANCE).sum())
    return GateResult(
        collapsed=bool(reasons),
        unstable=collapsed > 0,
        collapsed_models=collapsed,
        models=test.accuracies.size,
        median=float(np.median(test.accuracies)),
        reasons=tuple(reasons),
    )


def accuracy_on_test(population: Population, labels: Labels) -> AccuracyOnTest:
    """Accuracy of each model on test, and of each class and group with at least 50 rows in a draw."""
    accuracies = []
    values: dict[tuple[str, int], list[float]] = {}
    for logits, truth in zip(population, labels, strict=True):
        right = correct(logits["test"], truth["test"])
        accuracies.append(right.mean(axis=-1))
        for cell, members in _cells(truth).items():
            values.setdefault(cell, []).append(float(right[:, members].mean()))
    cells = {cell: float(np.mean(by_draw)) for cell, by_draw in values.items()}
    return AccuracyOnTest(np.array(accuracies), cells)


def flags_of(values: Mapping[str, Value], bands: Bands, gate: GateResult) -> tuple[str, ...]:
    """The flags of a scored contestant, in alphabetical order.

    The side of the original is that of No unlearning if it is outside (|z| > 3). Otherwise it is assumed to be above,
    since originals predict the forget set better and more confidently than oracles.
    """
    flags = set()
    for name in ("gap.forget", "shift.forget"):
        value = values.get(name)
        if value is None or value.z is None or value.within_band is not False:
            continue
        original = bands.references[name].original_z
        side = np.sign(original) if original is not None and abs(original) > 3 else 1.0
        flags.add("under-forgotten" if np.sign(value.z) == side else "over-forgotten")
    for name in ("lira.forget", "js"):
        value = values.get(name)
        if value is not None and value.within_band is False and value.z is not None and value.z < 0:
            flags.add("suspicious")
    if gate.collapsed:
        flags.add("collapsed")
    if gate.unstable:
        flags.add("unstable")
    return tuple(sorted(flags))


def _distinct_percentages(value: float, floor: float) -> tuple[str, str]:
    """Two accuracies in percent, with enough decimals to show that they differ."""
    for decimals in (1, 2, 3, 4):
        shown = f"{value:.{decimals}%}", f"{floor:.{decimals}%}"
        if shown[0] != shown[1]:
            break
    return shown


def _cells(truth: Arrays) -> dict[tuple[str, int], NDArray[Any]]:
    cells = {}
    kinds = {"class": joint_labels(np.asarray(truth["test"], dtype=np.int64)), "group": truth.get("groups:test")}
    for kind, keys in kinds.items():
        if keys is not None:
            for key in np.unique(keys):
                members = np.flatnonzero(keys == key)
                if len(members) >= CLASS_ROWS:
                    cells[(kind, int(key))] = members
    return cells


def _rows(labels: Labels) -> dict[tuple[str, int], int]:
    rows: dict[tuple[str, int], int] = {}
    for truth in labels:
        for cell, members in _cells(truth).items():
            rows[cell] = max(rows.get(cell, 0), len(members))
    return rows
